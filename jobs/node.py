"""The host side of a stage on one node: place, child process, signals, marker.

A :class:`NodeTask` is what submitit pickles (four plain values, by name) and
what the local executor runs. It reads the plan, works out where it is (node
rank, rendezvous address), starts the stage's argv as a child (in the stage's
container), forwards signals to it and records how it ended. It runs in the
launcher's light environment and imports the standard library only.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from jobs import beside, contain, network, requeue
from jobs.place import Place, checked, find_place
from launcher.core import children, dag_processes, files, node_local, plan
from launcher.core.errors import EXIT_LOST, EXIT_REQUEUE, EXIT_SAVED, EXIT_TERMINATED, RdtlError
from launcher.core.job import Stopped, die_with_parent
from launcher.core.runs import RunDir
from launcher.core.runtimes import Launch

RESUMABLE = (EXIT_REQUEUE, EXIT_SAVED)


class StageFailedError(RuntimeError):
    """The stage's command did not end with exit code 0 on this node."""

    def __init__(self, what: str, exit_code: int) -> None:
        super().__init__(what)
        self.exit_code = exit_code


@dataclass(frozen=True)
class NodeTask:
    """One node's share of one stage task; holds paths and numbers only."""

    run_dir: str
    stage: str
    index: int
    attempt: int

    def __call__(self, place: Place | None = None) -> int:
        """Run the stage on this node; raises StageFailedError for the scheduler to see.

        ``place`` comes from a launcher that starts the nodes itself; Slurm is asked otherwise.
        """
        run = RunDir(Path(self.run_dir))
        the_plan = plan.read(run.plan)
        stage = the_plan.stage(self.stage)
        node = place.node if place else int(os.environ.get("SLURM_NODEID", "0"))
        try:
            place = checked(place) if place else find_place(stage)
            if place.node == 0:
                requeue.begin(run, self.stage, self.index, self.attempt, requeue.restart_count())
            code = self._run(run, stage, place, the_plan.config)
        except RdtlError as error:
            self._finish(run, node, 1, error.to_dict())
            raise
        self._finish(run, place.node, code, self._error(run, place.node, code) if code else None)
        if code in (EXIT_LOST, *RESUMABLE) and "SLURM_JOB_ID" in os.environ:
            name = (run, self.stage, self.index, self.attempt)
            requeue.leave_to_the_scheduler(*name, place.node, place.nodes, code)
        if code:
            raise StageFailedError(
                f"stage {self.stage}, task {self.index}, node {place.node}: exit {code}", code
            )
        return code

    def _run(self, run: RunDir, stage: plan.Stage, place: Place, config: dict[str, Any]) -> int:
        log_path = run.log(self.stage, self.attempt, self.index, place.node)
        log_path.parent.mkdir(parents=True, exist_ok=True)
        begin = log_path.stat().st_size if log_path.exists() else 0
        processes: list[subprocess.Popen[bytes]] = []
        with contextlib.ExitStack() as stack:
            log = stack.enter_context(log_path.open("ab", buffering=0))
            seen = children.forward_signals(processes)
            stack.enter_context(beside.running(run, stage, place.node))
            try:
                stage = node_local.placed(
                    stage, config, lambda text: log.write(f"{text}\n".encode()), seen
                )
            except Stopped as stopped:
                return stopped.exit_status
            for launch in self._launches(run, stage, place):
                where = stage.working_directory or str(run.root)
                processes.append(start(stack.enter_context(launch), log, where))
            code = children.wait_for(processes, RESUMABLE, seen)
            if seen or code not in (0, *RESUMABLE):  # a shell that ends leaves what it started
                dag_processes.tell_children(self._token(place), seen, children.GRACE_S)
        if signal.SIGUSR2 in seen and code == 128 + signal.SIGUSR2:
            return EXIT_REQUEUE  # it came while the program was starting: nothing to save yet
        if code in RESUMABLE and not stage.own_code and place.node == 0:
            requeue.note_saved(run, self.stage, self.index, self.attempt)
        if code in (0, *RESUMABLE):
            return code
        if signal.SIGTERM in seen:
            return self._terminated(run, stage, place, code, (log_path, begin))
        if stage.container:
            failure = contain.own_failure(stage.container, code, log_path, begin)
            if failure:
                raise failure
        return code

    def _terminated(
        self, run: RunDir, stage: plan.Stage, place: Place, code: int, log: tuple[Path, int]
    ) -> int:
        """What the end of a program counts as that was told to end and could not save.

        A preempted one has not failed: Slurm starts it again, if nobody here returns before it
        ends the job. A container that TERM met in mid-start is not broken.
        """
        told = self._error(run, place.node, code)
        if told is None and "SLURM_JOB_ID" in os.environ and requeue.is_preempted():
            return EXIT_SAVED
        if stage.container and contain.own_failure(stage.container, code, *log):
            return EXIT_TERMINATED
        return code

    def _launches(
        self, run: RunDir, stage: plan.Stage, place: Place
    ) -> list[contextlib.AbstractContextManager[Launch]]:
        ranks = range(stage.ranks_per_node if stage.per == "gpu" else 1)
        name = f"{stage.name}-{self.index}-n{place.node}"
        return [
            contain.launch(run, stage, self.variables(run, stage, place, rank), f"{name}-r{rank}")
            for rank in ranks
        ]

    def variables(
        self, run: RunDir, stage: plan.Stage, place: Place, local_rank: int
    ) -> dict[str, str]:
        """What a process of the stage finds in its environment, beside the caller's."""
        variables = {
            **stage.environment,
            "RDTL_RUN_DIR": str(run.root),
            "RDTL_STAGE": stage.name,
            dag_processes.TASK: self._token(place),
            "RDTL_INDEX": str(self.index),
            "RDTL_COUNT": str(stage.array),
            "RDTL_ATTEMPT": str(self.attempt),
            "RDTL_RESTART": str(requeue.restart_count()),
            "RDTL_STARTED": f"{time.time():.3f}",
            "RDTL_NODE": str(place.node),
            "RDTL_NODES": str(place.nodes),
            "RDTL_ERROR_FILE": str(self._error_file(run, place.node)),
            **network.rendezvous(stage, place, local_rank),
        }
        if place.nodes > 1:
            variables |= network.variables(place.address, stage.environment)
        if stage.own_code:  # the snapshot is the only source; a ./jobs of the user must not win
            variables |= {"PYTHONPATH": str(run.code), "PYTHONSAFEPATH": "1"}
        return variables

    def _token(self, place: Place) -> str:
        round_ = f"a{self.attempt}.r{requeue.restart_count()}"
        return f"{self.run_dir}:{self.stage}.i{self.index}.n{place.node}.{round_}"

    def _finish(self, run: RunDir, node: int, code: int, error: dict[str, Any] | None) -> None:
        round_ = f"a{self.attempt}.r{requeue.restart_count()}"
        name = f"finished.{self.stage}.i{self.index}.n{node}.{round_}"
        run.ledger.publish(name, exit_code=code, error=error, host=socket.gethostname())

    def _error_file(self, run: RunDir, node: int) -> Path:
        return run.error(self.stage, self.attempt, self.index, node, requeue.restart_count())

    def _error(self, run: RunDir, node: int, code: int) -> dict[str, Any] | None:
        """The error of a program that ended with ``code``; another rank's says less."""
        path = self._error_file(run, node)
        error = files.read_json(path) if path.exists() else None
        return error if error and error["exit_status"] == code else None


def start(launch: Launch, log: IO[bytes], working_directory: str) -> subprocess.Popen[bytes]:
    """Start a child that dies with this process; its output goes to ``log``.

    Raises RdtlError RDTL-S060, which ``log`` has too, when there is no such program here.
    """
    try:
        return subprocess.Popen(
            launch.argv,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=launch.environment,
            cwd=working_directory,
            preexec_fn=die_with_parent,
        )
    except OSError as error:
        refused = RdtlError(
            "RDTL-S060",
            f"{launch.argv[0]} cannot be started: {error.strerror}",
            where=f"{socket.gethostname()}: {working_directory}",
            why="a script needs its execute bit and a first line that names its interpreter, "
            "and relative paths are those of the copied tree",
            fix="chmod +x, or name the interpreter: rdtl run … -- bash SCRIPT",
        )
        log.write(f"{refused}\n".encode())
        raise refused from error


def run_task(task: NodeTask) -> int:
    """What submitit pickles beside the task: a function importable by name."""
    return task()


def main(argv: list[str]) -> int:
    """By hand: ``python -m jobs.node RUN_DIR STAGE INDEX ATTEMPT``."""
    return NodeTask(argv[0], argv[1], int(argv[2]), int(argv[3]))()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
