"""Videos of a few episodes for the report: ``python -m jobs.videos RUN_DIR``.

Array task 0 shows successes, task 1 failures. Episodes are replayed from their
recorded actions; the replay must end as the record says.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from jobs.fence import require_current
from launcher.core import files
from launcher.core.errors import RdtlError
from launcher.core.job import Job, run_job
from rdt.sim.episode import actions_digest
from rdt.sim.sequential import Simulators
from rdt.sim.video import CAMERA, replay_frames, write_mp4
from rdt.spec import record as records
from rdt.spec.record import Record, Status

SIZE = 256
OUTCOMES: tuple[Status, ...] = ("success", "fail")


def body(job: Job) -> None:
    """Write ``videos/KEY.mp4`` for this task's outcomes and ``videos/index.N.json`` last."""
    found = records.read_folder(job.run.records).records
    evaluate = job.config["evaluate"]
    simulators = Simulators(job.config)
    for number in range(job.index, len(OUTCOMES), job.count):
        shown = choose(found, OUTCOMES[number], evaluate["policies"], evaluate["videos"])
        entries = [_show(job, record, simulators) for record in shown]
        require_current(job)
        files.write_json(job.run.videos / f"index.{number}.json", entries)
        job.progress(len(entries), len(shown), "videos", OUTCOMES[number])
        job.may_stop_here()


def choose(
    found: Iterable[Record], status: Status, policies: list[str], count: int
) -> list[Record]:
    """Up to ``count`` episodes of that outcome: the trained policy's first, then the others'."""
    order = sorted(policies, key=lambda name: name not in ("rdt", "server"))
    candidates = [r for r in found if r.status == status and r.policy in order]
    return sorted(candidates, key=lambda r: (order.index(r.policy), r.key))[:count]


def _show(job: Job, record: Record, simulators: Simulators) -> dict[str, Any]:
    name = f"{record.key.text()}.mp4"
    path = job.run.videos / name
    if not path.exists():
        actions = _actions(job, record)
        simulator = simulators.of(record.key, blind=False, cameras=(CAMERA,), camera_size=SIZE)
        frames = replay_frames(simulator, record, actions)
        require_current(job)
        write_mp4(path, frames)
        print(f"{name}: {len(frames)} frames", flush=True)
    return {
        "file": name,
        "key": record.key.text(),
        "policy": record.policy,
        "status": record.status,
        "steps": record.steps,
        "init_state": record.init_state,
    }


def _actions(job: Job, record: Record) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Recorded actions (T, 7); RdtlError RDTL-E041 when they are not the record's."""
    path = job.run.records / "actions" / f"{record.key.text()}.npy"
    try:
        actions: np.ndarray[Any, np.dtype[np.float32]] = np.load(path, allow_pickle=False)
    except (FileNotFoundError, ValueError, EOFError) as error:
        raise _other(str(path), str(error)) from error
    if actions_digest(actions) != record.actions_sha256:
        raise _other(str(path), "its digest is not the record's actions_sha256")
    return actions


def _other(where: str, found: str) -> RdtlError:
    return RdtlError(
        "RDTL-E041",
        "the actions of an episode are not those of its record",
        where=f"{where}: {found}",
        why="the video would show another episode than the table counts",
        fix="restore the file, or evaluate again under another name (--name OTHER)",
    )


if __name__ == "__main__":
    run_job(body)
