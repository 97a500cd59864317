"""Videos of a few episodes for the report: ``python -m jobs.videos RUN_DIR``.

Episodes are replayed from their recorded actions. A replay that does not end as the record
says, bit for bit, gets no video: the index says why, and so does the report.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from jobs.fence import require_current
from launcher.core import files
from launcher.core.job import Job, run_job
from rdt.sim.episode import actions_digest
from rdt.sim.sequential import Simulators
from rdt.sim.video import CAMERA, ReplayError, replay_frames, write_mp4
from rdt.spec import planned
from rdt.spec import record as records
from rdt.spec.record import Record, Status

SIZE = 256


def body(job: Job) -> None:
    """Write ``videos/KEY.mp4`` of this task's share and ``videos/index.N.json`` last."""
    evaluate = job.config["evaluate"]
    found = records.read_folder(job.run.records)
    chosen = choose(found, evaluate["policies"], evaluate["video_outcomes"], evaluate["videos"])
    share = len(chosen) * job.index // job.count, len(chosen) * (job.index + 1) // job.count
    mine, entries = chosen[slice(*share)], list[dict[str, Any]]()
    simulators = Simulators(job.config)
    for record in mine:
        job.progress(len(entries), len(mine), "videos", record.key.text())
        entries.append(_show(job, record, simulators))
        job.may_stop_here()
    require_current(job)
    files.write_json(job.run.videos / f"index.{job.index}.json", entries)
    _remove_others(job)
    job.progress(len(entries), len(mine), "videos")


def _remove_others(job: Job) -> None:
    """Remove the indices of an earlier array of more tasks: what they chose is chosen again."""
    for path in job.run.videos.glob("index.*.json"):
        if int(path.name.split(".")[1]) >= job.count:
            path.unlink(missing_ok=True)  # every task of this array does


def choose(
    found: Sequence[Record], policies: Sequence[str], outcomes: Sequence[Status], count: int
) -> list[Record]:
    """Up to ``count`` episodes of each outcome of the policy under test, task by task.

    Each task gives its first one before any gives its second. Without a policy under test it
    is the first reference.
    """
    shown = planned.main_policy(policies)
    chosen: list[Record] = []
    for outcome in outcomes:
        of_task = defaultdict[tuple[str, int], list[Record]](list)
        for record in sorted((r for r in found if r.policy == shown), key=lambda r: r.key):
            if record.status == outcome:
                of_task[record.suite, record.task_id].append(record)
        rounds = [(place, r) for own in of_task.values() for place, r in enumerate(own)]
        chosen += [r for _, r in sorted(rounds, key=lambda pair: (pair[0], pair[1].key))[:count]]
    return sorted(chosen, key=lambda record: record.key)  # few changes of the simulator


def _show(job: Job, record: Record, simulators: Simulators) -> dict[str, Any]:
    """One line of the index; ``problem`` says why there is no video, or is empty."""
    path, problem = job.run.videos / f"{record.key.text()}.mp4", ""
    if not path.exists():
        try:
            actions = _actions(job, record)
            simulator = simulators.of(record.key, blind=False, cameras=(CAMERA,), camera_size=SIZE)
            frames = replay_frames(simulator, record, actions)
            require_current(job)
            write_mp4(path, frames)
            print(f"{path.name}: {len(frames)} frames", flush=True)
        except ReplayError as error:
            problem = str(error)
            print(f"RDTL-E041: no video of {record.key.text()}: {problem}", flush=True)
    return {
        **record.key._asdict(),
        "file": path.name,
        "key": record.key.text(),
        "status": record.status,
        "steps": record.steps,
        "problem": problem,
    }


def _actions(job: Job, record: Record) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Recorded actions (T, 7); ReplayError when they are not the record's."""
    name = f"actions/{record.key.text()}.npy"
    try:
        path = job.run.records / name
        actions: np.ndarray[Any, np.dtype[np.float32]] = np.load(path, allow_pickle=False)
    except (FileNotFoundError, ValueError, EOFError) as error:
        raise ReplayError(f"records/{name} cannot be read ({type(error).__name__})") from error
    if actions_digest(actions) != record.actions_sha256:
        raise ReplayError(f"records/{name} holds other actions than those that were executed")
    return actions


if __name__ == "__main__":
    run_job(body)
