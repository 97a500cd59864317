"""The sentences and figures that terminal and page have in common."""

from __future__ import annotations

from typing import Any

Inspection = dict[str, Any]
"""The answer of jobs.inspect_data."""

KINDS = {"libero-hdf5": "LIBERO HDF5", "rlds": "RLDS", "lerobot": "LeRobot"}
ROTATIONS = {
    "raw": "raw, bottom row first, as the simulator renders",
    "180": "turned by 180°, upright but mirrored",
}
ORDERS = {
    "enumerate": "every step once, in a new order each epoch; ends are padded and masked",
    "random": "as many draws with putting back: 1 - 1/e = 63 % in the first epoch, nearly all "
    "after many",
    "tail-dropping": "the loader of many fine-tunes, which starts no chunk in the last {horizon} "
    "steps of an episode",
}


def size(count: int) -> str:
    """Bytes for a person: ``283.0 MB``."""
    value, units = float(count), ["B", "kB", "MB", "GB", "TB"]
    while value >= 1000 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{value:.0f} B" if units[0] == "B" else f"{value:.1f} {units[0]}"


def percent(share: float) -> str:
    """A share of 1 for a person: ``62.1 %``."""
    return f"{100 * share:.1f} %"


def counted(count: int, one: str) -> str:
    """``1 file``, ``12 files``."""
    return f"{count:,} {one}{'' if count == 1 else 's'}"


def facts(found: Inspection) -> list[tuple[str, str]]:
    """What the set is, line by line."""
    lengths = found["lengths"]
    cameras = ", ".join(found["cameras"]) or "none"
    pixels = found["picture_size"]
    kind, files = KINDS[found["kind"]], counted(found["files"], "file")
    lines = [
        ("layout", f"{kind}, {files}, {size(found['bytes'])}"),
        (
            "content",
            f"{counted(found['episodes'], 'episode')} of "
            f"{counted(len(found['tasks']), 'task')}, {counted(found['steps'], 'step')}",
        ),
        (
            "lengths",
            f"{lengths['min']} to {lengths['max']} steps, median {lengths['median']:g}",
        ),
        ("cameras", f"{cameras}: {pixels} × {pixels} pixels" if pixels else cameras),
        ("pictures", ROTATIONS[found["rotation"]] if pixels else "none"),
        ("joints", "recorded" if found["joints"] else "not recorded"),
        ("contract", found["contract"]),
    ]
    if found["samples"] < found["steps"]:
        share = percent(found["samples"] / found["steps"])
        lines.insert(2, ("samples", f"{found['samples']:,} steps ({share}) have a picture"))
    return lines


def task_name(task: dict[str, Any]) -> str:
    """A task's name with spaces: ``--task`` takes it so, too."""
    return str(task["task"]).replace("_", " ")


def windows(found: Inspection) -> dict[str, str]:
    """What the key windows are, by name, in the order of the answer."""
    coverage = found["coverage"]
    meaning = {
        "all": "all steps",
        "ending": f"last {coverage['ending']} steps",
        "grasp": f"grasp ± {coverage['around_grasp']} steps",
    }
    return {name: meaning[name] for name in coverage["windows"]}


def orders(found: Inspection) -> list[tuple[str, str, dict[str, dict[str, Any]]]]:
    """Order, what it does, and its figures by window."""
    coverage = found["coverage"]
    return [
        (
            order,
            about.format(horizon=coverage["horizon"]),
            {row["window"]: row for row in coverage["rows"] if row["order"] == order},
        )
        for order, about in ORDERS.items()
    ]


def verdict(found: Inspection) -> str:
    """Verification in one sentence."""
    severities = [finding["severity"] for finding in found["findings"]]
    errors, warnings = severities.count("error"), severities.count("warning")
    if errors:
        more = f" and {counted(warnings, 'warning')}" if warnings else ""
        return f"Verification finds {counted(errors, 'error')}{more}: do not train on these data."
    if warnings:
        return f"Verification finds no error and {counted(warnings, 'warning')}."
    return "Verification finds no error."


def telling(found: Inspection) -> list[dict[str, Any]]:
    """Findings that are more than fine, errors first."""
    ranks = {"error": 0, "warning": 1, "info": 2}
    return sorted(
        (finding for finding in found["findings"] if finding["severity"] in ranks),
        key=lambda finding: ranks[finding["severity"]],
    )
