"""What is wrong with a machine or a site is really made so, and told; a clean one is clean."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from launcher import checks, placement, runtime_checks
from launcher.core import extension_locks, node_facts
from launcher.core.checks import NothingToLookAtError
from launcher.core.errors import UsageError
from launcher.core.node_facts import NodeFacts
from launcher.core.plan import Plan, Stage
from launcher.doctor import before, examination, fixing
from launcher.doctor.subject import of_plan
from launcher.registry import CHECKS
from launcher.sites import Site
from rdt.training import extensions
from tests.doctor.conftest import subject
from tests.integration.test_host_checks import NVIDIA_SMI
from tests.training import disks
from tests.training.test_extensions import builders  # noqa: F401  a fixture

LOCAL = Site(kind="local")


def program(folder: Path, name: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program of this name, before all others on the PATH."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def test_a_node_that_is_too_small_for_one_simulator(tmp_path: Path) -> None:
    small = Site(kind="local", max_memory_per_node_mb=2000)
    (found,) = checks.memory(small, tmp_path)
    assert (found.code, found.severity) == ("RDTL-E025", "error")
    assert "2000 MB" in found.what
    enough = Site(kind="local", max_memory_per_node_mb=8000)
    assert [found.severity for found in checks.memory(enough, tmp_path)] == ["ok"]


def test_the_login_node_s_memory_says_nothing_of_a_cluster_s(tmp_path: Path) -> None:
    with pytest.raises(NothingToLookAtError, match="does not say"):
        checks.memory(Site(kind="slurm"), tmp_path)
    large = Stage("train", ("true",), memory_mb=10**9)
    placement.require_fit(large, "far", Site(kind="slurm"))
    with pytest.raises(UsageError, match="MB of memory"):
        placement.require_fit(large, "here", LOCAL)


def test_a_disk_that_is_full_and_one_that_cannot_be_written(tmp_path: Path) -> None:
    with disks.small(tmp_path / "disk", 64) as folder:
        (full,) = checks.disk(LOCAL, folder / "runs")
        remount = ["mount", "-o", "remount,ro", str(folder)]
        subprocess.run(remount, check=True)
        (closed,) = checks.disk(LOCAL, folder / "runs")
    assert (full.code, full.severity) == ("RDTL-G009", "error")
    assert (closed.code, closed.severity) == ("RDTL-G005", "error")
    assert "Read-only" in closed.where
    assert [found.severity for found in checks.disk(LOCAL, tmp_path)] == ["ok"]


@pytest.mark.train
def test_only_the_lock_of_a_dead_builder_is_told_and_removed(
    tmp_path: Path,
    builders: dict[str, subprocess.Popen[str]],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    (found,) = checks.extension_locks(LOCAL, tmp_path)
    assert (found.code, found.severity) == ("RDTL-T026", "error")
    assert found.where == str(tmp_path / "dead/lock")
    repaired = [one for one in fixing.repair(subject(tmp_path)) if one.code == "RDTL-T026"]
    assert [(one.where, one.after) for one in repaired] == [(found.where, "removed")]
    assert (tmp_path / "alive/lock").exists()
    assert [found.severity for found in checks.extension_locks(LOCAL, tmp_path)] == ["ok"]


def test_a_lock_that_another_node_may_hold_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder that all nodes of a cluster share: nothing here tells who is at work there."""
    lock = tmp_path / "shared folder/one/lock"
    lock.parent.mkdir(parents=True)
    lock.touch()
    shared = str(tmp_path / "shared folder").replace(" ", "\\040")
    (tmp_path / "mounts").write_text(f"/dev/x / ext4 rw 0 0\nserver:/x {shared} nfs4 rw 0 0\n")
    monkeypatch.setattr(extension_locks, "MOUNTS", tmp_path / "mounts")
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "shared folder"))
    (found,) = checks.extension_locks(LOCAL, tmp_path)
    assert (found.code, found.severity, found.where) == ("RDTL-T026", "warning", str(lock))
    fixing.repair(subject(tmp_path))
    extensions.prepare()
    assert lock.exists()
    assert f"RDTL-T026: left {lock}" in capsys.readouterr().err
    hours_ago = time.time() - 2 * 3600
    os.utime(lock, (hours_ago, hours_ago))
    assert [found.severity for found in checks.extension_locks(LOCAL, tmp_path)] == ["error"]
    fixing.repair(subject(tmp_path))
    assert not lock.exists()


