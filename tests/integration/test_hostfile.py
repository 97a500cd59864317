"""What `rdtl hostfile` says is what DeepSpeed's own launcher does: pdsh over a real sshd."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.cli.run_rdtl import rdtl
from tests.cluster.test_hostfiles import SUM_OF_RANKS
from tests.integration.ssh_hosts import needs_hosts, ssh_hosts

pytestmark = [
    pytest.mark.slow,
    pytest.mark.train,
    pytest.mark.slurm,
    needs_hosts,
    pytest.mark.skipif(shutil.which("pdsh") is None, reason="DeepSpeed's launcher needs pdsh"),
]


def test_deepspeed_starts_the_chosen_slots(tmp_path: Path) -> None:
    program = tmp_path / "sum_of_ranks.py"
    program.write_text(SUM_OF_RANKS)
    with ssh_hosts(Path(tempfile.mkdtemp(prefix="rdtl-hosts-"))) as hosts:
        for name in hosts.cluster.node_names:
            hosts.start(name)
        hosts.site(tmp_path, hosts=[{"host": "n1", "slots": 2}, {"host": "n2", "slots": 2}])
        made = rdtl("hostfile", "--site", "hosts", "--exclude", "n1:0", cwd=tmp_path)
        assert made.returncode == 0, made.stderr
        command = shlex.split(made.stdout.removesuffix("TRAIN.py …\n"))
        assert command == ["deepspeed", "--hostfile", "hostfile", "--include", "n1:1@n2:0,1"]
        (tmp_path / "ssh").write_text(f'#!/bin/sh\nexec /usr/bin/ssh -F {hosts.config} "$@"\n')
        (tmp_path / "ssh").chmod(0o755)
        (tmp_path / ".deepspeed_env").write_text("DS_ACCELERATOR=cpu\nOMP_NUM_THREADS=1\n")
        done = subprocess.run(
            [sys.executable, "-m", "deepspeed.launcher.runner", *command[1:], str(program)],
            env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "DS_ACCELERATOR": "cpu"},
            cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=200,
            check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    seen = [path.read_text() for path in sorted(tmp_path.glob("rank*"))]
    assert seen == ["n1 3 6", "n2 3 6", "n2 3 6"]
