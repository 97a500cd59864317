"""What would make a job on hosts hang or lie is found before anything starts."""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import sys
from pathlib import Path

import pytest

from launcher import config, snapshot
from launcher.core.checks import Finding
from launcher.core.errors import RefusedError
from launcher.sites import Site
from launcher.submit import host_checks
from tests.cli.run_rdtl import rdtl
from tests.integration.login_node import key
from tests.integration.ssh_hosts import SshHosts, needs_hosts

pytestmark = [pytest.mark.slurm, needs_hosts]


def judged(made: SshHosts, folder: Path, **more: object) -> Finding:
    """What `rdtl doctor` finds of these hosts: exactly one thing that is wrong."""
    made.site(folder, **more)
    site = config.validate(Site, config.read_yaml(folder / "configs/sites/hosts.yaml"), "")
    findings = host_checks.hosts(site, folder / "runs")
    assert [(f.severity, bool(f.why), bool(f.fix)) for f in findings] == [("error", True, True)]
    assert not list((folder / "runs").rglob(".hosts*"))
    return findings[0]


def test_a_host_that_does_not_answer(hosts: SshHosts, tmp_path: Path) -> None:
    hosts.start("n1")
    found = judged(hosts, tmp_path)
    assert (found.code, found.what) == ("RDTL-S051", "host n2 is not reached")
    assert "Connection refused" in found.where


def test_a_host_that_would_ask_for_a_password(hosts: SshHosts, tmp_path: Path) -> None:
    hosts.start("n1")
    hosts.start("n2", more="AuthorizedKeysFile none\nPasswordAuthentication yes")
    found = judged(hosts, tmp_path)
    assert found.code == "RDTL-S050" and "n2 would ask" in found.what
    assert "password" in found.where


def test_a_host_whose_key_is_another_than_before(hosts: SshHosts, tmp_path: Path) -> None:
    hosts.start("n1")
    key(tmp_path / "other")
    hosts.start("n2", more=f"HostKey {tmp_path}/other")  # the first of a kind counts
    found = judged(hosts, tmp_path)
    assert found.code == "RDTL-B013" and "ssh-keygen -R n2" in found.fix


def test_a_host_whose_key_nobody_has_confirmed(both: SshHosts, tmp_path: Path) -> None:
    known = both.folder / "known"
    before = known.read_text()
    known.write_text(before.splitlines()[0] + "\n")
    try:
        found = judged(both, tmp_path)
    finally:
        known.write_text(before)
    assert found.code == "RDTL-S050" and "n2 would ask" in found.what


def test_another_version_on_one_host(hosts: SshHosts, tmp_path: Path) -> None:
    """n2 sees the metadata of another DeepSpeed where the real one is installed."""
    real = Path(importlib.metadata.distribution("deepspeed").locate_file("")) / (
        f"deepspeed-{importlib.metadata.version('deepspeed')}.dist-info"
    )
    other = tmp_path / "dist-info"
    shutil.copytree(real, other)
    text = (other / "METADATA").read_text()
    (other / "METADATA").write_text(re.sub(r"(?m)^Version: .*$", "Version: 0.16.4", text))
    hosts.start("n1")
    hosts.start("n2", script=f"mount --bind {other} {real}")
    found = judged(hosts, tmp_path)
    real_version = importlib.metadata.version("deepspeed")
    assert found.code == "RDTL-T028"
    assert found.where == f"deepspeed {real_version} on n1, 0.16.4 on n2"


@pytest.mark.slow
def test_an_environment_that_is_activated_on_one_host_only(both: SshHosts, tmp_path: Path) -> None:
    bin_ = Path(sys.executable).parent
    lines = f'[ "$(hostname)" = n1 ]\nexport PATH="{bin_}:$PATH"'
    found = judged(both, tmp_path, activate={"default": lines})
    assert found.code == "RDTL-T028" and "does not start" in found.where
    assert f"torch {importlib.metadata.version('torch')} on n1, missing on n2" in found.where


