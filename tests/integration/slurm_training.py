"""A small training on the test cluster and hands on its processes, for tests that disturb it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from launcher.core import files, retention
from launcher.core.runs import RunDir
from rdt.training import checkpoint_files
from tests.cli.run_rdtl import rdtl
from tests.cluster import layout, network
from tests.rdt import synthetic

ROOT = Path(__file__).parents[2]
MODEL = {"hidden": 32, "depth": 2, "heads": 2, "horizon": 8, "vision_hidden": 32,
         "vision_depth": 1, "patch": 32}  # fmt: skip
STEPS, EVERY, RANKS = 18, 5, 4
TRAIN = {"steps": STEPS, "nodes": 2, "ranks_per_node": 2, "micro_batch": 1, "effective_batch": 8,
         "warmup_steps": 1, "checkpoint_every": EVERY, "log_every": 1, "model": MODEL}  # fmt: skip
NUMBERS = ("step", "train/loss", "train/lr", "train/gradient_norm")


def made(folder: Path) -> RunDir:
    """A training as a user has it, to its end: ``rdtl train`` in the image."""
    demos = {f"demo_{n}": synthetic.demonstration(n) for n in range(3)}
    data = synthetic.write(folder / f"{synthetic.TASK}_demo.hdf5", demos)
    config = {"name": "tiny", "task": {"camera_size": 64},
              "dataset": {"sets": [{"path": str(data)}]}, "train": TRAIN}  # fmt: skip
    (folder / "tiny.yaml").write_text(json.dumps(config))
    words = ("--site", "minislurm", "--runtime", "apptainer")
    done = rdtl("train", "tiny.yaml", *words, cwd=folder, timeout=400)
    assert done.returncode == 0, done.stderr
    return RunDir(folder / "runs" / "tiny-minislurm")


def lines(run: RunDir) -> list[dict[str, Any]]:
    """The record of a training."""
    path = run.checkpoints / "metrics.jsonl"
    found = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in found if line.endswith("\n")]


def curve(run: RunDir) -> list[dict[str, float]]:
    """The record without what wall-clock time decides."""
    return [{key: line[key] for key in NUMBERS} for line in lines(run)]


def whole(run: RunDir) -> list[int]:
    """Steps of the checkpoints; fails when one is not as it was written."""
    steps = retention.steps(run.checkpoints)
    for step in steps:
        assert checkpoint_files.damage(retention.place(run.checkpoints, step)) == []
    return steps


class Machine:
    """The test cluster as a place where processes live."""

    def __init__(self, folder: Path) -> None:
        self.site = yaml.safe_load((folder / "configs/sites/minislurm.yaml").read_text())
        found = layout.load(Path(self.site["environment"]["SLURM_CONF"]).parents[1])
        assert found is not None
        self.cluster = found[0]
        self.environment = {**os.environ, **self.site["environment"]}

    def slurm(self, *command: str) -> str:
        """What a command of Slurm prints."""
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, check=True, timeout=60
        )
        return done.stdout.strip()

    def processes(self, node: str, word: str = "") -> list[int]:
        """All that runs on ``node`` beside slurmd and has ``word`` in its command line."""
        found = []
        for pid in network.processes_in(self.cluster.namespace(node)):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
                text = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
                if word in text and not text.startswith("slurmd -D"):
                    found.append(pid)
        return found

    @contextlib.contextmanager
    def preemption_by_term(self, grace_s: int) -> Iterator[None]:
        """As most clusters are: a preempted job gets TERM, and KILL after the grace time."""
        conf, line = self.cluster.slurm_conf, "SlurmctldParameters=preempt_send_user_signal\n"
        text = conf.read_text()
        assert line in text and "GraceTime=15" in text
        try:
            conf.write_text(text.replace(line, "").replace("GraceTime=15", f"GraceTime={grace_s}"))
            self.slurm("scontrol", "reconfigure")
            yield
        finally:
            conf.write_text(text)
            self.slurm("scontrol", "reconfigure")


@dataclass(frozen=True)
class Training:
    """A run of the training on the cluster, and hands on it."""

    machine: Machine
    run: RunDir

    @classmethod
    def like(cls, before: RunDir, machine: Machine, folder: Path) -> Training:
        """A run in ``folder`` with the data of ``before``, a finished one; not begun."""
        run = RunDir(folder / "run")
        for name in ("code", "data"):
            shutil.copytree(before.root / name, run.root / name)
        (run.root / "events").mkdir()
        for event in (before.root / "events").glob("*.dataset.*"):
            shutil.copy(event, run.root / "events")
        run.plan.write_text(before.plan.read_text().replace(str(before.root), str(run.root)))
        return cls(machine, run)

    def change(self, change: Callable[[dict[str, Any]], Any]) -> None:
        """Let ``change`` alter the training stage of the plan."""
        plan = files.read_json(self.run.plan)
        (stage,) = [stage for stage in plan["stages"] if stage["name"] == "train"]
        change(stage)
        files.write_json(self.run.plan, plan)

    def start(self, **site: Any) -> subprocess.Popen[str]:
        """A launcher that drives the run on the cluster, of whose site ``site`` is changed."""
        site_file = self.run.root / "of the test.yaml"
        site_file.write_text(yaml.safe_dump(self.machine.site | site))
        words = ["tests.integration.drive_run", str(self.run.root), str(site_file)]
        return subprocess.Popen(
            [sys.executable, "-m", *words], cwd=ROOT, env=self.machine.environment,
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    @property
    def attempt(self) -> int:
        """The newest one."""
        return self.run.ledger.current_attempt("train")

    @property
    def id(self) -> str:
        """Of the newest job."""
        (found,) = (self.run.ledger.read(f"submitted.train.a{self.attempt}") or {})["ids"]
        return str(found)

    def event(self, name: str) -> dict[str, Any]:
        """What the ledger holds under a name, which must be there."""
        found = self.run.ledger.read(name)
        assert found is not None, name
        return found

    def wait(self, moment: Callable[[], object], seconds: float = 300) -> None:
        """Until ``moment`` holds; fails with the end of the log when it never does."""
        end = time.monotonic() + seconds
        while not moment():
            assert time.monotonic() < end, f"the moment never came\n{self.log()[-3000:]}"
            time.sleep(0.01)

    def log(self) -> str:
        """What node 0 has said in all attempts."""
        paths = sorted(self.run.root.glob("logs/train/attempt_*/0.n0.log"))
        return "".join(path.read_text(errors="replace") for path in paths)

    def done(self) -> int:
        """Steps done, by the record."""
        return max((line["step"] for line in lines(self.run)), default=0)

    def repeated(self) -> int:
        """How often a step was done that had been done before, by the log."""
        steps = re.findall(r"^step (\d+) loss", self.log(), re.M)
        return len(steps) - len(set(steps))

    def ranks(self) -> list[int]:
        """Processes of all ranks on all nodes."""
        nodes = self.machine.cluster.node_names
        return [p for node in nodes for p in self.machine.processes(node, f" {self.run.root} ")
                if b"jobs.ranks" not in Path(f"/proc/{p}/cmdline").read_bytes()]  # fmt: skip

    def started(self, count: int = RANKS) -> list[int]:
        """The process ids of ``count`` ranks, as soon as they are there."""

        def there() -> bool:
            time.sleep(0.5)
            return len(self.ranks()) == count

        self.wait(there)
        return self.ranks()

    def hold(self, step: int, count: int = RANKS) -> list[int]:
        """Stop ``count`` ranks in the middle of what follows ``step``; their process ids."""
        ranks = self.started(count)  # looked up before: eighteen steps are soon done
        self.wait(lambda: self.run.ledger.names(f"gate.train.a{self.attempt}"))
        self.wait(lambda: self.done() >= step)
        for pid in ranks:
            os.kill(pid, signal.SIGSTOP)
        assert step <= self.done() < STEPS
        return ranks

    def go_on(self) -> None:
        """Let held ranks go on, as far as they are still there."""
        for pid in self.ranks():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def again(self, restart: int, *, at_once: bool = True) -> None:
        """Wait for round ``restart``; ``at_once`` lifts the delay of a requeued job.

        Not after a kill of slurmstepd: Slurm takes the round for over while its own KILL to
        another node is still on its way, and that would hit the new one.
        """
        state = ["squeue", "--states=all", "-h", "-j", self.id, "-o", "%T"]
        self.wait(lambda: self.machine.slurm(*state) == "PENDING" or self.begun(restart))
        if at_once and not self.begun(restart):
            # Not within the second in which Slurm took the old round's right to run: it takes the
            # new one's for the same ("Job credential revoked"), and the job has failed.
            time.sleep(1.1)
            # Once: a job whose start is moved again and again is never considered.
            self.machine.slurm("scontrol", "update", f"jobid={self.id}", "StartTime=now")
        self.wait(lambda: self.begun(restart))

    def begun(self, restart: int) -> bool:
        """Whether the newest attempt has been started again so often."""
        return self.run.ledger.current_restart("train", 0, self.attempt) == restart
