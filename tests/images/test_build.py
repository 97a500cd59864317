"""Real builds of a small definition: Docker, conversion, Apptainer, a registry; and secrets."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tarfile
import threading
from pathlib import Path

import pytest
import yaml

from launcher.core.errors import RdtlError
from launcher.images import builder as builders
from launcher.images import selftest, transfer
from launcher.images.build import build
from launcher.images.definition import load
from launcher.images.order import Order
from launcher.images.resolve import resolve
from launcher.images.store import BuiltImage
from tests.images import registry, root_range, secret_index
from tests.images.tiny import ROOT, UNABLE, Place, docker, holding, place

__all__ = ["place"]  # the fixture

pytestmark = pytest.mark.skipif(UNABLE is not None, reason=str(UNABLE))


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

    # Read the base archive once, here: fifty digests of it would be most of the test.
    Order("tiny", *load("tiny"), place.builder, print).base_identity()
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


@pytest.mark.slow
def test_the_converted_image_has_labels_environment_and_tests(
    converted: BuiltImage, built: BuiltImage, place: Place
) -> None:
    assert converted.labels["io.rdtl.lock"] == built.lock_sha256
    assert converted.labels["io.rdtl.key"] == built.key != converted.key
    assert resolve("tiny", "apptainer", place.builder) == converted
    lines = selftest.run(converted, load("tiny")[0], place.builder)
    assert lines[-1] == "self-test: 1 tests passed"
    assert (Path(converted.reference).parent / "build.log").read_text().rstrip().endswith(lines[-1])


def unpacked(place: Place, image: BuiltImage, folder: Path) -> Path:
    """The root file system of a SIF, read where it lies in the file."""
    listed = apptainer(place, "sif", "list", image.reference).splitlines()
    position = next(line.split("|")[3] for line in listed if "Squashfs" in line)
    start, end = (int(number) for number in position.split("-"))
    assert end == Path(image.reference).stat().st_size, listed  # it is the last part, and whole
    argv = ["unsquashfs", "-q", "-n", "-o", str(start), "-d", str(folder / "root"), image.reference]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "root"


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


@pytest.mark.slow
def test_apptainer_alone_builds_the_same_packages_and_keeps_no_secret(
    built: BuiltImage, place: Place, tmp_path: Path
) -> None:
    (place.folder / "alone.yaml").write_text(yaml.safe_dump(place.builder.model_dump()))
    rdtl = [sys.executable, "-m", "launcher", "image", "build", "tiny", "--with", "apptainer"]
    argv = root_range.argv(place.folder, *rdtl, "--builder", "alone.yaml", "--json")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    options = {"env": environment, "capture_output": True, "text": True, "check": False}
    with Watch(place.secrets()) as watch:
        done = subprocess.run(argv, cwd=place.folder, **options)
    assert done.returncode == 0, done.stderr
    assert watch.seen == set()
    image = BuiltImage(**json.loads(done.stdout))
    check_no_secret(place, image, tmp_path / "sif")
    listed = (tmp_path / "sif" / "root" / "opt" / "rdtl" / "installed.txt").read_text()
    run = ("run", "--rm", "--network", "none", built.reference, "cat", "/opt/rdtl/installed.txt")
    assert listed.strip() == docker(place, *run)
    assert not (tmp_path / "sif" / "root" / "opt" / "rdtl" / "build").exists()


@pytest.mark.slow
def test_packages_that_are_downloaded_before_need_no_index_in_the_build(
    built: BuiltImage, place: Place
) -> None:
    place.define("tiny-download")
    builder = place.builder.model_copy(update={"wheels": "download"})
    image = build("tiny-download", "docker", None, builder, print)
    assert image.sha256 != built.sha256
    log = (Path(place.builder.cache or "") / image.key / "build.log").read_text()
    assert "Looking in links: /opt/rdtl/build/wheels" in log
    assert "Looking in indexes" not in log.partition("docker build")[2]
    _, lock = load("tiny-download")
    run = ("run", "--rm", "--network", "none", image.reference, "cat", "/opt/rdtl/installed.txt")
    assert dict(line.split("==") for line in docker(place, *run).splitlines()) == lock.packages()


def test_the_commands_show_what_is_there(
    built: BuiltImage, converted: BuiltImage, place: Place
) -> None:
    (place.folder / "mine.yaml").write_text(yaml.safe_dump(place.builder.model_dump()))

    def rdtl(*arguments: str) -> str:
        argv = [sys.executable, "-m", "launcher", "image", *arguments, "--builder", "mine.yaml"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        options = {"env": environment, "capture_output": True, "text": True, "check": True}
        return str(subprocess.run(argv, cwd=place.folder, **options).stdout)

    listed = {image["sha256"] for image in json.loads(rdtl("list", "--json"))}
    assert {built.sha256, converted.sha256} <= listed
    facts = json.loads(rdtl("inspect", converted.reference, "--test", "--json"))
    assert facts["sha256"] == converted.sha256
    assert facts["tests"][-1] == "self-test: 1 tests passed"
    facts = json.loads(rdtl("inspect", "tiny", "--with", "docker", "--test", "--json"))
    assert facts["labels"]["io.rdtl.key"] == built.key
    assert facts["tests"][-1] == "self-test: 1 tests passed"
    assert "USER 1000" in rdtl("dockerfile", "tiny")
    assert "%post" in rdtl("def", "tiny")


@pytest.mark.slow  # asks PyPI
def test_the_definitions_own_index_is_asked_when_the_builder_has_none(
    place: Place, tmp_path: Path
) -> None:
    files = secret_index.download(secret_index.lock_text(), tmp_path)
    with secret_index.serve(files, password=False) as index:
        place.define("open", extra_index=f"http://{index.host}/simple")
        change = {"pip_config": None, "ca": builders.load("local").ca}
        image = build("open", "docker", None, place.builder.model_copy(update=change), print)
    assert image.labels["io.rdtl.image"] == "open"
    assert any("/simple/easydict/" in path for path in index.asked)


@pytest.mark.slow
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
