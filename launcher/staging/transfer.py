"""One transfer into a working folder: what is missing is asked for until all of it is proven.

As long as anything arrives it goes on; what arrived is held to the store's checksums while
the rest is still on its way. Nothing is taken as done because a program said so.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from launcher.core import files
from launcher.core.errors import RdtlError
from launcher.staging import failures, published, stores
from launcher.staging.engine import Engine
from launcher.staging.listing import require_names
from launcher.staging.progress import Progress
from launcher.staging.store import Listing, Remote, StoreEntry
from launcher.staging.uri import Uri
from launcher.staging.verify import PARTED, Prover, strongest

SILENCE_S = 90.0
"""Without a byte before a try is given up; rclone itself waits 60 s for one file's."""
CHANGES = 5
"""How often a source may change under a transfer."""
DOWNLOADING = (
    "--ignore-checksum",  # proven here, from what lies on the disk
    "--no-check-dest",  # what lies there is not asked for again
    "--use-server-modtime",
    "--local-no-set-modtime",  # the time of a file of the cache is when it arrived
    "--local-no-preallocate",
)
IN_PLACE = ("--inplace", f"--multi-thread-cutoff={PARTED}B")
"""Written under their own names: only for files whose checksums tell half ones."""


@dataclass(frozen=True)
class Order:
    """What is wanted, and how it is to be moved."""

    uri: Uri
    run: Path | None = None
    """The run that will read it."""
    fresh: bool = False
    """Transfer it even when it is there."""
    transfers: int = 8
    bandwidth: str | None = None
    listed: Callable[[], Listing] | None = None
    """Lists what is wanted, and raises when it is something else (an asset's definition); unset:
    whatever lies at the URI."""
    say: Callable[[str], None] = lambda text: None
    show: Callable[[Progress], None] = lambda progress: None


def listed(order: Order) -> Listing:
    """What lies at the URI now, as the manifest there promises it."""
    found = order.listed() if order.listed else stores.store_for(order.uri.scheme).list(order.uri)
    return published.promised(require_names(found, str(order.uri)), str(order.uri))


def patiently_listed(order: Order) -> Listing:
    """The listing of a store that may be overloaded for some seconds (429, 500, 503)."""
    for seconds in failures.WAITS:
        try:
            return listed(order)
        except RdtlError as error:
            if error.problem.code != "RDTL-G024":
                raise
            order.say(f"{failures.brief(error)}\ntrying again in {seconds:.0f} s")
            time.sleep(seconds)
    return listed(order)


def digest_of(listing: Listing) -> str:
    """Changes when anything changes that the store says."""
    lines = [(one.path, one.size, one.checksums, one.version) for one in listing.entries]
    return hashlib.sha256(json.dumps(lines, sort_keys=True).encode("utf-8")).hexdigest()


