"""A tiny definition, a builder and an index with a password: what tests of building start from."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from launcher.images import builder as builders
from launcher.images import tools
from launcher.images.builder import Builder
from tests.images import secret_index, small
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
UNABLE = small.unavailable("docker") or small.unavailable("apptainer")


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
            remove_images(builder)


def remove_images(builder: Builder) -> None:
    """Take what these tests have built out of the engine; its base stays for the next run."""
    environment = tools.docker_environment(builder)
    for name in ("tiny", "tiny-download", "open"):
        named = ["--quiet", "--no-trunc", "--filter", f"label=io.rdtl.image={name}"]
        listed = tools.ask([builder.docker, "image", "ls", *named], environment) or ""
        for identity in set(listed.split()):
            tools.ask([builder.docker, "image", "rm", "--force", identity], environment)


def docker(place: Place, *arguments: str) -> str:
    argv = [place.builder.docker, *arguments]
    environment = tools.docker_environment(place.builder)
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def holding(folder: Path, words: list[bytes]) -> list[str]:
    """Files below ``folder`` that hold one of the words."""
    argv = ["grep", "-raFl", *[part for word in words for part in ("-e", word.decode())], "."]
    done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    return done.stdout.splitlines()
