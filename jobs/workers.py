"""An evaluation task of several workers: ``python -m jobs.workers RUN_DIR``.

It starts one policy server on each of its GPUs (one on the CPU without), waits until they
are warm, and starts the workers. Servers end with the task and are started again when they
die; what a worker asks meanwhile, it asks again.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jobs import evaluate, evaluated
from jobs.evaluated import NETWORK, Shared
from jobs.policy_server import PolicyServer
from jobs.worker import VARIABLE, Place
from launcher.core import children, files
from launcher.core.errors import EXIT_REQUEUE, EXIT_SAVED, RdtlError, from_dict
from launcher.core.job import Job, Stopped, die_with_parent, run_job
from rdt.sim.tasks import find_task
from rdt.spec import planned
from rdt.spec.protocol import AGREEMENT

LOOK_S = 0.2
TELL_S = 2.0


def program(job: Job) -> None:
    """Prove the simulator, then run the missing episodes of this task on several processes."""
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rdtl-workers-")))
        _prove(job, scratch)
        servers: list[PolicyServer] = []
        stack.callback(_end, servers)
        shared = _shared(job, servers)
        job.may_stop_here()
        crew = stack.enter_context(_crew(job, scratch, shared))
        code = crew.wait(servers)
    if code in (EXIT_REQUEUE, EXIT_SAVED):
        raise Stopped(signal.SIGUSR2 if code == EXIT_REQUEUE else signal.SIGTERM)
    evaluate.require_results(job, planned.from_config(job.config).share(job.index, job.count))


def _prove(job: Job, scratch: Path) -> None:
    error = scratch / "prove.error.json"
    code = _started("jobs.prove", job, {"RDTL_ERROR_FILE": str(error)}).wait()
    if code:
        raise _died("the look at the simulator", code, error, job)


def _started(module: str, job: Job, told: dict[str, str]) -> subprocess.Popen[bytes]:
    """A program of this task, which dies with it."""
    return subprocess.Popen(
        [sys.executable, "-P", "-m", module, str(job.run.root)],
        stdin=subprocess.DEVNULL,
        env={**os.environ, **told},
        preexec_fn=die_with_parent,
    )


def _died(who: str, code: int, error: Path, job: Job) -> RdtlError:
    """What it said, or RDTL-E068 for one that left no word."""
    if error.exists():
        return from_dict(files.read_json(error))
    return RdtlError(
        "RDTL-E068",
        f"{who} of this task ended with code {code}",
        where=f"{job.stage}, task {job.index}",
        why="-9 is often the kernel, when memory ran out; other codes are explained in the log",
        fix="look into the task's log, or set a smaller evaluate.workers; the same command "
        "goes on with what is missing",
    )


def _end(servers: list[PolicyServer]) -> None:
    for server in servers:
        server.end()


def _shared(job: Job, servers: list[PolicyServer]) -> list[Shared | None]:
    """Start the servers and wait until they are warm; where each worker finds its policy."""
    settings = job.config["evaluate"]
    if NETWORK not in settings["policies"]:
        return [None] * settings["workers"]
    evaluated.require_protocol()
    tested = evaluated.tested(job)
    devices = [f"cuda:{number}" for number in range(settings["gpus"])] or ["cpu"]
    for number, device in enumerate(devices):
        log = job.run.log(job.stage, job.attempt, job.index, job.node)
        log = log.with_suffix(f".server{number}.log")
        servers.append(PolicyServer(_options(job, device, len(devices), number), log))
    uris = [_warm(job, server) for server in servers]
    return [Shared(uris[n % len(uris)], tested) for n in range(settings["workers"])]


def _options(job: Job, device: str, devices: int, number: int) -> dict[str, Any]:
    settings = job.config["evaluate"]
    suite, task = planned.tasks(job.config)[0]
    free = settings["batching"] == "free"
    name = f"{job.round}-s{job.index}-server{number}.json"
    return {
        "checkpoint": evaluated.source(job),
        **{key: settings[key] for key in ("weights", "contract", "vision", "language", "batching")},
        "token_file": None,
        "token_env": None,
        "rows": -(-settings["workers"] // devices) if free else settings["rows"],
        "wait_ms": 5.0,
        "seed": settings["policy_seed"],
        "device": device,
        "dtype": "float32",
        "threads": 1,
        "compiled": False,
        "instruction": find_task(suite, task).instruction,
        "agreement": str(job.run.records / AGREEMENT / name) if free else None,
    }


def _warm(job: Job, server: PolicyServer) -> str:
    while (uri := server.uri()) is None:
        job.progress(0, 0, "episodes", "the policy server loads")
        job.may_stop_here()
        time.sleep(LOOK_S)
    return uri


class Crew:
    """The workers of a task and what they publish; one that fails ends no other."""

    def __init__(self, job: Job, scratch: Path, shared: list[Shared | None]) -> None:
        self._job, self._scratch, self._count = job, scratch, len(shared)
        self._failed: list[RdtlError] = []
        self._of = len(planned.from_config(job.config).share(job.index, job.count))
        self._processes = [self._start(number, one) for number, one in enumerate(shared)]
        self._seen = children.forward_signals(self._processes)
        if job.asked_to_stop is not None:  # it came before there was anybody to pass it on to
            os.kill(os.getpid(), job.asked_to_stop)

    def wait(self, servers: list[PolicyServer]) -> int:
        """0, or the code with which workers saved their work, when all have ended.

        Raises the first worker's error, RdtlError RDTL-E068 for one that left none, unless the
        task was told to end and goes on; at once that of a server that is not kept alive.
        """
        told, saved = 0.0, 0
        pending = dict(enumerate(self._processes))
        while pending:
            time.sleep(LOOK_S)
            for number in [n for n, process in pending.items() if process.poll() is not None]:
                saved = self._ended(number, pending.pop(number).returncode) or saved
            for server in servers if pending else ():
                server.keep_alive()
            if time.monotonic() - told > TELL_S or not pending:
                told = time.monotonic()
                self._tell()
        if self._failed and not saved:
            raise self._failed[0]
        return saved

    def end(self) -> None:
        """Kill who is left: what they finished is on the disk."""
        for process in self._processes:
            process.kill()
            process.wait()

    def _start(self, number: int, shared: Shared | None) -> subprocess.Popen[bytes]:
        place = self._scratch / f"{number}.json"
        progress = self._progress(number)
        Place(number, self._count, str(progress), shared).write(place)
        told = {VARIABLE: str(place), "RDTL_ERROR_FILE": str(self._error(number))}
        return _started("jobs.worker", self._job, told)

    def _ended(self, number: int, code: int) -> int:
        """The code when the worker saved its work; 0 when it is done, or failed, which is said."""
        if code in (0, EXIT_REQUEUE, EXIT_SAVED):
            return code
        if -code in self._seen:  # a signal that was passed on before it could hear: nothing to save
            return EXIT_REQUEUE if -code == signal.SIGUSR2 else EXIT_SAVED
        error = _died(f"worker {number}", code, self._error(number), self._job)
        self._failed.append(error)
        said = f"{error.problem.code}: {error.problem.what}"
        print(f"worker {number} failed, the others go on: {said}", file=sys.stderr, flush=True)
        return 0

    def _tell(self) -> None:
        paths = [self._progress(number) for number in range(self._count)]
        said = [files.read_json(path) for path in paths if path.exists()]
        texts = [one["text"] for one in said if one["text"]]
        if self._failed:
            texts.append(f"workers that failed: {len(self._failed)}")
        done = sum(one["done"] for one in said)
        self._job.progress(done, self._of, "episodes", ", ".join(dict.fromkeys(texts)))

    def _progress(self, number: int) -> Path:
        return self._scratch / f"{number}.progress.json"

    def _error(self, number: int) -> Path:
        return self._scratch / f"{number}.error.json"


@contextlib.contextmanager
def _crew(job: Job, scratch: Path, shared: list[Shared | None]) -> Iterator[Crew]:
    crew = Crew(job, scratch, shared)
    try:
        yield crew
    finally:
        crew.end()


if __name__ == "__main__":
    run_job(program)
