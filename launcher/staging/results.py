"""What of a run directory leaves, and how it is held still while it does."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from launcher.core import files
from launcher.core.runs import RunDir

SOON_S = 60.0
"""So long after a round of uploads its stage may end."""
LEFT_OUT = ("assets", "code", "data", "cache", "uploads", "policy")
"""What is not this run's result, or goes as a whole."""


def behind(root: Path) -> list[str]:
    """A sentence when results of a run have not left as they should, for people; else nothing."""
    run = RunDir(root)
    try:
        plan = files.read_json(run.plan)
    except (OSError, ValueError):
        return []
    if not plan["config"].get("upload"):
        return []
    state, looked = _last_round(run, plan["config"]["upload"]["uri"])
    late = _last_end(run, plan) > looked + SOON_S
    if state["error"] is None and not state["behind"] and not late:
        return []
    what = ", ".join(state["behind"]) or "records and logs"
    why = ": nothing was uploaded since a stage ended" if late else ""
    why = f": {state['error']['what']}" if state["error"] else why
    return [
        f"uploads: {what} not yet in {state['uri']}{why} (see {root / 'logs' / 'upload.log'}); by "
        "hand: rdtl stage out FOLDER URI"
    ]


def _last_round(run: RunDir, uri: str) -> tuple[dict[str, Any], float]:
    """What the last round left undone, and when that was, by the clock of the file system."""
    try:
        return files.read_json(run.upload_state), run.upload_state.stat().st_mtime
    except (OSError, ValueError):
        return {"behind": [], "error": None, "uri": uri}, 0.0


def _last_end(run: RunDir, plan: dict[str, Any]) -> float:
    """When a task that uploads ended last, by the clock of the file system; 0 when none has."""
    names = [stage["name"] for stage in plan["stages"] if stage.get("beside")]
    markers = (p for n in names for p in run.ledger.folder.glob(f"finished.{n}.*.json"))
    return max((marker.stat().st_mtime for marker in markers), default=0.0)


def identity(unit: Path) -> list[int]:
    """Changes when another folder gets the same name."""
    facts = unit.stat()
    return [facts.st_ino, facts.st_mtime_ns]


@contextmanager
def held(unit: Path, records: Path) -> Iterator[Path | None]:
    """Hard links to a folder's files: training may remove the folder while it is uploaded.

    None when it is gone already; the folder itself where nothing can be linked.
    """
    records.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".held-", dir=records) as folder:
        found: Path | None = Path(folder, unit.name)
        try:
            _link(unit, Path(folder, unit.name))
        except FileNotFoundError:
            found = None
        except OSError:  # another file system, one without links, or one that forbids them
            found = unit
        yield found


def _link(unit: Path, target: Path) -> None:
    target.mkdir()
    for entry in os.scandir(unit):
        if entry.is_dir():
            _link(Path(entry), target / entry.name)
        else:
            os.link(entry, target / entry.name)


def rest(root: Path) -> Iterator[Path]:
    """Files of a run that are neither units nor others' data nor temporary."""
    for folder, names, found in os.walk(root):
        top = Path(folder) == root
        names[:] = [n for n in names if not n.startswith((".", "step_", "damaged_step_"))]
        names[:] = [n for n in names if not (top and n in LEFT_OUT)]
        kept = (Path(folder, n) for n in found if not n.startswith(".") and n[-5:] != ".part")
        yield from (path for path in kept if path.is_file() and not path.is_symlink())


def stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None
