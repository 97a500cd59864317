"""What a store has to be able to do: list, and say how rclone reaches it.

An adapter (``stores/NAME.py``) is a class with this protocol; most of them only say how
rclone reaches the place and leave the rest to :class:`RcloneStore`. A store never moves
bytes that rclone can move.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from launcher.staging.uri import Uri

HASHES = ("sha256", "sha1", "md5", "crc32c", "git-sha1")
"""Kinds of checksum that can be proven here, the strongest first. ``git-sha1`` is the name of a
blob in git (as Hugging Face gives for small files); all values are lower-case hexadecimal."""


@dataclass(frozen=True)
class StoreEntry:
    """One file as the store describes it."""

    path: str
    """Relative to the listing's ``remote``, parts separated by /."""
    size: int
    checksums: dict[str, str] = field(default_factory=dict)
    """Kind (one of HASHES) → lower-case hexadecimal value; empty where the store knows none."""
    version: str = ""
    """Whatever changes with the content where there is no checksum: time, ETag, generation."""


@dataclass(frozen=True)
class Remote:
    """How rclone reaches one folder of a store: the last word of an argv, and an environment."""

    spec: str
    """``NAME:PATH``, or an absolute local path. No secret: it stands in the process list."""
    environment: dict[str, str] = field(default_factory=dict, repr=False)
    """``RCLONE_CONFIG_NAME_…``; may hold secrets, so it is never printed nor written."""
    options: tuple[str, ...] = ()
    """Further options for rclone, such as ``--http-no-head``."""

    def at(self, path: str) -> Remote:
        """What lies at ``path`` below it."""
        between = "" if self.spec.endswith((":", "/")) else "/"
        return replace(self, spec=f"{self.spec}{between}{path}")


ALONE = {"RCLONE_CONFIG": "/dev/null"}
"""For a remote that is whole in itself: one of the user's file must not change what it means."""


@dataclass(frozen=True)
class Listing:
    """Everything below a URI at one moment, sorted by path."""

    entries: tuple[StoreEntry, ...]
    remote: Remote
    single: bool = False
    """The URI names one file; ``remote`` is then the folder that holds it."""


Move = Callable[[Remote, Remote, Sequence[str]], None]
"""The engine: copy these paths from one place to another (``engine.Engine.move``)."""


class Store(Protocol):
    """One kind of place."""

    def list(self, uri: Uri, names: Sequence[str] | None = None) -> Listing:
        """What lies there now; with ``names`` those of them that lie below ``uri``, at the least.

        Raises RdtlError RDTL-G002 when there is nothing, RemoteError RDTL-G011 when nobody
        answers, RDTL-G014 when the credentials or the name of a remote are refused.
        """
        ...

    def upload(self, uri: Uri, folder: Path, paths: Sequence[str], move: Move) -> None:
        """Put these files of ``folder`` below ``uri``; whole files only, proven by the caller
        through :meth:`list`. RefusedError RDTL-G022 for a store that cannot be written."""
        ...


class RcloneStore:
    """A store that rclone knows: an adapter only says how to reach a URI."""

    def remote(self, uri: Uri) -> Remote:
        """How rclone reaches exactly this URI."""
        raise NotImplementedError  # abstract: each adapter knows its own remote

    def list(self, uri: Uri, names: Sequence[str] | None = None) -> Listing:
        """See :meth:`Store.list`."""
        from launcher.staging import listing

        return listing.of_rclone(self.remote(uri), str(uri), names)

    def upload(self, uri: Uri, folder: Path, paths: Sequence[str], move: Move) -> None:
        """See :meth:`Store.upload`."""
        move(Remote(str(folder.absolute())), self.remote(uri), paths)
