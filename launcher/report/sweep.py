"""The end of a sweep: a line for each cell, and a verdict on which to use, or to train again."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from launcher.core import files
from launcher.core.errors import RdtlError
from launcher.core.runs import RunDir
from launcher.report import aggregate, comparison_page, evidence, intervals, reading
from launcher.report.aggregate import Report, Row
from launcher.report.compare import Pair, compare
from launcher.report.tables import Table
from rdt.spec import sweep
from rdt.spec.sweep import Cell

ACROSS = ("execution_horizon", "preprocessing", "views")
"""Fields of the protocol that cells differ in by intent."""
RETRAIN = "train again (configs/train), the horizon does not cure it"


@dataclass(frozen=True)
class Swept:
    """Cells that have records, in order, and the names of those that have none yet."""

    run: RunDir
    keep_above: float
    cells: tuple[tuple[Cell, Report], ...]
    without: tuple[str, ...]

    @property
    def best(self) -> tuple[Cell, Report]:
        """The cell with the highest rate; of equal ones that which asks its policy least often.

        One without any result comes after all others.
        """

        def merit(cell: tuple[Cell, Report]) -> tuple[bool, float, int]:
            rate = evidence.main_row(cell[1]).rate
            return rate is not None, rate or 0.0, cell[0].horizon

        return max(self.cells, key=merit)

    def pairs(self) -> list[Pair]:
        """Each other cell against the best one, on equal episodes, as far as there are any yet."""
        best, found = self.best[1], []
        for _, other in self.cells:
            try:
                found += compare([best, other], ACROSS) if other is not best else []
            except RdtlError as error:
                if error.problem.code != "RDTL-E062":
                    raise
        return found


def is_sweep(root: Path) -> bool:
    """Whether a run directory holds a sweep; UsageError RDTL-U014 when it is no run."""
    return bool(reading.plan(RunDir(root))["config"].get("sweep"))


def load(run: RunDir) -> Swept:
    """Count the records of every cell; RdtlError RDTL-E037 when no cell has any."""
    config = reading.plan(run)["config"]
    places = [(cell, RunDir(run.cells / cell.name)) for cell in sweep.cells(config)]
    begun = [(cell, aggregate.load(place)) for cell, place in places if _begun(place)]
    if not begun:
        raise reading.nothing_recorded(run, len(places), 0)
    known = {cell for cell, _ in begun}
    missing = tuple(cell.name for cell, _ in places if cell not in known)
    return Swept(run, config["sweep"]["keep_above"], tuple(begun), missing)


def _begun(place: RunDir) -> bool:
    return any(b"\n" in path.read_bytes() for path in place.records.glob("part-*"))


def build(root: Path) -> Swept:
    """Write ``sweep.csv`` and ``index.html`` of RUN/report; returns the counts."""
    swept = load(RunDir(root.resolve()))
    files.write_text(swept.run.report / "sweep.csv", to_csv(swept))
    if pairs := swept.pairs():
        files.write_text(swept.run.report / "index.html", comparison_page.render(pairs))
    return swept


def table(swept: Swept) -> Table:
    """A line for each cell, and the verdict."""
    lines = [(cell, evidence.main_row(report)) for cell, report in swept.cells]
    extra = [name for name in ("errors", "missing") if any(getattr(r, name) for _, r in lines)]
    return Table(
        title="Cells, on the same episodes",
        columns=("cell", "successes", "rate %", "95 % interval", *extra),
        rows=tuple((cell.name, *_numbers(row, extra)) for cell, row in lines),
        sentences=tuple(verdict(swept)),
    )


def _numbers(row: Row, extra: Sequence[str] = ()) -> tuple[str, ...]:
    return (
        f"{row.successes}/{row.episodes}",
        evidence.percent(row.rate),
        evidence.interval_text(row),
        *(str(getattr(row, name)) for name in extra),
    )


def curve(found: Sequence[Swept]) -> Table:
    """The best cell of each sweep, for instance of one checkpoint each."""
    best = [(cell, evidence.main_row(report)) for cell, report in (s.best for s in found)]
    rows = tuple((cell.name, *_numbers(row)) for cell, row in best)
    columns = ("best cell", "successes", "rate %", "95 % interval")
    return Table("Checkpoints so far", columns, rows, ())


def verdict(swept: Swept) -> list[str]:
    """Best cell with its interval, what cannot be told from it, and what to do."""
    cell, row = swept.best[0], evidence.main_row(swept.best[1])
    found = [f"No record yet: {', '.join(swept.without)}."] if swept.without else []
    if not row.episodes:
        return [*found, f"No episode of {cell.name} ended without an error: there is no verdict."]
    found.append(f"Best: {cell.name}, {_rate(row.successes, row.episodes)}.")
    if row.missing:
        found.append(evidence.missing_text(row, cell.name))
    found += [s for s in (_rivals(swept), *_by_suite(swept)) if s]
    return [*found, _advice(cell, row, swept.keep_above)]


def _rate(successes: int, episodes: int) -> str:
    low, high = intervals.wilson(successes, episodes)
    return (
        f"{successes} of {episodes} episodes, {evidence.percent(successes / episodes)} % "
        f"(95 % interval {evidence.percent(low)} to {evidence.percent(high)} %)"
    )


def _rivals(swept: Swept) -> str:
    """What equal episodes say of the other cells, and how far the best one can be trusted."""
    if len(swept.cells) < 2:
        return ""
    which = "Every other cell with records" if swept.without else "Every other cell"
    told = [f"{words}: {', '.join(names)}." for words, names in _not_worse(swept) if names]
    said = " ".join(told) or f"{which} is worse (exact McNemar tests on equal episodes)."
    return (
        f"{said} It was chosen among {len(swept.cells)} on the episodes that judge it, so its "
        "rate flatters it; confirm it on other initial states."
    )


def _not_worse(swept: Swept) -> list[tuple[str, list[str]]]:
    """Cells that equal episodes do not show to be worse than the best one, by what they show."""
    pairs, best = swept.pairs(), swept.best[0]
    equal = [pair.second_name for pair in pairs if pair.finished.p >= evidence.LEVEL]
    ahead = [pair.second_name for pair in pairs if pair.finished.difference > 0]
    compared = {best.name, *(pair.second_name for pair in pairs)}
    return [
        # one whose rate over all of its own episodes is lower nevertheless
        ("Better than it on equal episodes", [name for name in ahead if name not in equal]),
        ("Not distinguishable from it on equal episodes", equal),
        (
            "Not compared with it, as no finished episode is common to both",
            [cell.name for cell, _ in swept.cells if cell.name not in compared],
        ),
    ]


def _by_suite(swept: Swept) -> list[str]:
    """The best cell of each suite, where there are several."""
    lines = list(suites(swept))
    names = dict.fromkeys(suite for _, suite, _, _ in lines)
    if len(names) < 2:
        return []
    found = []
    for name in names:
        own = [(k / n, cell.horizon, cell, k, n) for cell, suite, k, n in lines if suite == name]
        _, _, cell, k, n = max(own, key=lambda line: line[:2])
        found.append(f"{name}: best {cell.name}, {_rate(k, n)}.")
    return found


def suites(swept: Swept) -> list[tuple[Cell, str, int, int]]:
    """Cell, suite, successes and episodes; suites without an episode are left out."""
    found = []
    for cell, report in swept.cells:
        own = [row for row in report.tasks if row.policy == evidence.main_row(report).policy]
        for suite, rows in groupby(sorted(own, key=lambda r: r.suite), lambda r: r.suite):
            counts = [(row.successes, row.episodes) for row in rows]
            k, n = (sum(column) for column in zip(*counts, strict=True))
            if n:
                found.append((cell, suite, k, n))
    return found


def _advice(cell: Cell, row: Row, threshold: float) -> str:
    assert row.rate is not None and row.interval is not None
    bar = f"{100 * threshold:g} %"
    if row.interval.high <= threshold:
        return f"Verdict: no cell gets above {bar}: {RETRAIN}."
    if row.rate <= threshold:
        return (
            f"Verdict: no cell got above {bar}, and more episodes could still change that: run "
            f"more, or {RETRAIN}."
        )
    sure = "" if row.interval.low > threshold else f"; that it is above {bar} is not certain yet"
    return f"Verdict: keep the weights, evaluate with execution horizon {cell.horizon}{sure}."


def to_csv(swept: Swept) -> str:
    """A line for each cell and suite."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = "cell checkpoint contract execution_horizon suite successes episodes rate low high"
    writer.writerow([*names.split(), "protocol"])
    protocols = {cell: report.protocol.fingerprint() for cell, report in swept.cells}
    for cell, suite, k, n in suites(swept):
        low, high = intervals.wilson(k, n)
        place = [cell.name, cell.checkpoint or "", cell.contract or "", cell.horizon, suite]
        writer.writerow([*place, k, n, k / n, low, high, protocols[cell]])
    return text.getvalue()


def document(swept: Swept) -> dict[str, Any]:
    """The same for programs; rates are fractions of 1."""
    rows = [(cell, evidence.main_row(report)) for cell, report in swept.cells]
    return {
        "best": swept.best[0].name,
        "cells": [
            {**cell._asdict(), **vars(row), "rate": row.rate, "interval": row.interval}
            for cell, row in rows
        ],
        "without": list(swept.without),
        "sentences": verdict(swept),
        "files": [str(path) for path in sorted(swept.run.report.glob("*.*")) if path.is_file()],
    }
