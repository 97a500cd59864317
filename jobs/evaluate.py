"""Run this array task's share of the episodes: ``python -m jobs.evaluate RUN_DIR``.

Item j of the list policies x initial states x trials belongs to task j % count, so
each task gets an equal share of every policy. A finished episode is one line in a
file of this process alone; what has a line is never run again, so a task that was
killed continues with the first episode that is missing.
"""

from __future__ import annotations

import os
import socket
import sys
import traceback
import uuid
from pathlib import Path
from typing import Any

import numpy as np

from jobs.fence import require_current
from launcher.core import files
from launcher.core.errors import RdtlError, RefusedError
from launcher.core.job import Job, run_job
from rdt.policy.policy import Policy
from rdt.policy.references import Expert, Replay, Zero, first_demonstration
from rdt.sim import backend
from rdt.sim.episode import Outcome, PolicyError, run_episode
from rdt.sim.libero import Simulator, find_task
from rdt.spec import card as cards
from rdt.spec import protocol as protocols
from rdt.spec import record as records
from rdt.spec.record import EpisodeKey, Record, Status

TRIES = 2
NETWORK = "rdt"


def body(job: Job) -> None:
    """Run the missing episodes of this task, policy by policy."""
    backend.prepare()
    protocol = protocols.from_config(job.config, backend.versions(), os.environ["MUJOCO_GL"])
    protocols.publish(protocol, job.run.records)
    mine = work_list(job.config)[job.index :: job.count]
    digest = checkpoint_digest(policy_folder(job))
    missing = _missing(job, mine, digest)
    bench, book = Bench(job), Book(job, protocol.fingerprint(), digest)
    done = len(mine) - len(missing)
    job.progress(done, len(mine), "episodes")
    for name in job.config["evaluate"]["policies"]:
        keys = [key for key in missing if key.policy == name]
        policy = load_policy(job, name) if keys else None
        for key in keys:
            assert policy is not None
            book.write(bench.run(policy, key), key)
            done += 1
            job.progress(done, len(mine), "episodes", name)
            job.may_stop_here()


def work_list(config: dict[str, Any]) -> list[EpisodeKey]:
    """All planned episodes; every array task computes the same list."""
    task, evaluate = config["task"], config["evaluate"]
    return [
        EpisodeKey(policy, task["suite"], task["task_id"], init_state, trial)
        for policy in evaluate["policies"]
        for init_state in range(*evaluate["init_states"])
        for trial in range(evaluate["trials"])
    ]


def _missing(job: Job, keys: list[EpisodeKey], digest: str) -> list[EpisodeKey]:
    """Keys without a result; a record of a harness error is none.

    Raises RefusedError RDTL-E038 when results of other weights are there.
    """
    recorded = records.read_folder(job.run.records).records
    finished = {record.key: record for record in recorded if record.status not in records.ERRORS}
    for key in set(keys) & set(finished):
        if key.policy == NETWORK and finished[key].checkpoint != digest:
            raise RefusedError(
                "RDTL-E038",
                "the records of this run belong to another checkpoint",
                where=f"{job.run.records}: {key.text()} has {finished[key].checkpoint!r}, "
                f"the policy now is {digest!r}",
                why="episodes of two networks have no common rate",
                fix="restore the checkpoint, or evaluate under another name (--name OTHER)",
            )
    return [key for key in keys if key not in finished]


def policy_folder(job: Job) -> Path:
    """Directory of the trained policy."""
    named = job.config["evaluate"]["checkpoint"]
    return job.run.policy if named is None else Path(named)


def checkpoint_digest(source: Path) -> str:
    """First twelve digits of the weights' sha256, from their card; empty when there is none.

    Loading the policy refuses a card whose weights are others.
    """
    folder = source if source.is_dir() else source.parent
    if not (folder / cards.FILE).is_file():
        return ""
    return cards.read(folder).weights_sha256[:12]


def load_policy(job: Job, name: str) -> Policy:
    """The policy of that name; raises RdtlError when its files are missing or foreign."""
    if name == NETWORK:
        import torch  # an evaluation of references runs without it

        from rdt.policy.loading import load

        torch.set_num_threads(1)  # one process per core; sums then do not depend on their number
        return load(policy_folder(job), job.config["evaluate"]["policy_seed"])
    if name == "replay":
        return Replay(first_demonstration(_demonstrations(job)))
    return Expert() if name == "expert" else Zero()