def test_a_gpu_that_somebody_uses_and_one_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path / "bin", "nvidia-smi", NVIDIA_SMI, monkeypatch)
    (found,) = checks.gpus(Site(kind="local", gpus_per_node=2), tmp_path)
    assert (found.code, found.severity) == ("RDTL-T029", "warning")
    assert found.what.startswith("GPU 1 ") and "60213 of 81559 MiB" in found.where
    (missing,) = checks.gpus(Site(kind="local", gpus_per_node=4), tmp_path)
    assert (missing.code, missing.fix) == ("RDTL-S055", "gpus_per_node: 2 in the site file")
    free = NVIDIA_SMI.replace("60213", "14")
    program(tmp_path / "free", "nvidia-smi", free, monkeypatch)
    (fine,) = checks.gpus(Site(kind="local", gpus_per_node=2), tmp_path)
    assert fine.severity == "ok"
    with pytest.raises(NothingToLookAtError, match="no GPUs"):
        checks.gpus(LOCAL, tmp_path)


def test_a_driver_that_does_not_answer_in_time_tells_of_no_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path / "bin", "nvidia-smi", "#!/bin/sh\nexec sleep 60\n", monkeypatch)
    assert node_facts.gpus(limit_s=0.2) is None


def test_only_gpus_that_a_run_takes_are_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Site(kind="local", gpus_per_node=1)
    with monkeypatch.context() as without:
        without.setenv("PATH", str(tmp_path))  # as where GPUs are another maker's
        with pytest.raises(NothingToLookAtError, match="nvidia-smi"):
            checks.gpus(one, tmp_path)
    program(tmp_path / "bin", "nvidia-smi", NVIDIA_SMI, monkeypatch)
    assert [found.severity for found in checks.gpus(one, tmp_path)] == ["ok"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1, 0")
    assert [found.what for found in checks.gpus(one, tmp_path)] == [
        "GPU 1 of this machine is in use"
    ]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-8932f937")
    with pytest.raises(NothingToLookAtError, match="no numbers"):
        checks.gpus(one, tmp_path)


def test_a_run_without_gpus_is_not_refused_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path / "bin", "nvidia-smi", NVIDIA_SMI, monkeypatch)
    site = Site(kind="local", gpus_per_node=4)
    for number, told in ((0, False), (1, True)):
        stages = (Stage("one", ("true",), gpus_per_node=number),)
        what = of_plan(Plan("x", "here", stages, {}), site, tmp_path)
        assert ("RDTL-S055" in {found.code for found in before.findings(what)}) == told


def test_other_versions_of_the_simulator_are_named_as_jobs_name_them(tmp_path: Path) -> None:
    """Their metadata lie first on the path of Python, as a second installation leaves them."""
    for name, version in (("mujoco", "3.17.0"), ("robosuite", "1.5.1")):
        folder = tmp_path / f"{name}-{version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
    code = "import json; from launcher.simulator_checks import versions; " \
        "print(json.dumps([f.to_dict() for f in versions(None, None)]))"  # fmt: skip
    found = [one for one in json.loads(with_path(tmp_path, code)) if one["severity"] == "error"]
    assert [(one["code"], one["fix"]) for one in found] == [
        ("RDTL-E003", "pip install 'mujoco==3.3.2'"),
        ("RDTL-E003", "pip install 'robosuite==1.4.0'"),
    ]
    assert found[0]["what"].startswith("mujoco is 3.17.0")
    assert refused(tmp_path) == "RDTL-E003"


def test_a_simulator_that_is_not_installed_is_named_as_jobs_name_it(tmp_path: Path) -> None:
    """Python finds LIBERO alone, as after an installation without the extra."""
    hide = "from importlib import metadata; real = metadata.distribution\n" \
        "def found(name):\n" \
        "    if name in ('mujoco', 'robosuite'): raise metadata.PackageNotFoundError(name)\n" \
        "    return real(name)\n" \
        "metadata.distribution = found\n"  # fmt: skip
    code = hide + "import json; from launcher.simulator_checks import versions; " \
        "print(json.dumps([f.to_dict() for f in versions(None, None)]))"  # fmt: skip
    found = [one for one in json.loads(with_path(tmp_path, code)) if one["severity"] == "error"]
    assert [(one["code"], one["what"], one["fix"]) for one in found] == [
        ("RDTL-E028", f"{name} is not installed", "pip install 'rdt-launcher[sim]'")
        for name in ("mujoco", "robosuite")
    ]
    assert refused(tmp_path, hide) == "RDTL-E028"


def with_path(folder: Path, code: str) -> str:
    """What Python prints that looks into this folder first."""
    path = f"{folder}:{Path(checks.__file__).parent.parent}"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.strip()


def refused(folder: Path, first: str = "") -> str:
    """The code by which a job refuses the simulator."""
    return with_path(folder, first + "from rdt.sim import backend\n"
                     "try: backend.check_versions()\n"
                     "except Exception as error: print(error.problem.code)\n")  # fmt: skip


