"""Manifests: which files belong to an asset, how long they are, and their digests.

The one format by which staged bytes are known, here and on the nodes::

    {"format": "rdtl-manifest-1", "files": [{"path": "a/b", "sha256": "…", "size": 3}, …]}

Sorted by path, canonical JSON: equal contents have equal manifests, so the digest of
a manifest names its contents. A manifest may come from anywhere: reading one believes
nothing, and no path of one can leave the folder that it is used on.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from launcher.core import files
from launcher.core.errors import RdtlError

FORMAT = "rdtl-manifest-1"
LONGEST = 100 * 1024 * 1024  # bytes of a manifest: some 700,000 files
HASHERS = 4


@dataclass(frozen=True, order=True)
class File:
    """One file: where below the folder, bytes, SHA-256 in lower-case hexadecimal."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """All files of an asset, sorted by path."""

    files: tuple[File, ...]

    @classmethod
    def of(cls, entries: Iterable[File]) -> Manifest:
        """A manifest of files in any order; RdtlError RDTL-G020 when it could not be read back."""
        manifest = cls(tuple(sorted(entries)))
        _require_usable(manifest.files)
        return manifest

    @cached_property
    def text(self) -> str:
        """Canonical JSON: what :func:`launcher.core.files.dump_json` writes, five times as fast."""
        listed = ",\n".join(map(_lines_of, self.files))
        inner = f"[\n{listed}\n  ]" if listed else "[]"
        return f'{{\n  "files": {inner},\n  "format": "{FORMAT}"\n}}\n'

    @cached_property
    def digest(self) -> str:
        """SHA-256 of :attr:`text`: the name of the contents."""
        return hashlib.sha256(self.text.encode("utf-8")).hexdigest()

    @cached_property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(file.size for file in self.files)


def parse(text: str | bytes, where: str) -> Manifest:
    """The manifest that ``text`` holds; RdtlError RDTL-G020 for anything else."""
    try:
        data = json.loads(text)
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise ValueError(f"it does not say that its format is {FORMAT}")
        listed = data.get("files")
        if not isinstance(listed, list):
            raise ValueError("it has no list of files")
        found = tuple(sorted(_file(entry) for entry in listed))
    except (ValueError, RecursionError) as error:  # what json raises is a ValueError, too
        raise _bad(where, str(error)) from error
    _require_usable(found, where)
    return Manifest(found)


def read(path: Path) -> Manifest:
    """The manifest in a file; RdtlError RDTL-G020, or FileNotFoundError when there is none."""
    if path.stat().st_size > LONGEST:
        raise _bad(str(path), f"it is longer than {LONGEST} bytes")
    return parse(path.read_bytes(), str(path))


def _lines_of(file: File) -> str:
    path = json.dumps(file.path, ensure_ascii=False)
    return (
        f'    {{\n      "path": {path},\n      "sha256": "{file.sha256}",\n'
        f'      "size": {file.size}\n    }}'
    )


def _file(entry: Any) -> File:
    if not isinstance(entry, dict) or set(entry) != {"path", "size", "sha256"}:
        raise ValueError(f"an entry is not path, size and sha256: {str(entry)[:80]}")
    path, size, digest = entry["path"], entry["size"], entry["sha256"]
    if not isinstance(path, str) or type(size) is not int or not isinstance(digest, str):
        raise ValueError(f"an entry has values of wrong types: {str(entry)[:80]}")
    if size < 0 or len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
        raise ValueError(f"size or digest of {path[:80]!r} is none")
    return File(path, size, digest)


def unusable(path: str) -> str | None:
    """Why ``path`` cannot name a file below a folder, or None when it can."""
    parts = path.split("/")
    if path.startswith("/") or any(part in ("", ".", "..") for part in parts):
        return "it is absolute, or has an empty part, . or .."
    odd = not path.isprintable()  # asking for each letter costs more than all the rest
    if odd and any(unicodedata.category(letter) in ("Cc", "Cs") for letter in path):
        return "it holds a control character or half a character"
    if any(len(part.encode("utf-8")) > 255 for part in parts) or len(path.encode("utf-8")) > 4000:
        return "it is longer than file systems allow"
    return None


def _require_usable(found: Iterable[File], where: str = "") -> None:
    seen: set[str] = set()
    for file in found:
        if why := unusable(file.path):
            raise _bad(where, f"{file.path[:80]!r}: {why}")
        if file.path in seen:
            raise _bad(where, f"{file.path[:80]!r} stands in it twice")
        seen.add(file.path)
    folders = {path[:place] for path in seen for place, letter in enumerate(path) if letter == "/"}
    if both := folders & seen:
        raise _bad(where, f"{min(both)[:80]!r} is a file and a folder")


def _bad(where: str, why: str) -> RdtlError:
    return RdtlError(
        "RDTL-G020",
        "this is no manifest that can be used",
        where=where,
        why=why,
        fix="nothing was done with it; stage the asset again (rdtl stage in URI), or ask whoever "
        "wrote it",
    )


def local_files(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Every file below ``folder`` with its facts, links followed, in no order.

    Raises RdtlError RDTL-G023 for what cannot be staged: a loop of links, a link to
    nothing, a pipe or device, a name that is not UTF-8 or holds control characters.
    """
    yield from _below(folder, folder, ())


