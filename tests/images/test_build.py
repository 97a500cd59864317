"""Real builds of a small definition: Docker, conversion, Apptainer; secrets; failures."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from launcher.core.errors import RdtlError
from launcher.images import builder as builders
from launcher.images import selftest, tools, transfer
from launcher.images.build import build
from launcher.images.builder import Builder
from launcher.images.definition import load
from launcher.images.errors import build_failed
from launcher.images.resolve import resolve
from launcher.images.store import BuiltImage, Store
from tests.images import registry, secret_index, small
from tests.images.secret_index import Index

ROOT = Path(__file__).parent.parent.parent
TINY = {
    "title": "tiny",
    "base": "docker.io/library/debian@sha256:" + "0" * 64,  # the builder's archive replaces it
    "python": "3.11",
    "gpu": False,
    "extras": ["sim"],
    "apt": ["python3-venv"],
    "imports": ["easydict"],
}
unable = small.unavailable("docker") or small.unavailable("apptainer")
pytestmark = pytest.mark.skipif(unable is not None, reason=str(unable))


@dataclass(frozen=True)
class Place:
    """A configuration root with definitions, a builder with a store of its own, an index."""

    folder: Path
    builder: Builder
    index: Index

    def define(self, name: str, lock: str | None = None, **change: object) -> str:
        """Write a definition; returns its name."""
        images = self.folder / "configs" / "images"
        (images / "locks").mkdir(parents=True, exist_ok=True)
        (images / f"{name}.yaml").write_text(yaml.safe_dump({**TINY, **change}))
        (images / "locks" / f"{name}.txt").write_text(lock or secret_index.lock_text())
        return name

    def secrets(self) -> list[bytes]:
        """What must be nowhere: name, password and address of the index."""
        return [text.encode() for text in (self.index.user, self.index.password, self.index.host)]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Packages come from an index with a password, as pip inside the build asks for them."""
    folder = tmp_path_factory.mktemp("build")
    files = secret_index.download(secret_index.lock_text(), tmp_path_factory.mktemp("index"))
    local = builders.load("local")
    before = Path.cwd()
    with secret_index.serve(files) as index:
        change = {"cache": str(folder / "store"), "wheels": "index", "ca": None}
        builder = local.model_copy(update={**change, "pip_config": str(index.config)})
        os.chdir(folder)
        try:
            yield Place(folder, builder, index)
        finally:
            os.chdir(before)


class Watch:
    """Looks at the arguments of all processes again and again for words that must not be there."""

    def __init__(self, words: list[bytes]) -> None:
        self.words, self.seen, self.looks = words, set[bytes](), 0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def _look(self) -> None:
        while not self._end.wait(0.05):
            self.looks += 1
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    text = path.read_bytes()
                except (FileNotFoundError, ProcessLookupError):
                    continue  # it has ended
                self.seen |= {word for word in self.words if word in text}

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()


ASKERS = 50


@pytest.fixture(scope="module")
def built(place: Place) -> BuiltImage:
    """The Docker image of the tiny definition, asked for by fifty programs at once."""
    place.define("tiny")
    said = place.folder / "said"
    said.mkdir()

    def ask(number: int) -> None:
        with (said / str(number)).open("w") as handle:
            image = build(
                "tiny", "docker", None, place.builder, lambda text: print(text, file=handle)
            )
            print(f"got {image.sha256}", file=handle)

    children = [
        multiprocessing.get_context("fork").Process(target=ask, args=(number,))
        for number in range(ASKERS)
    ]
    with Watch(place.secrets()) as watch:
        for child in children:
            child.start()
        for child in children:
            child.join(300)
    assert watch.looks > 20
    assert watch.seen == set()
    assert [child.exitcode for child in children] == [0] * ASKERS
    lines = [line for path in said.iterdir() for line in path.read_text().splitlines()]
    assert len([line for line in lines if line.startswith("building")]) == 1
    assert len({line for line in lines if line.startswith("got")}) == 1
    return resolve("tiny", "docker", place.builder)


@pytest.fixture(scope="module")
def converted(place: Place, built: BuiltImage) -> BuiltImage:
    """The SIF of that image; the conversion runs the image's tests."""
    return build("tiny", "apptainer", "docker", place.builder, print)


def docker(place: Place, *arguments: str) -> str:
    argv = [place.builder.docker, *arguments]
    environment = tools.docker_environment(place.builder)
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def apptainer(place: Place, *arguments: str) -> str:
    argv = [place.builder.apptainer, *arguments]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()


def test_fifty_requests_cause_one_build(built: BuiltImage, place: Place) -> None:
    """The fixture asserts it; afterwards a further request builds nothing either."""
    said: list[str] = []
    assert build("tiny", "docker", None, place.builder, said.append) == built
    assert said == []