def facts_in(*argv: str, **environment: str) -> NodeFacts:
    """What a node says of itself, asked under other conditions."""
    root = str(Path(checks.__file__).parent.parent)
    done = subprocess.run(
        [*argv, sys.executable, "-m", "launcher.core.node_facts"], capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": root, **environment}, check=True,
    )  # fmt: skip
    return NodeFacts(**json.loads(done.stdout))


def test_a_node_without_apptainer(tmp_path: Path) -> None:
    found = facts_in(PATH=str(tmp_path))
    (needed,) = runtime_checks.advise(found, "apptainer")
    assert (needed.code, needed.severity) == ("RDTL-C001", "error")
    assert "install-apptainer.sh" in needed.fix
    (told,) = runtime_checks.advise(found, "none")
    assert told.severity == "info"


def test_a_node_on_which_apptainer_cannot_start() -> None:
    """User namespaces are really forbidden, in a namespace where that can be done."""
    words = ["unshare", "--user", "--map-root-user", "--mount-proc", "--pid", "--fork"]
    forbid = 'echo 0 >/proc/sys/user/max_user_namespaces && exec "$@"'
    found = facts_in(*words, "sh", "-c", forbid, "sh")
    assert not found.user_namespaces
    ordinary = replace(found, root=False, setuid=False, apptainer="/usr/bin/apptainer")
    (told,) = runtime_checks.advise(ordinary, "apptainer")
    assert (told.code, told.severity) == ("RDTL-C001", "error")
    assert "no user namespaces" in told.what


def test_a_shell_inside_a_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SQUEUE_FORMAT", "%i")  # taste, not a job
    assert [f.severity for f in checks.inherited_environment(LOCAL, tmp_path)] == ["ok"]
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    (found,) = checks.inherited_environment(LOCAL, tmp_path)
    assert (found.code, found.severity) == ("RDTL-S001", "info")
    assert "SLURM_JOB_ID" in found.what


def test_a_scheduler_that_says_nothing_is_a_finding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path / "bin", "sbatch", "#!/bin/sh\n", monkeypatch)
    program(tmp_path / "bin", "sinfo", "#!/bin/sh\nexec sleep 60\n", monkeypatch)
    monkeypatch.setattr(checks, "SCHEDULER_S", 0.3)
    (found,) = checks.scheduler(Site(kind="slurm"), tmp_path)
    assert (found.code, found.severity) == ("RDTL-S032", "error")
    assert "no answer in 0.3 s" in found.where


@pytest.mark.parametrize(("named", "severity"), [("a,b", "ok"), ("a,c", "error")])
def test_several_partitions_are_looked_for_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str, severity: str
) -> None:
    program(tmp_path / "bin", "sbatch", "#!/bin/sh\n", monkeypatch)
    program(tmp_path / "bin", "sinfo", "#!/bin/sh\nprintf 'a|1|idle\\nb|1|idle\\n'\n", monkeypatch)
    (found,) = checks.scheduler(Site(kind="slurm", partition=named), tmp_path)
    assert (found.code, found.severity) == ("RDTL-S032", severity)


def only(*names: str) -> list[examination.CheckSpec]:
    return [check for check in CHECKS if check.name in names]


def test_a_check_that_breaks_hides_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("by nought")

    monkeypatch.setattr(checks, "memory", broken)
    found = examination.examine(subject(tmp_path), only("memory", "disk"))
    assert [(one.name, one.status) for one in found] == [("memory", "unknown"), ("disk", "ok")]
    assert found[0].where == "ZeroDivisionError: by nought"


def test_a_heavy_check_that_breaks_or_dies_hides_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from launcher.doctor import asked

    found: list[examination.Result] = []

    def ask(requests: list[list[str]]) -> list[tuple[str, str]]:
        monkeypatch.setattr(asked, "simulator", lambda *_: requests)
        found[:] = examination.examine(subject(tmp_path), only("simulator", "disk"))
        return [(one.name, one.status) for one in found]

    assert ask([["data", "no JSON"], ["data", "neither"]]) == [
        ("simulator", "unknown"), ("simulator", "unknown"), ("disk", "ok"),
    ]  # fmt: skip
    monkeypatch.setattr(examination, "PATIENCE_S", 0.01)  # it is killed while it starts
    begun = time.monotonic()
    assert ask([["data", "{}"]]) == [("simulator", "unknown"), ("disk", "ok")]
    assert time.monotonic() - begun < 20
    assert found[0].evidence.endswith(": not done within 0.01 s")
    assert "rdtl doctor alone" in found[0].fix and "report" not in found[0].fix
