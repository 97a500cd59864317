"""Native extensions that torch compiles at run time, and the locks that builders leave.

Nothing of ours needs one (torch's AdamW, gloo's all-reduce), but what a user adds to
DeepSpeed's configuration may. A process that is killed in a build leaves an empty ``lock``,
for which every later one waits silently and for ever (RDTL-T026).
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

VARIABLE = "TORCH_EXTENSIONS_DIR"


def prepare() -> None:
    """Give the builds of this start a directory of their own, or clean the one that is named.

    Before the ranks have found one another: afterwards a lock may belong to a rank.
    """
    named = os.environ.get(VARIABLE)
    if named:
        remove_stale_locks(Path(named))
        return
    # All ranks of a node have one parent, and no other living process has it.
    start = f"rdtl-extensions-{os.environ.get('MASTER_PORT', 'alone')}-{os.getppid()}"
    os.environ[VARIABLE] = str(Path(tempfile.gettempdir()) / start)


def remove_stale_locks(folder: Path) -> list[Path]:
    """Remove the locks in ``folder`` that no process of this machine holds, and say so."""
    found = [path for path in folder.glob("*/lock") if path.is_file()]
    held = _open_files() if found else set()
    stale = [path for path in found if str(path.resolve()) not in held]
    for path in stale:
        path.unlink(missing_ok=True)  # another rank may do the same
        print(f"warning RDTL-T026: removed {path}: whoever held it is dead", file=sys.stderr)
    return stale


def _open_files() -> set[str]:
    """What the processes of this machine have open, as far as this user may see."""
    found = set()
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            found.add(str(link.readlink()))
        except OSError:  # ended meanwhile, or another user's
            continue
    return found
