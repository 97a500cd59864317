"""What one build is asked for, and what building with Docker and with Apptainer share."""

from __future__ import annotations

import functools
import hashlib
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from launcher.core import files
from launcher.core.errors import UsageError
from launcher.core.node_facts import architecture
from launcher.images import context, render, tools, wheels
from launcher.images.builder import Builder
from launcher.images.definition import Definition, Lock
from launcher.images.errors import build_failed
from launcher.images.store import Store

Say = Callable[[str], None]


@dataclass(frozen=True)
class Order:
    """Everything that one build needs to know."""

    name: str
    definition: Definition
    lock: Lock
    builder: Builder
    say: Say

    @property
    def store(self) -> Store:
        """The builder's store."""
        return Store(self.builder.cache_directory())

    @property
    def marks(self) -> dict[str, str]:
        """Labels that go into the text."""
        versions = self.lock.versions()
        return render.labels(self.name, self.definition, self.lock.sha256, versions)

    @property
    def download(self) -> bool:
        """Whether packages are downloaded before the build."""
        return self.builder.wheels == "download"

    def key(self, text: str, base: str, tool: str) -> str:
        """Digest of all inputs: SHA-256, 64 hexadecimal digits."""
        steps = context.steps_digest(self.definition)
        parts = [text, self.lock.sha256, steps, base, tool, architecture()]
        return hashlib.sha256("\0".join(parts).encode("utf-8")).hexdigest()

    def base_identity(self) -> str:
        """What the image starts from: the pinned registry name, or the archive's SHA-256."""
        if not self.builder.base:
            return self.definition.base
        path = archive(self.builder.base)
        return _digest_of(path, path.stat().st_mtime_ns)

    def write_context(self, workspace: Path) -> Path:
        """Make ``workspace/context``, downloading packages first where the builder says so."""
        packages = wheels.download(self, workspace) if self.download else None
        folder = workspace / "context"
        folder.mkdir()
        context.write(folder, self.definition, self.lock, packages)
        return folder

    def run(self, argv: list[str], environment: dict[str, str], log: Path, where: Path) -> None:
        """Run a tool in ``where``; RdtlError with the end of its log when it fails.

        The log of a failed build outlives the workspace as STORE/failed/NAME.log.
        """
        status = tools.run_logged(argv, environment, log, tools.Redaction(self.builder), where)
        if status != 0:
            kept = self.store.root / "failed" / f"{self.name}.log"
            files.write_text(kept, log.read_text(encoding="utf-8"))
            raise build_failed(" ".join(argv[:2]), status, kept)


def archive(path: str) -> Path:
    """Absolute path of an archive; UsageError RDTL-C024 when there is none."""
    found = Path(path).expanduser().absolute()
    if not found.is_file():
        raise UsageError(
            "RDTL-C024",
            "there is no such archive",
            where=str(found),
            fix="give the path of a docker-archive or oci-archive",
        )
    return found


def archive_kind(path: Path) -> str:
    """docker-archive or oci-archive, judged by what is in it."""
    with tarfile.open(path) as tar:
        return "oci-archive" if "oci-layout" in tar.getnames() else "docker-archive"


def arguments(**values: str) -> list[str]:
    """Build arguments, the same for docker and apptainer."""
    return [word for name, value in values.items() for word in ("--build-arg", f"{name}={value}")]


@functools.cache
def _digest_of(path: Path, mtime_ns: int) -> str:
    """Digest of a file as it was at ``mtime_ns``; a program that builds twice reads it once."""
    return files.sha256(path)
