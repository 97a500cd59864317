"""Machines where a recipe runs: this one, or one that ssh reaches.

A bare box has sh and python3; nothing else is asked of it. Files go there through
standard input, so that neither rsync nor scp need be installed.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from launcher.core.errors import RdtlError, RemoteError, UsageError, from_dict
from launcher.ssh import CHANGED, LOST, Connection, lost

FOLDER = ".rdtl/recipes"
MISSING = 127
"""A shell's exit code for a program that is not there."""
PUT = (
    'umask 022; part="$1.$$.part"; mkdir -p "${1%/*}" && cat >"$part" && '
    '{ test "$(wc -c <"$part")" -eq "$2" && mv -f "$part" "$1" || { rm -f "$part"; exit 1; }; }'
)
"""A name of its own, because several may put the same file; the size, because a connection that
is cut looks like the end of the input."""
ROOT = f'printf "%s" "${{HOME:-$(pwd)}}/{FOLDER}"'


@dataclass(frozen=True)
class Place:
    """``name`` is what people call it; without ``connection`` it is this machine."""

    name: str
    connection: Connection | None = None
    known_hosts: Path | None = None

    @property
    def python(self) -> str:
        """The interpreter for the runner: this installation's here, the machine's own there."""
        return "python3" if self.connection else sys.executable

    def argv(self, command: Sequence[str], *, alone: bool = False) -> list[str]:
        """The local argv that runs ``command`` there; ``alone``: see :class:`Connection`."""
        if self.connection is None:
            return list(command)
        own = self.connection
        return Connection(own.host, own.options, own.reuse_only, alone).argv(command)

    def run(self, command: Sequence[str], stdin: bytes = b"") -> str:
        """Output of a command there.

        Raises RemoteError RDTL-S037 (not reached), RDTL-B013 (another host key), RDTL-U134
        (the command failed).
        """
        if self.connection:
            self.connection.require_master()
        done = subprocess.run(self.argv(command), input=stdin, capture_output=True, check=False)
        if done.returncode:
            raise self.failed(command, done.returncode, done.stderr.decode("utf-8", "replace"))
        return done.stdout.decode("utf-8", "replace")

    def failed(self, command: Sequence[str], rc: int, said: str) -> RdtlError:
        """Why a command there failed: as the runner told it, or as ssh did."""
        if self.connection and rc == LOST:
            return self.lost(said)
        return told(said) or RemoteError(
            "RDTL-U134",
            f"a command failed on {self.name} (exit code {rc})",
            where=f"{' '.join(command)[:120]}: {said.strip()[-300:]}",
            fix="install there what is missing: python3, 3.10 or newer"
            if rc == MISSING
            else "look at the message; the same command goes on where it stopped",
        )

    def lost(self, said: str) -> RdtlError:
        """Why it was not reached."""
        assert self.connection is not None
        error = lost(self.name, said)
        if CHANGED not in said or self.known_hosts is None:
            return error
        host, port = _host_and_port(self.connection)
        name = f"[{host}]:{port}" if port != "22" else host
        return RemoteError(
            "RDTL-B013",
            error.problem.what,
            where=str(self.known_hosts),
            why="another machine has this address now, or somebody stands in between",
            fix=f"if that is right: ssh-keygen -f {self.known_hosts} -R '{name}'",
        )

    def put(self, path: str, content: bytes) -> None:
        """Make ``path`` there hold ``content``: whole, or as it was."""
        self.run(["sh", "-c", PUT, "sh", path, str(len(content))], content)

    def root(self) -> str:
        """Absolute folder there below which runs of recipes lie."""
        if self.connection is None:
            return local_root()
        return self.run(["sh", "-c", ROOT])


def told(said: str) -> RdtlError | None:
    """The error that a runner left as the last line of its standard error, if it is one."""
    last = said.strip().rpartition("\n")[2]
    try:
        return from_dict(json.loads(last))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def local_root() -> str:
    """The folder for runs of recipes on this machine."""
    return str(Path.home() / FOLDER)


def here() -> Place:
    """This machine."""
    return Place("this machine")


def over_ssh(host: str, options: Sequence[str] = ()) -> Place:
    """The machine ``ssh://user@host:port`` (or a name that ssh knows).

    Its key is taken at first use and pinned in a file of its own.
    Raises UsageError RDTL-U133 for other forms.
    """
    parts = urlsplit(host if "://" in host else f"ssh://{host}")
    try:
        port = parts.port
    except ValueError:
        port = -1
    if parts.scheme != "ssh" or not parts.hostname or port == -1 or parts.path not in ("", "/"):
        raise UsageError(
            "RDTL-U133", f"{host} is no machine for ssh", fix="--host ssh://user@host:port"
        )
    if parts.password:
        raise UsageError(
            "RDTL-W003",
            "a password stands in --host",
            why="command lines stand in the process list and in histories",
            fix="use a key: ssh-copy-id, or the provider's page for ssh keys",
        )
    words = ("-p", str(port)) if port else ()
    file = _known_hosts(f"{parts.hostname}_{port or ''}".rstrip("_"))
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    pinned = f"UserKnownHostsFile={file} ~/.ssh/known_hosts"
    own = ("-o", pinned, "-o", "StrictHostKeyChecking=accept-new")
    address = f"{parts.username}@{parts.hostname}" if parts.username else parts.hostname
    return Place(host, Connection(address, (*options, *words, *own)), file)


def _known_hosts(name: str) -> Path:
    state = os.environ.get("XDG_STATE_HOME", "~/.local/state")
    return Path(state).expanduser() / "rdtl" / "known_hosts" / re.sub(r"[^\w.-]", "_", name)


def _host_and_port(connection: Connection) -> tuple[str, str]:
    words = connection.options
    port = words[words.index("-p") + 1] if "-p" in words else "22"
    return connection.host.rpartition("@")[2], port
