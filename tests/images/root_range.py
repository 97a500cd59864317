"""Root with, or without, a range of subordinate ids, which ``apptainer build --fakeroot`` needs."""

from __future__ import annotations

from pathlib import Path

SCRIPT = """
    mount --bind "$1" /etc/subuid
    mount --bind "$1" /etc/subgid
    shift
    exec "$@"
"""


def argv(folder: Path, *command: str, ids: str = "root:400000:65536\n") -> list[str]:
    """``command`` where the system's list of ranges is ``ids``; this machine stays as it is."""
    (folder / "ids").write_text(ids)
    space = ["unshare", "--mount", "--propagation", "private"]
    return [*space, "sh", "-euc", SCRIPT, "sh", str(folder / "ids"), *command]
