"""Learning rate and length of a run, as functions of the optimizer step alone.

Steps count from 0. Nothing here remembers anything, so a resumed run has the
learning rate it would have had.
"""

from __future__ import annotations

import math

MEASURE_FROM = 5
MEASURE_TO = 25


def learning_rate(
    step: int, total: int | None, peak: float, warmup: int, schedule: str = "cosine"
) -> float:
    """Linear warm-up over ``warmup`` optimizer steps, then what ``schedule`` says.

    "cosine" and "linear" go down to 0 at ``total``, "constant" stays. ``total`` None (not
    measured yet) is allowed during the warm-up only.
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    if schedule == "constant":
        return peak
    if total is None:
        raise ValueError(f"step {step} lies behind the warm-up and the length is not known")
    progress = min(1.0, (step - warmup) / max(1, total - warmup))
    if schedule == "linear":
        return peak * (1 - progress)
    return peak * 0.5 * (1 + math.cos(math.pi * progress))


def warmup_steps(configured: int, minutes: float | None) -> int:
    """Steps of warm-up; with a time budget it lasts at least until the length is known."""
    return configured if minutes is None else max(configured, MEASURE_TO)


def steps_for(minutes: float, steps_per_second: float) -> int:
    """Optimizer steps that fit into ``minutes`` at the measured speed."""
    return max(MEASURE_TO + 1, round(60 * minutes * steps_per_second))
