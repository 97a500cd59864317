"""What the counts allow to say, as plain sentences for the terminal and the page.

The references give a success rate its meaning: doing nothing is the floor, blind
replay of one demonstration is what memory alone achieves, the scripted expert
shows that the task can be solved under this protocol.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from launcher.report import intervals, reading, sources
from launcher.report.aggregate import Report, Row
from rdt.spec import suites
from rdt.spec.planned import main_policy
from rdt.spec.protocol import RESET_RULES

LEVEL = 0.05
TELLING = 6
"""Pairs that must differ before the exact test can fall below that: 2 / 2^6 is 0.03."""
SMOKE = 10
"""A rate from less than a tenth of the published episodes is called a smoke test."""
MEANING = {
    "rdt": "the trained policy",
    "server": "the policy behind a server",
    "expert": "a script that reads the simulator's state",
    "zero": "never moves",
    "replay": "one demonstration's actions, played blindly",
}


def tested(report: Report) -> Row | None:
    """The policy under test: rdt, or the one of a server; None when only references were run."""
    return report.row("rdt") or report.row("server")


def main_row(report: Report) -> Row:
    """The policy under test, or else the first reference."""
    name = main_policy(report.policies)
    return next(row for row in report.rows if row.policy == name)


def missing_text(row: Row, name: str) -> str:
    """How many episodes a row lacks; ``name`` is what it is called."""
    planned = row.episodes + row.errors + row.missing
    return f"{name}: {row.missing} of {planned} planned episodes missing, counted in no rate."


def percent(rate: float | None) -> str:
    """A fraction as percent with one decimal, or a dash."""
    return "–" if rate is None else f"{100 * rate:.1f}"


def interval_text(row: Row, between: str = "–") -> str:
    """The 95 % interval in percent, such as ``48.1–85.5``; a dash without episodes."""
    return "–" if row.interval is None else between.join(percent(bound) for bound in row.interval)


def p_text(p: float) -> str:
    """``p = 0.031``, or ``p < 0.001``."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def points(difference: float) -> str:
    """A difference of rates in percentage points with its sign."""
    return f"{100 * difference:+.1f}".replace("-", "−")


def verdict(report: Report) -> str:
    """One sentence: the main policy's count, rate and interval."""
    row = main_row(report)
    if row.episodes == 0:
        return f"No episode of {row.policy} ended without an error, so it has no success rate."
    return (
        f"{row.policy} succeeded in {row.successes} of {row.episodes} episodes: "
        f"{percent(row.rate)} % (95 % interval {interval_text(row, ' to ')} %)."
    )


def caveats(report: Report) -> list[str]:
    """What is incomplete, broken or odd about these records; empty when nothing is."""
    found = [missing_text(row, row.policy) for row in report.rows if row.missing]
    found += [f"{f['code']}: {f['what']}; {f['why']}." for f in reading.findings(report.run)]
    weights = reading.weights(report.run)
    found += _foreign(report, weights.get("tasks", []) if weights else [])
    found += repeated(report)
    if free := reading.agreement(report.run):
        rate = percent(free.equal / free.looked if free.looked else None)
        found.append(
            f"The policy computed free batches: {free.equal} of {free.looked} answers looked at "
            f"({rate} %) are bit for bit those of the request alone, "
            f"largest difference {free.largest:.1e}; these episodes need not repeat exactly."
        )
    failed = report.errors()
    found += [
        _errors(row, [r.error for r in failed if r.policy == row.policy])
        for row in report.rows
        if row.errors
    ]
    if strange := [v for v in sources.videos(report.run) if v.problem]:
        what = "1 chosen episode" if len(strange) == 1 else f"{len(strange)} chosen episodes"
        found.append(f"RDTL-E041: {what} cannot be shown. {strange[0].key}: {strange[0].problem}.")
    e = report.episodes
    if e.unplanned:
        found.append(f"{e.unplanned} records that the plan does not name were left out.")
    if e.foreign:
        more = f" and {len(e.foreign) - 5} more" if len(e.foreign) > 5 else ""
        found.append(
            "Not read, as their names or contents are those of no shard files: "
            f"records/{', '.join(e.foreign[:5])}{more}."
        )
    if e.torn:
        count = len(e.torn)
        found.append(
            f"{count} record {'file ends' if count == 1 else 'files end'} in a torn line "
            "(a task was killed while writing); the torn lines do not count."
        )
    if odd := e.differing_fixtures():
        several = len(e.planned.tasks) > 1
        states = [
            f"{state} of {suite} {task}" if several else str(state) for suite, task, state in odd
        ]
        found.append(
            f"RDTL-E004: the fixtures stood elsewhere for different policies at initial state "
            f"{', '.join(states)}; these policies did not face the same scene."
        )
    return found


def repeated(report: Report) -> list[str]:
    """What several trials are worth; empty where each is a scene of its own."""
    grid = report.episodes.planned
    if not _same_scene(report):
        return []
    return [
        f"The {grid.trials} trials of each initial state begin in the same scene: a network's "
        "noise alone tells them apart, and a reference repeats itself. They are not independent: "
        f"intervals hold for these {len(grid.init_states)} initial states alone, and comparisons "
        "with references take the first trial of each."
    ]


def _same_scene(report: Report) -> bool:
    exact = report.protocol.reset_rule == RESET_RULES["exact"]
    return exact and report.episodes.planned.trials > 1


def comparisons(report: Report) -> list[str]:
    """The trained policy against the references, one sentence each; empty without rdt."""
    found = [_against_zero(report), _against_replay(report), _expert(report)]
    return [sentence for sentence in found if sentence]


def tasks_text(report: Report) -> str:
    """Which tasks: ``task 3`` or ``10 tasks``."""
    tasks = report.episodes.planned.tasks
    return f"task {tasks[0][1]}" if len(tasks) == 1 else f"{len(tasks)} tasks"


