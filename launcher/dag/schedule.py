"""When each step of a graph would run: what is known of durations, needs and tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from launcher.core import dag_schedule
from launcher.core.dag import Graph, Step


@dataclass(frozen=True)
class Schedule:
    """Begin and end of every step in seconds, and the chain of steps that decides the length."""

    begins: dict[str, float]
    ends: dict[str, float]
    critical: tuple[str, ...]

    @property
    def length(self) -> float:
        """Seconds from the first beginning to the last end."""
        return max(self.ends.values(), default=0.0)


def durations(graph: Graph, measured: Mapping[str, float]) -> dict[str, float]:
    """Seconds of each step: measured ones where there are some, else what the recipe expects."""
    return {step.name: measured.get(step.name, step.expected_s) for step in graph.steps}


def plan(graph: Graph, measured: Mapping[str, float] | None = None) -> Schedule:
    """The schedule as the runner makes it: of the ready steps the one with the longest way first.

    The critical chain goes back from the last end: to the need that ended last, or to the step
    whose end gave the token that was waited for.
    """
    takes, ways = durations(graph, measured or {}), graph.ways()
    order = [replace(step, expected_s=takes[step.name]) for step in graph.order()]
    waiting = sorted(order, key=lambda step: -ways[step.name])
    begins: dict[str, float] = {}
    ends: dict[str, float] = {}
    reason: dict[str, str | None] = {}
    now, ended = 0.0, None
    while waiting:
        for step in list(waiting):
            running = _running(begins, ends, now)
            fits = _ready(step, ends, now) and _fits(step, graph, running)
            if fits and not _waits(step, graph, order, begins, ends, now):
                begins[step.name], ends[step.name] = now, now + takes[step.name]
                last = max(step.needs, key=lambda need: ends[need], default=None)
                waited = last is None or ends[last] < now
                reason[step.name] = ended if waited and now > 0 else last
                waiting.remove(step)
        later = [name for name, end in ends.items() if end > now]
        if not later:
            continue  # steps that take no time have made others ready
        ended = min(later, key=lambda name: ends[name])
        now = ends[ended]
    return Schedule(begins, ends, _chain(ends, reason))


def _running(begins: Mapping[str, float], ends: Mapping[str, float], now: float) -> set[str]:
    return {name for name in begins if begins[name] <= now < ends[name]}


def _ready(step: Step, ends: Mapping[str, float], now: float) -> bool:
    return all(ends.get(need, now + 1) <= now for need in step.needs)


def _waits(
    step: Step,
    graph: Graph,
    order: list[Step],
    begins: Mapping[str, float],
    ends: Mapping[str, float],
    now: float,
) -> bool:
    """Whether the runner would keep its tokens for a longer way: the runner's own rule."""
    names = _running(begins, ends, now)
    running = [other for other in order if other.name in names]
    left = [other for other in order if ends.get(other.name, now + 1) > now]
    waiting = [o for o in left if o.name not in begins and not _ready(o, ends, now)]
    free = {
        name: count - sum(other.resources.get(name, 0) for other in running)
        for name, count in graph.tokens.items()
    }
    expected = dag_schedule.remaining(left, {name: now - begins[name] for name in names})
    return dag_schedule.waits(step, waiting, running, graph.ways(), expected, free)


def _fits(step: Step, graph: Graph, running: set[str]) -> bool:
    used = [other.resources for other in graph.steps if other.name in running]
    return all(
        count + sum(each.get(name, 0) for each in used) <= graph.tokens.get(name, 0)
        for name, count in step.resources.items()
    )


def _chain(ends: Mapping[str, float], reason: Mapping[str, str | None]) -> tuple[str, ...]:
    chain: list[str] = []
    name = max(ends, key=lambda each: ends[each], default=None)
    while name is not None:
        chain.append(name)
        name = reason[name]
    return tuple(reversed(chain))
