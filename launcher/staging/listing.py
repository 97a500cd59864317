"""Listings, believing nothing: a missing prefix is no empty folder, a name may lead elsewhere."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from launcher.core import manifest
from launcher.core.errors import RdtlError
from launcher.staging import engine, failures
from launcher.staging.store import HASHES, Listing, Remote, StoreEntry

OPTIONS = (
    "--recursive",
    "--files-only",
    "--hash",
    "--no-mimetype",
    "--copy-links",  # as the copy does; without it links of a disk would be left out silently
    # The time of upload comes with a listing; the time that rclone stored costs a request a file.
    "--use-server-modtime",
)
FEW = 100
"""So many files are asked for one by one; for more, their folders are listed."""
LOOP = 20
"""How often a name stands in a path that goes around in circles; systems end it after 40 links."""
QUOTE = "\N{SINGLE HIGH-REVERSED-9 QUOTATION MARK}"
"""rclone writes it before characters that it cannot carry; such names would change."""


def of_rclone(remote: Remote, where: str, names: Sequence[str] | None) -> Listing:
    """What lies below ``remote``, with ``names`` only these; ``where`` names it in errors.

    Raises RdtlError RDTL-G002 when nothing does, and what :func:`launcher.staging.engine.ask`
    raises; RDTL-G023 for a name that cannot be staged.
    """
    found = json.loads(_asked(remote, names))
    if not found:
        raise failures.make("RDTL-G002", where, "no file lies there")
    entries = tuple(sorted((_entry(one, where) for one in found), key=lambda one: one.path))
    parent, name = _split(remote.spec)
    single = names is None and len(entries) == 1 and entries[0].path == name and _is_file(remote)
    return Listing(entries, replace(remote, spec=parent) if single else remote, single)


def _asked(remote: Remote, names: Sequence[str] | None) -> str:
    if names is None:
        return engine.ask(remote, "lsjson", *OPTIONS)
    each = ["--no-traverse"] if len(names) <= FEW else []
    with engine.listed(names) as path:
        return engine.ask(remote, "lsjson", *OPTIONS, *each, f"--files-from0={path}")


def _split(spec: str) -> tuple[str, str]:
    """The folder that holds the last name of ``spec``, and that name."""
    head, slash, name = spec.rpartition("/")
    if slash:
        return head if head and not head.endswith(":") else f"{head}/", name
    remote, _, name = spec.partition(":")
    return f"{remote}:", name


def _is_file(remote: Remote) -> bool:
    """A folder that holds one file of its own name looks like that file in a listing."""
    return not json.loads(engine.ask(remote, "lsjson", "--stat", "--no-mimetype"))["IsDir"]


def _entry(one: dict[str, Any], where: str) -> StoreEntry:
    path, size = str(one["Path"]), int(one["Size"])
    why = None
    if QUOTE in path:
        why = "it holds a character that rclone cannot carry"
    if path.count("/") >= LOOP and max(Counter(path.split("/")).values()) > LOOP:
        why = "a link there leads back to a folder that it lies in: a loop"
    if size < 0:
        why = "its size is not known (a document that the store makes when it is asked for)"
    if why:
        raise _cannot_stage(path, where, why)
    hashes = {kind: value for kind, value in (one.get("Hashes") or {}).items() if kind in HASHES}
    return StoreEntry(path, size, hashes, str(one.get("ModTime", "")))


def require_names(found: Listing, where: str) -> Listing:
    """``found``, when every name of it stays in the folder that it is laid into; else RDTL-G023.

    Whoever may write to a store chooses its names: ``../x`` is a good one in a bucket.
    """
    for entry in found.entries:
        if why := manifest.unusable(entry.path):
            raise _cannot_stage(entry.path, where, why)
    return found


def _cannot_stage(path: str, where: str, why: str) -> RdtlError:
    return RdtlError(
        "RDTL-G023",
        "a file cannot be staged",
        where=f"{where}: {path[:200]!r}",
        why=why,
        fix="rename or remove it there, or name a folder without it",
    )
