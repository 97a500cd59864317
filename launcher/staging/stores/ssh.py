"""``ssh://[USER@]HOST[:PORT]/PATH``: a machine that the user's own ssh reaches.

rclone speaks SFTP through the system's ssh, so aliases, agents, jump hosts and known hosts apply.
Checksums come from one ``sha256sum`` over there, which gets the names on its input; a server
that only speaks SFTP has none. RDTL_SSH names another ssh, with options (as GIT_SSH_COMMAND does).
"""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Sequence

from launcher.core.errors import RemoteError, UsageError
from launcher.ssh import CHANGED, LOST, UNVERIFIED, lost
from launcher.staging import engine, failures
from launcher.staging.store import ALONE, Listing, RcloneStore, Remote, StoreEntry
from launcher.staging.uri import Uri

NAME = "RCLONE_CONFIG_RDTLSSH_"
OPTIONS = (
    "BatchMode=yes",
    "ConnectTimeout=10",
    "ServerAliveInterval=15",
    "ServerAliveCountMax=4",
    "ControlPath=~/.ssh/rdtl-%C",  # the connection that `rdtl --site` has opened, if there is one
)
TRUE_S = 60.0
"""Seconds for a command that does nothing, with the login through any jump hosts."""
FEW = ("--transfers", "4", "--checkers", "4")
"""A server takes 10 channels of one connection, and refuses more than 10 that log in at once."""


class SshStore(RcloneStore):
    """A folder on another machine."""

    def remote(self, uri: Uri) -> Remote:
        """SFTP through ssh."""
        values = {
            "TYPE": "sftp",
            "SSH": _words_for_rclone(ssh(uri)),
            # rclone would run a command a file, in whatever shell is there.
            "DISABLE_HASHCHECK": "true",
            "SHELL_TYPE": "none",
            "KNOWN_HOSTS_FILE": "none",  # ssh itself has checked
        }
        settings = {NAME + key: value for key, value in values.items()}
        return Remote(f"rdtlssh:{uri.path}", {**ALONE, **settings}, FEW)

    def list(self, uri: Uri, names: Sequence[str] | None = None) -> Listing:
        """What lies there, with SHA-256 where the machine has a shell."""
        try:
            listing = super().list(uri, names)
        except RemoteError:
            _explain(uri)
            raise
        root = uri.path.rpartition("/")[0] if listing.single else uri.path
        digests = _sha256(uri, root, [entry.path for entry in listing.entries])
        entries = tuple(
            StoreEntry(e.path, e.size, {"sha256": digests[e.path]}, e.version)
            if e.path in digests
            else e
            for e in listing.entries
        )
        return Listing(entries, listing.remote, listing.single)


def ssh(uri: Uri) -> list[str]:
    """ssh up to and with the host; UsageError RDTL-G019 for a host that ssh takes for an option."""
    host = f"{uri.user}@{uri.host}" if uri.user else uri.host
    if host.startswith("-"):
        raise UsageError(
            "RDTL-G019",
            f"{host!r} is no host: ssh would take it for an option",
            where=str(uri),
            fix="write ssh://[USER@]HOST[:PORT]/PATH",
        )
    program = shlex.split(os.environ.get("RDTL_SSH", "ssh"))
    port = ["-p", str(uri.port)] if uri.port else []
    return [*program, *(word for o in OPTIONS for word in ("-o", o)), *port, host]


def _words_for_rclone(words: Sequence[str]) -> str:
    """Words as rclone separates them: by spaces, with double quotes around what holds one."""
    return " ".join('"' + word.replace('"', '""') + '"' if " " in word else word for word in words)


def _explain(uri: Uri) -> None:
    """Raise what ssh itself says of the connection; rclone does not pass that on."""
    done = _ask(uri, "true", b"", TRUE_S)
    said = done.stderr.decode(errors="replace")
    if CHANGED in said or UNVERIFIED in said:
        raise lost(uri.host, said)
    if done.returncode == LOST:
        code = "RDTL-G014" if "Permission denied" in said else "RDTL-G011"
        raise failures.make(code, str(uri), " ".join(said.split())[-400:])


def _sha256(uri: Uri, root: str, paths: Sequence[str]) -> dict[str, str]:
    """Digest by path, {} where no command can be run. The names are data, never part of a word."""
    command = f"cd {shlex.quote(root)} && exec xargs -0 sha256sum -z --"
    names = "\0".join(f"./{path}" for path in paths).encode()
    done = _ask(uri, command, names, engine.ANSWER_S)
    if done.returncode:
        return {}
    lines = [line for line in done.stdout.decode(errors="replace").split("\0") if line]
    return {line[68:]: line[:64] for line in lines if line[64:68] == "  ./"}


def _ask(
    uri: Uri, command: str, words: bytes, seconds: float
) -> subprocess.CompletedProcess[bytes]:
    """A command over there; RemoteError RDTL-G011 when it does not end: a machine may take a
    login, keep the connection alive, and hang."""
    argv = [*ssh(uri), command]
    try:
        return subprocess.run(argv, input=words, capture_output=True, check=False, timeout=seconds)
    except subprocess.TimeoutExpired as error:
        detail = f"{command[-30:]!r} has not ended in {seconds:.0f} s"
        raise failures.make("RDTL-G011", str(uri), detail) from error


def store() -> SshStore:
    """The adapter."""
    return SshStore()
