"""rclone's configuration file: which remotes it holds, and one section of it written anew.

The file is rclone's own, so that ``rclone`` by hand and a recipe know the same remotes. rclone's
commands take a token as a word of an argv, which everybody on the machine can read; so the
section is written here.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from launcher.core import files
from launcher.core.errors import RefusedError, UsageError
from launcher.staging.uri import REMOTE

ENCRYPTED = "RCLONE_ENCRYPT_"


def config_file() -> Path:
    """Where rclone keeps its remotes."""
    if named := os.environ.get("RCLONE_CONFIG"):
        return Path(named)
    home = Path(os.environ.get("XDG_CONFIG_HOME", "~/.config")).expanduser()
    return home / "rclone" / "rclone.conf"


def require_name(name: str) -> None:
    """UsageError RDTL-G040 for what rclone would not take as the name of a remote."""
    if not REMOTE.fullmatch(name):
        raise UsageError(
            "RDTL-G040",
            f"{name!r} cannot be the name of a remote",
            why="letters, digits, _ . + @ and, inside, - and spaces are what rclone takes",
            fix="choose a plain word, such as gg1",
        )


def sections(text: str) -> dict[str, dict[str, str]]:
    """The remotes of a configuration file with their values, in its order."""
    found: dict[str, dict[str, str]] = {}
    for line in text.splitlines():
        if name := _header(line):
            found[name] = {}
        elif found and "=" in line and not line.lstrip().startswith(("#", ";")):
            key, _, value = line.partition("=")
            found[list(found)[-1]][key.strip()] = value.strip()
    return found


def with_section(text: str, name: str, values: Mapping[str, str]) -> str:
    """``text`` with the section ``name`` replaced or added; every other line as it was."""
    kept, inside = [], False
    for line in text.splitlines():
        if header := _header(line):
            inside = header == name
        if not inside:
            kept.append(line)
    while kept and not kept[-1].strip():
        kept.pop()
    section = [f"[{name}]", *(f"{key} = {value}" for key, value in values.items())]
    return "\n".join([*kept, *([""] if kept else []), *section, ""])


def read(path: Path) -> str:
    """The text of a configuration file, empty when there is none.

    Raises RefusedError RDTL-G041 for an encrypted one.
    """
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    if text.splitlines()[:1] and ENCRYPTED in text[:400]:
        raise RefusedError(
            "RDTL-G041",
            "the configuration of rclone is encrypted",
            where=str(path),
            why="a section can only be added to a file that can be read",
            fix="`rclone config encryption remove`, or RCLONE_CONFIG=OTHER_FILE for another file",
        )
    return text


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """No other login writes the file meanwhile; the lock is that of its folder."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def write(path: Path, text: str) -> None:
    """Replace the file as a whole; nobody but its owner can read it, at no moment."""
    with files.whole_file(path.resolve()) as temporary:
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        temporary.write_text(text, encoding="utf-8")


def _header(line: str) -> str | None:
    stripped = line.strip()
    return stripped[1:-1] if stripped.startswith("[") and stripped.endswith("]") else None
