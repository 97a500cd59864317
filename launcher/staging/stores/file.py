"""``file:///PATH``: a disk that this machine sees."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from launcher.core import files, manifest
from launcher.core.errors import file_system
from launcher.staging import failures
from launcher.staging.store import ALONE, Listing, RcloneStore, Remote, StoreEntry
from launcher.staging.uri import Uri


class FileStore(RcloneStore):
    """A folder or a file; links are followed. Every file is read once for its digest."""

    def remote(self, uri: Uri) -> Remote:
        """The path itself."""
        return Remote(uri.path, ALONE)

    def list(self, uri: Uri, names: Sequence[str] | None = None) -> Listing:
        """What lies there now, with SHA-256; with ``names`` nothing else is read."""
        path = Path(uri.path)
        try:
            if path.is_file():
                facts, digest = path.stat(), files.sha256(path)
                entry = StoreEntry(path.name, facts.st_size, {"sha256": digest})
                return Listing((entry,), Remote(str(path.parent), ALONE), single=True)
            inside = manifest.make(path, names).files if path.is_dir() else ()
        except OSError as error:
            raise file_system(error, f"listing {uri}") from error
        if not inside:
            raise failures.make("RDTL-G002", str(uri), "no file lies there")
        found = tuple(StoreEntry(one.path, one.size, {"sha256": one.sha256}) for one in inside)
        return Listing(found, self.remote(uri))


def store() -> FileStore:
    """The adapter."""
    return FileStore()
