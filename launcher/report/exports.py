"""The result in the JSON shapes of two other harnesses, so that their tools can read it.

Both count every error as a failure; ours leaves it out of the rate. The files say which
episodes ended in an error, so that either number can be had from them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

from launcher.report import sources
from launcher.report.aggregate import Report
from rdt.spec.record import ERRORS, Record


def lerobot(report: Report, policy: str) -> dict[str, Any]:
    """``eval_info.json`` as lerobot-eval writes it: per task, per group (suite), overall.

    The reward of an episode is 1 for a success and 0 otherwise, as in LIBERO; ``pc_success`` is
    in percent.
    """
    own = [r for r in report.records() if r.policy == policy]
    videos = {v.key: str(v.path) for v in sources.videos(report.run) if not v.problem}
    tasks = [
        {"task_group": suite, "task_id": task_id, "metrics": _lerobot_episodes(list(rows), videos)}
        for (suite, task_id), rows in groupby(own, key=lambda r: (r.suite, r.task_id))
    ]
    suites = dict.fromkeys(r.suite for r in own)
    seconds = sum(r.wall_s for r in own)
    return {
        "per_task": tasks,
        "per_group": {
            suite: _lerobot_means([r for r in own if r.suite == suite], videos) for suite in suites
        },
        "overall": {
            **_lerobot_means(own, videos),
            "eval_s": seconds,
            "eval_ep_s": seconds / len(own) if own else None,
        },
    }


def _lerobot_episodes(rows: Sequence[Record], videos: dict[str, str]) -> dict[str, Any]:
    rewards = _rewards(rows)
    return {
        "sum_rewards": rewards,
        "max_rewards": rewards,
        "successes": [r.status == "success" for r in rows],
        **_lerobot_videos(rows, videos),
    }


def _lerobot_videos(rows: Sequence[Record], videos: dict[str, str]) -> dict[str, list[str]]:
    """The second list is for pictures that a policy imagines; ours does not."""
    shown = [videos[r.key.text()] for r in rows if r.key.text() in videos]
    return {"video_paths": shown, "predicted_video_paths": []}


def _lerobot_means(rows: Sequence[Record], videos: dict[str, str]) -> dict[str, Any]:
    mean = sum(_rewards(rows)) / len(rows) if rows else None
    return {
        "avg_sum_reward": mean,
        "avg_max_reward": mean,
        "pc_success": None if mean is None else 100 * mean,
        "n_episodes": len(rows),
        **_lerobot_videos(rows, videos),
    }


def _rewards(rows: Iterable[Record]) -> list[float]:
    return [float(r.status == "success") for r in rows]


def vla_eval(report: Report, policy: str) -> dict[str, Any]:
    """An aggregate as ``vla-eval export`` writes it: tasks with their episodes, means, errors."""
    own = [r for r in report.records() if r.policy == policy]
    tasks = [
        _vla_eval_task(name, list(rows))
        for (_, _, name), rows in groupby(own, key=lambda r: (r.suite, r.task_id, r.task_name))
    ]
    seed, row = report.protocol.env_seed, report.row(policy)
    return {
        "benchmark": report.protocol.suite,
        "mode": "sync",
        "harness_version": f"rdt-launcher protocol {report.protocol.fingerprint()}",
        "created_at": sources.ended(report.run),
        "tasks": tasks,
        "config": {"params": {"seed": seed}, "protocol": vars(report.protocol)},
        "eval_id": report.name,
        "seed": seed,
        "metric_keys": {"success": "mean"},
        **({"mean_success": _vla_eval_mean(own)} if own else {}),
        **({"partial": True} if row and row.missing else {}),
        "num_episodes_total": len(own),
        "num_errors": sum(r.status in ERRORS for r in own),
    }


def _vla_eval_task(name: str, rows: Sequence[Record]) -> dict[str, Any]:
    errors = sum(r.status in ERRORS for r in rows)
    return {
        "task": name,
        "episodes": [_vla_eval_episode(number, r) for number, r in enumerate(rows)],
        "num_episodes": len(rows),
        "avg_steps": sum(r.steps for r in rows) / len(rows),
        **({"num_errors": errors} if errors else {}),
        "mean_success": _vla_eval_mean(rows),
    }


def _vla_eval_episode(number: int, r: Record) -> dict[str, Any]:
    failure = {"failure_reason": r.status, "failure_detail": r.error} if r.status in ERRORS else {}
    return {
        "episode_id": number,
        "sid": f"shard{r.shard}",
        "eid": r.key.text(),
        "metrics": {"success": r.status == "success"},
        "steps": r.steps,
        "elapsed_sec": r.wall_s,
        "task_idx": r.task_id,
        **failure,
    }


def _vla_eval_mean(rows: Sequence[Record]) -> float:
    return round(sum(_rewards(rows)) / len(rows), 4)
