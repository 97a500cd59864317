"""How many tasks an evaluation is cut into, and what each needs. Pure but for sizes of files.

The constants are CPU seconds measured on one core: a control step, a picture of 256 pixels, a
reset, a small network's answer. What an episode really takes stands in every report
(`mean_wall_s`); `evaluate.episode_seconds` takes it from there.
"""

from __future__ import annotations

import math
import os
from typing import Any

from launcher import weights
from launcher.core.errors import UsageError
from launcher.sites import Site
from rdt.spec import card as cards
from rdt.spec import planned, suites, sweep

STEP_S, PICTURE_S, RESET_S, ANSWER_S = 0.01, 0.09, 1.5, 0.1
PICTURES = 4
"""Two cameras at two moments a query."""
BLIND = ("expert", "zero", "replay")
SIMULATOR_MB = 3200  # libero_10 at 256 pixels: 3.0 GB; libero_object: 2.5, blind 2.0
POLICY_MB = 400  # a small network, and what answers of any take besides the weights
SIGLIP_MB = 1750  # its tower for pictures, 4 bytes a weight
SERVER_MB = 600  # torch and what else a policy server is besides its policy: 0.4 GB
GPU_SERVER_MB = 3000  # estimated: CUDA's libraries and context besides
TASK_S = 30 * 60
"""Work of a task on a cluster: its start (modules, image, scene: about a minute) is little of it,
and a lost node loses little."""
LEAST_S = 60
"""Below this a task costs more to start than it saves."""


def tasks(config: dict[str, Any], site: Site) -> int:
    """Array tasks, each of some workers, for the episodes of a resolved configuration on a site."""
    asked = config["evaluate"]["shards"]
    if asked != "auto":
        return int(asked)
    workers = int(config["evaluate"]["workers"])
    total = seconds(config) / workers
    useful = math.ceil(total / LEAST_S)
    if site.kind == "local":
        return max(1, min(useful, (site.cpus_per_node or os.cpu_count() or 1) // workers))
    if site.kind == "hosts":
        return max(1, min(useful, sum(len(host.devices()) for host in site.hosts)))
    limits = [n for n in (site.tasks_at_once, site.max_queued_tasks) if n]
    return max(1, min([math.ceil(total / TASK_S), useful, *limits]))


def program(config: dict[str, Any]) -> str:
    """What its tasks run. Raises UsageError RDTL-U005 for a sweep with several workers."""
    workers, gpus = config["evaluate"]["workers"], config["evaluate"]["gpus"]
    several = workers > 1 or gpus > 0
    if not config["sweep"]:
        return "jobs.workers" if several else "jobs.evaluate"
    if several:
        raise UsageError(
            "RDTL-U005",
            "the tasks of a sweep share no policy",
            where=f"evaluate.workers = {workers}, evaluate.gpus = {gpus}",
            why="a task runs several networks one after another, each in its own process",
            fix="leave both out, and let more tasks run (evaluate.shards)",
        )
    return "jobs.sweep"


def servers(config: dict[str, Any]) -> int:
    """Policy servers of each task; 0 where a process computes its policy itself."""
    evaluate = config["evaluate"]
    shares = evaluate["workers"] > 1 or evaluate["gpus"]
    return max(1, evaluate["gpus"]) if shares and "rdt" in evaluate["policies"] else 0


def cpus(config: dict[str, Any]) -> int:
    """Cores of each task: one for every worker and server."""
    return int(config["evaluate"]["workers"]) + servers(config)


def memory_mb(config: dict[str, Any]) -> int:
    """Memory of each task."""
    evaluate, count = config["evaluate"], servers(config)
    policies = (evaluate["policy_memory_mb"] or _policy_mb(config)) * max(1, count)
    besides = (GPU_SERVER_MB if evaluate["gpus"] else SERVER_MB) * count
    reader = SERVER_MB if count else 0  # the task itself reads the card, hence has torch
    simulators = SIMULATOR_MB * evaluate["workers"]
    return int(simulators + (policies if "rdt" in evaluate["policies"] else 0) + besides + reader)


def _policy_mb(config: dict[str, Any]) -> int:
    """Memory of the largest of its checkpoints; what does not lie here yet counts as small."""
    evaluate, sweep_section = config["evaluate"], config["sweep"] or {}
    places = [evaluate["checkpoint"], *sweep_section.get("checkpoints", [])]
    return max(map(_checkpoint_mb, places))


def _checkpoint_mb(place: str | None) -> int:
    told = weights.card(place) if place else None
    if not place or not told:
        return POLICY_MB
    sees = SIGLIP_MB if told["encoders"].get("vision") == cards.SIGLIP else 0
    return POLICY_MB + 4 * weights.numbers(place) // 10**6 + sees


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
