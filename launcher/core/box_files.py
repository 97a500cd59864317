"""Proofs on files that a step of a recipe made: counts, headers, statistics, git.

Programs of recipes call them as ``python3 runner.pyz check NAME …``
(:mod:`launcher.core.box_checks`). Each returns a sentence that says what was found, or
raises an RdtlError. Standard library only, Python 3.10.
"""

from __future__ import annotations

import ast
import json
import math
import re
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from launcher.core.errors import RefusedError

GIGABYTE = 1e9
HEADER_LIMIT = 100_000_000
"""Bytes of a safetensors header that the format allows."""
CREDENTIALS = re.compile(r"://[^/\s@]+@")


def counts(
    folder: Path, wanted: Sequence[tuple[str, int]], gigabytes: float, code: str = "RDTL-G002"
) -> str:
    """Each pattern (of pathlib, ``**`` too) matches that many files which are not empty or partial.

    ``gigabytes``: what all files below the folder hold at least. RefusedError ``code``.
    """
    for pattern, number in wanted:
        found = [path for path in folder.glob(pattern) if path.is_file()]
        empty = [path.name for path in found if not path.stat().st_size]
        if len(found) != number or (empty and "success" not in pattern):
            raise _incomplete(
                code,
                f"{len(found)} of {number} files {pattern}" + f", empty: {empty[:3]}" * bool(empty),
                folder,
            )
    partial = [path.name for path in folder.rglob("*.partial")]
    if partial:
        raise _incomplete(code, f"{len(partial)} files are partial, such as {partial[0]}", folder)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    if size < gigabytes * GIGABYTE:
        raise _incomplete(code, f"{size / GIGABYTE:.2f} GB of at least {gigabytes:g} GB", folder)
    return f"{folder}: {size / GIGABYTE:.2f} GB, counts as expected"


def _incomplete(code: str, what: str, folder: Path) -> RefusedError:
    return RefusedError(
        code,
        f"a copy is not complete: {what}",
        where=str(folder),
        why="the program that copied it ended without an error, which proves nothing",
        fix="run the step again; what had arrived whole is not transferred twice",
    )


def safetensors(path: Path, keys: int, shapes: Sequence[tuple[str, list[int]]]) -> str:
    """Number of tensors, shapes of some, and that the file is as long as its header says.

    RefusedError RDTL-G007.
    """
    try:
        header = _header(path)
    except (OSError, ValueError, struct.error) as error:
        raise _unusable_model(f"it cannot be read: {error}", path) from error
    tensors = {name: value for name, value in header.items() if name != "__metadata__"}
    if len(tensors) != keys:
        raise _unusable_model(f"{len(tensors)} tensors instead of {keys}", path)
    for name, shape in shapes:
        found = tensors.get(name, {}).get("shape")
        if found != shape:
            raise _unusable_model(f"{name} has shape {found} instead of {shape}", path)
    return f"{path}: {keys} tensors, shapes as expected"


def _header(path: Path) -> dict[str, Any]:
    with path.open("rb") as handle:
        (size,) = struct.unpack("<Q", handle.read(8))
        if size > HEADER_LIMIT:
            raise ValueError("it is no safetensors file")
        header: dict[str, Any] = json.loads(handle.read(size))
    ends = [value["data_offsets"][1] for name, value in header.items() if name != "__metadata__"]
    whole = 8 + size + max(ends, default=0)
    if path.stat().st_size != whole:
        raise ValueError(f"{path.stat().st_size} bytes of {whole}")
    return header


def _unusable_model(what: str, path: Path) -> RefusedError:
    return RefusedError(
        "RDTL-G007",
        f"the converted model is not whole: {what}",
        where=str(path),
        why="the converter loads with strict=False and reports success whatever is missing",
        fix="remove the file, check the JAX checkpoint and convert again",
    )


def statistics(path: Path, action: int, proprio: int, steps: int | None) -> str:
    """Dimensions, finiteness and order of openpi statistics, nested or flat, the only ones there.

    RefusedError RDTL-D003 (action, several files), D004 (proprio), D006 (numbers, steps).
    """
    several = sorted(p.name for p in path.parent.glob("dataset_statistics*.json"))
    if len(several) > 1:
        raise _statistics("RDTL-D003", f"several files lie there: {', '.join(several)}", path)
    data = json.loads(path.read_text(encoding="utf-8"))
    entry = data if "action" in data else next(iter(data.values()))
    for code, part, wide in (("RDTL-D003", "action", action), ("RDTL-D004", "proprio", proprio)):
        for name in ("q01", "q99", "mean", "std"):
            if len(values := entry[part][name]) != wide:
                raise _statistics(code, f"{part}.{name} has {len(values)} of {wide} numbers", path)
        _require_order(entry[part], part, path)
    counted = entry.get("num_transitions", entry.get("num_samples"))
    if steps is not None and counted != steps:
        raise _statistics("RDTL-D006", f"they are over {counted} steps instead of {steps}", path)
    return f"{path}: {action} and {proprio} dimensions over {counted} steps"


