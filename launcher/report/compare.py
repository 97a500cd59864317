"""Two or more runs on the same episodes: which policy is better, and how sure that is.

Only pairs count: the same task, initial state and trial, begun in the same scene, under one
protocol. A difference of the protocols that is wanted (another execution horizon, say) has
to be named, and is then shown beside every number.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields, replace

from launcher.core.errors import RdtlError, RefusedError, UsageError
from launcher.report import evidence
from launcher.report.aggregate import Report
from launcher.report.evidence import points
from launcher.report.intervals import Interval, mcnemar, paired_difference
from rdt.spec.protocol import Protocol

FIELDS = tuple(field.name for field in fields(Protocol))


@dataclass(frozen=True)
class Counts:
    """Outcomes of paired episodes; ``only_first`` succeeded in the first run alone."""

    both: int
    only_first: int
    only_second: int
    neither: int

    @property
    def pairs(self) -> int:
        return self.both + self.only_first + self.only_second + self.neither

    @property
    def difference(self) -> float:
        """Second rate minus first rate, in [-1, 1]."""
        return (self.only_second - self.only_first) / self.pairs

    @property
    def interval(self) -> Interval:
        """95 % interval of :attr:`difference`."""
        return paired_difference(self.both, self.only_second, self.only_first, self.neither)

    @property
    def p(self) -> float:
        """Exact McNemar test."""
        return mcnemar(self.only_first, self.only_second)


@dataclass(frozen=True)
class Pair:
    """``second`` against ``first``. ``finished`` leaves episodes with errors out,
    ``errors_as_failures`` counts them as failures; ``other_scene`` pairs were left out because
    the fixtures stood elsewhere; ``differences`` are fields of the protocol with both values."""

    first: Report
    second: Report
    first_name: str
    second_name: str
    finished: Counts
    errors_as_failures: Counts
    other_scene: int
    differences: tuple[tuple[str, str, str], ...]


def compare(reports: Sequence[Report], across: Collection[str]) -> list[Pair]:
    """Each further report against the first one.

    ``across`` names the fields of the protocol that may differ. Raises UsageError RDTL-E061 for
    a name that is none, RefusedError RDTL-E060 when other fields differ, RdtlError RDTL-E062
    when two runs have no episode in common.
    """
    if unknown := sorted(set(across) - set(FIELDS)):
        raise UsageError(
            "RDTL-E061",
            f"the protocol has no field {', '.join(unknown)}",
            where=f"--across {unknown[0]}",
            why="only a named difference can be shown",
            fix="name one of " + ", ".join(FIELDS),
        )
    named = list(zip(reports, names(reports), strict=True))
    return [_pair(named[0], other, across) for other in named[1:]]


def names(reports: Sequence[Report]) -> list[str]:
    """A name for each run: its directory's, with the path where two are called alike."""
    own = [report.run.root.name for report in reports]
    return [
        name if own.count(name) == 1 else str(report.run.root)
        for name, report in zip(own, reports, strict=True)
    ]


def _pair(one: tuple[Report, str], other: tuple[Report, str], across: Collection[str]) -> Pair:
    (first, first_name), (second, second_name) = one, other
    differences = differing_fields(first.protocol, second.protocol)
    if foreign := [d for d in differences if d[0] not in across]:
        named = " ".join(f"--across {name}" for name, _, _ in differences)
        raise RefusedError(
            "RDTL-E060",
            "these runs followed different protocols",
            where="; ".join(
                f"{name} {a} in {first_name}, {b} in {second_name}" for name, a, b in foreign
            ),
            why="a difference of their rates may come from the protocol and not from the policy",
            fix=f"evaluate under one protocol, or, if that is the question, add {named}",
        )
    finished, counted, other_scene = _counts(first, second)
    if not finished.pairs:
        raise RdtlError(
            "RDTL-E062",
            "these runs have no finished episode in common",
            where=f"{first.run.root}, {second.run.root}: 0 pairs, {other_scene} of another scene",
            why="rates over different episodes cannot be compared in pairs",
            fix="evaluate both on the same task and initial states",
        )
    names = first_name, second_name
    return Pair(first, second, *names, finished, counted, other_scene, tuple(differences))


