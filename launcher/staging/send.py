"""Out: a folder of this machine lies in a store, whole, and that is known and not assumed.

Files go first and are held to the store's checksums (or read back where it has none); the
manifest goes last, so its presence means whole. Only then may anything be deleted here.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from launcher.core import files, manifest
from launcher.core.errors import RdtlError, RefusedError, UsageError, file_system
from launcher.core.manifest import File, Manifest
from launcher.staging import failures, own_copy, published, stores
from launcher.staging.engine import Engine, read_back
from launcher.staging.progress import Progress
from launcher.staging.store import Listing, Move, Remote, Store, StoreEntry
from launcher.staging.uri import Uri
from launcher.staging.verify import THREADS, hashes, strongest

ABSENT = ("RDTL-G002", "RDTL-G016")
"""Codes of a place that is not there yet: a folder, a repository."""


@dataclass(frozen=True)
class Parcel:
    """What is to go where."""

    folder: Path
    uri: Uri
    paths: Sequence[str] | None = None
    """Only these files, and no manifest: more may come to the same place. Unset: the folder."""
    replace: bool = False
    """Something else that was uploaded to the same place may be replaced."""
    delete: bool = False
    """Delete what is proven to be there."""
    transfers: int = 8
    bandwidth: str | None = None
    say: Callable[[str], None] = lambda text: None
    show: Callable[[Progress], None] = lambda progress: None


@dataclass(frozen=True)
class Sent:
    """What :func:`send` proved to be in the store."""

    manifest: Manifest
    moved: int
    """Files that were transferred for this call."""


def send(parcel: Parcel) -> Sent:
    """Upload and prove; then delete here, when asked to.

    Raises RdtlError: RDTL-G003 contents differ after several tries, G011 no answer, G014
    refused, G021 the folder keeps changing, G023 what cannot be staged, G025 something else
    lies there, G046 the place is the folder itself.
    """
    if not parcel.folder.is_dir():
        raise UsageError(
            "RDTL-G018",
            "there is no such folder",
            where=str(parcel.folder),
            fix="rdtl stage out FOLDER URI",
        )
    try:
        sending = _Sending(parcel)
        sending.run()
        if parcel.delete:
            sending.delete()
    except OSError as error:
        raise file_system(error, f"{parcel.folder} was uploaded") from error
    return Sent(sending.manifest, sending.moved)


class _Sending:
    """One upload, until everything is proven."""

    def __init__(self, parcel: Parcel) -> None:
        self.parcel = parcel
        self.store: Store = stores.store_for(parcel.uri.scheme)
        self.facts = _facts(parcel)
        own_copy.require_other(parcel.folder, parcel.uri, self.facts)
        self.trace = own_copy.trace(parcel.folder)
        with ThreadPoolExecutor(THREADS) as pool:
            digests = pool.map(lambda p: files.sha256(parcel.folder / p), self.facts)
            pairs = zip(self.facts.items(), digests, strict=True)
            self.manifest = Manifest.of(File(path, f[0], digest) for (path, f), digest in pairs)
        entries = [StoreEntry(file.path, file.size) for file in self.manifest.files]
        self.progress = Progress.of(entries, parcel.show)
        self.right: set[str] = set()
        self.knows = False
        """Whether the store has been seen to keep checksums."""
        self.moved = 0

    def run(self) -> None:
        """Upload what is missing until it is proven, then the manifest."""
        there = self._list()
        self._require_place(there)
        self._prove(there, read=False)
        idle = 0
        while missing := self._missing():
            if idle > len(failures.WAITS):
                raise self._wrong(missing)
            if idle:
                self.parcel.say(f"trying again: {len(missing)} files")
                time.sleep(failures.WAITS[idle - 1])
            had = len(self.right)
            # What is known to differ must go even if length and time are equal; where nothing is
            # known, equal ones are left alone once and then read back.
            self._upload(missing, force=idle > 0 or self.knows, last=idle == len(failures.WAITS))
            self._prove(self._list(), read=True)
            idle = 0 if len(self.right) > had else idle + 1
        self._require_unchanged()
        if self.parcel.paths is None:
            self._publish()

    def delete(self) -> None:
        """Delete what is proven to be there (links, not what they lead to), then empty folders."""
        self._require_unchanged()
        if own_copy.trace(self.parcel.folder) != self.trace:
            raise own_copy.refusal(self.parcel.folder, self.parcel.uri)
        for path in {self._own(file.path) for file in self.manifest.files}:
            path.unlink()
        for folder in sorted(self.parcel.folder.rglob("*"), reverse=True):
            if folder.is_dir() and not folder.is_symlink() and not any(folder.iterdir()):
                folder.rmdir()

    def _own(self, path: str) -> Path:
        """What of ``path`` lies in the folder itself: the file, or the first link on the way."""
        way = [self.parcel.folder / place for place in (Path(path), *Path(path).parents[:-1])]
        return next((place for place in reversed(way) if place.is_symlink()), way[0])

    def _missing(self) -> list[File]:
        return [file for file in self.manifest.files if file.path not in self.right]

    def _list(self) -> Listing:
        try:
            return self.store.list(self.parcel.uri, self.parcel.paths)
        except RdtlError as error:
            if error.problem.code not in ABSENT:
                raise
            return Listing((), Remote(""))

    def _upload(self, missing: list[File], *, force: bool, last: bool) -> None:
        engine = self._engine(["--ignore-times"] if force else [])
        try:
            self.store.upload(
                self.parcel.uri, self.parcel.folder, [file.path for file in missing], engine
            )
            self.moved += len(missing)
        except RdtlError as error:
            if last or error.problem.code not in failures.TRANSIENT:
                raise
            self.parcel.say(failures.brief(error))

    def _engine(self, extra: list[str]) -> Move:
        engine = Engine(self.parcel.transfers, self.parcel.bandwidth, on_bytes=self.progress.moved)
        return lambda source, target, paths: engine.move(source, target, paths, *extra)

    def _prove(self, there: Listing, *, read: bool) -> None:
        """Note what lies there as it lies here; with ``read`` read back what has no checksum."""
        entries = {entry.path: entry for entry in there.entries}
        silent = []
        for file in self._missing():
            entry = entries.get(file.path)
            if entry is None or entry.size != file.size:
                continue
            kind = strongest(entry)
            if kind is None:
                silent.append(file)
                continue
            self.knows = True
            if self._sum(file, kind) == entry.checksums[kind].lower():
                self._count(file)
        if silent and read:
            found = read_back(there.remote, [file.path for file in silent])
            for file in silent:
                if found.get(file.path) == file.sha256:
                    self._count(file)

    def _sum(self, file: File, kind: str) -> str:
        if kind == "sha256":
            return file.sha256
        return hashes(self.parcel.folder / file.path, {kind})[1][kind]

    def _count(self, file: File) -> None:
        self.right.add(file.path)
        self.progress.proven(file)

    def _publish(self) -> None:
        """The manifest, last; read back, because from now on others believe it."""
        with tempfile.TemporaryDirectory() as folder:
            files.write_text(Path(folder, published.NAME), self.manifest.text)
            move: Move = lambda *places: Engine().move(*places, "--ignore-times")  # noqa: E731
            self.store.upload(self.parcel.uri, Path(folder), [published.NAME], move)
        there, where = self._list(), str(self.parcel.uri)
        if published.read(there.remote, where) != self.manifest:
            raise self._wrong([])
        published.hold(there, self.manifest, where)

    def _require_place(self, there: Listing) -> None:
        """RefusedError RDTL-G025 when another folder was uploaded there before."""
        whole = self.parcel.paths is None and not self.parcel.replace
        if not whole or all(entry.path != published.NAME for entry in there.entries):
            return
        earlier = published.read(there.remote, str(self.parcel.uri))
        if earlier != self.manifest:
            raise RefusedError(
                "RDTL-G025",
                "something else was uploaded there",
                where=f"{self.parcel.uri}: manifest {earlier.digest[:12]}, "
                f"here {self.manifest.digest[:12]}",
                why="the place would hold a mixture of both until the upload ends",
                fix="name another place, or say --replace",
            )

    def _require_unchanged(self) -> None:
        if _facts(self.parcel) != self.facts:
            raise RdtlError(
                "RDTL-G021",
                "the folder has changed while it was uploaded",
                where=str(self.parcel.folder),
                why="what is in the store is neither the old nor the new state",
                fix="upload it again when its writer is done",
            )

    def _wrong(self, missing: list[File]) -> RdtlError:
        return RdtlError(
            "RDTL-G003",
            f"{len(missing)} uploaded file(s) are not what they are here",
            where=f"{self.parcel.uri}: {', '.join(file.path for file in missing[:3])}",
            why="the store has other contents after several tries, or another process writes "
            "there; nothing was deleted here",
            fix="run the same command again; look at the store when it stays",
        )


def _facts(parcel: Parcel) -> dict[str, tuple[int, int]]:
    """Length and time of every file that is to go, by path."""
    wanted = None if parcel.paths is None else set(parcel.paths)
    found = {
        path: (facts.st_size, facts.st_mtime_ns)
        for path, facts in manifest.local_files(parcel.folder)
        if wanted is None or path in wanted
    }
    return {path: found[path] for path in sorted(found) if path != published.NAME}
