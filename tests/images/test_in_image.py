"""Jobs in the image: on Slurm, here, in Docker, as an ordinary user, and under a shell."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from launcher.core.runs import RunDir
from launcher.images import builder, tools
from launcher.images.store import BuiltImage
from tests.cli.run_rdtl import rdtl
from tests.conftest import ROOT
from tests.images import ordinary_user
from tests.road import small_demo

slurm = [
    pytest.mark.slurm,
    pytest.mark.skipif(os.geteuid() != 0, reason="starts Slurm in network namespaces: needs root"),
    pytest.mark.skipif(shutil.which("slurmctld") is None, reason="Slurm is not installed"),
]
STRAYS = {"STRAY", "LD_PRELOAD_", "SLURM_ARRAY_TASK_ID", "SUBMITIT_EXECUTOR"}


class TestOnSlurm:
    pytestmark = slurm

    def test_ranks_find_each_other_and_nothing_else_of_the_caller_gets_in(
        self, cluster: Path, sif: BuiltImage
    ) -> None:
        code = "import json, os; print(json.dumps(dict(os.environ)))"
        done = rdtl("run", "--site", "minislurm", "--runtime", "apptainer", "--nodes", "2",
                    "--gpus", "2", "--per", "gpu", "--", "python", "-c", code, cwd=cluster,
                    env={"SLURM_ARRAY_TASK_ID": "9", "LD_PRELOAD_": "x", "STRAY": "y",
                         "APPTAINERENV_STRAY": "z", "APPTAINER_BIND": "/nonexistent"})  # fmt: skip
        assert done.returncode == 0, done.stderr
        found = [json.loads(line.partition("] ")[2]) for line in done.stdout.splitlines()]
        assert sorted(int(env["RANK"]) for env in found) == [0, 1, 2, 3]
        assert {env["MASTER_ADDR"] for env in found} == {"n1"}
        assert {env["SLURM_NNODES"] for env in found} == {"2"}
        assert {env["HOME"] for env in found} == {"/home/rdtl"}
        for env in found:
            assert not {"STRAY", "LD_PRELOAD_", "SLURM_ARRAY_TASK_ID", "SUBMITIT_EXECUTOR"} & set(
                env
            )

    def test_an_ordinary_user_on_two_nodes_with_binds(
        self, cluster: Path, sif: BuiltImage, nobody: Nobody
    ) -> None:
        given = nobody.folder / "with, comma"
        given.mkdir()
        (given / "file").write_text("given\n")
        script = (f"id -u; cat '{given}/file'; touch '{given}/x' 2>/dev/null || echo kept;"
                  " echo $NODE_RANK > made.$NODE_RANK")  # fmt: skip
        site = yaml.safe_load((cluster / "configs/sites/minislurm.yaml").read_text())
        site["binds"] = [str(given)]
        nobody.write_site(site)
        done = nobody.rdtl("run", "--site", "minislurm", "--runtime", "apptainer", "--image",
                           str(nobody.image), "--nodes", "2", "--", "sh", "-c", script)  # fmt: skip
        assert done.returncode == 0, done.stderr
        lines = sorted(line.partition("] ")[2] for line in done.stdout.splitlines())
        assert lines == ["65534"] * 2 + ["given"] * 2 + ["kept"] * 2
        assert sorted(path.name for path in nobody.home.glob("made.*")) == ["made.0", "made.1"]

    def test_a_shell_of_its_own_and_one_inside_a_running_job(
        self, cluster: Path, sif: BuiltImage
    ) -> None:
        shown = rdtl("shell", "--site", "minislurm", "--runtime", "apptainer", "--",
                     "sh", "-c", "hostname; echo $APPTAINER_NAME", cwd=cluster)  # fmt: skip
        assert shown.stdout.split()[-2:] == ["n1", "image.sif"], shown.stderr
        wait = ("run", "--site", "minislurm", "--runtime", "apptainer", "--name", "joined", "--",
                "sh", "-c", "touch begun; while ! test -e end; do sleep 0.1; done")  # fmt: skip
        with subprocess.Popen(
            [sys.executable, "-P", "-m", "launcher", *wait], cwd=cluster,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        ) as launcher:  # fmt: skip
            deadline = time.monotonic() + 60
            while not (cluster / "begun").exists():
                assert launcher.poll() is None and time.monotonic() < deadline
                time.sleep(0.1)
            words = "echo $RDTL_STAGE $SLURM_JOB_ID $APPTAINER_NAME; touch end"
            joined = rdtl("shell", "--site", "minislurm", "--into", "joined-minislurm", "--",
                          "sh", "-c", words, cwd=cluster)  # fmt: skip
            assert launcher.wait(timeout=60) == 0
        run = RunDir(cluster / "runs" / "joined-minislurm")
        (id_,) = (run.ledger.read("submitted.run.a1") or {})["ids"]
        assert joined.stdout.split() == ["run", id_, "image.sif"], joined.stderr
        gone = rdtl("shell", "--site", "minislurm", "--into", id_, "--", "true", cwd=cluster)
        assert gone.returncode == 2
        assert "RDTL-U018" in gone.stderr

    def test_a_token_gets_in_and_stands_nowhere(self, cluster: Path, tmp_path: Path) -> None:
        token = "canary-7f3a9c51"
        site = yaml.safe_load((cluster / "configs/sites/minislurm.yaml").read_text())
        (tmp_path / "configs" / "sites").mkdir(parents=True)
        (tmp_path / "configs/sites/minislurm.yaml").write_text(
            yaml.safe_dump({**site, "pass_environment": ["MY_TOKEN"]})
        )
        code = (
            "import hashlib, os, pathlib, time; "
            "print(hashlib.sha256(os.environ['MY_TOKEN'].encode()).hexdigest()); time.sleep(1)"
        )
        words = ["run", "--site", "minislurm", "--runtime", "apptainer", "--", "python", "-c", code]
        with subprocess.Popen(
            [sys.executable, "-P", "-m", "launcher", *words], cwd=tmp_path, text=True,
            env={**os.environ, "MY_TOKEN": token}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        ) as launcher:  # fmt: skip
            argvs: set[str] = set()
            while launcher.poll() is None:
                argvs |= command_lines()
            out = launcher.communicate()[0]
        assert hashlib.sha256(token.encode()).hexdigest() in out
        assert any("apptainer" in argv for argv in argvs), "the container was never seen running"
        assert not [argv for argv in argvs if token in argv]
        written = [path for path in tmp_path.rglob("*") if path.is_file()]
        assert len(written) > 20
        assert not [path for path in written if token.encode() in path.read_bytes()]

    def test_the_doctor_asks_a_compute_node(self, cluster: Path) -> None:
        from launcher.runtime_checks import containers
        from launcher.sites import Site

        site = Site(**yaml.safe_load((cluster / "configs/sites/minislurm.yaml").read_text()))
        found = containers(site, cluster)
        assert {finding.code for finding in found} <= {"RDTL-C016", "RDTL-C017", "RDTL-C018"}
        assert found[0].severity == "ok"
        assert "apptainer" in found[0].where


def command_lines() -> set[str]:
    """The arguments of all processes that exist now, as every user can read them."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it ended while we looked
            found.add(path.read_text(errors="replace"))
    return found


