"""Builders: how this machine builds images. ``configs/builders/NAME.yaml``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from launcher import config
from launcher.core.errors import UsageError
from launcher.schema_base import Section


class Builder(Section):
    """Tools, base and package sources of this machine; no secrets, only where they lie."""

    base: str = ""
    """Archive to start from (docker-archive; for Apptainer also oci-archive) instead of the
    definition's registry image."""
    docker: str = "docker"
    """Docker client: a program on the PATH or a path. It must know BuildKit."""
    docker_host: str | None = None
    """DOCKER_HOST for it; unset: the caller's."""
    apptainer: str = "apptainer"
    """Apptainer 1.2 or newer: a program on the PATH or a path."""
    fakeroot: bool = True
    """Whether Apptainer builds with --fakeroot."""
    compression: Literal["gzip", "zstd", "lz4"] = "gzip"
    """Of SIF files. zstd builds four times faster, but kernels before 4.14 cannot mount it."""
    wheels: Literal["index", "download"] = "index"
    """index: pip downloads inside the build; download: here, before the build, which then needs
    no network for Python packages."""
    pip_config: str | None = None
    """pip.conf with the index to use; mounted while packages are installed, never kept."""
    ca: str | None = None
    """Bundle of certificate authorities that the index needs; mounted likewise."""
    cache: str | None = None
    """The store of built images; unset: $XDG_CACHE_HOME/rdtl/images or ~/.cache/rdtl/images."""

    def cache_directory(self) -> Path:
        """Absolute path of the store."""
        user = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
        return Path(self.cache or f"{user}/rdtl/images").expanduser().absolute()

    def secrets(self) -> dict[str, Path]:
        """Files that a build may read but must not keep: pipconf, ca; those that are set.

        Raises UsageError RDTL-U001 for a file that does not exist.
        """
        found: dict[str, Path] = {}
        for identity, key in (("pipconf", "pip_config"), ("ca", "ca")):
            if value := getattr(self, key):
                path = Path(value).expanduser().absolute()
                if not path.is_file():
                    raise UsageError(
                        "RDTL-U001", f"builder key {key}: no such file", where=str(path)
                    )
                found[identity] = path
        return found


def load(name: str | None = None) -> Builder:
    """The builder called ``name``; without one `local` where it exists, else `default`.

    Raises UsageError RDTL-U001 (unknown key, bad value), RDTL-U002 (no such builder).
    """
    name = name or ("local" if "local" in config.names("builders") else "default")
    path = config.find("builders", name)
    return config.validate(Builder, config.read_yaml(path), str(path))
