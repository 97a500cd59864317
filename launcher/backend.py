"""What driving a run needs of the place where it runs."""

from __future__ import annotations

from typing import Protocol

from launcher.arrays import Part
from launcher.core.plan import Stage


class Backend(Protocol):
    """What driving needs of a site. None always means: cannot be known now, ask again."""

    poll_s: float
    submits_ahead: bool
    """Whether stages are submitted before their parents ended (the scheduler keeps the order)."""

    def part_size(self, stage: Stage) -> int | None:
        """Most tasks that may be sent at once; None: any number; 0: not known now."""

    def room(self, tasks: int) -> bool:
        """Whether ``tasks`` more may be sent now."""

    def submit(self, stage: Stage, part: Part, after: list[str]) -> list[str] | None:
        """Send a part; its ids. [] : certainly not taken now. None: unclear, look it up."""

    def find(self, part: Part, began: float) -> list[str] | None:
        """Ids of a part that was perhaps sent at ``began``; [] when it certainly was not."""

    def alive(self, ids: list[str]) -> set[str] | None:
        """Those that wait or run."""

    def ended(self, ids: list[str], since: float) -> str:
        """How they ended, in the scheduler's words; "" when it does not say."""

    def wait_for(self, ids: list[str], parents: list[str]) -> bool:
        """Let jobs that wait for the end of others wait for ``parents``; False: too late."""

    def cancel(self, ids: list[str]) -> None:
        """End them."""
