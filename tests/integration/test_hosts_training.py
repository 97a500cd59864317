"""Training on two hosts over ssh: the weights of a local run, also after the death of a host."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.core.runs import RunDir
from tests.cli.run_rdtl import rdtl
from tests.integration.ssh_hosts import SshHosts, needs_hosts, ssh_hosts
from tests.rdt import synthetic
from tests.road.small_demo import digest

pytestmark = [pytest.mark.slow, pytest.mark.train, pytest.mark.slurm, needs_hosts]

MODEL = {"hidden": 32, "depth": 2, "heads": 2, "horizon": 8, "vision_hidden": 32,
         "vision_depth": 1, "patch": 32}  # fmt: skip
TRAIN = {"steps": 40, "micro_batch": 2, "effective_batch": 4, "warmup_steps": 4,
         "checkpoint_every": 4, "log_every": 1, "model": MODEL}  # fmt: skip


@pytest.fixture(scope="module")
def hosts() -> Iterator[SshHosts]:
    with ssh_hosts(Path(tempfile.mkdtemp(prefix="rdtl-hosts-"))) as made:
        for name in made.cluster.node_names:
            made.start(name)
        yield made


@pytest.fixture(scope="module")
def folder(hosts: SshHosts, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with demonstrations and one configuration for both sites."""
    path = tmp_path_factory.mktemp("training")
    demos = {f"demo_{n}": synthetic.demonstration(n) for n in range(3)}
    data = synthetic.write(path / f"{synthetic.TASK}_demo.hdf5", demos)
    config = {"name": "tiny", "task": {"camera_size": 64},
              "dataset": {"sets": [{"path": str(data)}]}, "train": TRAIN}  # fmt: skip
    (path / "tiny.yaml").write_text(json.dumps(config))
    hosts.site(path)
    return path


@pytest.fixture(scope="module")
def alone(folder: Path) -> str:
    """Digest of the weights that two ranks on this machine end with."""
    done = rdtl("train", "tiny.yaml", "--runtime", "none", cwd=folder, timeout=300)
    assert done.returncode == 0, done.stderr
    return digest(folder / "runs" / "tiny-local" / "policy" / "model.safetensors")


SPREAD = ["--set", "train.nodes=2", "--set", "train.ranks_per_node=1"]


def test_two_hosts_with_one_rank_each_give_the_weights_of_two_local_ranks(
    hosts: SshHosts, folder: Path, alone: str
) -> None:
    done = rdtl("train", "tiny.yaml", "--site", "hosts", *SPREAD, cwd=folder, timeout=300)
    assert done.returncode == 0, done.stderr
    run = RunDir(folder / "runs" / "tiny-hosts")
    assert digest(run.policy / "model.safetensors") == alone
    events = run.ledger.finished("train", 0, 1)
    assert {node: event["host"] for node, event in events.items()} == {0: "n1", 1: "n2"}
    assert len({run.log("train", 1, 0, node).read_text() for node in (0, 1)}) == 2


def test_after_the_death_of_a_host_it_goes_on_to_the_same_weights(
    hosts: SshHosts, folder: Path, alone: str
) -> None:
    run = RunDir(folder / "runs" / "dies-hosts")
    words = ["train", "tiny.yaml", "--site", "hosts", "--name", "dies", *SPREAD]
    launcher = subprocess.Popen(
        [sys.executable, "-P", "-m", "launcher", *words],
        cwd=folder, env=dict(os.environ), stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 200
    while not list(run.checkpoints.glob("step_*")):
        assert launcher.poll() is None, launcher.communicate()
        assert time.monotonic() < deadline, "no checkpoint was ever written"
        time.sleep(0.01)
    hosts.kill("n2")
    _, said = launcher.communicate(timeout=120)
    assert launcher.returncode == 1 and "error RDTL-S056: host n2 was lost" in said, said
    refused = rdtl(*words, cwd=folder)
    assert refused.returncode == 3 and "RDTL-S051" in refused.stderr
    hosts.start("n2")
    done = rdtl(*words, cwd=folder, timeout=300)
    assert done.returncode == 0, done.stderr
    assert digest(run.policy / "model.safetensors") == alone
    assert run.ledger.attempts("train") == [1, 2]