def _require_order(numbers: dict[str, list[float]], part: str, path: Path) -> None:
    everything = [value for values in numbers.values() for value in values]
    if not all(isinstance(value, (int, float)) and math.isfinite(value) for value in everything):
        raise _statistics("RDTL-D006", f"{part} holds NaN or infinity", path)
    for place, (low, high) in enumerate(zip(numbers["q01"], numbers["q99"])):  # noqa: B905
        if low > high:
            raise _statistics("RDTL-D006", f"{part}.q01 > q99 in dimension {place}", path)


def _statistics(code: str, what: str, path: Path) -> RefusedError:
    return RefusedError(
        code,
        f"these statistics cannot be used: {what}",
        where=str(path),
        why="states and actions would be normalised with the wrong numbers, silently",
        fix="compute them from this data set and keep one file in the folder",
    )


def robot(source: Path, name: str) -> tuple[int, int]:
    """Numbers of an action and of a state that openpi's waypoint code gives the robot ``name``.

    Read from the text of its ``robot_config.py``, which is not run. RefusedError RDTL-D005.
    """
    wanted = ("actual_action_dim", "actual_proprio_dim")
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        given = {k.arg: k.value.value for k in node.keywords if isinstance(k.value, ast.Constant)}
        action, proprio = (given.get(word) for word in wanted)
        if given.get("robot_type") == name and isinstance(action, int) and isinstance(proprio, int):
            return action, proprio
    raise RefusedError(
        "RDTL-D005",
        f"the code does not say how many numbers the robot {name} has",
        where=f"{source}: no call with robot_type={name!r} and whole numbers {', '.join(wanted)}",
        why="notes name different numbers, so the pinned code alone decides",
        fix="look how this commit sizes its robots, and adapt the recipe's check to it",
    )


def commit(
    folder: Path, pinned: str, files: Sequence[str], fixes: Sequence[tuple[str, str]] = ()
) -> str:
    """HEAD is the pinned commit, nothing is changed, ``files`` exist, no remote holds a password.

    ``fixes``: codes and the commits that mended them, which HEAD has to contain. RefusedError
    RDTL-B007, RDTL-W001, or the code of a fix that is not there.
    """
    head = _git(folder, "rev-parse", "HEAD")
    if head != pinned:
        raise _moved(f"HEAD is {head[:12]} and not {pinned[:12]}", folder)
    if changed := _git(folder, "status", "--porcelain", "--untracked-files=no"):
        raise _moved(f"files are changed: {' '.join(changed.split())[:200]}", folder)
    missing = [name for name in files if not (folder / name).exists()]
    if missing:
        raise _moved(f"it lacks {', '.join(missing)}", folder)
    for code, fix in fixes:
        _require_fix(folder, code, fix)
    if CREDENTIALS.search(_git(folder, "config", "--list").replace("ssh://", "")):
        raise RefusedError(
            "RDTL-W001",
            "a password stands in the address of a remote",
            where=f"{folder}/.git/config",
            why="everybody who may read this folder has it, and so has every copy of it",
            fix="withdraw that token, remove the folder; give git its token through GIT_ASKPASS",
        )
    return f"{folder}: {head[:12]}, clean"


def _require_fix(folder: Path, code: str, fix: str) -> None:
    words = ["git", "-C", str(folder), "merge-base", "--is-ancestor", fix, "HEAD"]
    if subprocess.run(words, capture_output=True).returncode:
        raise RefusedError(
            code,
            f"the pinned commit does not contain {fix[:12]}, which mended this failure",
            where=str(folder),
            why="it would happen again, and nothing in a log would say so",
            fix="pin a commit that has it; if yours mends it otherwise, take it out of the "
            "recipe's parameter contains",
        )


def _git(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True)
    if done.returncode:
        raise _moved(f"git {words[0]} says: {done.stderr.strip()[:200]}", folder)
    return done.stdout.strip()


def _moved(what: str, folder: Path) -> RefusedError:
    return RefusedError(
        "RDTL-B007",
        f"the code is not what the recipe was written for: {what}",
        where=str(folder),
        why="other commits have other values, log lines and faults",
        fix="check the pinned commit out again, or set the recipe's commit to the one you mean",
    )
