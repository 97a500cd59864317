"""Commands as an ordinary user that exists nowhere but in a private mount namespace.

The user stands in ``/etc/passwd``, has subordinate ids and may open ``/dev/fuse``;
each of the last two can be withheld, to really cause what happens on machines
that are set up so. The machine itself is not changed: the files lie in memory
that belongs to the namespace and ends with the command.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster import processes

NAME = "builder"
NEEDED = ("/dev/fuse", "/etc/subuid", "/etc/subgid")
PATH = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
# Every step replaces the one before (exec), so signals sent to the process reach the command.
SCRIPT = """
folder=$1 uid=$2 fuse_mode=$3 ranges=$4
shift 4
umask 022
system=$folder/system
mount -t tmpfs -o mode=755 tmpfs "$system"
for file in passwd group subuid subgid; do cat "/etc/$file" >"$system/$file"; done
echo "NAME:x:$uid:$uid::$folder/home:/bin/sh" >>"$system/passwd"
echo "NAME:x:$uid:" >>"$system/group"
if [ "$ranges" = yes ]; then
    for file in subuid subgid; do echo NAME:300000:65536 >>"$system/$file"; done
fi
for file in passwd group subuid subgid; do mount --bind "$system/$file" "/etc/$file"; done
mknod -m "$fuse_mode" "$system/fuse" c 10 229
mount --bind "$system/fuse" /dev/fuse
exec setpriv --reuid "$uid" --regid "$uid" --clear-groups \\
    env HOME="$folder/home" USER=NAME "$@"
""".replace("NAME", NAME)


@dataclass(frozen=True)
class User:
    """One ordinary user; ``folder`` is closed to nobody, ``folder/home`` is the user's own."""

    folder: Path
    uid: int
    fuse: bool
    subuid: bool

    @property
    def home(self) -> Path:
        return self.folder / "home"

    def argv(self, *command: str) -> list[str]:
        """What root starts so that ``command`` runs as this user (same process id)."""
        mode, ranges = ("666" if self.fuse else "600"), ("yes" if self.subuid else "no")
        space = ["unshare", "--mount", "--propagation=private", "sh", "-euc", SCRIPT, "sh"]
        return [*space, str(self.folder), str(self.uid), mode, ranges, *command]

    def run(
        self, *command: str, env: Mapping[str, str] | None = None, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run ``command`` in the user's home; ``env`` is its whole environment but HOME, USER."""
        defaults = {"cwd": self.home, "capture_output": True, "text": True, "timeout": 120}
        return subprocess.run(
            self.argv(*command),
            env={"PATH": PATH, **(env or {})},
            check=False,
            **{**defaults, **options},
        )


def unavailable() -> str | None:
    """Why this machine cannot have such a user, or None: a reason to skip."""
    if os.geteuid() != 0:
        return "making an ordinary user in a private namespace needs root"
    if missing := [path for path in NEEDED if not Path(path).exists()]:
        return f"this machine has no {', '.join(missing)}"
    tried = subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False)
    return "root may not make mount namespaces here" if tried.returncode else None


@contextmanager
def ordinary_user(*, fuse: bool = True, subuid: bool = True) -> Iterator[User]:
    """A user with a home of its own; in the end its processes are ended and its files removed.

    ``fuse`` False: /dev/fuse belongs to root alone. ``subuid`` False: no
    subordinate ids, hence no --fakeroot with more than one id.
    """
    folder = Path(tempfile.mkdtemp(prefix="rdtl-user-"))
    uid = 50000 + os.getpid() % 10000  # not that of an account, nor of tests beside this one
    try:
        folder.chmod(0o755)
        for name in ("home", "system"):
            (folder / name).mkdir()
        os.chown(folder / "home", uid, uid)
        yield User(folder, uid, fuse, subuid)
    finally:
        # Apptainer leaves its FUSE helper behind when it is killed.
        processes.kill([pid for pid in processes.all_pids() if _owner(pid) == uid])
        shutil.rmtree(folder)


def _owner(pid: int) -> int | None:
    """Real user id; the owner of the files in /proc differs for programs that hide themselves."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(next(line for line in lines if line.startswith("Uid:")).split()[1])


if __name__ == "__main__":
    # By hand: python -m tests.images.ordinary_user apptainer exec x.sif id
    with ordinary_user() as user:
        sys.exit(user.run(*sys.argv[1:], capture_output=False, timeout=None).returncode)
