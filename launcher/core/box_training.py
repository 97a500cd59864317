"""A training program's configuration before it starts, and its checkpoints while it runs.

Called like :mod:`launcher.core.box_files`. Checkpoints are openpi's: directories named by
their step, complete because they were renamed last. A store cannot rename, so there the file
STEP.complete beside the directory STEP says so. Standard library only, Python 3.10.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from launcher.core import files
from launcher.core.errors import RdtlError, RefusedError

LINE = re.compile(r"^(\w+):[ \t]+([^#\n]*?)[ \t]*(?:#.*)?$", re.MULTILINE)
POLL_S = 5.0
LEDGER = "uploaded.json"
COMPLETE = ".complete"
NOT_THERE = (3, 4)
"""rclone's exit codes for a folder and a file that do not exist."""


def config(path: Path, values: Sequence[tuple[str, str]], paths: Sequence[str]) -> str:
    """Values and existing paths in the top level of a flat YAML file.

    Numbers are compared as numbers. RefusedError RDTL-B007 for a value, RDTL-B015 for a path.
    """
    found = dict(LINE.findall(path.read_text(encoding="utf-8")))
    for key, wanted in values:
        if not _same(found.get(key, ""), wanted):
            raise RefusedError(
                "RDTL-B007",
                f"{key} is {found.get(key, 'not there')} and not {wanted}",
                where=str(path),
                why="the recipe's times, memory and ranges of the loss are for its own values",
                fix="take the pinned commit, or change the recipe's parameter too",
            )
    for key in paths:
        if not Path(found.get(key, "/nowhere/")).exists():
            raise RefusedError(
                "RDTL-B015",
                f"{key} names a path that does not exist",
                where=f"{path}: {found.get(key, 'no such key')}",
                why="training would fail after minutes, or compute with other statistics",
                fix="name the path that the step before produces",
            )
    return f"{path}: {len(values)} values and {len(paths)} paths as expected"


def _same(found: str, wanted: str) -> bool:
    try:
        return float(found) == float(wanted)
    except ValueError:
        return found.strip("'\"") == wanted


def uploads(folder: Path, remote: str, keep: int, *, follow: bool) -> str:
    """Upload each complete checkpoint, prove it there, then keep the newest ``keep`` here.

    Without ``remote`` nothing is uploaded and only old ones are removed. RdtlError RDTL-G008
    when a copy cannot be proven, RDTL-G046 when ``remote`` is ``folder``. ``follow``: look again
    for ever (a signal ends it); a failure is said once and tried again, since a store comes back
    and training goes on.
    """
    told = ""
    while True:
        try:
            done = _send(folder, remote, keep)
            if not follow:
                return done
            told = ""
        except (RdtlError, OSError) as error:
            if not follow:
                raise
            # Without rclone's own words: in a training's log a signature would end it for them.
            what = error.problem.what if isinstance(error, RdtlError) else type(error).__name__
            if what != told:
                print(f"not uploaded yet, tried again until it is: {what}", flush=True)
            told = what
        time.sleep(POLL_S)


def _send(folder: Path, remote: str, keep: int) -> str:
    """One look: what is not proven is sent, whatever became of the one before."""
    proven = _proven(folder)
    failed: RdtlError | None = None
    for step in _steps(folder):
        if remote:
            _require_other(folder / step, Path(remote, step))
        identity = _identity(folder / step, remote)
        if remote and proven.get(step) != identity:
            try:
                _upload(folder / step, f"{remote}/{step}")
            except RdtlError as error:
                failed = error
                continue
            proven[step] = identity
            files.write_json(folder / LEDGER, proven)
            print(f"uploaded and proven: step {step} -> {remote}/{step}", flush=True)
    for step in _steps(folder)[:-keep]:
        if not remote or proven.get(step) == _identity(folder / step, remote):
            shutil.rmtree(folder / step)
            print(f"removed here: step {step}", flush=True)
    if failed:
        raise failed
    return f"{folder}: {len(proven)} checkpoints are proven in {remote or 'no store'}"


