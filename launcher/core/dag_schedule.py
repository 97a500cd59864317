"""Which ready step waits although it has its tokens: one that would keep a longer way waiting.

Without this a download that may wait takes the last token seconds before the step that
decides the whole asks for it, and keeps it for minutes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from launcher.core.dag import Step


def remaining(order: Iterable[Step], elapsed: Mapping[str, float]) -> dict[str, float]:
    """Expected seconds to the end of each step, by name.

    ``order`` holds the steps that have not ended, each after what it needs; ``elapsed`` how
    long those that run have run. One that is late will be as late again: nobody waits for
    ever for a step that hangs.
    """
    ends: dict[str, float] = {}
    for step in order:
        if step.name in elapsed:
            ends[step.name] = abs(step.expected_s - elapsed[step.name])
        else:
            ends[step.name] = ready_in(step, ends) + step.expected_s
    return ends


def ready_in(step: Step, ends: Mapping[str, float]) -> float:
    """Expected seconds until a step has what it needs."""
    return max((ends.get(need, 0.0) for need in step.needs), default=0.0)


def waits(
    step: Step,
    waiting: Iterable[Step],
    running: Iterable[Step],
    ways: Mapping[str, float],
    ends: Mapping[str, float],
    free: Mapping[str, int],
) -> bool:
    """Whether a ready step leaves its tokens to one of ``waiting`` that will be ready soon.

    It does when to wait for that one takes less time than it would have to wait, and all would
    end earlier even if this one could only begin after it. ``ends`` as :func:`remaining`
    gives them, ``free`` the free tokens.
    """
    for other in waiting:
        soon = ready_in(other, ends)
        if 2 * soon >= step.expected_s:
            continue
        if soon + other.expected_s + ways[step.name] >= step.expected_s + ways[other.name]:
            continue
        for name in step.resources.keys() & other.resources.keys():
            back = sum(s.resources.get(name, 0) for s in running if ends[s.name] <= soon)
            if free[name] - step.resources[name] + back < other.resources[name]:
                return True
    return False
