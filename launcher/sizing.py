"""How many tasks an evaluation is cut into: from the seconds of an episode and the site. Pure.

The constants are CPU seconds measured on one core: a control step, a picture of 256 pixels, a
reset, a small network's answer. What an episode really takes stands in every report
(`mean_wall_s`); `evaluate.episode_seconds` takes it from there.
"""

from __future__ import annotations

import math
import os
from typing import Any

from launcher.sites import Site
from rdt.spec import planned, suites, sweep

STEP_S, PICTURE_S, RESET_S, ANSWER_S = 0.01, 0.09, 1.5, 0.1
PICTURES = 4
"""Two cameras at two moments a query."""
BLIND = ("expert", "zero", "replay")
TASK_S = 30 * 60
"""Work of a task on a cluster: its start (modules, image, scene: about a minute) is little of it,
and a lost node loses little."""
LEAST_S = 60
"""Below this a task costs more to start than it saves."""


def tasks(config: dict[str, Any], site: Site) -> int:
    """Array tasks for the episodes of a resolved configuration on a site."""
    asked = config["evaluate"]["shards"]
    if asked != "auto":
        return int(asked)
    total = seconds(config)
    useful = math.ceil(total / LEAST_S)
    if site.kind == "local":
        return max(1, min(useful, site.cpus_per_node or os.cpu_count() or 1))
    if site.kind == "hosts":
        return max(1, min(useful, sum(len(host.devices()) for host in site.hosts)))
    limits = [n for n in (site.tasks_at_once, site.max_queued_tasks) if n]
    return max(1, min([math.ceil(total / TASK_S), useful, *limits]))


def seconds(config: dict[str, Any]) -> float:
    """What all planned episodes take on one core, each going on to its limit."""
    return sum(map(_evaluation, _evaluations(config)))


def words(config: dict[str, Any]) -> str:
    """What the stage does, for a person."""
    parts = _evaluations(config)
    episodes = sum(len(planned.from_config(part)) for part in parts)
    who = f"{len(parts)} cells" if config["sweep"] else ", ".join(config["evaluate"]["policies"])
    return f"{episodes} episodes of {who}, up to {math.ceil(seconds(config) / 60)} CPU minutes"


def _evaluations(config: dict[str, Any]) -> list[dict[str, Any]]:
    return [sweep.section(config, cell) for cell in sweep.cells(config)] or [config]


def _evaluation(config: dict[str, Any]) -> float:
    plan = planned.from_config(config)
    each = plan.per_task
    return sum(
        each * episode_seconds(config, policy, suite)
        for policy in plan.policies
        for suite, _ in plan.tasks
    )


def episode_seconds(config: dict[str, Any], policy: str, suite: str) -> float:
    """One episode that goes on to its limit, or what the configuration says."""
    evaluate = config["evaluate"]
    if evaluate["episode_seconds"]:
        return float(evaluate["episode_seconds"])
    steps = suites.max_steps(suite, config["task"]["max_steps"])
    if policy in BLIND:
        return RESET_S + steps * STEP_S
    queries = steps / evaluate["execution_horizon"]
    return float(RESET_S + steps * STEP_S + queries * (PICTURES * PICTURE_S + ANSWER_S))
