"""Native extensions that torch compiles at run time, and the locks that builders leave.

Nothing of ours needs one (torch's AdamW, gloo's all-reduce), but what a user adds to
DeepSpeed's configuration may; see :mod:`launcher.core.extension_locks`.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from launcher.core import extension_locks
from launcher.core.extension_locks import VARIABLE


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
    """Remove the locks in ``folder`` whose builder is surely dead, and say so."""
    stale = extension_locks.stale(folder)
    for path in stale:
        path.unlink(missing_ok=True)  # another rank may do the same
        print(f"warning RDTL-T026: removed {path}: whoever held it is dead", file=sys.stderr)
    for path in extension_locks.unheld(folder):
        said = "nobody here holds it: remove it if no other node builds there, or this start waits"
        print(f"warning RDTL-T026: left {path}: {said}", file=sys.stderr)
    return stale
