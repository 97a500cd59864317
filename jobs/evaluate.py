"""Run this array task's share of the episodes: ``python -m jobs.evaluate RUN_DIR``.

The plan numbers every episode (:mod:`rdt.spec.planned`); each task takes a stretch of every
policy's. A finished episode is one line in a file of this process alone; what has a line is
never run again, so a task that was killed continues with what is missing, and the same work
may be cut into more or fewer tasks at any time.
"""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterable

from jobs import evaluated
from jobs.book import Book, Result, begun
from jobs.evaluated import Shared, Tested
from jobs.watch import Watch
from launcher.core import files
from launcher.core.errors import RdtlError, RefusedError
from launcher.core.job import Job, run_job
from rdt.policy.policy import Policy
from rdt.sim import backend, probed
from rdt.sim.episode import OverdueError, PolicyError, run_episode
from rdt.sim.sequential import Simulators
from rdt.spec import planned
from rdt.spec import protocol as protocols
from rdt.spec import record as records
from rdt.spec.protocol import STACK
from rdt.spec.record import EpisodeKey

TRIES = 2
"""How often one process tries an episode that does not end in a result."""
MOST_TRIES = 6
"""How often all processes together do."""
SILENT = 2
"""After so many times the limit of an episode its process is ended: between two queries it
would have noticed, so a renderer or a library does not come back."""
LOOK_S = 900.0
"""A look takes some ten CPU seconds, and what it imports may come over a slow network."""


def program(job: Job) -> None:
    """Prove the simulator, then run the missing episodes of this task."""
    prove(job)
    body(job)


def prove(job: Job) -> None:
    """Look at the simulator of this node, unless its like was seen; raises what the look finds.

    Every task does, at every start: the nodes of an array may differ.
    """
    with contextlib.closing(Watch(job, LOOK_S)) as watch:
        found = probed.require_published_stack(job.run.proven, watched=watch.over_look())
    files.publish_once(job.run.records / STACK, [finding.to_dict() for finding in found])


def body(job: Job) -> None:
    """Run the missing episodes of this task, policy by policy; raises RdtlError RDTL-E066."""
    mine = planned.from_config(job.config).share(job.index, job.count)

    def told(done: int, text: str) -> None:
        job.progress(done, len(mine), "episodes", text)

    run(job, mine, told)
    require_results(job, mine)


def run(
    job: Job,
    mine: list[EpisodeKey],
    told: Callable[[int, str], None],
    shared: Shared | None = None,
) -> None:
    """Run what has no result of the episodes ``mine``; ``told`` hears how many are done.

    The network is that of ``shared``, or is loaded here. Whoever calls it asks
    :func:`require_results` of all that the task ran.
    """
    backend.prepare()
    tested = shared.tested if shared else evaluated.tested(job)
    versions, gl = backend.versions(), os.environ["MUJOCO_GL"]
    protocol = protocols.from_config(job.config, versions, gl, tested.sight)
    protocols.publish(protocol, job.run.records)
    missing = _missing(job, mine, tested)
    waiting, name = deque(missing.items()), ""
    told(len(mine) - len(waiting), "")
    book = Book(job, protocol.fingerprint(), tested)
    with Bench(job, book) as bench:
        while waiting:
            key, chances = waiting.popleft()
            if key.policy != name:
                name, policy_of = key.policy, evaluated.load(job, key.policy, shared)
            book.begin(key)
            result = bench.run(policy_of(key.suite, key.task_id), key)
            book.write(result, key)
            if result[1] is None and chances > 1:
                waiting.append((key, chances - 1))
            told(len(mine) - len(waiting), name if waiting else "")
            job.may_stop_here()


def require_results(job: Job, mine: Iterable[EpisodeKey]) -> None:
    """Raise RDTL-E066 for a policy of ``mine`` that has no result, here or by another task.

    By the records: also when all of them were tried so often that nothing was run now.
    """
    keys = set(mine)
    lines = records.read_lines(job.run.records)
    with_one = {line.policy for line in lines if line.status not in records.ERRORS}
    said = {line.policy: f"{line.key.text()}: {line.error}" for line in lines if line.key in keys}
    without = {name: text for name, text in said.items() if name not in with_one}
    if without:
        raise RdtlError(
            "RDTL-E066",
            f"no episode of {' or '.join(without)} ended without an error",
            where=f"{job.run.records}, {next(iter(without.values()))}",
            why="an error is no failure of the policy, so there is no rate; a start tries each "
            f"episode {TRIES} times",
            fix="correct the cause and run the same command again; after "
            f"{MOST_TRIES} tries of each episode under another name (--name OTHER)",
        )


def _missing(job: Job, keys: list[EpisodeKey], tested: Tested) -> dict[EpisodeKey, int]:
    """Keys without a result that were not tried too often, and how often to try each here.

    Those that ended in an error of the harness, which is no result, or with their process come
    last: one that hangs or crashes each time holds up no other. Raises RefusedError RDTL-E038
    when results of other weights are there.
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
    left = [key for key in keys if key not in finished and tries[key] < MOST_TRIES]
    died = begun(job)
    left.sort(key=lambda key: tries[key] > 0 or key.text() in died)
    return {key: min(TRIES, MOST_TRIES - tries[key]) for key in left}


class Bench:
    """Runs episodes; what goes wrong becomes a status, also when it never comes back."""

    def __init__(self, job: Job, book: Book) -> None:
        evaluate = job.config["evaluate"]
        self._horizon = evaluate["execution_horizon"]
        self._seconds = 60 * evaluate["episode_minutes"]
        self._book = book
        self._watch = Watch(job, SILENT * self._seconds)
        self._simulators = Simulators(job.config)

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        self._watch.close()
        self._simulators.discard()

    def run(self, policy: Policy, key: EpisodeKey) -> Result:
        """One episode, unless this process ends in it, which then has its record, too."""
        hung = f"RDTL-E033: it did not come back within {SILENT * self._seconds:g} s"
        record = self._book.record(("env_error", None, hung), key)
        with self._watch.over(record, self._book.part()):
            return self._run(policy, key)

    def _run(self, policy: Policy, key: EpisodeKey) -> Result:
        limits = self._horizon, self._seconds, self._watch.awake
        try:
            simulator = self._simulators.of(key, blind=not policy.sees)
            outcome = run_episode(simulator, policy, key, *limits)
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
        return "success" if outcome.success else "fail", outcome, ""


if __name__ == "__main__":
    run_job(program)
