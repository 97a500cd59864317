"""An evaluation in the image on the cluster, disturbed at random: the records of a quiet one."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from launcher.core.runs import RunDir
from launcher.images.store import BuiltImage
from tests.conftest import slurm_in
from tests.evaluation.test_exactness import content, whole_lines
from tests.integration.slurm_training import Machine
from tests.rdt import small_policy

pytestmark = [
    pytest.mark.slow,
    pytest.mark.sim,
    pytest.mark.slurm,
    pytest.mark.skipif(os.geteuid() != 0, reason="starts Slurm in network namespaces: needs root"),
    pytest.mark.skipif(shutil.which("slurmctld") is None, reason="Slurm is not installed"),
]
EPISODES, FAULTS, LAUNCHES = 14, 5, 20
CONFIG: dict[str, Any] = {
    "name": "exact",
    "task": {"camera_size": 64, "max_steps": 150},
    "evaluate": {
        "policies": ["rdt", "expert"],
        "suites": {"libero_object": [0]},
        "init_states": [0, 7],
        "execution_horizon": 8,
        "rows": 2,
        "videos": 0,
    },
}


class Evaluation:
    """One `rdtl evaluate` on the cluster, said again as often as it takes."""

    def __init__(self, folder: Path, name: str, **evaluate: Any) -> None:
        self._folder, self._machine, self._file = folder, Machine(folder), f"{name}.yaml"
        self._let_run(2 // evaluate.get("workers", 1))
        asked = {**CONFIG, "name": name, "evaluate": {**CONFIG["evaluate"], **evaluate}}
        (folder / self._file).write_text(json.dumps(asked))
        self.run = RunDir(folder / "runs" / f"{name}-minislurm")
        self.done: Counter[str] = Counter()

    def _let_run(self, tasks: int) -> None:
        """At once: a process that runs episodes takes over a gigabyte."""
        path = self._folder / "configs/sites/minislurm.yaml"
        path.write_text(yaml.safe_dump({**self._machine.site, "tasks_at_once": tasks}))

    def finish(self, chance: random.Random | None = None) -> None:
        """Run it to its end; with ``chance`` FAULTS faults come at random moments before that."""
        for _ in range(LAUNCHES):
            with self._launcher() as launcher:
                while chance and self.done.total() < FAULTS and launcher.poll() is None:
                    self._disturb(chance, launcher)
                said = launcher.communicate(timeout=600)[0]
            if launcher.returncode == 0:
                return
            assert chance and launcher.returncode != 2, said  # 2: refused, nothing was started
        raise AssertionError(f"not done after {LAUNCHES} launchers\n{said}")

    def _launcher(self) -> subprocess.Popen[str]:
        words = ["evaluate", self._file, "--site", "minislurm", "--runtime", "apptainer"]
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "launcher", *words], cwd=self._folder, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def _disturb(self, chance: random.Random, launcher: subprocess.Popen[str]) -> None:
        """At a random moment do something to a random task, or to the launcher.

        Up to three episodes from now, so that work is lost and work is kept on any machine.
        """
        self._shuffle(chance)
        enough = self._recorded() + chance.randint(0, 3)
        time.sleep(chance.uniform(3, 9))
        while self._recorded() < enough and launcher.poll() is None:
            time.sleep(0.2)
        fault = chance.choice([self._cancel, self._preempt, self._kill, self._kill])
        if chance.random() < 0.2:
            launcher.kill()
            self.done["launcher killed"] += 1
        elif word := fault(chance):
            self.done[word] += 1

    def _recorded(self) -> int:
        return whole_lines(self.run).total() if self.run.records.exists() else 0

    def _running(self) -> list[str]:
        return self._machine.slurm("squeue", "-h", "-r", "-t", "R", "-o", "%i").split()

    def _cancel(self, chance: random.Random) -> str:
        return self._to_one("scancel", chance)

    def _preempt(self, chance: random.Random) -> str:
        return self._to_one("scancel --signal=USR2", chance)

    def _to_one(self, command: str, chance: random.Random) -> str:
        running = self._running()
        if not running:
            return ""
        with contextlib.suppress(subprocess.CalledProcessError):  # it has just ended
            self._machine.slurm(*command.split(), chance.choice(running))
        return command

    def _kill(self, chance: random.Random) -> str:
        """Any process of a task: node task, container, job, worker."""
        nodes = self._machine.cluster.node_names
        found = [pid for n in nodes for pid in self._machine.processes(n, str(self.run.root))]
        if not found:
            return ""
        with contextlib.suppress(ProcessLookupError):
            os.kill(chance.choice(found), signal.SIGKILL)
        return "kill -9"

    def _shuffle(self, chance: random.Random) -> None:
        """Tasks that wait start in another order."""
        for id_ in self._machine.slurm("squeue", "-h", "-r", "-t", "PD", "-o", "%i").split():
            with contextlib.suppress(subprocess.CalledProcessError):  # it has just begun
                nice = f"nice={chance.randint(0, 1000)}"
                self._machine.slurm("scontrol", "update", f"jobid={id_}", nice)

    def told(self) -> str:
        """What was done to it."""
        ledger = self.run.ledger
        starts = {name: ledger.read(name) or {} for name in ledger.names("started.evaluate.")}
        order = " ".join(n.split(".")[2] for n in sorted(starts, key=lambda n: starts[n]["at"]))
        return f"{self.run.root.name}: {dict(self.done)}; tasks started: {order}"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A directory whose site `minislurm` has nodes for a task of two workers and a server."""
    with slurm_in(tmp_path, "--nodes", "2", "--memory-mb", "8500"):
        yield tmp_path


def test_1_3_and_7_tasks_shuffled_killed_and_resumed_at_random(
    folder: Path, sif: BuiltImage
) -> None:
    """The expert, and a network in fixed batches: in each task, or in a server for two workers."""
    policy = {"checkpoint": str(small_policy.trained_folder(folder / "trained"))}
    chance = random.Random(8)
    one = Evaluation(folder, "one", **policy, shards=1)
    one.finish()
    expected = content(one.run)
    assert len(expected) == EPISODES
    for name, asked in {"three": {"shards": 3, "workers": 2}, "seven": {"shards": 7}}.items():
        disturbed = Evaluation(folder, name, **policy, **asked)
        disturbed.finish(chance)
        print(disturbed.told())
        assert disturbed.done.total() == FAULTS
        assert content(disturbed.run) == expected
        assert set(whole_lines(disturbed.run).values()) == {1}
