"""From what a person names as an image to the one file or Docker image that will run."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from launcher.core import files
from launcher.core.errors import RdtlError, UsageError
from launcher.core.node_facts import architecture
from launcher.images import definition, sif, tools
from launcher.images.builder import Builder
from launcher.images.store import BuiltImage, Kind, Store


def resolve(image: str, kind: str, builder: Builder) -> BuiltImage:
    """The image that ``image`` means: a definition's name, a path of a SIF, a Docker reference.

    ``kind`` is apptainer or docker. What is returned was checked: present,
    unchanged since it was built, for this machine's architecture and, for a
    definition, built from the lock as it is now.
    Raises UsageError RDTL-C024, RdtlError RDTL-C025, C026, C027 or C029.
    """
    if image in definition.names():
        return _by_name(image, "docker" if kind == "docker" else "apptainer", builder)
    found = _docker_reference(image, builder) if kind == "docker" else _sif(image)
    _require_architecture(found)
    return found


def verify(image: BuiltImage, full: bool = False) -> None:
    """Raise RdtlError RDTL-C025 when the SIF is not the file that was recorded.

    The file is hashed when size or time differ from the record, and always with ``full``.
    A Docker image needs no look: its Id is its content.
    """
    if image.kind == "apptainer" and not intact(image, full):
        raise RdtlError(
            "RDTL-C025",
            f"image {image.name} is not the file that was built",
            where=f"{image.reference}: SHA-256 is not {image.sha256[:16]}… of its image.json",
            why="results of a changed image would be counted as those of this one",
            fix=f"rdtl image build {image.name} --with apptainer makes it again",
        )


def intact(image: BuiltImage, full: bool = False) -> bool:
    """Whether a SIF is the file that was recorded; see :func:`verify`."""
    path = Path(image.reference)
    status = path.stat()
    same = (status.st_size, status.st_mtime_ns) == (image.size_bytes, image.mtime_ns)
    return (same and not full) or files.sha256(path) == image.sha256


def _by_name(name: str, kind: Kind, builder: Builder) -> BuiltImage:
    _, lock = definition.load(name)
    command = f"rdtl image build {name} --with {kind}"
    store = Store(builder.cache_directory())
    found = store.named(name, kind)
    if found is None or (kind == "docker" and not in_engine(found, builder)):
        where = builder.cache_directory() if found is None else builder.docker_host or "the engine"
        raise UsageError(
            "RDTL-C024",
            f"image {name} is not built for {kind} here",
            where=str(where),
            why="runs take finished images; their tasks never build or pull",
            fix=f"{command}; only to look at a plan and its scripts: --dry-run --runtime none",
        )
    verify(found)
    _require_architecture(found)
    require_lock(found, lock)
    return store.use(found)


def require_lock(image: BuiltImage, lock: definition.Lock) -> None:
    """Raise RdtlError RDTL-C027 when the image was built from another lock."""
    if image.lock_sha256 != lock.sha256:
        raise RdtlError(
            "RDTL-C027",
            f"image {image.name} was built from another lock than the definition's",
            where=f"image {image.lock_sha256[:16] or 'without'}, {lock.path} {lock.sha256[:16]}",
            why="it holds other package versions than the lock says",
            fix=f"rdtl image build {image.name} --with {image.kind}",
        )


def in_engine(image: BuiltImage, builder: Builder) -> bool:
    """Whether the engine still has this Docker image."""
    asked = [builder.docker, "image", "inspect", f"sha256:{image.sha256}"]
    return tools.ask(asked, tools.docker_environment(builder)) is not None


def _require_architecture(image: BuiltImage) -> None:
    actual = image.architecture
    if image.kind == "apptainer":
        actual = sif.architecture(Path(image.reference))
    if actual != architecture():
        raise RdtlError(
            "RDTL-C026",
            f"image {image.name} is for {actual}, this machine is {architecture()}",
            where=image.reference,
            why="its programs cannot run here",
            fix="build it on a machine of this architecture",
        )


def _sif(image: str) -> BuiltImage:
    """A SIF by its path: the store's record when it lies in a store, else what the file says."""
    path = Path(image).expanduser().absolute()
    if not path.is_file():
        raise UsageError(
            "RDTL-C024",
            f"there is no image {image}",
            where=f"neither a definition ({', '.join(definition.names())}) nor the file {path}",
            fix="rdtl image list shows what is built; rdtl image build NAME --with apptainer",
        )
    store = Store(path.parent.parent)
    recorded = store.find(path.parent.name)
    if recorded and recorded.reference == str(path):
        verify(recorded)
        return store.use(recorded)
    return from_file(path)


def from_file(path: Path, key: str = "") -> BuiltImage:
    """The record of a SIF from what the file says of itself; the whole file is hashed."""
    labels, status = sif.labels(path), path.stat()
    return BuiltImage(
        name=labels.get("io.rdtl.image", path.stem),
        kind="apptainer",
        reference=str(path),
        sha256=files.sha256(path),
        key=key or labels.get("io.rdtl.key", ""),
        lock_sha256=labels.get("io.rdtl.lock", ""),
        architecture=sif.architecture(path),
        size_bytes=status.st_size,
        built=datetime.fromtimestamp(status.st_mtime, UTC).isoformat(timespec="seconds"),
        labels=labels,
        mtime_ns=status.st_mtime_ns,
    )


def _docker_reference(image: str, builder: Builder) -> BuiltImage:
    """A Docker image that is already in the engine; nothing is pulled."""
    answer = tools.ask(
        [builder.docker, "image", "inspect", image], tools.docker_environment(builder)
    )
    if answer is None:
        tools.docker_version(builder)  # no engine at all is another error
        raise UsageError(
            "RDTL-C024",
            f"the engine has no image {image}",
            where=f"neither a definition ({', '.join(definition.names())}) nor an image",
            fix=f"docker pull {image}, or rdtl image build NAME --with docker",
        )
    return from_inspect(json.loads(answer)[0], image)


def from_inspect(facts: dict[str, Any], reference: str) -> BuiltImage:
    """The record of a Docker image from what `docker image inspect` says of it."""
    labels = facts["Config"].get("Labels") or {}
    return BuiltImage(
        name=labels.get("io.rdtl.image", reference),
        kind="docker",
        reference=facts["Id"],
        sha256=facts["Id"].removeprefix("sha256:"),
        key=labels.get("io.rdtl.key", ""),
        lock_sha256=labels.get("io.rdtl.lock", ""),
        architecture=facts["Architecture"],
        size_bytes=facts["Size"],
        built=facts["Created"][:19] + "+00:00",
        labels=labels,
    )
