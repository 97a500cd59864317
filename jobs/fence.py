"""Stop an old attempt that a newer one has replaced."""

from __future__ import annotations

from launcher.core.errors import RefusedError
from launcher.core.job import Job


def require_current(job: Job) -> None:
    """Raise RefusedError RDTL-S034 when a newer attempt of this stage exists.

    To be called before each publication: a task that the scheduler lost sight of may
    still run while its replacement does.
    """
    if job.fenced():
        raise RefusedError(
            "RDTL-S034",
            "a newer attempt of this stage took over",
            where=f"stage {job.stage}, task {job.index}, attempt {job.attempt}",
            why="two attempts must not publish side by side",
            fix="nothing to do: the newer attempt goes on",
        )
