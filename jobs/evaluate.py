"""Run this array task's share of the episodes: ``python -m jobs.evaluate RUN_DIR``.

The plan numbers every episode (:mod:`rdt.spec.planned`); each task takes a stretch of every
policy's. A finished episode is one line in a file of this process alone; what has a line is
never run again, so a task that was killed continues with the first episode that is missing,
and the same work may be cut into more or fewer tasks at any time.
"""

from __future__ import annotations

import faulthandler
import os
import socket
import sys
import traceback
import uuid
from collections import Counter
from collections.abc import Callable

import numpy as np

from jobs import evaluated
from jobs.evaluated import Shared, Tested
from jobs.fence import require_current
from launcher.core import files
from launcher.core.errors import RdtlError, RefusedError
from launcher.core.job import Job, run_job
from rdt.policy.policy import Policy
from rdt.sim import backend, probe
from rdt.sim.episode import Outcome, OverdueError, PolicyError, run_episode
from rdt.sim.sequential import Simulators
from rdt.sim.tasks import find_task
from rdt.spec import planned
from rdt.spec import protocol as protocols
from rdt.spec import record as records
from rdt.spec.protocol import STACK
from rdt.spec.record import EpisodeKey, Record, Status

TRIES = 2
"""How often one process tries an episode that does not end in a result."""
MOST_TRIES = 6
"""How often all processes together do."""
STDERR = 2
SILENT = 2
"""After so many times the limit of an episode its process ends itself: between two queries it
would have noticed, so a renderer or a library does not come back."""


def program(job: Job) -> None:
    """Prove the simulator, then run the missing episodes of this task."""
    prove(job)
    body(job)


def prove(job: Job) -> None:
    """Let the first task of a run look at the simulator, once; raises what the probe finds."""
    if is_to_prove(job):
        found = probe.require_published_stack()
        files.publish_once(job.run.records / STACK, [finding.to_dict() for finding in found])


def is_to_prove(job: Job) -> bool:
    """Whether this task is the one that looks at the simulator, and has not yet."""
    return job.index == 0 and not (job.run.records / STACK).exists()


def body(job: Job) -> None:
    """Run the missing episodes of this task, policy by policy."""
    mine = planned.from_config(job.config).share(job.index, job.count)

    def told(done: int, text: str) -> None:
        job.progress(done, len(mine), "episodes", text)

    without = run(job, mine, told)
    if without:
        raise _no_result(job, without)


def run(
    job: Job,
    mine: list[EpisodeKey],
    told: Callable[[int, str], None],
    shared: Shared | None = None,
) -> dict[str, str]:
    """Run what has no result of the episodes ``mine``; ``told`` hears how many are done.

    The network is that of ``shared``, or is loaded here.
    Returns the policies that have no result at all now, each with its last error.
    """
    backend.prepare()
    tested = shared.tested if shared else evaluated.tested(job)
    versions, gl = backend.versions(), os.environ["MUJOCO_GL"]
    protocol = protocols.from_config(job.config, versions, gl, tested.sight)
    protocols.publish(protocol, job.run.records)
    missing = _missing(job, mine, tested)
    bench, book = Bench(job), Book(job, protocol.fingerprint(), tested)
    done, without = len(mine) - len(missing), dict[str, str]()
    told(done, "")
    for name in dict.fromkeys(key.policy for key in missing):
        policy_of = evaluated.load(job, name, shared)
        left = [key for key in missing if key.policy == name]
        results = sum(key.policy == name for key in mine) - len(left)
        for last in (False,) * (TRIES - 1) + (True,):
            for key in [*left]:
                result = bench.run(policy_of(key.suite, key.task_id), key)
                book.write(result, key)
                results += result[1] is not None
                if last or result[1] is not None:
                    left.remove(key)
                    done += 1
                told(done, name)
                job.may_stop_here()
        without |= {} if results else {name: f"{key.text()}: {result[2]}"}
    bench.close()
    return without


def require_results(job: Job) -> None:
    """Raise RDTL-E066 for a policy of which no episode of this task has a result."""
    mine = set(planned.from_config(job.config).share(job.index, job.count))
    lines = [line for line in records.read_lines(job.run.records) if line.key in mine]
    with_one = {line.policy for line in lines if line.status not in records.ERRORS}
    said = {line.policy: f"{line.key.text()}: {line.error}" for line in lines}
    without = {name: text for name, text in said.items() if name not in with_one}
    if without:
        raise _no_result(job, without)