def _require_other(source: Path, target: Path) -> None:
    """RefusedError RDTL-G046 where a remote is a path of this machine, and leads to the source."""
    if target.exists() and target.samefile(source):
        raise RefusedError(
            "RDTL-G046",
            f"checkpoint {source.name} would be uploaded into itself",
            where=f"{source} -> {target}",
            why="it would be proven by itself, and then be removed",
            fix="name another place",
        )


def _proven(folder: Path) -> dict[str, list[str | int]]:
    """Steps, and the :func:`_identity` of the checkpoint that is proven to be in the store."""
    path = folder / LEDGER
    return dict(files.read_json(path)) if path.exists() else {}


def _identity(checkpoint: Path, remote: str) -> list[str | int]:
    """Another training's checkpoint of the same step is another one."""
    there = checkpoint.stat()
    return [remote, there.st_ino, there.st_mtime_ns]


def _steps(folder: Path) -> list[str]:
    """Complete checkpoints, oldest first."""
    found = folder.iterdir() if folder.is_dir() else []
    return sorted((p.name for p in found if p.is_dir() and p.name.isdigit()), key=int)


def _rclone(*words: str, content: str = "") -> subprocess.CompletedProcess[str]:
    argv = ["rclone", "--retries", "3", *words]
    return subprocess.run(argv, input=content, capture_output=True, text=True, check=False)


def _upload(source: Path, target: str) -> None:
    """Copy, prove, then mark as complete; what is sent over an older one loses its mark first."""
    mark = f"{target}{COMPLETE}"
    for words, fine in (
        (("deletefile", mark), (0, *NOT_THERE)),
        (("copy", str(source), target), (0,)),
        (("check", "--one-way", str(source), target), (0,)),
        (("rcat", mark), (0,)),
    ):
        done = _rclone(*words, content="complete\n")
        if done.returncode not in fine:
            raise RdtlError(
                "RDTL-G008",
                f"checkpoint {source.name} is not proven to be uploaded: rclone {words[0]} failed",
                where=f"{source} -> {target}: {done.stderr.strip()[-300:]}",
                why="the machine must not be given back before every byte is elsewhere",
                fix="check the remote (rclone lsd) and run the recipe again; it is sent once more",
            )


def newest(folder: Path, remote: str) -> str:
    """Fetch the newest complete checkpoint of ``remote`` unless one lies here; says which it is.

    RdtlError RDTL-G002 when the store cannot be asked: only one that answers has none.
    """
    if here := _steps(folder):
        return f"{folder}: step {here[-1]} lies here"
    listed = _rclone("lsf", remote)
    if listed.returncode not in (0, *NOT_THERE):
        raise _unfetched("it is unknown whether there is a checkpoint", remote, listed.stderr)
    names = set(listed.stdout.splitlines())
    there = [n[:-1] for n in names if n[:-1].isdigit() and f"{n[:-1]}{COMPLETE}" in names]
    if not there:
        return f"{remote}: no complete checkpoint yet, training begins at step 0"
    step = max(there, key=int)
    _fetch(f"{remote}/{step}", folder / step)
    fetched = {step: _identity(folder / step, remote)}
    files.write_json(folder / LEDGER, {**_proven(folder), **fetched})
    return f"{remote}: step {step} fetched"


def _fetch(source: str, target: Path) -> None:
    temporary = target.with_name(f"tmp_{target.name}")
    done = _rclone("copy", source, str(temporary))
    if done.returncode:
        raise _unfetched("the newest checkpoint could not be fetched", source, done.stderr)
    files.rename_directory(temporary, target)


def _unfetched(what: str, where: str, said: str) -> RdtlError:
    return RdtlError(
        "RDTL-G002",
        what,
        where=f"{where}: {said.strip()[-300:]}",
        why="training would silently begin again",
        fix="check the remote (rclone lsd) and run the recipe again",
    )
