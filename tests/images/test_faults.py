"""Builds that fail: each really does, and ends with its code, its cause and nothing published."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from launcher.core.errors import RdtlError
from launcher.images import tools
from launcher.images.build import build
from launcher.images.errors import build_failed
from launcher.images.store import Store
from tests.cli.interrupting import interrupt
from tests.images import root_range, secret_index
from tests.images.tiny import ROOT, UNABLE, Place, holding, place

__all__ = ["place"]  # the fixture

pytestmark = pytest.mark.skipif(UNABLE is not None, reason=str(UNABLE))


def test_a_failing_self_test_fails_the_build_and_publishes_nothing(
    place: Place,
) -> None:
    lock = re.sub(r"^# .*", "# layers of an earlier test will do", secret_index.lock_text())
    place.define("broken", lock=lock, imports=["no_such_module"])
    with pytest.raises(RdtlError, match="RDTL-C028") as caught:
        build("broken", "docker", None, place.builder, print)
    assert "No module named 'no_such_module'" in caught.value.problem.where
    assert Store(place.builder.cache_directory()).named("broken", "docker") is None


def test_a_file_with_another_hash_than_the_locks_is_not_installed(place: Place) -> None:
    lock = secret_index.lock_text()
    head, mark, tail = lock.partition("easydict==")
    forged = re.sub(r"sha256:[0-9a-f]{8}", "sha256:00000000", tail)
    place.define("forged", lock=head + mark + forged)
    with pytest.raises(RdtlError, match="a package's file is not the one of the lock"):
        build("forged", "docker", None, place.builder, print)


def test_a_package_index_with_a_private_certificate(place: Place, tmp_path: Path) -> None:
    pem = secret_index.certificate(tmp_path)
    with secret_index.serve(tmp_path, pem) as index:
        change = {"wheels": "download", "pip_config": str(index.config)}
        builder = place.builder.model_copy(update={**change, "cache": str(tmp_path / "store")})
        place.define("behind")
        with pytest.MonkeyPatch.context() as patch:
            for name in ("PIP_CERT", "PIP_FIND_LINKS", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
                patch.delenv(name, raising=False)
            patch.setenv("PIP_RETRIES", "0")
            with pytest.raises(RdtlError, match="RDTL-C019"):
                build("behind", "docker", None, builder, print)
    assert holding(tmp_path / "store", [index.password.encode(), index.host.encode()]) == []


def test_fakeroot_without_a_range_of_ids(place: Place) -> None:
    place.define("fakeroot")
    (place.folder / "mine.yaml").write_text(yaml.safe_dump(place.builder.model_dump()))
    rdtl = [sys.executable, "-m", "launcher", "image", "build", "fakeroot", "--with", "apptainer"]
    argv = root_range.argv(place.folder, *rdtl, "--builder", "mine.yaml", ids="")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    options = {"env": environment, "capture_output": True, "text": True, "check": False}
    done = subprocess.run(argv, cwd=place.folder, **options)
    assert done.returncode == 1
    assert "error RDTL-C018" in done.stderr


def test_a_full_disk_during_a_build(place: Place, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    argv = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    subprocess.run(argv, check=True)
    try:
        change = {"wheels": "download", "cache": str(disk / "store")}
        place.define("big")
        with pytest.raises(RdtlError, match="RDTL-G009"):
            build("big", "docker", None, place.builder.model_copy(update=change), print)
        store = Store(disk / "store")
        assert store.images() == []
        assert list((store.root / "tmp").iterdir()) == []
        assert not (store.root / "wheels").exists()
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize(
    ("kind", "change", "words"),
    [
        ("docker", {"docker": "/nowhere/docker"}, "no such program"),
        ("docker", {"docker_host": "unix:///nowhere/d.sock"}, "no engine answers"),
        ("apptainer", {"apptainer": "/nowhere/apptainer"}, "cannot be run"),
    ],
)
def test_a_missing_tool_is_named(
    place: Place, kind: str, change: dict[str, str], words: str
) -> None:
    place.define("any")
    builder = place.builder.model_copy(update=change)
    with pytest.raises(RdtlError, match="RDTL-C029") as caught:
        build("any", "docker" if kind == "docker" else "apptainer", None, builder, print)
    assert words in caught.value.problem.why


def test_a_docker_client_without_buildkit_is_unfit(place: Place) -> None:
    other = shutil.which("docker")
    if other is None or tools.ask([other, "buildx", "version"], dict(os.environ)):
        pytest.skip("no client without BuildKit here")
    if other == place.builder.docker:
        pytest.skip("the only client is the engine's own")
    with pytest.raises(RdtlError, match="knows no BuildKit"):
        tools.docker_version(place.builder.model_copy(update={"docker": other}))


def test_a_syntax_line_without_a_registry_is_explained(place: Place, tmp_path: Path) -> None:
    """Ours have none; this is what happens with one."""
    (tmp_path / "Dockerfile").write_text("# syntax=localhost:1/dockerfile:1\nFROM scratch\n")
    log = tmp_path / "log"
    argv = [place.builder.docker, "build", "--network", "none", "."]
    environment = tools.docker_environment(place.builder)
    status = tools.run_logged(argv, environment, log, tools.Redaction(place.builder), tmp_path)
    assert status != 0
    assert build_failed("docker build", status, log).problem.code == "RDTL-C020"


@pytest.mark.parametrize("kind", [pytest.param("apptainer", marks=pytest.mark.slow), "docker"])
def test_ctrl_c_during_a_build_leaves_nothing_half_built(kind: str, place: Place) -> None:
    place.define("ended", lock=re.sub(r"^# .*", f"# of its own: {kind}", secret_index.lock_text()))
    builders = place.folder / "configs" / "builders"
    builders.mkdir(exist_ok=True)
    store = place.folder / f"store-{kind}"
    text = place.builder.model_copy(update={"cache": str(store)}).model_dump(mode="json")
    (builders / "ended.yaml").write_text(yaml.safe_dump(text))

    def at_work() -> bool:
        return any("pip" in log.read_text() for log in store.rglob("build.log"))

    words = ("image", "build", "ended", "--with", kind, "--builder", "ended")
    done = interrupt(*words, when=at_work, cwd=place.folder, timeout_s=120)
    assert done.returncode == 130, done.stderr
    assert "interrupted; nothing half-built is left" in done.stderr
    assert Store(store).named("ended", kind) is None  # type: ignore[arg-type]
    left = [path for path in store.rglob("*") if path.is_file() and path.stat().st_size > 10_000]
    assert left == []
