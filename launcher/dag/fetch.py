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
from launcher.dag.client import Order

HOME = "import os, sys; print(os.path.expanduser(sys.argv[1]))"


def fetch(what: Order, names: Sequence[str], target: Path) -> list[Path]:
    """Copy the outputs of the steps ``names`` to ``target``/STEP/; returns those folders.

    Several outputs of a step keep their paths below the folder that they have in common. A
    folder that is there already is replaced when the new one is whole. Raises UsageError
    RDTL-U122 for unknown steps and steps without outputs, RemoteError as :meth:`Place.run`.
    """
    outputs = {step.name: step.outputs for step in what.graph.steps if step.outputs}
    for name in names:
        if name not in outputs:
            raise UsageError(
                "RDTL-U122",
                f"{name} is no step with outputs",
                where=what.graph.name,
                fix=f"known: {', '.join(outputs) or 'none'}",
            )
    return [_step(what, outputs[name], target / name) for name in names]


def _step(what: Order, outputs: Sequence[str], final: Path) -> Path:
    root = _expanded(what, what.graph.working_directory)
    paths = [posixpath.normpath(posixpath.join(root, output)) for output in outputs]
    common = posixpath.commonpath([posixpath.dirname(path) for path in paths])
    words = [f"./{posixpath.relpath(path, common)}" for path in paths]
    with files.whole_folder(final) as part:
        _receive(what, ["tar", "-C", common, "-czf", "-", *words], part)
        shutil.rmtree(final, ignore_errors=True)
    return final


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
