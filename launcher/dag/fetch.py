"""Brings outputs of steps from a machine here: whole, or not at all."""

from __future__ import annotations

import posixpath
import shutil
import subprocess
import tarfile
from collections.abc import Sequence
from pathlib import Path

from launcher.core import files
from launcher.core.errors import UsageError
from launcher.dag import resolve
from launcher.dag.client import Order

HOME = "import os, sys; print(os.path.expanduser(sys.argv[1]))"
MARK = ".rdtl-fetched"
"""A folder with this file came from here, so it may be replaced; the file says from where."""


def fetch(what: Order, names: Sequence[str], target: Path) -> list[Path]:
    """Copy the outputs of the steps ``names`` to ``target``/STEP/; returns those folders.

    Several outputs of a step keep their paths below the folder that they have in common. What
    an earlier fetch left there is replaced when the new one is whole. Raises UsageError
    RDTL-U122 for unknown steps and steps without outputs, RDTL-U025 when something else is
    there, RemoteError as :meth:`Place.run`.
    """
    outputs = {step.name: step.outputs for step in what.graph.steps if step.outputs}
    resolve.require_known("step with outputs", names, outputs, what.graph.name)
    for name in names:
        _require_ours(target / name)
    return [_step(what, outputs[name], target / name) for name in names]


def _require_ours(final: Path) -> None:
    """UsageError RDTL-U025 unless nothing would be lost with ``final``."""
    if not final.is_symlink():
        if not final.exists() or (final / MARK).is_file():
            return
        if final.is_dir() and not any(final.iterdir()):
            return
    raise UsageError(
        "RDTL-U025",
        f"the destination has no mark of a fetch ({MARK}; earlier versions left none)",
        where=str(final),
        why="it would be replaced with all that it holds",
        fix="--out OTHER, or move it away",
    )


def _step(what: Order, outputs: Sequence[str], final: Path) -> Path:
    _settle(final)
    root = _expanded(what, what.graph.working_directory)
    paths = [posixpath.normpath(posixpath.join(root, output)) for output in outputs]
    common = posixpath.commonpath([posixpath.dirname(path) for path in paths])
    words = [f"./{posixpath.relpath(path, common)}" for path in paths]
    try:
        with files.whole_folder(final) as part:
            _receive(what, ["tar", "-C", common, "-czf", "-", *words], part)
            (part / MARK).write_text(f"{what.place.name}: {what.run}\n", encoding="utf-8")
            _require_ours(final)  # it took a while
            if final.exists():
                final.rename(_aside(final))
    finally:
        _settle(final)
    return final


def _aside(final: Path) -> Path:
    """Where the old folder lies while the new one takes its name."""
    return final.with_name(f".{final.name}.rdtl-replaced")


def _settle(final: Path) -> None:
    """End what a kill may have left: the old folder comes back unless a new one is there."""
    if not final.exists() and _aside(final).is_dir():
        _aside(final).rename(final)
    shutil.rmtree(_aside(final), ignore_errors=True)


def _expanded(what: Order, folder: str) -> str:
    """``folder`` with the home of whoever the runner is there, as the runner expands it."""
    if not folder.startswith("~"):
        return folder
    return what.place.run([what.place.python, "-c", HOME, folder]).rstrip("\n")


def _receive(what: Order, command: Sequence[str], folder: Path) -> None:
    """Unpack what ``command`` packs there; nothing lands outside ``folder``."""
    process = subprocess.Popen(
        what.place.argv(command), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    torn: Exception | None = None
    try:
        with tarfile.open(fileobj=process.stdout, mode="r|gz") as packed:
            packed.extractall(folder, filter="data")
    except (tarfile.TarError, EOFError) as error:
        torn = error
    process.stdout.close()
    _, said = process.communicate()
    if process.returncode or torn:
        raise what.place.failed(
            command, process.returncode, f"{said.decode('utf-8', 'replace')} {torn or ''}"
        )
