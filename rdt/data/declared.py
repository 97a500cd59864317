"""A data set, the part of it that is wanted, how often, and what is declared of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rdt.data.recording import Conventions, Recording
from rdt.data.saved import open_saved
from rdt.data.selection import Selection
from rdt.data.store import EpisodeStore, find_reader, open_store, stream


@dataclass(frozen=True)
class DeclaredSet:
    """``path`` and, in words of :func:`rdt.data.store.open_store`, what to take of it and how.

    Without ``tasks`` and ``demos`` everything; without ``alignment`` what the layout says.
    ``weight``: how often an epoch shows each of its samples. ``at_most``: a look at so many
    demonstrations of each task only.
    """

    path: Path
    tasks: tuple[str, ...] = ()
    demos: tuple[int | str, ...] = ()
    gripper_open: int = -1
    alignment: str | None = None
    weight: float = 1.0
    at_most: int | None = None

    def open(self) -> EpisodeStore:
        """All numbers in memory, pictures on demand."""
        return open_store(self.path, **self._options())

    def kept(self, folder: Path) -> EpisodeStore:
        """The same, of which ``folder`` keeps what was found: see :mod:`rdt.data.saved`."""
        return open_saved(folder, self.path, **self._options())

    def recordings(self) -> Iterator[Recording]:
        """Its episodes, one in memory at a time."""
        return stream(self.path, **self._options())

    def _options(self) -> dict[str, Any]:
        few = {} if self.at_most is None else {"at_most": self.at_most}
        return few | {
            "tasks": self.tasks,
            "demos": self.demos,
            "gripper_open": self.gripper_open,
            "alignment": self.alignment,
        }

    @classmethod
    def of(cls, request: dict[str, Any]) -> DeclaredSet:
        """Out of JSON: `path`, `tasks`, `demos`, `gripper_open`, `alignment`; perhaps `weight` and
        `at_most`."""
        return cls(
            Path(request["path"]),
            tuple(request["tasks"]),
            tuple(int(demo) if str(demo).isdecimal() else demo for demo in request["demos"]),
            request["gripper_open"],
            request["alignment"],
            request.get("weight", 1.0),
            request.get("at_most"),
        )

    def to_dict(self) -> dict[str, Any]:
        """The JSON that :meth:`of` reads."""
        return {"path": str(self.path), **self._options(), "weight": self.weight}

    def conventions(self) -> tuple[str, Conventions, list[Path]]:
        """Kind of the set, what its numbers mean, and its files."""
        chosen = Selection(self.tasks, self.demos, self.at_most)
        reader = find_reader(self.path, chosen, self.gripper_open, self.alignment)
        return reader.kind, reader.conventions, reader.files()