class Transfer:
    """One transfer into a working folder, until everything is proven."""

    def __init__(self, order: Order, listing: Listing, work: Path) -> None:
        self.order = order
        self.listing = listing
        self.folder = work / "files"
        self.record = work / "listing.json"
        self.prover = Prover(self.folder)
        self.progress = Progress.of(listing.entries, order.show)
        self.moved = 0

    def run(self) -> None:
        """Go on until all is proven, or nothing arrives any more."""
        self._keep_what_belongs()
        changes = idle = 0
        error: RdtlError | None = None
        while missing := self._missing():
            if idle > len(failures.WAITS):
                raise error or self._corrupt(missing)
            if idle:
                self.order.say(f"{failures.brief(error)}\ntrying again: {len(missing)} files")
                time.sleep(failures.WAITS[idle - 1])
            had = len(self.prover.proven)
            error = self._move(missing)
            idle = 0 if len(self.prover.proven) > had else idle + 1
            if self._missing() or not self._certain():
                changes += self._follow_changes()
                if changes > CHANGES:
                    raise self._restless()
        for name in self._arrived():  # a killed rclone leaves its half file
            if name not in self.prover.proven:
                (self.folder / name).unlink()

    def _missing(self) -> list[StoreEntry]:
        return [entry for entry in self.listing.entries if entry.path not in self.prover.proven]

    def _certain(self) -> bool:
        """Whether every entry has a checksum; without one, only a second listing tells."""
        return all(strongest(entry) for entry in self.listing.entries)

    def _move(self, missing: list[StoreEntry]) -> RdtlError | None:
        """Fetch and prove; the error of a try that may be repeated, None when there was none."""
        self._require_space(missing)
        had = len(self.prover.proven)
        by_path = {entry.path: entry for entry in missing}

        def arrived(path: str) -> None:
            if path in by_path:
                self.prover.start(by_path.pop(path))
                self._count(wait=False)

        def growing(path: str) -> None:
            if certain and path in by_path:
                self.prover.follow(by_path[path])

        certain = self._certain()
        options = (*DOWNLOADING, *(IN_PLACE if certain else ()))
        order = self.order
        engine = Engine(order.transfers, order.bandwidth, arrived, self.progress.moved, growing)
        engine.silence_s = SILENCE_S
        error = None
        try:
            engine.move(self.listing.remote, self._here(), list(by_path), *options)
        except RdtlError as failure:
            if failure.problem.code not in (*failures.TRANSIENT, "RDTL-G002"):
                raise
            error = failure
        finally:
            for path in list(by_path):  # arrived without a word
                arrived(path)
            self._count(wait=True)
            self.moved += len(self.prover.proven) - had
        return error

    def _here(self) -> Remote:
        return Remote(str(self.folder.absolute()))

    def _keep_what_belongs(self) -> None:
        """Of what an earlier try left, keep whole files of this listing, and prove them."""
        wanted = {entry.path: entry for entry in self.listing.entries}
        earlier = _versions(self.record)
        for name in self._arrived():
            entry, path = wanted.get(name), self.folder / name
            same = entry and (strongest(entry) or earlier.get(entry.path) == entry.version)
            if entry and same and path.stat().st_size == entry.size:
                self.prover.start(entry)
            else:
                path.unlink()
        self._count(wait=True)
        self._record()

    def _count(self, *, wait: bool) -> None:
        for file in self.prover.collect(wait=wait):
            self.progress.proven(file)

    def _arrived(self) -> list[str]:
        """Paths below the folder of all files there, as the listing writes them."""
        top = len(f"{self.folder}/")
        walked = os.walk(self.folder)
        return [f"{folder}/{name}"[top:] for folder, _, names in walked for name in names]

    def _record(self) -> None:
        versions = {entry.path: entry.version for entry in self.listing.entries}
        files.write_json(self.record, versions)

    def _follow_changes(self) -> int:
        """List again and forget what is not so any more; 1 when anything had changed."""
        try:
            again = listed(self.order)
        except RdtlError as error:
            if self._missing() and error.problem.code in failures.TRANSIENT:
                return 0  # the next try of what is missing will say the same, or succeed
            raise
        if digest_of(again) == digest_of(self.listing):
            return 0
        self.order.say("the source has changed meanwhile: what changed is fetched again")
        old = {entry.path: entry for entry in self.listing.entries}
        new = {entry.path: entry for entry in again.entries}
        for path in old:
            if new.get(path) != old[path]:
                self.prover.forget(path)
        self.listing = again
        self.progress.restart(again.entries, self.prover.proven)
        self._record()
        return 1

    def _require_space(self, missing: list[StoreEntry]) -> None:
        needed = sum(entry.size for entry in missing)
        free = shutil.disk_usage(self.folder).free
        if needed > free:
            detail = f"{needed / 1e9:.2f} GB are missing, {free / 1e9:.2f} GB are free"
            raise failures.make("RDTL-G009", str(self.folder), detail)

    def _corrupt(self, missing: list[StoreEntry]) -> RdtlError:
        return RdtlError(
            "RDTL-G003",
            f"{len(missing)} file(s) arrived, but are not what the store says they are",
            where=f"{self.order.uri}: {', '.join(entry.path for entry in missing[:3])}",
            why="their lengths or checksums differ after several transfers; using them would be "
            "training on something else",
            fix="check the file in the store (its checksum may be of an older content), or the "
            "disk here",
        )

    def _restless(self) -> RdtlError:
        return RdtlError(
            "RDTL-G021",
            "the source keeps changing while it is copied",
            where=str(self.order.uri),
            why="a mixture of two states is neither of them",
            fix="wait until its writer is done, or stage a copy or a revision that does not change",
        )


def _versions(path: Path) -> dict[str, str]:
    try:
        found = files.read_json(path)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
