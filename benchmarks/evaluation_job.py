"""Episodes through the program that an array task runs, inside a benchmark's own process."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jobs import evaluate
from jobs.book import Book, Result
from launcher.core import files
from launcher.core.job import Job
from launcher.core.runs import RunDir
from launcher.schema import Evaluate, RunConfig, Task
from rdt.spec.record import EpisodeKey

CHUNK = 16


def run(
    folder: Path, task: dict[str, Any], note: Callable[[], dict[str, Any]] = dict, **settings: Any
) -> list[dict[str, Any]]:
    """Evaluate. Of each episode's end: CPU and wall seconds, steps, success, and ``note()``."""
    settings["execution_horizon"] = CHUNK
    config = RunConfig(name="benchmark", task=Task(**task), evaluate=Evaluate(**settings))
    job = Job(RunDir(folder), config.model_dump(mode="json"), "evaluate", 0, 1, attempt=0, node=0)
    files.write_json(job.run.plan, {"config": job.config})
    ends: list[dict[str, Any]] = []
    write = Book.write

    def timed(book: Book, result: Result, key: EpisodeKey) -> None:
        write(book, result, key)
        status, outcome, error = result
        assert outcome, f"{status}: {error}"
        now = {"cpu_s": time.process_time(), "wall_s": time.perf_counter()}
        came = {"steps": len(outcome.actions), "success": outcome.success}
        ends.append({**now, **came, **note()})

    Book.write = timed  # type: ignore[method-assign, assignment]
    try:
        evaluate.body(job)
    finally:
        Book.write = write  # type: ignore[method-assign]
    return ends