def differing_fields(first: Protocol, second: Protocol) -> list[tuple[str, str, str]]:
    """(field, value there, value here) of every field in which two protocols differ.

    The limit of a suite that only one of them evaluates is no difference.
    """
    common = first.max_steps.keys() & second.max_steps.keys()
    one, other = (
        replace(p, max_steps={suite: p.max_steps[suite] for suite in sorted(common)})
        for p in (first, second)
    )
    values = [(name, getattr(one, name), getattr(other, name)) for name in FIELDS]
    return [(name, str(a), str(b)) for name, a, b in values if a != b]


def _counts(first: Report, second: Report) -> tuple[Counts, Counts, int]:
    """Pairs without errors, pairs with errors as failures, pairs of different scenes."""
    ours, theirs = (
        {key[1:]: status for key, status in r.statuses(evidence.main_row(r).policy).items()}
        for r in (first, second)
    )
    scenes, other_scenes = _scenes(first), _scenes(second)
    finished, counted, strange = [0, 0, 0, 0], [0, 0, 0, 0], 0
    for key in ours.keys() & theirs.keys():
        if scenes[key] != other_scenes[key] and scenes[key] and other_scenes[key]:
            strange += 1
            continue
        cell = 2 * (ours[key] != "success") + (theirs[key] != "success")
        counted[cell] += 1
        if {ours[key], theirs[key]} <= {"success", "fail"}:
            finished[cell] += 1
    return Counts(*finished), Counts(*counted), strange


def _scenes(report: Report) -> dict[tuple[object, ...], bytes]:
    """Fixture digest by (suite, task, initial state, trial)."""
    e = report.episodes
    return {e.planned.key(scene)[1:]: digest for scene, digest in enumerate(e.fixtures)}


def sentence(pair: Pair) -> str:
    """What the pairs allow to say."""
    c, low_high = pair.finished, pair.finished.interval
    counts = (
        f"over {c.pairs} pairs of equal episodes {pair.second_name} alone succeeded in "
        f"{c.only_second}, {pair.first_name} alone in {c.only_first} (exact McNemar test, "
        f"{evidence.p_text(c.p)}); difference {points(c.difference)} points, 95 % interval "
        f"{points(low_high.low)} to {points(low_high.high)}"
    )
    shown = "; ".join(f"{name} {a} against {b}" for name, a, b in pair.differences)
    where = f" The protocols differ, as named: {shown}." if shown else ""
    if c.p >= evidence.LEVEL:
        few = evidence.too_few(c.only_first + c.only_second)
        return (
            f"{pair.second_name} is not distinguishable from {pair.first_name}: {counts}."
            f"{few}{where}"
        )
    which = "better" if c.difference > 0 else "worse"
    return f"{pair.second_name} is {which} than {pair.first_name}: {counts}.{where}"


def caveats(pair: Pair) -> list[str]:
    """What the pairs leave out, and what changes if errors count as failures."""
    found = [f"{pair.second_name}: {said}" for said in evidence.repeated(pair.second)]
    c = pair.errors_as_failures
    if pair.other_scene:
        found.append(
            f"RDTL-E004: {_pairs(pair.other_scene)} of {pair.first_name} and {pair.second_name} "
            "began with different fixtures and were left out."
        )
    if lost := c.pairs - pair.finished.pairs:
        found.append(
            f"{_pairs(lost)} of {pair.first_name} and "
            f"{pair.second_name} left out for an error of the harness or the policy program; with "
            "errors as "
            f"failures the difference is {points(c.difference)} points ({evidence.p_text(c.p)})."
        )
    return found


def _pairs(count: int) -> str:
    return "1 pair" if count == 1 else f"{count} pairs"
