"""The manifest that stands beside uploaded files: written last, so its presence means whole.

What it promises is what a later ``rdtl stage in`` holds the files to, also in stores that
keep no checksums.
"""

from __future__ import annotations

from dataclasses import replace

from launcher.core import manifest
from launcher.core.errors import RdtlError
from launcher.core.manifest import Manifest
from launcher.staging import engine
from launcher.staging.store import Listing, Remote

NAME = "rdtl-manifest.json"


def read(remote: Remote, where: str) -> Manifest:
    """The manifest in the folder ``remote``; RdtlError RDTL-G020 when it is none."""
    text = engine.ask(remote.at(NAME), "cat", f"--count={manifest.LONGEST}")
    return manifest.parse(text, f"{where}/{NAME}")


def promised(listing: Listing, where: str) -> Listing:
    """``listing`` as its manifest promises it; as it is when there is no manifest."""
    if listing.single or all(entry.path != NAME for entry in listing.entries):
        return listing
    return hold(listing, read(listing.remote, where), where)


def hold(listing: Listing, promise: Manifest, where: str) -> Listing:
    """``listing`` with the digests of a manifest, and only its files.

    Raises RDTL-G002 when files of the manifest are missing or of another length: an upload
    over an older one that has not ended, or a folder that was changed by hand.
    """
    there = {entry.path: entry for entry in listing.entries}
    broken = [
        file.path
        for file in promise.files
        if file.path not in there or there[file.path].size != file.size
    ]
    if broken:
        raise RdtlError(
            "RDTL-G002",
            f"{len(broken)} file(s) of the manifest are missing or of another length",
            where=f"{where}: {', '.join(broken[:3])}",
            why="an upload over it has not ended, or somebody changed the folder",
            fix="finish the upload (rdtl stage out …), or remove its rdtl-manifest.json to stage "
            "what is there",
        )
    entries = (
        replace(there[file.path], checksums={**there[file.path].checksums, "sha256": file.sha256})
        for file in promise.files
    )
    return replace(listing, entries=tuple(entries))
