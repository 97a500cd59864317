"""Published evaluations, in which the furniture drifts: seeded once a task, reset after reset.

There an episode's scene depends on how many resets the simulator had before. That number is
the episode's place in its task, so the scene can be found again without the episodes before
it: by as many resets. Thus even this protocol gives the same records however the work is cut.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rdt.sim import backend
from rdt.sim.libero import Simulator
from rdt.spec import planned
from rdt.spec.protocol import CAMERAS
from rdt.spec.record import EpisodeKey


class SequentialSimulator(Simulator):
    """A simulator that is seeded once; ``resets`` counts those since then."""

    def __init__(
        self, task: dict[str, Any], blind: bool, cameras: tuple[str, ...] = CAMERAS
    ) -> None:
        super().__init__(task, blind, cameras)
        self.env.seed(task["env_seed"])
        self.resets = 0

    def advance(self, place: int) -> None:
        """Reset until the next reset is that of the episode at ``place`` of its task."""
        while self.resets < place:
            with backend.quiet(), backend.gl_errors():
                self._rebuild()

    def _seed(self) -> None:
        """Nothing: that is the drift."""

    def _rebuild(self) -> None:
        super()._rebuild()
        self.resets += 1


class Simulators:
    """The simulator of an episode; one at a time (up to 3 GB each), kept while it fits."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._config = config
        self._plan = planned.from_config(config)
        self._kind: tuple[str, int, bool, int, tuple[str, ...]] | None = None
        self._held: Simulator | None = None

    def of(
        self,
        key: EpisodeKey,
        blind: bool,
        cameras: tuple[str, ...] = CAMERAS,
        camera_size: int | None = None,
    ) -> Simulator:
        """A simulator whose next reset is that of episode ``key``."""
        task = planned.task_section(self._config, key.suite, key.task_id)
        task["camera_size"] = camera_size or task["camera_size"]
        kind = (key.suite, key.task_id, blind, task["camera_size"], cameras)
        place = self._place(key)
        held = self._held
        if kind != self._kind or (isinstance(held, SequentialSimulator) and held.resets > place):
            self.discard()
        if self._held is None:
            self._held, self._kind = self._build(task, blind, cameras), kind
        if isinstance(self._held, SequentialSimulator):
            self._held.advance(place)
        return self._held

    def discard(self) -> None:
        """Close what is held, for instance because its state is unknown."""
        if self._held is not None:
            self._held.close()
        self._held = None

    def _build(self, task: dict[str, Any], blind: bool, cameras: tuple[str, ...]) -> Simulator:
        sequential = self._config["evaluate"]["reset"] == "openvla-sequential"
        return (SequentialSimulator if sequential else Simulator)(task, blind, cameras)

    def _place(self, key: EpisodeKey) -> int:
        return self._plan.init_states.index(key.init_state) * self._plan.trials + key.trial
