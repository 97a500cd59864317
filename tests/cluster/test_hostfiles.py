"""The shipped hostfile is what DeepSpeed's own launcher understands and runs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
HOSTFILE = REPOSITORY / "hostfiles" / "two-nodes.txt"

PARSE = """
import json, sys
from deepspeed.launcher.runner import fetch_hostfile
print("RESULT", json.dumps(fetch_hostfile(sys.argv[1])))
"""

SUM_OF_RANKS = """
import pathlib, socket
import torch, torch.distributed as dist
dist.init_process_group("gloo")
total = torch.tensor([float(dist.get_rank() + 1)])
dist.all_reduce(total)
line = f"{socket.gethostname()} {dist.get_world_size()} {total.item():g}"
pathlib.Path(f"rank{dist.get_rank()}").write_text(line)
dist.destroy_process_group()
"""


def _environment(**more: str) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return {**kept, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1", **more}


def _parse(path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PARSE, str(path)],
        env=_environment(),
        cwd=path.parent,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.train
def test_deepspeed_reads_the_hostfile(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    done = _parse(HOSTFILE)
    assert done.returncode == 0, done.stderr
    result = next(line for line in done.stdout.splitlines() if line.startswith("RESULT "))
    assert json.loads(result.removeprefix("RESULT ")) == {"n1": 2, "n2": 2}
    broken = tmp_path / "hosts.txt"
    broken.write_text(HOSTFILE.read_text().replace("n2 slots=2", "n2 slots = 2"))
    refused = _parse(broken)
    assert refused.returncode != 0 and "bad entry: n2 slots = 2" in refused.stderr


@pytest.fixture
def slurm_conf() -> Iterator[str]:
    """slurm.conf of a test cluster with the hosts n1 and n2."""
    if os.geteuid() != 0 or shutil.which("slurmctld", path="/usr/sbin:/usr/bin") is None:
        pytest.skip("needs root and the packages of tests/cluster/install.sh")
    root = Path(tempfile.gettempdir()) / f"rdtl-ms-{os.getpid()}-hostfile"
    minislurm = [sys.executable, "-m", "tests.cluster.minislurm"]
    where = ["--root", str(root)]
    subprocess.run([*minislurm, "up", "--nodes", "2", *where], cwd=REPOSITORY, check=True)
    yield str(root / "etc" / "slurm.conf")
    subprocess.run([*minislurm, "down", *where], cwd=REPOSITORY, check=True)


@pytest.mark.slow
@pytest.mark.slurm
@pytest.mark.train
def test_deepspeed_runs_on_the_hosts_of_the_hostfile(slurm_conf: str, tmp_path: Path) -> None:
    pytest.importorskip("deepspeed.launcher", reason="needs deepspeed")
    program = tmp_path / "sum_of_ranks.py"
    program.write_text(SUM_OF_RANKS)
    launch = (
        f"exec {sys.executable} -m deepspeed.launcher.runner --hostfile {HOSTFILE} --no_ssh "
        f"--node_rank $SLURM_NODEID --master_addr n1 --master_port 23456 {program}"
    )
    done = subprocess.run(
        ["srun", "--immediate=20", "-N2", "-n2", "--kill-on-bad-exit=1", "sh", "-c", launch],
        env=_environment(SLURM_CONF=slurm_conf),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    seen = [(tmp_path / f"rank{rank}").read_text() for rank in range(4)]
    assert seen == ["n1 4 10", "n1 4 10", "n2 4 10", "n2 4 10"]
