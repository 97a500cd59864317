"""Statistics in the files that RDT's and openpi's training read: written, read, refused.

`dataset_stat.json` (RDT): ``{name: {dataset_name, state_mean, …, action_max}}``, lists of
128. `dataset_statistics.json` (openpi): ``{name: {action, proprio, num_samples}}`` or, flat,
``{action, proprio, num_transitions, num_trajectories}``, with lists of 7 and 8. Ours carry a
block ``source`` besides, which other readers pass over: contract, digest of the data, what
the numbers are.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from launcher.core import files
from launcher.core.errors import RdtlError, RefusedError, UsageError
from rdt.data import widths
from rdt.data.measuring import Measured
from rdt.data.statistics import Summary
from rdt.spec.contract import UNIFIED_SIZE, Contract, require_same

FORMATS = ("rdt", "openpi", "openpi-flat")
RDT_NUMBERS = ("mean", "std", "min", "max")
OPENPI_NUMBERS = ("mean", "std", "min", "max", "q01", "q99")
OPENPI_PARTS = (("action", "action", widths.ACTION), ("state", "proprio", widths.STATE))
Numbers = dict[str, list[float]]
PROBLEM = "statistics cannot be used"
RECOMPUTE = "compute them from the data: rdtl data stats PATH --format FORMAT --out FILE"


@dataclass(frozen=True)
class Found:
    """Statistics out of a file: lists by number ("mean", …); ``source`` when we wrote it.

    ``action`` is None in RDT's own files, which have states only. ``slots``: lists of 128.
    """

    path: Path
    name: str
    slots: bool
    action: Numbers | None
    state: Numbers
    source: dict[str, Any] | None


def render(measured: Measured, format: str, name: str) -> dict[str, Any]:
    """The content of a file of one of FORMATS for the data set called ``name``."""
    if format == "rdt":
        entry: dict[str, Any] = {"dataset_name": name, "source": _source(measured)}
        for part, summary in (("state", measured.state), ("action", measured.action)):
            entry |= {f"{part}_{number}": getattr(summary, number) for number in RDT_NUMBERS}
        return {name: entry}
    parts: dict[str, Any] = {"action": _lists(measured.action), "proprio": _lists(measured.state)}
    parts["source"] = _source(measured)
    if format == "openpi":
        return {name: {**parts, "num_samples": measured.steps}}
    return {**parts, "num_transitions": measured.steps, "num_trajectories": measured.episodes}


def write(path: Path, format: str, sets: dict[str, Measured]) -> None:
    """Write a file of one of FORMATS whole; ``sets`` by name, one only in the flat one."""
    if format == "openpi-flat" and len(sets) != 1:
        raise UsageError(
            "RDTL-D033",
            f"a flat file holds one data set, not {len(sets)}",
            where=f"{path}: {', '.join(sets)}",
            why="there are no names in it",
            fix="take --format openpi, or write a file for each",
        )
    content: dict[str, Any] = {}
    for name, measured in sets.items():
        content |= render(measured, format, name)
    files.write_json(path, content)


def _lists(summary: Summary) -> Numbers:
    return {number: getattr(summary, number) for number in OPENPI_NUMBERS}


def _source(measured: Measured) -> dict[str, Any]:
    return {
        "contract": measured.contract.to_dict(),
        "dataset_digest": measured.digest,
        "kind": measured.kind,
        "conventions": asdict(measured.conventions),
        "episodes": measured.episodes,
        "steps": measured.steps,
        "dtype": "float64",
        "quantile_error": measured.quantile_error,
    }


def read(path: Path, contract: Contract, name: str = "") -> Found:
    """Read a file, or the only one in a folder, of any of FORMATS; refuse what is unusable.

    ``name`` chooses among several data sets. Raises RefusedError RDTL-D003 or D004 for
    numbers of another robot, D006 for NaN, q01 > q99 or no spread in a slot that
    ``contract`` uses, and RDTL-T012 for another contract.
    """
    path = _the_file(path)
    data = _json(path)
    if "action" in data and "proprio" in data:
        return _openpi(path, "", data, contract)
    name, entry = _entry(path, data, name)
    if "state_mean" in entry:
        return _rdt(path, name, entry, contract)
    if "action" in entry and "proprio" in entry:
        return _openpi(path, name, entry, contract)
    raise _refused("RDTL-D006", f"{path}: keys {', '.join(sorted(entry))[:200]}", "it has "
                   "neither state_mean (RDT) nor action and proprio (openpi)")  # fmt: skip


def _the_file(path: Path) -> Path:
    """``path``, or the one file of statistics in it: a loader would take any of several."""
    if not path.is_dir():
        return path
    names = ("dataset_statistics*.json", "dataset_stat.json")
    found = sorted(file for name in names for file in path.glob(name))
    if len(found) == 1:
        return found[0]
    listed = ", ".join(file.name for file in found) or "no dataset_statistics*.json"
    raise RefusedError(
        "RDTL-D003" if found else "RDTL-D006",
        f"a folder holds {len(found)} files of statistics",
        where=f"{path}: {listed}",
        why="a loader that looks for the name takes whichever comes first",
        fix="name the file, or leave one of them in the folder" if found else RECOMPUTE,
    )


def _json(path: Path) -> dict[str, Any]:
    try:
        data = files.read_json(path)
    except (OSError, ValueError) as error:
        raise RdtlError(
            "RDTL-D006",
            "statistics cannot be read",
            where=f"{path}: {error}",
            why="states and actions are normalised with them",
            fix=RECOMPUTE,
        ) from error
    if not isinstance(data, dict):
        raise _refused("RDTL-D006", str(path), f"it holds {type(data).__name__}, no object")
    return data


def _entry(path: Path, data: dict[str, Any], name: str) -> tuple[str, dict[str, Any]]:
    names = [key for key, value in data.items() if isinstance(value, dict)]
    chosen = name or (names[0] if len(names) == 1 else "")
    if chosen in names:
        return chosen, data[chosen]
    raise UsageError(
        "RDTL-D033",
        f"a file of statistics has no data set {chosen!r}" if name else "which data set?",
        where=f"{path}: it has {', '.join(names)[:300] or 'none'}",
        why="statistics of other data have other units and ranges",
        fix="name one of them: --name",
    )


def _rdt(path: Path, name: str, entry: dict[str, Any], contract: Contract) -> Found:
    source = _known_source(path, entry, contract)
    parts: dict[str, Numbers | None] = {"action": None}
    for part, slots in (("state", contract.state_slots), ("action", contract.action_slots)):
        if f"{part}_mean" in entry:
            numbers = {number: entry.get(f"{part}_{number}") for number in RDT_NUMBERS}
            where = f"{path}: {name}.{part}"
            parts[part] = _usable(numbers, part, UNIFIED_SIZE, slots, where)
    state = parts["state"]
    assert state is not None, "read() looked for state_mean"
    return Found(path, name, True, parts["action"], state, source)


def _openpi(path: Path, name: str, entry: dict[str, Any], contract: Contract) -> Found:
    source = _known_source(path, entry, contract)
    prefix = f"{path}: {name + '.' if name else ''}"
    found = {}
    for part, key, width in OPENPI_PARTS:
        block = entry[key]
        if not isinstance(block, dict):
            raise _refused("RDTL-D006", prefix + key, "it is no object with mean, std, …")
        numbers = {number: block.get(number) for number in OPENPI_NUMBERS}
        found[part] = _usable(numbers, part, width, tuple(range(width)), prefix + key)
    return Found(path, name, False, found["action"], found["state"], source)


def _known_source(path: Path, entry: dict[str, Any], contract: Contract) -> dict[str, Any] | None:
    source: dict[str, Any] | None = entry.get("source")
    if not isinstance(source, dict) or "dataset_digest" not in source:
        return None
    found = require_same(source.get("contract", {}), str(path))
    if found != contract:
        raise RefusedError(
            "RDTL-T012",
            "statistics were made under another contract",
            where=f"{path}: contract {found.name}, asked for {contract.name}",
            why="the same slot holds another quantity, or another unit",
            fix=RECOMPUTE,
        )
    return source


def _usable(
    numbers: dict[str, Any], part: str, width: int, used: tuple[int, ...], where: str
) -> Numbers:
    """The lists, when all are of ``width`` finite numbers, ordered, with spread where ``used``."""
    for number, values in numbers.items():
        if not isinstance(values, list):
            raise _refused("RDTL-D006", f"{where}.{number}", "there is no list of numbers")
        _require_width(len(values), part, width, f"{where}.{number}")
        for place, value in enumerate(values):
            if not isinstance(value, int | float) or not math.isfinite(value):
                raise _refused("RDTL-D006", f"{where}.{number}[{place}] = {value}", "no number")
    for lower, upper in (("min", "max"), ("q01", "q99")):
        for place in range(width if lower in numbers else 0):
            low, high = numbers[lower][place], numbers[upper][place]
            if low > high:
                at = f"{where}.{lower}[{place}] = {low}, {upper} {high}"
                raise _refused("RDTL-D006", at, f"{lower} is larger than {upper}")
    for place in used:
        if numbers["std"][place] <= 0:
            at = f"{where}.std[{place}] = {numbers['std'][place]}"
            raise _refused("RDTL-D006", at, "no spread in a number that is used")
    return numbers


def _require_width(found: int, part: str, width: int, where: str) -> None:
    if found == width:
        return
    if width != UNIFIED_SIZE:
        widths.require(part, found, where)
    raise RefusedError(
        "RDTL-D003" if part == "action" else "RDTL-D004",
        f"{found} numbers per {part}, RDT has {UNIFIED_SIZE}",
        where=f"{where}: probably {_owner(part, found)}",
        why="numbers would fall into slots that mean something else",
        fix=RECOMPUTE,
    )


def _owner(part: str, width: int) -> str:
    if width == (widths.ACTION if part == "action" else widths.STATE):
        return f"LIBERO's own {width} numbers, as openpi has them, not yet in RDT's slots"
    return widths.probably(part, width)


def _refused(code: str, where: str, why: str) -> RefusedError:
    return RefusedError(code, PROBLEM, where=where, why=why, fix=RECOMPUTE)
