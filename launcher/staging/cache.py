"""The cache of staged assets: content-addressed, shared by runs, whole or absent.

::

    CACHE/assets/DIGEST/manifest.json   what it is; DIGEST is the manifest's digest
    CACHE/assets/DIGEST/files/…         read-only
    CACHE/assets/DIGEST/used            touched whenever somebody asks for it
    CACHE/assets/DIGEST/leaving.*       a cleaner looks whether it may go
    CACHE/sources/KEY.json              what a URI was the last time (KEY: digest of the URI)
    CACHE/work/KEY@HOST/                what has arrived so far; kept for the next try
    CACHE/references/DIGEST/*.json      runs that read it
    CACHE/locks/KEY.lock                held while a URI is fetched
    CACHE/trash/                        on its way out

An asset appears under its digest by one rename. The lock only saves work: where a network file
system ignores it, two fetch and the first rename wins. Using and removing need no lock either
(:mod:`launcher.staging.leaving`).
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import socket
import tempfile
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from launcher.core import files, manifest
from launcher.core.errors import RdtlError
from launcher.core.manifest import Manifest
from launcher.staging import leaving
from launcher.staging.locks import Held, held
from launcher.staging.uri import Uri

ABANDONED = 120.0
"""Seconds without a write after which another machine's half asset is taken over; a transfer that
lives writes at least every 60 s or ends."""
TAKEN = (errno.EEXIST, errno.ENOTEMPTY)


@dataclass(frozen=True)
class Source:
    """What a URI was when it was staged last."""

    uri: str
    listing: str
    """Digest of what the store listed."""
    digest: str
    """Of the manifest of what arrived."""
    single: bool
    """The URI names one file."""
    fetch: str
    """Different for every transfer: who waited for another one sees that it is new."""


@dataclass(frozen=True)
class Asset:
    """Something whole in the cache."""

    root: Path
    manifest: Manifest

    @property
    def files(self) -> Path:
        """The folder that holds its files."""
        return self.root / "files"


class Cache:
    """The assets below one directory."""

    def __init__(self, root: Path) -> None:
        self.root = root

    # What a URI was

    def source(self, uri: Uri) -> Source | None:
        """What ``uri`` was the last time, or None."""
        return _source(self.root / "sources" / f"{key_of(uri)}.json")

    def sources(self) -> list[Source]:
        """All URIs that were ever staged."""
        paths = sorted((self.root / "sources").glob("*.json"))
        return [source for path in paths if (source := _source(path))]

    def remember(self, uri: Uri, source: Source) -> None:
        """Write down what ``uri`` is now."""
        files.write_json(self.root / "sources" / f"{key_of(uri)}.json", asdict(source))

    # Assets

    def asset(self, digest: str) -> Asset | None:
        """The asset of this digest when all its files are there with their lengths, else None."""
        root = self.root / "assets" / digest
        try:
            found = manifest.read(root / "manifest.json")
            for file in found.files:
                if os.stat(f"{root}/files/{file.path}").st_size != file.size:  # noqa: PTH116
                    return None
        except (OSError, RdtlError):
            return None
        return Asset(root, found) if found.digest == digest else None

    def assets(self) -> list[Path]:
        """The folders of all assets, whole or damaged."""
        return sorted((self.root / "assets").glob("*"))

    def use(self, digest: str, run: Path | None) -> Asset | None:
        """The asset, referenced by ``run`` from now on and not to be removed; None without it."""
        if run is not None:
            name = hashlib.sha256(str(run).encode()).hexdigest()[:16]
            files.write_json(self._references(digest) / f"{name}.json", {"run": str(run)})
        leaving.decided(self.root / "assets" / digest)
        found = self.asset(digest)
        if found:
            try:
                (found.root / "used").touch()
            except FileNotFoundError:  # removed in this moment: no run was named, or no mark seen
                return None
        return found

    def publish(self, work: Path, contents: Manifest, *, replace: bool = False) -> Asset:
        """Give ``work/files`` its name; it is flushed first.

        One that is there with the right lengths is kept unless ``replace`` is set; it is removed
        only when the new one has its name, since runs may be reading it.
        """
        files.sync_file_system(work)
        files.write_text(work / "manifest.json", contents.text)
        target = self.root / "assets" / contents.digest
        target.parent.mkdir(parents=True, exist_ok=True)
        old: list[Path] = []
        for _ in range(3):
            try:
                work.rename(target)
                break
            except OSError as error:
                if error.errno not in TAKEN:
                    raise
                if self.asset(contents.digest) and not replace:
                    self.discard(work)
                    break
                with suppress(FileNotFoundError):  # another one made room
                    old.append(self._away(target))
        files.sync_directory(target.parent)
        for folder in old:
            shutil.rmtree(folder, ignore_errors=True)
        (target / "used").touch()
        return Asset(target, contents)

    # Removing

    def references(self, digest: str) -> list[Path]:
        """Runs that have asked for this asset, whether they still exist or not."""
        found = []
        for path in sorted(self._references(digest).glob("*.json")):
            with suppress(OSError, ValueError, KeyError, TypeError):
                found.append(Path(files.read_json(path)["run"]))
        return found

    def remove(self, digest: str, wanted: Callable[[Path], bool]) -> bool:
        """Remove an asset unless a run that is still ``wanted`` references it; False then."""
        folder = self.root / "assets" / digest
        try:
            with leaving.marked(folder):
                if any(wanted(run) for run in self.references(digest)):
                    return False
                self.discard(folder)
        except FileNotFoundError:  # another cleaner was faster
            return False
        return True

    def discard(self, folder: Path) -> None:
        """Remove a folder of the cache; it loses its name first."""
        shutil.rmtree(self._away(folder), ignore_errors=True)

    def empty_trash(self, seconds: float) -> None:
        """Remove what killed cleaners left at least ``seconds`` ago; the others are at work."""
        for away in (self.root / "trash").glob("*"):
            if self.idle(away) >= seconds:
                shutil.rmtree(away, ignore_errors=True)

    def now(self) -> float:
        """The time as the cache's file system has it: clocks of nodes differ, this one is one."""
        self.root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=self.root) as probe:
            return os.fstat(probe.fileno()).st_mtime

    # Fetching

    def work(self, uri: Uri, *, shared: bool) -> Path:
        """The folder in which ``uri`` arrives, with what an earlier try left in it.

        It is this machine's own, since some file systems keep locks to one machine; what another
        one left and has not touched for a while is taken over. Without locks it is this call's own.
        """
        key, host = key_of(uri), socket.gethostname()
        folder = self.root / "work" / f"{key}@{host}{'' if shared else f'.{uuid.uuid4().hex}'}"
        if not folder.exists():
            for left in self.work_folders():
                if key_in(left) == key and self.idle(left) > ABANDONED:
                    with suppress(OSError):  # taken by somebody else
                        left.rename(folder)
                        break
        (folder / "files").mkdir(parents=True, exist_ok=True)
        return folder

    def work_folders(self) -> list[Path]:
        """All that is or was being fetched."""
        return sorted((self.root / "work").glob("*@*"))

    def idle(self, folder: Path) -> float:
        """Seconds since anything was written below ``folder``; 0 when it vanishes meanwhile."""
        try:
            newest = max(path.lstat().st_mtime for path in (folder, *folder.rglob("*")))
        except FileNotFoundError:
            return 0.0
        return self.now() - newest

    def locked(
        self, key: str, say: Callable[[str], None], *, wait: bool = True
    ) -> AbstractContextManager[Held]:
        """Hold the lock of a URI while it is fetched: :func:`launcher.staging.locks.held`."""
        return held(self.root / "locks" / f"{key}.lock", say, wait=wait)

    def _references(self, digest: str) -> Path:
        return self.root / "references" / digest

    def _away(self, folder: Path) -> Path:
        away = self.root / "trash" / uuid.uuid4().hex
        away.parent.mkdir(parents=True, exist_ok=True)
        os.utime(folder)  # the time when it lost its name, for empty_trash
        folder.rename(away)
        return away


def key_in(work: Path) -> str:
    """The key of the URI that arrives in a working folder."""
    return work.name.partition("@")[0]


def key_of(uri: Uri) -> str:
    """Name of a URI's own files."""
    return hashlib.sha256(str(uri).encode("utf-8")).hexdigest()


def _source(path: Path) -> Source | None:
    try:
        return Source(**files.read_json(path))
    except (OSError, ValueError, TypeError):  # another version's, or nothing
        return None
