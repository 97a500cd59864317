"""The store of built images: content-addressed, whole or absent, safe to share.

::

    STORE/KEY/image.json   what was built (BuiltImage); its presence means: built
    STORE/KEY/image.sif    the file, for Apptainer; a Docker image lies in its engine
    STORE/KEY/build.log    what the tools said, without secrets
    STORE/names/NAME.KIND.json   the newest KEY of a name
    STORE/locks/KEY.lock   held while KEY is built
    STORE/tmp/             work in progress

KEY is a digest of everything that goes in; the image's identity is the digest of
what came out (two builds of one input differ). A directory appears under its KEY
by one rename. The lock only saves work: where a network file system ignores it,
two builders work and the first rename wins.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import socket
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from launcher.core import files
from launcher.core.errors import file_system, full_disk

Kind = Literal["apptainer", "docker"]


@dataclass(frozen=True)
class BuiltImage:
    """One built image."""

    name: str
    kind: Kind
    reference: str
    """What a runtime is given: the path of the SIF, or the Docker image's name."""
    sha256: str
    """Identity: digest of the SIF, or the Docker image's Id without its prefix."""
    key: str
    """Digest of what went in; empty for a SIF that was not built here."""
    lock_sha256: str
    architecture: str
    size_bytes: int
    built: str
    """UTC, ISO 8601."""
    labels: dict[str, str]
    mtime_ns: int = 0
    """Of the SIF when it was hashed; 0 for Docker."""


class Store:
    """The images below one directory."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def find(self, key: str) -> BuiltImage | None:
        """The image of ``key``, or None when it is not built or its file is gone."""
        try:
            image = BuiltImage(**files.read_json(self.root / key / "image.json"))
        except (FileNotFoundError, TypeError):  # TypeError: another version's record
            return None
        if image.kind == "docker":
            return image
        path = self.root / key / "image.sif"  # the store may have moved since
        return _at(image, path) if path.is_file() else None

    def named(self, name: str, kind: Kind) -> BuiltImage | None:
        """The newest image of a name."""
        try:
            pointer = files.read_json(self.root / "names" / f"{name}.{kind}.json")
        except FileNotFoundError:
            return None
        return self.find(pointer["key"])

    def images(self) -> list[BuiltImage]:
        """All images, newest first."""
        found = [self.find(path.parent.name) for path in self.root.glob("*/image.json")]
        return sorted(filter(None, found), key=lambda image: image.built, reverse=True)

    def used(self, key: str) -> float:
        """When somebody asked for this image last, in seconds since 1970."""
        return (self.root / key / "image.json").stat().st_mtime

    def use(self, image: BuiltImage) -> BuiltImage:
        """Note that somebody asks for it; a store of others' keeps its own time."""
        with suppress(OSError):
            os.utime(self.root / image.key / "image.json")
        return image

    def remove(self, folder: Path) -> None:
        """Take a directory of the store away, at once for everybody else.

        Raises RdtlError RDTL-G018 when this user may not.
        """
        try:
            with self._workspace(folder.name) as space:
                folder.rename(space / "removed")
        except OSError as error:
            raise file_system(error, "it was removed from the store of images") from error

    def get_or_make(
        self,
        key: str,
        make: Callable[[Path], BuiltImage],
        usable: Callable[[BuiltImage], bool] = lambda image: True,
        say: Callable[[str], None] = lambda text: None,
    ) -> BuiltImage:
        """The image of ``key``; built by ``make(directory)`` when nobody has built it.

        ``make`` leaves ``image.sif`` (for Apptainer) and ``build.log`` in the
        directory. Whoever comes while another one builds waits and finds the result.
        Raises RdtlError RDTL-G009 for a full disk, and what ``make`` raises.
        """
        try:
            image = self._usable(key, usable)
            if image is None:
                with self._locked(key, say):
                    image = self._usable(key, usable) or self._make(key, make, usable)
            files.write_json(self.root / "names" / f"{image.name}.{image.kind}.json", {"key": key})
            return self.use(image)
        except OSError as error:
            if known := full_disk(error, "an image was built"):
                raise known from error
            raise

    def _usable(self, key: str, usable: Callable[[BuiltImage], bool]) -> BuiltImage | None:
        image = self.find(key)
        return image if image and usable(image) else None

    def _make(
        self, key: str, make: Callable[[Path], BuiltImage], usable: Callable[[BuiltImage], bool]
    ) -> BuiltImage:
        self._sweep()
        with self._workspace(key) as folder:
            result = folder / "result"
            result.mkdir()
            image = make(result)
            files.write_json(result / "image.json", asdict(image))
            self._publish(result, key, usable)
        published = self.find(key)
        assert published is not None, f"{self.root / key} vanished while it was published"
        return published

    def _publish(self, result: Path, key: str, usable: Callable[[BuiltImage], bool]) -> None:
        """Flush and rename. Who was first wins; a directory that is of no use makes room."""
        for path in result.iterdir():
            with path.open("rb") as handle:
                os.fsync(handle.fileno())
        files.sync_directory(result)
        target = self.root / key
        try:
            result.rename(target)
        except OSError:
            if not target.is_dir():
                raise
            if self._usable(key, usable):
                return
            target.rename(result.with_name("replaced"))  # goes with the workspace
            result.rename(target)
        files.sync_directory(self.root)

    @contextmanager
    def _locked(self, key: str, say: Callable[[str], None]) -> Iterator[None]:
        """Hold the key's lock; a holder that is killed frees it."""
        (self.root / "locks").mkdir(parents=True, exist_ok=True)
        with (self.root / "locks" / f"{key}.lock").open("w") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say("waiting for another builder of the same image")
                fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    @contextmanager
    def _workspace(self, key: str) -> Iterator[Path]:
        """A directory for one attempt, named after its owner so that others can tell it is dead."""
        owner = f"{socket.gethostname()}.{os.getpid()}.{uuid.uuid4().hex[:8]}"
        folder = self.root / "tmp" / f"{key[:16]}@{owner}"
        folder.mkdir(parents=True)
        try:
            yield folder
        finally:
            remove_tree(folder)

    def _sweep(self) -> None:
        """Remove what killed builders of this machine left; others' is not judged here."""
        for folder in (self.root / "tmp").glob("*@*"):
            host, pid, _ = folder.name.split("@", 1)[1].rsplit(".", 2)
            if host == socket.gethostname() and not Path(f"/proc/{pid}").exists():
                remove_tree(folder)


def remove_tree(folder: Path) -> None:
    """Remove a directory as far as this user may.

    A killed `apptainer build --fakeroot` leaves files that belong to the user's subordinate ids,
    and directories without write permission; what cannot be removed costs space, nothing else.
    """
    for current, folders, _ in os.walk(folder):
        for path in (Path(current, name) for name in folders):
            if not path.is_symlink():
                with suppress(PermissionError):
                    path.chmod(0o700)
    shutil.rmtree(folder, onerror=_forgive)


def _forgive(function: Any, path: str, info: Any) -> None:
    if not isinstance(info[1], PermissionError) and info[1].errno != errno.ENOTEMPTY:
        raise info[1]


def _at(image: BuiltImage, path: Path) -> BuiltImage:
    data: dict[str, Any] = {**asdict(image), "reference": str(path)}
    return BuiltImage(**data)