def _no_result(job: Job, without: dict[str, str]) -> RdtlError:
    return RdtlError(
        "RDTL-E066",
        f"no episode of {' or '.join(without)} ended without an error",
        where=f"{job.run.records}, {next(iter(without.values()))}",
        why=f"an error is no failure of the policy, so there is no rate; each episode was tried "
        f"{TRIES} times",
        fix=f"correct the cause and run the same command again (up to {MOST_TRIES} tries in all)",
    )


def _missing(job: Job, keys: list[EpisodeKey], tested: Tested) -> list[EpisodeKey]:
    """Keys without a result that were not tried too often; an error of the harness is no result.

    Raises RefusedError RDTL-E038 when results of other weights are there.
    """
    lines = records.read_lines(job.run.records)
    tries = Counter(record.key for record in lines if record.status in records.ERRORS)
    finished = {record.key: record for record in lines if record.status not in records.ERRORS}
    for key in set(keys) & set(finished):
        if key.policy == tested.name and finished[key].checkpoint != tested.checkpoint:
            raise RefusedError(
                "RDTL-E038",
                "the records of this run belong to another checkpoint",
                where=f"{job.run.records}: {key.text()} has {finished[key].checkpoint!r}, "
                f"the policy now is {tested.checkpoint!r}",
                why="episodes of two networks have no common rate",
                fix="restore the checkpoint, or evaluate under another name (--name OTHER)",
            )
    return [key for key in keys if key not in finished and tries[key] < MOST_TRIES]


Result = tuple[Status, Outcome | None, str]


class Bench:
    """Runs episodes; what goes wrong becomes a status."""

    def __init__(self, job: Job) -> None:
        evaluate = job.config["evaluate"]
        self._horizon = evaluate["execution_horizon"]
        self._seconds = 60 * evaluate["episode_minutes"]
        self._simulators = Simulators(job.config)

    def close(self) -> None:
        """Free the simulator."""
        self._simulators.discard()

    def run(self, policy: Policy, key: EpisodeKey) -> Result:
        """Status, outcome (None unless the episode has a result) and error text."""
        # Also a thread that holds Python's lock for ever is ended so, after all stacks are told.
        faulthandler.dump_traceback_later(SILENT * self._seconds, exit=True, file=STDERR)
        try:
            simulator = self._simulators.of(key, blind=not policy.sees)
            outcome = run_episode(simulator, policy, key, self._horizon, self._seconds)
        except PolicyError as error:
            traceback.print_exc(file=sys.stderr)
            return "policy_error", None, str(error)
        except OverdueError as error:
            return "timeout", None, str(error)
        except RdtlError:  # wrong files or settings: no other episode would fare better
            raise
        except Exception as error:
            traceback.print_exc(file=sys.stderr)
            self._simulators.discard()  # its state is unknown now
            return "env_error", None, f"{type(error).__name__}: {error}"
        finally:
            faulthandler.cancel_dump_traceback_later()
        return "success" if outcome.success else "fail", outcome, ""


class Book:
    """This process's own record file; the actions of an episode are there before its line."""

    def __init__(self, job: Job, fingerprint: str, tested: Tested) -> None:
        self._job = job
        self._fingerprint = fingerprint
        self._tested = tested
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
            task_name=find_task(key.suite, key.task_id).name,
            status=status,
            steps=len(outcome.actions) if outcome else 0,
            queries=outcome.queries if outcome else 0,
            renders=outcome.renders if outcome else 0,
            wall_s=round(outcome.wall_s, 3) if outcome else 0.0,
            policy_s=round(outcome.policy_s, 3) if outcome else 0.0,
            protocol=self._fingerprint,
            checkpoint=self._tested.checkpoint if key.policy == self._tested.name else "",
            actions_sha256=outcome.actions_sha256 if outcome else "",
            fixtures_sha256=outcome.fixtures_sha256 if outcome else "",
            state_sha256=outcome.state_sha256 if outcome else "",
            attempt=self._job.attempt,
            shard=self._job.index,
            host=socket.gethostname(),
            error=error,
        )


if __name__ == "__main__":
    run_job(program)
