"""What one of LIBERO's HDF5 files says of itself: demonstrations, task, words, alignment.

Upstream's files hold observations *after* their action and do not say so; regenerated files
have none of upstream's attributes and hold them before; ours say `obs_action_alignment`.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import h5py

from launcher.core.errors import RdtlError, RefusedError
from rdt.data import hdf5

UPSTREAM_ATTRIBUTES = ("problem_info", "bddl_file_name", "env_args")
SCENE = re.compile(r"^[A-Z_]+_SCENE\d+_")


def episode_names(group: h5py.Group, path: Path) -> list[str]:
    """Names of the demonstrations in the order of their numbers.

    Raises RdtlError RDTL-D014 when there is none, another number than the file says of
    itself, or something that is no demonstration: nothing is passed over in silence.
    """
    names = {name: re.fullmatch(r"demo_(\d+)", name) for name in group}
    strange = [name for name, match in names.items() if match is None]
    said = group.attrs.get("num_demos", len(names))
    if not names or strange or said != len(names):
        raise RdtlError(
            "RDTL-D014",
            "a demonstration file holds no demonstration"
            if not names
            else "a demonstration file holds other demonstrations than it says",
            where=f"{path}: /data has {len(names)} groups"
            + (f", {strange[0]!r} is no demo_N" if strange else f", num_demos says {said}"),
            why="what is missing or misnamed would silently not be learned",
            fix="collect or copy it again, or name another file",
        )
    return sorted(names, key=lambda name: (len(name), name))


def task_name(group: h5py.Group, path: Path) -> str:
    """The task's name: the stem of the file that describes its scene, else of this file."""
    if _regenerated(group, path):
        return path.stem.removesuffix("_demo")
    return Path(_attribute(group, "bddl_file_name", path)).stem


def task_of(path: Path) -> str:
    """The task's name by the file at ``path``; raises what :func:`task_name` and opening it do."""
    with hdf5.open_file(path) as file, hdf5.coded(path):
        return task_name(require(file, "data", path), path)


def _regenerated(group: h5py.Group, path: Path) -> bool:
    """Whether none of upstream's attributes is there, and the file's name tells the task."""
    return path.stem.endswith("_demo") and not any(a in group.attrs for a in UPSTREAM_ATTRIBUTES)


def alignment_of(path: Path, declared: str | None) -> str:
    """What the file says, or its layout, or what is declared; a contradiction is refused."""
    with hdf5.open_file(path) as file, hdf5.coded(path):
        group = require(file, "data", path)
        layout = "before" if _regenerated(group, path) else "after"
        said = group.attrs.get("obs_action_alignment")
    value = _text(said) if said is not None else declared or layout
    if value not in ("before", "after") or (declared or value) != value:
        raise RefusedError(
            "RDTL-D027",
            "the alignment of observations and actions is not known",
            where=f"{path}: /data attribute obs_action_alignment = {value!r}, "
            f"declared: {declared or 'nothing'}",
            why="off by one, every action would answer the wrong picture",
            fix='say "before" or "after", after replaying a demonstration to find out',
        )
    return value


def mixed_alignments(path: Path, found: dict[Path, str]) -> RefusedError:
    """The error of a set whose files are aligned differently; ``found`` by file."""
    examples = {alignment: file.relative_to(path) for file, alignment in found.items()}
    return RefusedError(
        "RDTL-D027",
        "the files of a data set are aligned differently",
        where=f"{path}: " + ", ".join(f"{file} {value}" for value, file in examples.items()),
        why="they come from different sources, and one contract cannot describe both",
        fix="list them as data sets of their own",
    )


def instruction_of(group: h5py.Group, path: Path) -> str:
    """The task in words; RdtlError RDTL-D020 when the file has none."""
    if _regenerated(group, path):
        return SCENE.sub("", task_name(group, path)).replace("_", " ")
    information = json.loads(_attribute(group, "problem_info", path))
    said = information.get("language_instruction") if isinstance(information, dict) else None
    pieces = said if isinstance(said, list) else [said]
    known = all(isinstance(piece, str) for piece in pieces)
    text = "".join(pieces).strip().strip('"') if known else ""
    if not text:
        raise RdtlError(
            "RDTL-D020",
            "a demonstration file has no instruction",
            where=f"{path}: /data attribute problem_info, key language_instruction",
            why="the policy is conditioned on the words of the task",
            fix="collect again, or add the instruction to the file",
        )
    return text


def _attribute(group: h5py.Group, name: str, path: Path) -> str:
    if name not in group.attrs:
        raise RdtlError(
            "RDTL-D014",
            f"a demonstration file lacks the attribute {name}",
            where=f"{path}: /data",
            why="it is part of LIBERO's layout and tells what the file is about",
            fix="use a file in LIBERO's layout, or collect again",
        )
    return _text(group.attrs[name])


def _text(value: Any) -> str:
    """An attribute as text; one of a fixed length comes as bytes."""
    return value.decode() if isinstance(value, bytes) else str(value)


def require(parent: h5py.Group, name: str, path: Path) -> Any:
    """The member ``name`` of a group, or RdtlError RDTL-D014."""
    if name not in parent:
        raise RdtlError(
            "RDTL-D014",
            f"a demonstration file lacks {name}",
            where=f"{path}: {parent.name}",
            why="it is part of LIBERO's layout",
            fix="use a file in LIBERO's layout, or collect again",
        )
    return parent[name]