def _demonstrations(job: Job) -> Path:
    task = find_task(job.config["task"]["suite"], job.config["task"]["task_id"])
    name = f"{task.name}_demo.hdf5"
    if job.config["evaluate"]["demonstrations"] is not None:
        return Path(job.config["evaluate"]["demonstrations"])
    places = [Path(entry["path"]) for entry in job.config["dataset"]["sets"]]
    if not places:
        return job.run.data / task.suite / name
    files_inside = [path for place in places for path in sorted(place.rglob(name))]
    found = [path for path in places if path.suffix == ".hdf5"] + files_inside
    if found:
        return found[0]
    raise RdtlError(
        "RDTL-D065",
        "there is no demonstration to replay",
        where=f"{', '.join(map(str, places))}: no {name}",
        why="a replay needs the actions of a LIBERO HDF5 file of the evaluated task",
        fix="name one in evaluate.demonstrations, or leave replay out of evaluate.policies",
    )


Result = tuple[Status, Outcome | None, str]


class Bench:
    """One simulator at a time, blind or seeing as the policy needs (2.2 GB each)."""

    def __init__(self, job: Job) -> None:
        self._task = job.config["task"]
        self._horizon = job.config["evaluate"]["execution_horizon"]
        self._simulator: Simulator | None = None

    def run(self, policy: Policy, key: EpisodeKey) -> Result:
        """Status, outcome and error text; a fault of the harness is tried once more."""
        for _ in range(TRIES):
            result = self._try(policy, key)
            if result[1] is not None:
                break
        return result

    def _try(self, policy: Policy, key: EpisodeKey) -> Result:
        try:
            outcome = run_episode(self._simulator_for(policy), policy, key, self._horizon)
        except PolicyError as error:
            traceback.print_exc(file=sys.stderr)
            return "policy_error", None, str(error)
        except RdtlError:  # wrong files or settings: no other episode would fare better
            raise
        except Exception as error:
            traceback.print_exc(file=sys.stderr)
            self._discard()  # its state is unknown now
            return "env_error", None, f"{type(error).__name__}: {error}"
        return "success" if outcome.success else "fail", outcome, ""

    def _simulator_for(self, policy: Policy) -> Simulator:
        if self._simulator is not None and bool(self._simulator.cameras) != policy.sees:
            self._discard()
        if self._simulator is None:
            self._simulator = Simulator(self._task, blind=not policy.sees)
        return self._simulator

    def _discard(self) -> None:
        if self._simulator is not None:
            self._simulator.close()
        self._simulator = None


class Book:
    """This process's own record file; the actions of an episode are there before its line."""

    def __init__(self, job: Job, fingerprint: str, checkpoint: str) -> None:
        self._job = job
        self._fingerprint = fingerprint
        self._checkpoint = checkpoint
        self._task_name = find_task(job.config["task"]["suite"], job.config["task"]["task_id"]).name
        self._descriptor: int | None = None

    def write(self, result: Result, key: EpisodeKey) -> None:
        """Publish one episode, unless a newer attempt took over (RDTL-S034)."""
        status, outcome, error = result
        record = self._record(status, outcome, error, key)
        require_current(self._job)
        if outcome is not None:
            path = self._job.run.records / "actions" / f"{key.text()}.npy"
            with files.whole_file(path) as temporary, temporary.open("wb") as handle:
                np.save(handle, outcome.actions, allow_pickle=False)
        files.append_line(self._open(), record.line())
        print(f"{key.text()}: {status}, {record.steps} steps, {record.wall_s:.1f} s", flush=True)

    def _open(self) -> int:
        """A new file: a process id returns in containers, and its file may end in a torn line."""
        if self._descriptor is None:
            job, host = self._job, socket.gethostname()
            unique = f"{host}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
            path = job.run.records / f"part-{job.round}-s{job.index}-{unique}.jsonl"
            flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND
            self._descriptor = os.open(path, flags, 0o644)
            files.sync_directory(path.parent)
        return self._descriptor

    def _record(
        self, status: Status, outcome: Outcome | None, error: str, key: EpisodeKey
    ) -> Record:
        return Record(
            **key._asdict(),
            task_name=self._task_name,
            status=status,
            steps=len(outcome.actions) if outcome else 0,
            queries=outcome.queries if outcome else 0,
            renders=outcome.renders if outcome else 0,
            wall_s=round(outcome.wall_s, 3) if outcome else 0.0,
            policy_s=round(outcome.policy_s, 3) if outcome else 0.0,
            protocol=self._fingerprint,
            checkpoint=self._checkpoint if key.policy == NETWORK else "",
            actions_sha256=outcome.actions_sha256 if outcome else "",
            fixtures_sha256=outcome.fixtures_sha256 if outcome else "",
            attempt=self._job.attempt,
            shard=self._job.index,
            host=socket.gethostname(),
            error=error,
        )


if __name__ == "__main__":
    run_job(body)