class Nobody:
    """An ordinary user of the cluster with a Python, an image and a home of its own."""

    def __init__(self, folder: Path, sif: BuiltImage) -> None:
        self.folder, self.home = folder, folder / "home"
        self.image = folder / "image.sif"
        try:
            self.image.hardlink_to(sif.reference)  # the store may lie in a home that is closed
        except OSError:
            shutil.copy(sif.reference, self.image)
        self.home.mkdir()
        shutil.chown(self.home, 65534, 65534)
        self._python = folder / "venv" / "bin" / "python"
        subprocess.run(["/usr/bin/python3", "-m", "venv", "--without-pip", folder / "venv"],
                       check=True)  # fmt: skip
        packages = next(Path(p) for p in sys.path if p.endswith("site-packages"))
        (target,) = (folder / "venv" / "lib").glob("python3*/site-packages")
        (target / "host.pth").write_text(f"{packages}\n{ROOT}\n")

    def write_site(self, site: dict[str, object]) -> None:
        sites = self.home / "configs" / "sites"
        sites.mkdir(parents=True)
        (sites / "minislurm.yaml").write_text(yaml.safe_dump(site))

    def rdtl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        return subprocess.run(
            [*user, str(self._python), "-P", "-m", "launcher", *arguments], cwd=self.home,
            env={"PATH": os.environ["PATH"], "HOME": str(self.home)}, check=False,
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120,
        )  # fmt: skip


