"""Faults of container runtimes, really caused: what rdtl chooses then, or how it explains it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from launcher.core.errors import RdtlError
from launcher.core.node_facts import architecture
from launcher.core.runtime_errors import check_image, explain
from launcher.core.runtimes import Container, mount_options
from tests.images import ordinary_user, small, ways
from tests.images.ways import WITHOUT_LIMITS, Way


@pytest.fixture(scope="module", autouse=True)
def apptainer() -> None:
    if reason := small.unavailable("apptainer"):
        pytest.skip(reason)


@pytest.fixture
def folder() -> Iterator[Path]:
    with ways.open_folder() as made:
        yield made


@pytest.fixture
def user_without_fuse(small_sif: Container, folder: Path) -> Iterator[Way]:
    if reason := ordinary_user.unavailable():
        pytest.skip(reason)
    with ordinary_user.ordinary_user(fuse=False) as user:
        yield Way(small_sif, ways.facts_of(small_sif.program, user=user), folder, user)


@pytest.fixture
def root_without_limits(small_sif: Container, folder: Path) -> Way:
    facts = ways.facts_of(small_sif.program, WITHOUT_LIMITS)
    return Way(small_sif, facts, folder, prefix=WITHOUT_LIMITS)


def code_of(way: Way, done: subprocess.CompletedProcess[str]) -> str:
    """Code of the explained failure; an unexplained one fails the test with its words."""
    error = explain(way.container, done.returncode, done.stdout + done.stderr)
    assert error is not None, done
    assert error.problem.where.strip()
    assert error.problem.fix
    return error.problem.code


@pytest.mark.slow
def test_a_user_without_fuse_runs_the_unpacked_image(user_without_fuse: Way) -> None:
    assert not user_without_fuse.facts.fuse
    assert mount_options(user_without_fuse.facts) == ("--unsquash",)
    done = user_without_fuse.run("id", "-u", seconds=120)
    assert (done.returncode, done.stdout) == (0, f"{user_without_fuse.user.uid}\n"), done.stderr


def test_a_user_without_fuse_who_must_mount_is_told_why(user_without_fuse: Way) -> None:
    done = user_without_fuse.run("true", options=("--userns",))
    assert code_of(user_without_fuse, done) == "RDTL-C017"


def test_root_without_all_capabilities_runs_with_fewer(root_without_limits: Way) -> None:
    facts = root_without_limits.facts
    assert (facts.root, facts.can_raise_limits) == (True, False)
    done = root_without_limits.run("id", "-u")
    assert (done.returncode, done.stdout) == (0, "0\n"), done.stderr


def test_root_without_all_capabilities_who_asks_for_them_is_told_why(
    root_without_limits: Way,
) -> None:
    done = root_without_limits.run("true", options=("--keep-privs",))
    assert code_of(root_without_limits, done) == "RDTL-C016"


def test_fakeroot_without_subordinate_ids_is_explained(
    root_without_limits: Way, folder: Path
) -> None:
    """An empty /etc/subuid in a private mount namespace: nothing of the machine changes."""
    (folder / "empty").touch()
    hide = f"mount --bind {folder}/empty /etc/subuid && mount --bind {folder}/empty /etc/subgid"
    prefix = ("unshare", "--mount", "sh", "-ec", f'{hide}\nexec "$@"', "sh")
    way = replace(root_without_limits, prefix=prefix)
    assert not ways.facts_of(way.container.program, prefix).subuid
    assert code_of(way, way.run("true", options=("--fakeroot",))) == "RDTL-C018"


def test_a_missing_image_is_found_missing_before_and_after(
    root_without_limits: Way, folder: Path
) -> None:
    gone = replace(root_without_limits.container, image=str(folder / "gone.sif"))
    with pytest.raises(RdtlError) as caught:
        check_image(gone, architecture())
    assert caught.value.problem.code == "RDTL-C024"
    way = replace(root_without_limits, container=gone)
    assert code_of(way, way.run("true")) == "RDTL-C024"


@pytest.mark.parametrize("kept", ["nothing", "header", "half", "all but the last page"])
@pytest.mark.parametrize("caller", ["root", "user"])
def test_a_truncated_image_is_damaged_before_and_after(
    small_sif: Container, folder: Path, kept: str, caller: str
) -> None:
    size = small_sif.size_bytes
    lengths = {
        "nothing": 0,
        "header": 1000,
        "half": size // 2,
        "all but the last page": size - 4096,
    }
    path = folder / "cut.sif"
    shutil.copyfile(small_sif.image, path)
    os.truncate(path, lengths[kept])
    cut = replace(small_sif, image=str(path))
    with pytest.raises(RdtlError) as caught:
        check_image(cut, architecture())
    assert caught.value.problem.code == "RDTL-C025"
    if caller == "root":
        way = Way(cut, ways.facts_of(cut.program), folder)
        assert code_of(way, way.run("true")) == "RDTL-C025"
        return
    if reason := ordinary_user.unavailable():
        pytest.skip(reason)
    with ordinary_user.ordinary_user() as user:
        way = Way(cut, ways.facts_of(cut.program, user=user), folder, user)
        assert code_of(way, way.run("true")) == "RDTL-C025"


def test_one_changed_byte_is_noticed(small_sif: Container, folder: Path) -> None:
    path = folder / "changed.sif"
    shutil.copyfile(small_sif.image, path)
    check_image(replace(small_sif, image=str(path)), architecture())  # a copy is the same image
    with path.open("r+b") as handle:
        handle.seek(small_sif.size_bytes // 2)
        byte = handle.read(1)
        handle.seek(-1, os.SEEK_CUR)
        handle.write(bytes([byte[0] ^ 1]))
    with pytest.raises(RdtlError) as caught:
        check_image(replace(small_sif, image=str(path)), architecture())
    assert caught.value.problem.code == "RDTL-C025"


@pytest.fixture
def docker(folder: Path) -> Way:
    if reason := small.unavailable("docker"):
        pytest.skip(reason)
    return Way(small.docker_image(), ways.facts_of("apptainer"), folder)


def test_an_image_that_the_engine_lacks_is_named(docker: Way) -> None:
    absent = re.sub("[0-9a-f]{8}$", "00000000", docker.container.image)
    way = replace(docker, container=replace(docker.container, image=absent))
    assert code_of(way, way.run("true")) == "RDTL-C024"


def test_an_engine_that_does_not_answer_is_named(docker: Way, folder: Path) -> None:
    nowhere = replace(docker.container, engine=f"unix://{folder}/nobody.sock")
    way = replace(docker, container=nowhere)
    assert code_of(way, way.run("true")) == "RDTL-C029"


def test_a_container_leaves_nothing_in_the_engine(docker: Way) -> None:
    """``--rm`` holds after an ordinary end and after a signal."""
    assert docker.run("true").returncode == 0
    with docker.popen("sh", "-c", "echo ready; exec sleep 60") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert listing(docker)
        process.terminate()
    assert process.returncode == 128 + 15
    assert not listing(docker)


def listing(way: Way) -> str:
    """Names of the containers that this process has started and that still exist."""
    engine = {"DOCKER_HOST": way.container.engine or ""}
    own = f"name={ways.TAG}"
    command = [way.container.program, "ps", "--all", "--filter", own, "--format", "{{.Names}}"]
    return subprocess.run(
        command, env=engine, capture_output=True, text=True, check=True, timeout=30
    ).stdout
