"""The list of a folder of embeddings: who made them, and which file is of which instruction."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from launcher.core import files
from launcher.core.errors import RefusedError

FILE = "manifest.json"


@dataclass
class Manifest:
    """``encoder``: `source` as it was named, `digest` of what decides its numbers, `width`,
    `dtype`, and `files`, its name, size and mtime. ``sentences`` by plain instruction:
    the `sentence` that was encoded, `file`, its `sha256`, and how many `tokens` it has."""

    encoder: dict[str, Any]
    sentences: dict[str, dict[str, Any]] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Replace the folder's list as a whole."""
        files.write_json(folder / FILE, asdict(self))

    def path(self, folder: Path, instruction: str) -> Path:
        """The file of an instruction. Raises RefusedError RDTL-D021 when it is not, any
        more, the one that was made."""
        entry = self.sentences[instruction]
        path = folder / entry["file"]
        if not path.is_file():
            raise _unfit(path, f"it is missing; {FILE} lists it for {instruction!r}")
        if sha256(path) != entry["sha256"]:
            raise _unfit(path, f"its bytes are not those that {FILE} lists")
        return path


def read(folder: Path) -> Manifest | None:
    """The list in ``folder``, if there is one. Raises RefusedError RDTL-D021 for a broken one."""
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        found = Manifest(**files.read_json(path))
        for entry in found.sentences.values():
            if Path(entry["file"]).name != entry["file"]:
                raise ValueError(f"{entry['file']} is no file of this folder")
    except (json.JSONDecodeError, UnicodeDecodeError, TypeError, KeyError, ValueError) as error:
        raise _unfit(path, f"it is no such list: {error}") from error
    return found


def sha256(path: Path) -> str:
    """Digest of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _unfit(path: Path, reason: str) -> RefusedError:
    return RefusedError(
        "RDTL-D021",
        "a folder of language embeddings is damaged",
        where=f"{path}: {reason}",
        why="the policy would be told to do something else, or nothing",
        fix="make the missing ones again: rdtl data embed … --out " + str(path.parent),
    )
