"""The system's ssh and rsync, with one shared connection per host.

Everything goes through the user's own ssh, so its configuration, agent, jump
hosts and second factor apply. The first call opens a master connection and may
ask; later calls, of any process, use it. ``reuse_only`` never asks: it fails when
no master is open, which is what a script or a watcher wants.
"""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from launcher.core.errors import RemoteError, UsageError

LOST = 255
CHANGED = "HOST IDENTIFICATION HAS CHANGED"
UNVERIFIED = "Host key verification failed"
"""Said of a changed key, and of one that nobody has confirmed where nobody can be asked."""
PERSIST = "8h"
UNREACHED = (LOST, 10, 30, 35)
"""rsync's statuses for a connection that is gone: ssh's own, its socket, two kinds of silence."""
CUT = 12
"""rsync's status when the other end stops talking: lost, not installed there, or killed."""
CUT_WORDS = (
    "Broken pipe",
    "Connection closed",
    "Connection reset",
    "Connection timed out",
    "Connection to",
    "connect to host",
    "Could not resolve hostname",
    "not responding",
)
"""ssh's own words for a connection that broke."""
NEVER = ("connect to host", "Could not resolve hostname")
"""Those of a host that was not reached at all: its address may be wrong."""
VANISHED = 24
"""rsync's status when files that it had listed were gone."""
LISTINGS = 5
"""How often a directory that changes is listed for one copy."""


