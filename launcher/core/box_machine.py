"""Whether a machine is the one that a recipe was written for, and what is installed on it.

Called like :mod:`launcher.core.box_files`. Standard library only, Python 3.10.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from launcher.core import box_facts
from launcher.core.box_facts import GIGABYTE
from launcher.core.errors import RefusedError
from launcher.core.files import whole_file

VERSIONS = """
import importlib.metadata as found, json, sys
print(json.dumps({name: found.version(name) for name in sys.argv[1:]}))
"""
COMPARE = {"==": "exactly", ">=": "at least", "<": "less than"}


def machine(gpus: int, gpu: str, vram_gb: float, disk_gb: float, driver: str, folder: Path) -> str:
    """GPUs by number, name (a regular expression), memory and driver; free disk below ``folder``.

    RefusedError RDTL-B001, RDTL-B022, RDTL-G001.
    """
    found = _gpus() if gpus else []
    if len(found) < gpus:
        raise _other_machine(f"{len(found)} GPUs instead of {gpus}")
    for name, memory, version in found:
        if not re.search(gpu, name):
            raise _other_machine(f"a GPU is a {name}, which does not match {gpu}")
        if memory < box_facts.least_mebibytes(vram_gb):
            raise _other_machine(f"{name} has {memory} MiB, less than {vram_gb:g} GB")
        if numbers(version) < numbers(driver):
            raise RefusedError(
                "RDTL-B022",
                f"the driver {version} is older than {driver}",
                where=name,
                why="the wheels' CUDA does not start with it",
                fix="rent an offer with a newer driver; inside a container it cannot be changed",
            )
    folder = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(folder).free / GIGABYTE
    if free < disk_gb:
        raise _full(f"{free:.0f} GB are free instead of {disk_gb:g} GB", folder)
    return f"{len(found)} GPUs {found[0][0] if found else ''}, {free:.0f} GB free".replace(
        "  ", " "
    )


def _gpus() -> list[tuple[str, int, str]]:
    try:
        return box_facts.gpus()
    except OSError as error:
        raise _other_machine(str(error)) from error


def _other_machine(what: str) -> RefusedError:
    return RefusedError(
        "RDTL-B001",
        f"this is not the machine that was asked for: {what}",
        where="nvidia-smi on this machine",
        why="the recipe's batch sizes and times are for another one",
        fix="give this machine back and take another offer, or lower what the recipe asks for",
    )


def _full(what: str, folder: Path) -> RefusedError:
    return RefusedError(
        "RDTL-G001",
        f"the disk is too small: {what}",
        where=str(folder),
        why="it would be full before the end, and the last checkpoint would be torn",
        fix="take a larger disk, save less often or keep fewer checkpoints; if less is enough for "
        "what you run, say so (--set disk_gb=…)",
    )


def budget(folder: Path, held: Path, checkpoints: int, gigabytes: float) -> str:
    """So many checkpoints of that size fill at most 0.8 of their room. RefusedError RDTL-G001.

    Their room is what is free and what those of an earlier try fill in ``held``.
    """
    folder = next(path for path in (folder, *folder.parents) if path.exists())
    there = sum(path.lstat().st_size for path in held.rglob("*") if path.is_file())
    room, needed = (shutil.disk_usage(folder).free + there) / GIGABYTE, checkpoints * gigabytes
    if needed > 0.8 * room:
        raise _full(f"{checkpoints} checkpoints are {needed:.0f} GB, room {room:.0f} GB", folder)
    return f"{checkpoints} checkpoints of {gigabytes:g} GB fit into {room:.0f} GB"


def numbers(version: str) -> list[int]:
    """The numbers of a version, without a local part: 2.7.1+cu128 is [2, 7, 1]."""
    return [int(number) for number in re.findall(r"\d+", version.partition("+")[0])]


def packages(code: str, python: Path, wanted: Sequence[str]) -> str:
    """Versions in an environment: ``a==1.2``, ``b>=1.2``, ``c<3``. RefusedError ``code``."""
    parts = [re.fullmatch(r"([\w.-]+)(==|>=|<)([\w.]+)", text) for text in wanted]
    rules = [part.groups() for part in parts if part]
    assert len(rules) == len(wanted), wanted
    argv = [str(python), "-c", VERSIONS, *(name for name, _, _ in rules)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise _packages(code, done.stderr.strip().splitlines()[-1][:200], python)
    found = json.loads(done.stdout)
    for name, relation, version in rules:
        have, want = numbers(found[name]), numbers(version)
        if not {"==": have[: len(want)] == want, ">=": have >= want, "<": have < want}[relation]:
            what = f"{name} is {found[name]}, not {COMPARE[relation]} {version}"
            raise _packages(code, what, python)
    return ", ".join(f"{name} {found[name]}" for name, _, _ in rules)


def _packages(code: str, what: str, python: Path) -> RefusedError:
    return RefusedError(
        code,
        f"the environment does not hold what the recipe installs: {what}",
        where=str(python),
        why="a later uv sync removes what is not in the lock and puts locked versions back",
        fix="run the recipe again: this step and those after it are repeated",
    )


def toml(path: Path, key: str, wanted: str) -> str:
    """A list in a TOML file holds a text. RefusedError RDTL-C005; needs Python 3.11."""
    import tomllib

    value: Any = tomllib.loads(path.read_text(encoding="utf-8"))
    for part in key.split("."):
        value = value.get(part, {}) if isinstance(value, dict) else {}
    if wanted not in value:
        raise RefusedError(
            "RDTL-C005",
            f"{key} does not hold {wanted}",
            where=f"{path}: {value or 'no such key'}",
            why="PyAV would be built from source and ask for FFmpeg 7",
            fix=f'add "{wanted}" to {key} of pyproject.toml, then uv lock',
        )
    return f"{path}: {key} holds {wanted}"


def overlay(source: Path, target: Path, *, apply: bool) -> str:
    """Every file of ``source`` lies in ``target`` with the same bytes, as a file of its own.

    With ``apply`` it is put there first, by a new file and a rename: writing into the old
    one would reach uv's cache through its hard link, and with it every other environment.
    RefusedError RDTL-C008, RDTL-C009.
    """
    names = sorted(p.relative_to(source) for p in source.rglob("*") if p.is_file())
    names = [name for name in names if "__pycache__" not in name.parts]
    for name in names if apply else []:
        with whole_file(target / name) as temporary:
            shutil.copyfile(source / name, temporary)
    for name in names:
        if not (target / name).is_file() or _digest(source / name) != _digest(target / name):
            raise _not_laid("RDTL-C008", f"{name} is not the changed one", target)
        if (target / name).stat().st_nlink > 1:
            raise _not_laid("RDTL-C009", f"{name} is shared with uv's cache", target)
    if not names:
        raise _not_laid("RDTL-C008", "there is nothing to lay over it", source)
    return f"{len(names)} files of {source.name} lie over {target}"


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _not_laid(code: str, what: str, folder: Path) -> RefusedError:
    return RefusedError(
        code,
        f"the changed transformers are not in place: {what}",
        where=str(folder),
        why="upstream's own check compares the version only, and the model would be another one",
        fix="run the recipe again: the overlay is laid after everything that installs packages",
    )