def test_a_host_without_this_python(hosts: SshHosts, tmp_path: Path) -> None:
    hosts.start("n1")
    (tmp_path / "nothing").mkdir()
    hosts.start("n2", script=f"mount --bind {tmp_path}/nothing {Path(sys.executable).parent}")
    found = judged(hosts, tmp_path)
    assert found.code == "RDTL-S053" and "n2" in found.what


def test_a_directory_that_one_host_does_not_see(hosts: SshHosts, tmp_path: Path) -> None:
    hosts.start("n1")
    hosts.start("n2", script=f"mount -t tmpfs none {tmp_path}")
    found = judged(hosts, tmp_path)
    assert found.code == "RDTL-S052" and found.what.startswith("n2 does not see")


@pytest.mark.slow
def test_a_directory_of_which_one_host_has_a_copy(hosts: SshHosts, tmp_path: Path) -> None:
    """The code is there under the same path, but what one host writes the other does not see."""
    run = tmp_path / "runs" / "r"
    snapshot.copy_product(run / "code")
    shutil.copytree(run, tmp_path / "copy")
    hosts.start("n1")
    hosts.start("n2", script=f"mount --bind {tmp_path}/copy {run}")
    hosts.site(tmp_path)
    site = config.validate(Site, config.read_yaml(tmp_path / "configs/sites/hosts.yaml"), "")
    with pytest.raises(RefusedError) as refused:
        host_checks.require(site, run)
    assert refused.value.problem.code == "RDTL-S052"


NVIDIA_SMI = """#!/bin/sh
# The answer of a machine with two GPUs, of which somebody uses the second.
test "$1" = --query-gpu=index,memory.used,memory.total || exit 2
test "$2" = --format=csv,noheader,nounits || exit 2
printf '0, 14, 81559\\n1, 60213, 81559\\n'
"""


def with_gpus(hosts: SshHosts, folder: Path) -> None:
    (folder / "bin").mkdir()
    (folder / "bin" / "nvidia-smi").write_text(NVIDIA_SMI)
    (folder / "bin" / "nvidia-smi").chmod(0o755)
    for name in hosts.cluster.node_names:
        hosts.start(name, path=f"{folder}/bin:")


def test_a_gpu_that_somebody_uses(hosts: SshHosts, tmp_path: Path) -> None:
    with_gpus(hosts, tmp_path)
    chosen = [{"host": "n1", "slots": 2, "include": [0]}, {"host": "n2", "slots": 2}]
    found = judged(hosts, tmp_path, hosts=chosen, gpus_per_node=1)
    assert (found.code, found.what) == ("RDTL-T029", "GPU 1 of n2 is in use")
    assert "60213 of 81559 MiB" in found.where


def test_a_gpu_that_is_not_there_and_the_choice_of_those_that_are(
    hosts: SshHosts, tmp_path: Path
) -> None:
    with_gpus(hosts, tmp_path)
    four = [{"host": "n1", "slots": 4, "exclude": [1]}, {"host": "n2", "slots": 1}]
    found = judged(hosts, tmp_path, hosts=four, gpus_per_node=1)
    assert (found.code, found.what) == ("RDTL-S055", "n1 has no GPU 2, 3")
    two = [{"host": "n1", "slots": 2, "exclude": [1]}, {"host": "n2", "slots": 1}]
    hosts.site(tmp_path, hosts=two, gpus_per_node=1)
    words = ("--nodes", "2", "--gpus", "1", "--", "sh", "-c", "echo see $CUDA_VISIBLE_DEVICES")
    done = rdtl("run", "--site", "hosts", *words, cwd=tmp_path)
    assert done.stdout.count("see 0") == 2, done.stderr


def test_an_interface_that_the_hosts_do_not_have(both: SshHosts, tmp_path: Path) -> None:
    found = judged(both, tmp_path, network={"interface": "ib0"})
    assert found.code == "RDTL-S054" and "over ib0" in found.what
