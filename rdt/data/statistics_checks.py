"""Checks of the numbers by which states and actions are normalised.

Each returns findings, as :mod:`rdt.data.checks` does of the data themselves.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from launcher.core.checks import Finding
from rdt.data import statistics_files
from rdt.data.declared import DeclaredSet
from rdt.data.measuring import Measured, measure
from rdt.data.statistics import Summary
from rdt.spec.contract import Contract

TOLERANCE = 0.01  # sums in float32 over millions of rows are off by a tenth of this


def sane(where: str, contract: Contract, state: Summary, action: Summary) -> list[Finding]:
    """Finite, and no used slot without any spread; in the contract's 128 slots."""
    found = []
    for name, summary, slots in (
        ("state", state, contract.state_slots),
        ("action", action, contract.action_slots),
    ):
        if not np.isfinite([summary.mean, summary.std, summary.q01, summary.q99]).all():
            found.append(_useless(f"{name} statistics are not finite", where))
        still = [slot for slot in slots if summary.std[slot] == 0]
        if still:
            what = f"{name} never changes in slots {still}"
            found.append(_useless(what, f"{where}: spread 0 in a slot that is used"))
    return found or [
        Finding("RDTL-D006", "ok", "statistics are finite, every used slot has spread")
    ]


def belong(path: Path, source: DeclaredSet, measured: Measured, name: str) -> list[Finding]:
    """A file of statistics is of these data: same digest, or at least the same numbers."""
    found = statistics_files.read(path, measured.contract, name)
    if not found.slots:
        measured = measure(source, measured.contract, slots=False)
    if found.source is not None and found.source["dataset_digest"] != measured.digest:
        said, here = found.source["dataset_digest"][:12], measured.digest[:12]
        where = f"{found.path}: digest {said}, the data have {here}"
        return [_foreign("the statistics are of other data", where, source)]
    lines = differences(found, measured)
    if lines:
        more = f" ({len(lines)} in all)" if len(lines) > 1 else ""
        where = f"{found.path}: {'; '.join(lines[:3])}{more}"
        return [_foreign("the statistics are of other data, or in another unit", where, source)]
    return [Finding("RDTL-D002", "ok", f"{found.path.name} holds the statistics of these data")]


def differences(found: statistics_files.Found, measured: Measured) -> list[str]:
    """Where mean or spread differ from the data's by more than float32 sums explain."""
    lines = []
    for part, numbers in (("action", found.action), ("state", found.state)):
        if numbers is None:
            continue
        right: Summary = getattr(measured, part)
        for place, spread in enumerate(right.std):
            mean, std = numbers["mean"][place], numbers["std"][place]
            if abs(mean - right.mean[place]) > TOLERANCE * spread + 1e-6:
                lines.append(
                    f"{part}.mean[{place}] = {mean:.4g}, of the data {right.mean[place]:.4g}"
                )
            if abs(std - spread) > TOLERANCE * spread + 1e-6:
                times = f", {std / spread:.3g} times" if spread else ""
                lines.append(f"{part}.std[{place}] = {std:.4g}, of the data {spread:.4g}{times}")
    return lines


def _useless(what: str, where: str) -> Finding:
    why = "a policy trained on these numbers could not succeed in the simulator"
    fix = "use other data, or collect the demonstrations again"
    return Finding("RDTL-D006", "error", what, where, why, fix)


def _foreign(what: str, where: str, source: DeclaredSet) -> Finding:
    why = "states and actions would be normalised by other numbers than their own"
    fix = f"rdtl data stats {source.path} --format FORMAT --out FILE makes those of these data"
    return Finding("RDTL-D002", "error", what, where, why, fix)