def test_the_docker_image_is_labelled_unprivileged_and_out_of_the_way(
    built: BuiltImage, place: Place
) -> None:
    facts = json.loads(docker(place, "image", "inspect", built.reference))[0]["Config"]
    _, lock = load("tiny")
    assert facts["User"] == "1000"
    assert not facts["Entrypoint"]
    assert facts["Labels"]["io.rdtl.lock"] == lock.sha256 == built.lock_sha256
    assert facts["Labels"]["io.rdtl.key"] == built.key
    assert facts["Labels"]["io.rdtl.architecture"] == built.architecture
    program = "import os, easydict; print(os.getpid(), os.getuid(), os.environ['PYTHONNOUSERSITE'])"
    ran = docker(
        place, "run", "--rm", "--network", "none", built.reference, "python", "-c", program
    )
    assert ran == "1 1000 1"  # the program itself is process 1


def test_what_is_installed_is_the_lock(built: BuiltImage, place: Place) -> None:
    run = ("run", "--rm", "--network", "none", built.reference, "cat")
    listed = docker(place, *run, "/opt/rdtl/installed.txt").splitlines()
    _, lock = load("tiny")
    assert dict(line.split("==") for line in listed) == lock.packages()
    assert docker(place, *run, "/opt/rdtl/lock.txt") == lock.text.strip()
    left = docker(place, *run[:-1], "ls", "-A", "/opt/rdtl").split()
    assert sorted(left) == ["installed.txt", "lock.txt", "selftest.py"]


def test_the_converted_image_has_labels_environment_and_tests(
    converted: BuiltImage, built: BuiltImage, place: Place
) -> None:
    assert converted.labels["io.rdtl.lock"] == built.lock_sha256
    assert converted.labels["io.rdtl.key"] == converted.key != built.key
    assert resolve("tiny", "apptainer", place.builder) == converted
    lines = selftest.run(converted, load("tiny")[0], place.builder)
    assert lines[-1] == "self-test: 1 tests passed"
    assert (Path(converted.reference).parent / "build.log").read_text().rstrip().endswith(lines[-1])


def unpacked(place: Place, image: BuiltImage, folder: Path) -> Path:
    """The root file system of a SIF."""
    listed = apptainer(place, "sif", "list", image.reference).splitlines()
    number = next(line.split("|")[0].strip() for line in listed if "Squashfs" in line)
    (folder / "fs").write_bytes(
        subprocess.run(
            [place.builder.apptainer, "sif", "dump", number, image.reference],
            capture_output=True,
            check=True,
        ).stdout
    )
    argv = ["unsquashfs", "-q", "-n", "-d", str(folder / "root"), str(folder / "fs")]
    subprocess.run(argv, check=True, capture_output=True)
    return folder / "root"


def holding(folder: Path, words: list[bytes]) -> list[str]:
    """Files below ``folder`` that hold one of the words."""
    argv = ["grep", "-raFl", *[part for word in words for part in ("-e", word.decode())], "."]
    done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    return done.stdout.splitlines()


def check_no_secret(place: Place, image: BuiltImage, folder: Path) -> None:
    """Everything that stays of a build, unpacked, is searched."""
    folder.mkdir()
    if image.kind == "docker":
        docker(place, "save", "--output", str(folder / "image.tar"), image.reference)
        with tarfile.open(folder / "image.tar") as tar:
            tar.extractall(folder, filter="data")  # layers inside are tar files, not compressed
    else:
        unpacked(place, image, folder)
        shutil.copy(image.reference, folder)
    assert holding(folder, [b"easydict"]) != []  # the search itself works
    assert holding(folder, place.secrets()) == []
    assert holding(Path(place.builder.cache or ""), place.secrets()) == []


def test_no_secret_of_the_index_is_left_anywhere(
    built: BuiltImage, converted: BuiltImage, place: Place, tmp_path: Path
) -> None:
    check_no_secret(place, built, tmp_path / "docker")
    check_no_secret(place, converted, tmp_path / "sif")


def as_root_with_a_range(place: Place, *command: str) -> subprocess.CompletedProcess[str]:
    """Run ``rdtl`` where root has subordinate ids, without changing this machine."""
    script = """
        for file in subuid subgid; do
            cp /etc/$file "$1/$file"; echo root:400000:65536 >>"$1/$file"
            mount --bind "$1/$file" /etc/$file
        done
        shift; exec "$@"
    """
    argv = ["unshare", "-m", "--propagation", "private", "sh", "-euc", script, "sh"]
    argv += [str(place.folder), sys.executable, "-m", "launcher", *command]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        argv, cwd=place.folder, env=environment, capture_output=True, text=True, check=False
    )