@pytest.fixture
def nobody(sif: BuiltImage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nobody]:
    reason = ordinary_user.unavailable()
    if reason:
        pytest.skip(reason)
    folder = Path("/var/tmp") / f"rdtl-nobody-{os.getpid()}"  # pytest's own folders are closed
    folder.mkdir()
    try:
        yield Nobody(folder, sif)
    finally:
        shutil.rmtree(folder)


def docker_is_there() -> bool:
    the_builder = builder.load()
    env = tools.docker_environment(the_builder)
    client = shutil.which(the_builder.docker)
    return (
        client is not None
        and subprocess.run(
            [client, "version"], env=env, capture_output=True, check=False
        ).returncode
        == 0
    )


@pytest.mark.skipif(not docker_is_there(), reason="no Docker engine: make images")
class TestInDocker:
    def test_a_command_runs_here_in_docker(self, tmp_path: Path) -> None:
        script = "id -u; pwd; echo written > file; echo $RANK $HOME; exit 75"
        done = rdtl("run", "--runtime", "docker", "--gpus", "0", "--name", "d", "--",
                    "sh", "-c", script, cwd=tmp_path)  # fmt: skip
        assert done.returncode == 1, done.stderr
        assert "exit code 75" in done.stderr
        assert done.stdout.split() == [str(os.getuid()), str(tmp_path), "/home/rdtl"]
        assert (tmp_path / "file").read_text() == "written\n"

    def test_a_container_of_a_killed_launcher_is_ended_by_the_next_one(
        self, tmp_path: Path
    ) -> None:
        script = "test -e begun && exit 0; touch begun; sleep 600; touch late"
        words = ("run", "--runtime", "docker", "--name", "killed", "--", "sh", "-c", script)
        with subprocess.Popen(
            [sys.executable, "-P", "-m", "launcher", *words], cwd=tmp_path,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        ) as launcher:  # fmt: skip
            deadline = time.monotonic() + 60
            while not (tmp_path / "begun").exists():
                assert launcher.poll() is None and time.monotonic() < deadline
                time.sleep(0.05)
            launcher.kill()
        assert len(containers_of(tmp_path)) == len(scratch_of(tmp_path)) == 1, "who removes them?"
        again = rdtl(*words, cwd=tmp_path)
        assert again.returncode == 0, again.stderr
        assert containers_of(tmp_path) == scratch_of(tmp_path) == []

    @pytest.mark.slow
    def test_the_demo_gives_the_bits_of_the_run_outside(
        self, uninterrupted: Path, tmp_path: Path
    ) -> None:
        done = small_demo.run(tmp_path, "--runtime", "docker")
        assert done.returncode == 0, done.stderr
        run = tmp_path / "runs" / "demo-quick-local"
        model = "policy/model.safetensors"
        assert small_demo.digest(run / model) == small_demo.digest(uninterrupted / model)
        assert small_demo.table(run) == small_demo.table(uninterrupted)


def tag_of(folder: Path) -> str:
    """How names begin that belong to the run below ``folder``."""
    root = (folder / "runs" / "killed-local").resolve()
    return f"rdtl-{hashlib.sha256(str(root).encode()).hexdigest()[:8]}"


def scratch_of(folder: Path) -> list[Path]:
    """Scratch directories of the run below ``folder``."""
    return list(Path(tempfile.gettempdir()).glob(f"{tag_of(folder)}-*"))


def containers_of(folder: Path) -> list[str]:
    """Names of the containers of the run below ``folder``."""
    the_builder = builder.load()
    named = f"name={tag_of(folder)}"
    command = [the_builder.docker, "ps", "--format", "{{.Names}}", "--filter", named]
    env = tools.docker_environment(the_builder)
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    return done.stdout.split()
