"""containers/install-apptainer.sh: without root, twice, killed, and where it cannot work."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.core.runtimes import Container
from tests.cluster.layout import REPOSITORY
from tests.images import ordinary_user, ways
from tests.images.ordinary_user import User

SCRIPT = REPOSITORY / "containers" / "install-apptainer.sh"
LISTS = Path("/var/lib/apt/lists")


def run(script: Path, prefix: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/sh", str(script), str(prefix)],
        env={"PATH": os.environ["PATH"], **variables},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def skip_without_packages(done: subprocess.CompletedProcess[str]) -> None:
    """A machine without Debian's archive, or without network, cannot run these tests."""
    if "could not be fetched" in done.stderr or done.returncode == 2:
        pytest.skip(done.stderr.strip())


@pytest.fixture
def folder() -> Iterator[Path]:
    with ways.open_folder() as made:
        yield made


@pytest.fixture(scope="module")
def user() -> Iterator[User]:
    if reason := ordinary_user.unavailable():
        pytest.skip(reason)
    with ordinary_user.ordinary_user() as made:
        yield made


@pytest.fixture(scope="module")
def script(user: User) -> Path:
    """A copy that the user can read; the repository may be closed to others."""
    copy = user.folder / SCRIPT.name
    copy.write_bytes(SCRIPT.read_bytes())
    return copy


@pytest.fixture(scope="module")
def installed(user: User, script: Path) -> Path:
    """A prefix of the user's own."""
    done = user.run("sh", str(script), "apptainer", timeout=300)
    skip_without_packages(done)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("apptainer version 1."), done.stdout
    return user.home / "apptainer"


def test_a_user_installs_it_and_it_starts(user: User, installed: Path) -> None:
    done = user.run(str(installed / "bin" / "apptainer"), "version")
    assert (done.returncode, done.stdout.count(".")) == (0, 2), done.stderr
    assert sorted(path.name for path in installed.iterdir()) == ["bin", "usr"]


@pytest.mark.slow
def test_the_user_runs_an_image_with_it(user: User, installed: Path, small_sif: Container) -> None:
    program = str(installed / "bin" / "apptainer")
    done = user.run(program, "-q", "exec", small_sif.image, "id", "-u")
    assert (done.returncode, done.stdout) == (0, f"{user.uid}\n"), done.stderr


@pytest.mark.slow
def test_the_user_builds_an_image_with_it(
    user: User, installed: Path, small_sif: Container
) -> None:
    definition = user.home / "x.def"
    definition.write_text(
        f"Bootstrap: localimage\nFrom: {small_sif.image}\n"
        "%post\n    chown 7:8 /opt && stat -c %u:%g /opt >/opt/seen\n"
    )
    program = str(installed / "bin" / "apptainer")
    built = user.run(program, "-q", "build", "--fakeroot", "x.sif", str(definition), timeout=300)
    assert built.returncode == 0, built.stderr
    done = user.run(program, "-q", "exec", "x.sif", "cat", "/opt/seen")
    assert (done.returncode, done.stdout) == (0, "7:8\n"), done.stderr


def test_a_second_run_changes_nothing(user: User, script: Path, installed: Path) -> None:
    before = installed.stat().st_mtime_ns, installed.stat().st_ino
    done = user.run("sh", str(script), "apptainer")
    assert (done.returncode, done.stdout.split()[0]) == (0, "apptainer"), done.stderr
    assert (installed.stat().st_mtime_ns, installed.stat().st_ino) == before


@pytest.mark.slow
def test_killed_at_any_moment_it_is_whole_or_absent(folder: Path) -> None:
    """As root, three kills of everything it started; the system's lists stay as they are."""
    prefix = folder / "p"
    lists = sorted((path.name, path.stat().st_mtime_ns) for path in LISTS.iterdir())
    for seconds in (0.3, 1.2, 2.4):
        process = subprocess.Popen(
            ["sh", str(SCRIPT), str(prefix)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        time.sleep(seconds)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        program = prefix / "bin" / "apptainer"
        assert (
            not prefix.exists() or subprocess.run([program, "version"], check=False).returncode == 0
        )
    done = run(SCRIPT, prefix)
    skip_without_packages(done)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in folder.iterdir()] == ["p"]
    assert sorted((path.name, path.stat().st_mtime_ns) for path in LISTS.iterdir()) == lists


def test_a_directory_with_other_things_is_left_alone(folder: Path) -> None:
    (folder / "p").mkdir()
    (folder / "p" / "mine").write_text("keep")
    done = run(SCRIPT, folder / "p")
    assert (done.returncode, "something else" in done.stderr) == (2, True), done.stderr
    assert [path.name for path in (folder / "p").iterdir()] == ["mine"]


@pytest.mark.slow
def test_an_archive_that_does_not_answer_is_named(folder: Path) -> None:
    done = run(SCRIPT, folder / "p", DEBIAN_MIRROR="http://127.0.0.1:9/debian")
    assert done.returncode == 1
    assert "could not be fetched from http://127.0.0.1:9/debian" in done.stderr
    assert not (folder / "p").exists()


def test_a_system_without_apt_is_told_where_to_get_it(folder: Path) -> None:
    tools = folder / "bin"
    tools.mkdir()
    for name in ("dirname", "basename", "mkdir", "sh"):
        (tools / name).symlink_to(f"/usr/bin/{name}")
    done = run(SCRIPT, folder / "p", PATH=str(tools))
    assert done.returncode == 2
    assert "RDTL-C029" in done.stderr
    assert "module load apptainer" in done.stderr


def test_one_argument_is_asked_for() -> None:
    done = subprocess.run(["sh", str(SCRIPT)], capture_output=True, text=True, check=False)
    assert (done.returncode, "PREFIX" in done.stderr) == (2, True)