def test_apptainer_alone_builds_the_same_packages_and_keeps_no_secret(
    built: BuiltImage, place: Place, tmp_path: Path
) -> None:
    (place.folder / "alone.yaml").write_text(yaml.safe_dump(place.builder.model_dump()))
    arguments = (
        "image",
        "build",
        "tiny",
        "--with",
        "apptainer",
        "--builder",
        "alone.yaml",
        "--json",
    )
    with Watch(place.secrets()) as watch:
        done = as_root_with_a_range(place, *arguments)
    assert done.returncode == 0, done.stderr
    assert watch.seen == set()
    image = BuiltImage(**json.loads(done.stdout))
    check_no_secret(place, image, tmp_path / "sif")
    listed = (tmp_path / "sif" / "root" / "opt" / "rdtl" / "installed.txt").read_text()
    run = ("run", "--rm", "--network", "none", built.reference, "cat", "/opt/rdtl/installed.txt")
    assert listed.strip() == docker(place, *run)
    assert not (tmp_path / "sif" / "root" / "opt" / "rdtl" / "build").exists()


def test_packages_that_are_downloaded_before_need_no_index_in_the_build(
    built: BuiltImage, place: Place
) -> None:
    builder = place.builder.model_copy(update={"wheels": "download"})
    image = build("tiny", "docker", None, builder, print)
    assert image.sha256 != built.sha256
    log = (Path(place.builder.cache or "") / image.key / "build.log").read_text()
    assert "--no-index" not in log  # pip does not print it; what it prints is where it looked
    assert "Looking in links: /opt/rdtl/build/wheels" in log
    assert "Looking in indexes" not in log.partition("docker build")[2]
    _, lock = load("tiny")
    run = ("run", "--rm", "--network", "none", image.reference, "cat", "/opt/rdtl/installed.txt")
    assert dict(line.split("==") for line in docker(place, *run).splitlines()) == lock.packages()


def test_images_travel_through_a_registry_by_their_content(
    built: BuiltImage, converted: BuiltImage, place: Place, tmp_path: Path
) -> None:
    if reason := registry.unavailable():
        pytest.skip(reason)
    elsewhere = place.builder.model_copy(update={"cache": str(tmp_path / "elsewhere")})
    with registry.registry() as address:
        reference = transfer.push(converted, f"{address}/tiny", place.builder)
        assert reference == f"oras://{address}/tiny:sha256-{converted.sha256}"
        pulled = transfer.pull(reference, elsewhere)
        assert (pulled.sha256, pulled.lock_sha256) == (converted.sha256, converted.lock_sha256)
        assert resolve("tiny", "apptainer", elsewhere).sha256 == converted.sha256
        reference = transfer.push(built, f"{address}/tiny-docker", place.builder)
        assert reference.startswith(f"{address}/tiny-docker@sha256:")
        pulled = transfer.pull(reference, elsewhere)
        assert pulled.sha256 == built.sha256
        forged = f"oras://{address}/tiny:sha256-{'0' * 64}"
        source = f"oras://{address}/tiny:sha256-{converted.sha256}"
        apptainer(place, "push", "--no-https", converted.reference, forged)
        with pytest.raises(RdtlError, match="RDTL-C025"):
            transfer.pull(forged, elsewhere)
        assert transfer.pull(source, elsewhere).sha256 == converted.sha256  # found, not fetched
    assert transfer.pull(source, elsewhere).sha256 == converted.sha256  # the registry is gone


def test_a_reference_that_does_not_name_its_content_is_refused(place: Place) -> None:
    for reference in ("localhost:1/tiny", "localhost:1/tiny:latest", "oras://localhost:1/tiny:1"):
        with pytest.raises(RdtlError, match="RDTL-C024"):
            transfer.pull(reference, place.builder)


def test_a_failing_self_test_fails_the_build_and_publishes_nothing(
    built: BuiltImage, place: Place
) -> None:
    place.define("broken", imports=["no_such_module"])
    with pytest.raises(RdtlError, match="RDTL-C028") as caught:
        build("broken", "docker", None, place.builder, print)
    assert "No module named 'no_such_module'" in caught.value.problem.where
    assert Store(place.builder.cache_directory()).named("broken", "docker") is None


def test_a_file_with_another_hash_than_the_locks_is_not_installed(place: Place) -> None:
    lock = secret_index.lock_text()
    place.define("forged", lock=lock.replace("sha256:", "sha256:0000")[:0] + _forged(lock))
    with pytest.raises(RdtlError, match="a package's file is not the one of the lock"):
        build("forged", "docker", None, place.builder, print)


def _forged(lock: str) -> str:
    """The lock with other hashes for its last package."""
    head, mark, tail = lock.partition("easydict==")
    import re

    return head + mark + re.sub(r"sha256:[0-9a-f]{8}", "sha256:00000000", tail, count=9)


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
    if any(line.startswith("root:") for line in Path("/etc/subuid").read_text().splitlines()):
        pytest.skip("root has a range of ids here")
    place.define("fakeroot")
    with pytest.raises(RdtlError, match="RDTL-C018"):
        build("fakeroot", "apptainer", None, place.builder, print)


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