def _below(
    top: Path, folder: Path, above: tuple[tuple[int, int], ...]
) -> Iterator[tuple[str, os.stat_result]]:
    here = folder.stat()
    if (here.st_dev, here.st_ino) in above:
        raise _cannot_stage(folder, "it is a link to a folder that it lies in: a loop")
    for entry in os.scandir(folder):
        path = Path(entry.path)
        try:
            facts = entry.stat()
        except OSError as error:
            raise _cannot_stage(path, f"it cannot be followed: {error.strerror}") from error
        if stat.S_ISDIR(facts.st_mode):
            yield from _below(top, path, (*above, (here.st_dev, here.st_ino)))
            continue
        name = str(path.relative_to(top))
        if not stat.S_ISREG(facts.st_mode):
            raise _cannot_stage(path, "it is neither a file nor a folder")
        if why := unusable(name):
            raise _cannot_stage(path, why)
        yield name, facts


def _cannot_stage(path: Path, why: str) -> RdtlError:
    return RdtlError(
        "RDTL-G023",
        "this cannot be staged",
        where=os.fsencode(path).decode("utf-8", "replace"),
        why=why,
        fix="rename or remove it, then run the same command again; nothing was left out silently",
    )


def make(folder: Path, names: Iterable[str] | None = None) -> Manifest:
    """The manifest of what lies below ``folder`` now; raises what :func:`local_files` raises.

    With ``names`` only of those of them that are files there.
    """
    if names is None:
        listed = sorted((path, facts.st_size) for path, facts in local_files(folder))
    else:
        here = sorted(name for name in set(names) if (folder / name).is_file())
        listed = [(name, (folder / name).stat().st_size) for name in here]
    with ThreadPoolExecutor(HASHERS) as pool:
        digests = pool.map(lambda entry: files.sha256(folder / entry[0]), listed)
        return Manifest.of(
            File(*entry, digest) for entry, digest in zip(listed, digests, strict=True)
        )


def differences(
    folder: Path, manifest: Manifest, each: Callable[[File], None] = lambda file: None
) -> list[str]:
    """What is not as the manifest says, one sentence a file: every byte is read again.

    ``each`` is called after each file, in any thread. Files too many are named, too.
    """

    def check(file: File) -> str | None:
        path = folder / file.path
        try:
            size = path.stat().st_size
            if size != file.size:
                return f"{file.path}: {size} bytes, should be {file.size}"
            if files.sha256(path) != file.sha256:
                return f"{file.path}: its contents have changed"
            return None
        except OSError as error:
            return f"{file.path}: {error.strerror}"
        finally:
            each(file)

    with ThreadPoolExecutor(HASHERS) as pool:
        found = [text for text in pool.map(check, manifest.files) if text]
    known = {file.path for file in manifest.files}
    if folder.is_dir():
        found += [f"{p}: does not belong here" for p, _ in local_files(folder) if p not in known]
    return sorted(found)
