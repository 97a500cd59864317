"""A token for a remote of rclone, on a machine without a browser.

The browser is elsewhere: ``rclone authorize`` over there prints a token, which comes in
through standard input, is tried by listing, and only then written, for its owner alone.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import shlex
import sys
import termios
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher.config import key_value
from launcher.core.errors import RdtlError, UsageError, file_system
from launcher.staging import engine, remotes
from launcher.staging.store import Remote

SECRET = ("token", "secret", "pass", "key", "credential")
DEFAULTS = {"drive": {"scope": "drive"}}
"""What a remote of a kind needs besides its token."""


@dataclass(frozen=True)
class Login:
    """The remote that is to be: its name, rclone's kind, its options, a folder to try it on."""

    name: str
    kind: str
    options: Mapping[str, str]
    path: str = ""

    @property
    def values(self) -> dict[str, str]:
        """Its section without the token."""
        return {"type": self.kind, **DEFAULTS.get(self.kind, {}), **self.options}


def parse(name: str, kind: str, settings: Sequence[str], path: str) -> Login:
    """What a command line asks for; UsageError RDTL-G040, RDTL-U004, RDTL-W003 for a secret."""
    remotes.require_name(name)
    options = {}
    for setting in settings:
        key, value = key_value(setting)
        if "\n" in setting:
            raise UsageError("RDTL-U004", "--set needs one line", where=f"--set {key}")
        if any(word in key for word in SECRET) and not key.endswith(("_url", "_file")):
            raise UsageError(
                "RDTL-W003",
                f"{key} is a secret, and a command line is not",
                why="every user of this machine can read it while the command runs, and the shell "
                "keeps it",
                fix=f"put it into {remotes.config_file()} with an editor, or give the token on "
                "standard input",
            )
        options[key] = value
    return Login(name, kind, options, path)


def instructions(login: Login) -> list[str]:
    """What to do on a machine with a browser."""
    blob = json.dumps({k: v for k, v in login.values.items() if k != "type"}).encode()
    words = ["rclone", "authorize", login.kind]
    words += [base64.b64encode(blob).decode().rstrip("=")] if blob != b"{}" else []
    return [
        f"On a machine with a browser and rclone ({engine.program()} is of the same release):",
        "",
        f"    {shlex.join(words)}",
        "",
        "Allow the access there, then paste what it prints here and press Enter. It is not shown.",
        "From a file instead: rdtl stage login … < FILE",
    ]


def token_of(text: str) -> dict[str, str]:
    """What ``rclone authorize`` printed, as values of a section: the token, maybe options.

    Takes the token itself, rclone's base64 of it, and either with the lines around it.
    Raises UsageError RDTL-G044, which shows nothing of the text.
    """
    for line in text.splitlines():
        found = _json(line.strip())
        if found and "access_token" in found:
            return {"token": json.dumps(found, separators=(",", ":"))}
        inner = _json(found["token"]) if found and isinstance(found.get("token"), str) else None
        if found and inner and "access_token" in inner:
            return {key: str(value).replace("\n", " ") for key, value in found.items()}
    raise UsageError(
        "RDTL-G044",
        "there is no token in what was given",
        where=f"standard input, {len(text)} characters",
        why="a token is one line with access_token in it, or the base64 word that rclone printed",
        fix="copy everything between the arrows that `rclone authorize` prints, in one line",
    )


def _json(line: str) -> dict[str, Any] | None:
    try:
        padded = line + "=" * (-len(line) % 4)
        raw = line if line.startswith("{") else base64.b64decode(padded, validate=True)
        found = json.loads(raw)
    except (ValueError, binascii.Error):
        return None
    return found if isinstance(found, dict) else None


def read_hidden() -> str:
    """Lines of the terminal until they hold a token, without showing them.

    Not by its own line editing: that cuts a line after 4,095 characters, which some tokens have.
    """
    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)
    silent = termios.tcgetattr(terminal)
    silent[3] &= ~(termios.ECHO | termios.ICANON)
    termios.tcsetattr(terminal, termios.TCSADRAIN, silent)
    text = ""
    try:
        for line in _lines(terminal):
            text += line
            try:
                token_of(text)
                break
            except UsageError:
                continue
    finally:
        termios.tcsetattr(terminal, termios.TCSAFLUSH, before)  # what else was pasted is dropped
    return text


def _lines(terminal: int) -> Iterator[str]:
    kept = b""
    while (block := os.read(terminal, 65536)) not in (b"", b"\x04"):
        *lines, kept = (kept + block).replace(b"\r", b"\n").split(b"\n")
        yield from (f"{line.decode(errors='replace')}\n" for line in lines)
    yield kept.decode(errors="replace")


def finish(login: Login, text: str) -> list[str]:
    """Try the token by listing, then write it; returns the names that lie there.

    Raises UsageError RDTL-G044, RefusedError RDTL-G041, and what a listing raises; a remote
    that works is never replaced by one that does not.
    """
    path = remotes.config_file()
    section = {**login.values, **token_of(text)}
    try:
        with remotes.alone(path):
            return _tried(login, path, section)
    except OSError as error:
        raise file_system(error, "the remote was written") from error


def _tried(login: Login, path: Path, section: Mapping[str, str]) -> list[str]:
    whole = remotes.read(path)
    trial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        remotes.write(trial, remotes.with_section("", login.name, section))
        names = _list(login, trial, section)
        # Listing may have renewed the token, and some are good for one renewal only.
        renewed = remotes.sections(remotes.read(trial))[login.name]
        remotes.write(path, remotes.with_section(whole, login.name, renewed))
        return names
    finally:
        trial.unlink(missing_ok=True)


def _list(login: Login, trial: Path, section: Mapping[str, str]) -> list[str]:
    # What stands in a remote's environment is taken out of what rclone says.
    hidden = {f"RDTL_HIDDEN_{n}": value for n, value in enumerate(_secrets(section["token"]))}
    place = Remote(f"{login.name}:{login.path}", {**hidden, "RCLONE_CONFIG": str(trial)})
    answer = engine.ask(place, "lsjson", "--no-modtime", "--no-mimetype")
    names = [f"{one['Name']}{'/' if one['IsDir'] else ''}" for one in json.loads(answer)]
    if not names and login.path:
        raise RdtlError(
            "RDTL-G002",
            "the token works, but nothing lies there",
            where=f"{login.name}:{login.path}",
            fix="correct the path; the remote was not written",
        )
    return sorted(names)


def _secrets(token: str) -> list[str]:
    return [token, *(str(v) for k, v in json.loads(token).items() if k.endswith("token"))]