@dataclass(frozen=True)
class Connection:
    """How to reach one host; ``options`` are further words for ssh (``-p 2222``, ``-F FILE``).

    ``alone``: a connection for one program, which never asks and notices a dead host in
    30 s; sshd allows only ten programs on a shared one.
    Raises UsageError RDTL-U133 for a host that ssh would take for an option.
    """

    host: str
    options: tuple[str, ...] = ()
    reuse_only: bool = False
    alone: bool = False

    def __post_init__(self) -> None:
        if self.host.startswith("-"):
            raise UsageError(
                "RDTL-U133",
                f"{self.host} is no machine for ssh",
                why="ssh would take it for an option, and some options run a program here",
                fix="name a host, user@host or an alias of ~/.ssh/config",
            )

    def words(self) -> list[str]:
        """``ssh`` with its options, without host and command."""
        if self.alone:
            own = ["ControlPath=none", "BatchMode=yes", "ConnectTimeout=10"]
            own += ["ServerAliveInterval=5", "ServerAliveCountMax=6"]
            return ["ssh", *self.options, *(word for o in own for word in ("-o", o))]
        # %C is a short digest of user, host and port: socket paths end at about 100 bytes.
        socket = Path("~/.ssh/rdtl-%C").expanduser()
        shared = [f"ControlPath={socket}", "ServerAliveInterval=15", "ServerAliveCountMax=4"]
        if self.reuse_only:
            shared += ["ControlMaster=no", "BatchMode=yes"]
        else:
            shared += ["ControlMaster=auto", f"ControlPersist={PERSIST}"]
        return ["ssh", *self.options, *(word for o in shared for word in ("-o", o))]

    def require_master(self) -> None:
        """RemoteError RDTL-S024 when nobody has opened a connection and none may be opened."""
        Path("~/.ssh").expanduser().mkdir(mode=0o700, exist_ok=True)
        if not self.reuse_only:
            return
        check = [*self.words(), "-O", "check", self.host]
        if subprocess.run(check, capture_output=True, check=False).returncode:
            raise RemoteError(
                "RDTL-S024",
                f"no open connection to {self.host}",
                why="--reuse-only never asks for a password or a second factor",
                fix=f"open one: {shlex.join([*Connection(self.host, self.options).words()])} "
                f"{self.host} true",
            )

    def argv(self, command: Sequence[str], *, terminal: bool = False) -> list[str]:
        """The local argv that runs ``command`` on the host, every word as it is."""
        return [*self.words(), *(["-t"] if terminal else []), self.host, shlex.join(command)]

    def run(
        self, command: Sequence[str], stdin: str | None = None, limit_s: float | None = None
    ) -> str:
        """Output of ``command`` on the host; RemoteError RDTL-S037 (no connection) or S038.

        S038 also for one that has not ended after ``limit_s`` seconds.
        """
        try:
            done = subprocess.run(
                self.argv(command),
                input=stdin,
                stdin=subprocess.DEVNULL if stdin is None else None,
                capture_output=True,
                text=True,
                timeout=limit_s,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise self._failed(command, f"not ended after {limit_s:g} s", "") from error
        if done.returncode == LOST:
            raise lost(self.host, done.stderr)
        if done.returncode:
            raise self._failed(command, f"exit code {done.returncode}", done.stderr)
        return done.stdout

    def _failed(self, command: Sequence[str], how: str, said: str) -> RemoteError:
        return RemoteError(
            "RDTL-S038",
            f"a command failed on {self.host} ({how})",
            where=f"{shlex.join(command)[:200]}: {said.strip()[-300:]}".removesuffix(": "),
            fix=f"try it by hand: ssh {self.host}",
        )

    def upload(self, source: Path, names: Sequence[str], target: str) -> None:
        """Copy the files ``names`` below ``source`` to the directory ``target`` of the host.

        Raises RemoteError RDTL-S037 (no connection) or S038 (anything else, in rsync's words).
        """
        done = self._rsync(names, f"{source}/", f"{self.host}:{target}/")
        if done.returncode:
            raise self._not_copied(done)

    def download(self, source: str, names: Sequence[str], target: Path) -> None:
        """Copy the files and directories ``names`` of the host's directory ``source``.

        What a run that goes on merges or replaces meanwhile is listed again. Raises as
        :meth:`upload`.
        """
        # --delete: of what was replaced nothing stays beside the new one.
        words = ("--recursive", "--delete", "--exclude=.*.part")
        for _ in range(LISTINGS):
            done = self._rsync(names, *words, f"{self.host}:{source}/", f"{target}/")
            if done.returncode != VANISHED:
                break
        if done.returncode:
            raise self._not_copied(done)

    def _rsync(self, names: Sequence[str], *words: str) -> subprocess.CompletedProcess[str]:
        fixed = ["--archive", "--from0", "--files-from=-", "--rsh", shlex.join(self.words())]
        return subprocess.run(
            ["rsync", *fixed, *words],
            input="\0".join(names), capture_output=True, text=True, check=False,
        )  # fmt: skip

    def _not_copied(self, done: subprocess.CompletedProcess[str]) -> RemoteError:
        """The connection, when rsync or ssh says so, else whatever rsync says."""
        own = [line for line in done.stderr.splitlines() if not line.startswith("rsync")]
        cut = done.returncode == CUT and any(word in line for line in own for word in CUT_WORDS)
        if done.returncode in UNREACHED or cut:
            return lost(self.host, done.stderr)
        return RemoteError(
            "RDTL-S038",
            f"files could not be copied from or to {self.host} (rsync's status {done.returncode})",
            where=" ".join(done.stderr.split())[-300:],
            fix=f"rsync is needed at both ends, and room: ssh {self.host}",
        )


def lost(host: str, words: str) -> RemoteError:
    """RDTL-S037; RDTL-B013 for a changed host key, RDTL-S050 for one that nobody has confirmed."""
    last = " ".join(words.split())[-300:]
    if CHANGED in words:
        return RemoteError(
            "RDTL-B013",
            f"the host key of {host} is not the known one",
            where=last,
            why="it was installed anew, or somebody stands in between",
            fix=f"ask its administrator, then: ssh-keygen -R {host}",
        )
    if UNVERIFIED in words:
        return RemoteError(
            "RDTL-S050",
            f"ssh to {host} would ask a question, and nobody can answer it here",
            where=last,
            why="nobody has confirmed the key of the host",
            fix=f"ssh {host} once, in a terminal, confirms it; then the same command again",
        )
    return RemoteError(
        "RDTL-S037",
        f"no connection to {host}",
        where=last,
        why="jobs that were submitted go on without it",
        fix=f"check the address (`ssh {host} true`; ~/.ssh/config; `ssh` or `hosts` of the site "
        "file), then the same command again"
        if any(word in words for word in NEVER)
        else "the same command attaches again",
    )
