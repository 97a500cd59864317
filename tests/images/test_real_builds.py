"""The shipped CPU images, really built by Docker and by Apptainer; minutes each."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from launcher import config
from launcher.images import builder as builders
from launcher.images import selftest
from launcher.images.build import build
from launcher.images.definition import load
from launcher.images.resolve import resolve
from launcher.images.store import BuiltImage
from tests.images import root_range, small

unable = small.unavailable("docker") or small.unavailable("apptainer")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(unable is not None, reason=str(unable)),
]


def installed(image: BuiltImage) -> str:
    """The list that the image's build wrote, read from the SIF as a job would read it."""
    argv = [builders.load().apptainer, "-q", "exec", "--userns", "--no-home", "--cleanenv"]
    argv += [image.reference, "cat", "/opt/rdtl/installed.txt"]
    return subprocess.run(argv, capture_output=True, text=True, check=True, cwd="/").stdout


@pytest.mark.parametrize("name", ["sim-cpu", "train-cpu", "all-cpu"])
def test_both_roads_end_in_the_packages_of_the_lock(name: str, tmp_path: Path) -> None:
    """Docker and conversion use the user's store; Apptainer alone starts from nothing."""
    local = builders.load("local")
    converted = build(name, "apptainer", "docker", local, print)
    other = local.model_copy(update={"cache": str(tmp_path / "store")})
    (tmp_path / "other.yaml").write_text(config.to_yaml(other))
    rdtl = [sys.executable, "-m", "launcher", "image", "build", name, "--with", "apptainer"]
    rdtl += ["--builder", str(tmp_path / "other.yaml")]
    subprocess.run(root_range.argv(tmp_path, *rdtl), check=True)
    alone = resolve(name, "apptainer", other)
    _, lock = load(name)
    assert installed(alone) == installed(converted)
    found = dict(line.split("==") for line in installed(alone).splitlines() if "==" in line)
    packages = {package.replace("_", "-").lower(): version for package, version in found.items()}
    assert packages == lock.packages()
    assert alone.sha256 != converted.sha256  # builds are not reproducible to the bit
    assert selftest.run(alone, load(name)[0], local)[-1].endswith("tests passed")
