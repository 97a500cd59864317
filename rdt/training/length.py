"""How many optimizer steps a run has: those of its configuration, or what a time budget gives.

A budget is turned into steps once, and the ledger keeps that for every restart.
"""

from __future__ import annotations

from launcher.core.job import Job
from rdt.spec import recipe
from rdt.training import engine as distributed
from rdt.training.schedule import steps_for

EVENT = "train.length"


def known(job: Job, epoch: int) -> int | None:
    """Total steps: configured, or decided by an earlier start of this run, or not yet known.

    ``epoch``: samples of one. Raises UsageError RDTL-T062 for a warm-up that is longer.
    """
    train = job.config["train"]
    if train["minutes"] is None:
        steps = recipe.steps_of(train, epoch)
        recipe.require_warmup(train["warmup_steps"], steps)
        return steps
    event = distributed.agree(job.run.ledger.read(EVENT))
    return None if event is None else int(event["steps"])


def decide(job: Job, warmup: int, steps_per_second: float) -> int:
    """Turn ``train.minutes`` into steps at rank 0's speed; total steps, the same on every rank.

    Raises UsageError RDTL-T062 for a ``warmup`` that is longer. Nothing is kept then: the same run
    measures again at its next start, and other settings are a run of another name.
    """
    return distributed.by_first(lambda: _decide(job, warmup, steps_per_second))


def _decide(job: Job, warmup: int, steps_per_second: float) -> int:
    train = job.config["train"]
    minutes, ledger = train["minutes"], job.run.ledger
    steps = steps_for(minutes, steps_per_second)
    measured = f"{minutes:g} minutes at {steps_per_second:.3g} steps/s are {steps} steps"
    print(f"{measured}, {warmup / steps:.1%} of them warm-up", flush=True)
    recipe.require_warmup(warmup, steps)
    unusual = recipe.warmup_findings(warmup, steps)
    for finding in unusual:
        print(f"{finding.severity} {finding.code}: {finding.what}", flush=True)
    ledger.publish(
        EVENT,
        steps=steps,
        minutes=minutes,
        steps_per_second=steps_per_second,
        findings=[finding.to_dict() for finding in unusual],
    )
    event = ledger.read(EVENT)  # another start of this run may have been first
    assert event is not None
    return int(event["steps"])