def scope(report: Report) -> str:
    """RDTL-E020: how far the number reaches, by its tasks and initial states; empty when all that
    a published rate stands on are planned, whole suites from every initial state."""
    grid = report.episodes.planned
    named = dict.fromkeys(suite for suite, _ in grid.tasks)
    known = [suite for suite in map(suites.whole, named) if suite]
    begun, published = len(grid.tasks) * len(grid.init_states), sum(known)
    if len(known) < len(named) or begun >= published:
        return ""
    kind = "a smoke test" if begun * SMOKE < published else "a part of the published protocol"
    states = f" from {len(grid.init_states)} initial states" * (grid.trials > 1)
    return (
        f"RDTL-E020: {tasks_text(report)}, {begun * grid.trials:,} planned episodes a policy"
        f"{states}. A published rate of {', '.join(named)} stands on {published:,}, every task "
        f"from every initial state: this is {kind} and wants its count and interval beside it."
    )


def _foreign(report: Report, learned: Sequence[str]) -> list[str]:
    """RDTL-E029: evaluated tasks that are none of those from which the weights learned."""
    known = tuple(map(_words, learned))  # the names of varied tasks begin with those
    evaluated = {row.task_name for row in report.tasks if row.policy == "rdt" and row.task_name}
    foreign = sorted(name for name in evaluated if not _words(name).startswith(known))
    if not known or not foreign:
        return []
    return [
        f"RDTL-E029: {len(foreign)} of {len(evaluated)} evaluated tasks are not among those that "
        f"these weights were trained on ({foreign[0]}{', …' if len(foreign) > 1 else ''}): rates "
        "of 0 to 18 % are what published policies reach there."
    ]


def _words(task: str) -> str:
    """A task's name or instruction in one form: copies of LIBERO have the one or the other."""
    return re.sub(r"^[A-Z_]+SCENE\d+_", "", task).replace("_", " ").strip().lower()


def _errors(row: Row, said: Sequence[str]) -> str:
    """How many, what difference they make, and what most of them said."""
    what = "1 episode" if row.errors == 1 else f"{row.errors} episodes"
    kinds = Counter(re.sub(r"^query \d+: ", "", text).split(" (")[0] for text in said)
    kind, times = kinds.most_common(1)[0]
    return (
        f"{row.policy}: {what} ended in an error of the harness or the policy program, outside "
        f"the rate; counted as failures the rate is {percent(row.rate_errors_as_failures)} %. "
        f"{'Most often' if times < row.errors else 'Always'}: {kind}."
    )


def _against_zero(report: Report) -> str:
    if not (row := tested(report)):
        return ""
    own, zero = _finished(report, row.policy), _finished(report, "zero")
    if not own or not zero:
        return ""
    won, moved = sum(own.values()), sum(zero.values())
    p = intervals.fisher_greater(won, len(own), moved, len(zero))
    counts = f"{won}/{len(own)} against {moved}/{len(zero)}"
    test = f"(Fisher's exact test, one-sided, {p_text(p)})"
    if p < LEVEL:
        return f"Better than not moving: {counts} {test}."
    return f"Not shown to be better than not moving: {counts} {test}."


def _against_replay(report: Report) -> str:
    name = main_row(report).policy
    own, replay = _finished(report, name), _finished(report, "replay")
    shared = sorted(own.keys() & replay.keys())
    if not tested(report) or not own:
        return ""
    if not shared:
        return (
            "Blind replay was not run on these episodes, so how much of this rate memory alone "
            "would reach is not known: add replay to evaluate.policies."
        )
    ahead = sum(own[key] and not replay[key] for key in shared)
    behind = sum(replay[key] and not own[key] for key in shared)
    both = sum(own[key] and replay[key] for key in shared)
    neither = len(shared) - both - ahead - behind
    low, high = intervals.paired_difference(both, ahead, behind, neither)
    p = intervals.mcnemar(ahead, behind)
    counts = (
        f"of {len(shared)} pairs of episodes from the same initial state, {name} alone succeeded "
        f"in {ahead} and replay alone in {behind} (exact McNemar test, {p_text(p)}); that is "
        f"{points((ahead - behind) / len(shared))} points, 95 % interval {points(low)} to "
        f"{points(high)}"
    )
    if p >= LEVEL:
        return (
            f"Not distinguishable from blind replay: {counts}. A policy that only equals it "
            f"may not be looking.{too_few(ahead + behind)}"
        )
    if ahead > behind:
        return f"Above blind replay: {counts}. It does more than repeat one demonstration."
    return f"Below blind replay: {counts}. It has not even memorised a demonstration."


def too_few(disagreements: int) -> str:
    """What stands beside a difference that no test could show."""
    if not 0 < disagreements < TELLING:
        return ""
    return (
        f" With fewer than {TELLING} disagreements no exact test tells two apart; the interval "
        "is an approximation, and too narrow there."
    )


def _finished(report: Report, policy: str) -> dict[tuple[Any, ...], bool]:
    """Success of the episodes that ended without an error, by their key without the policy.

    Of trials in the same scene the first alone: copies of an episode are no further evidence.
    """
    statuses, first = report.statuses(policy), _same_scene(report)
    return {
        key[1:]: status == "success"
        for key, status in statuses.items()
        if status in ("success", "fail") and not (first and key.trial)
    }


def _expert(report: Report) -> str:
    expert = _finished(report, "expert")
    if not expert or not tested(report):
        return ""
    return (
        "The scripted expert, which sees the simulator's state, succeeded in "
        f"{sum(expert.values())} of {len(expert)}: what is reachable within "
        f"{report.protocol.limits} steps."
    )
