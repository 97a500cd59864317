"""One worker of an evaluation task: ``python -m jobs.worker RUN_DIR``; jobs.workers starts it.

It runs a stretch of the task's episodes and asks the task's policy server.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path

from jobs import evaluate
from jobs.evaluated import Shared, Tested
from launcher.core import files
from launcher.core.job import Job, run_job
from rdt.spec import planned
from rdt.spec.protocol import Sight
from rdt.spec.record import EpisodeKey

VARIABLE = "RDTL_WORKER"
"""Names the file that holds a worker's place."""


@dataclass(frozen=True)
class Place:
    """Worker ``number`` of ``count``; ``shared`` is None when the task tests no network."""

    number: int
    count: int
    progress: str
    shared: Shared | None

    def write(self, path: Path) -> None:
        """Inverse of :func:`read`."""
        files.write_json(path, asdict(self))

    def share(self, job: Job) -> list[EpisodeKey]:
        """What it runs; the workers of a task together run what one process would."""
        plan = planned.from_config(job.config)
        return plan.share(job.index * self.count + self.number, job.count * self.count)


def read(path: Path) -> Place:
    """The place that the task has written."""
    data = files.read_json(path)
    if data["shared"]:
        uri, (name, checkpoint, (preprocessing, views, rule)) = data["shared"]
        sight = Sight(preprocessing, tuple(views), rule)
        data["shared"] = Shared(uri, Tested(name, checkpoint, sight))
    return Place(**data)


def body(job: Job) -> None:
    """Run the missing episodes of this worker; the task decides what no result at all means."""
    place = read(Path(os.environ[VARIABLE]))

    def told(done: int, text: str) -> None:
        files.write_json(Path(place.progress), {"done": done, "text": text})

    evaluate.run(job, place.share(job), told, place.shared)


if __name__ == "__main__":
    run_job(body)
