"""Which picture stands in which slot of the network.

A network has a slot per (moment, camera), oldest moment first; how many comes from
its own config.json, which camera is which from the contract. What the robot lacks
and what lies before the episode is background.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from launcher.core.errors import RefusedError
from rdt.encoders.pictures import Picture
from rdt.model.config import RdtConfig
from rdt.policy.policy import Observation
from rdt.spec.contract import Contract

FIELD = "img_pos_embed_config"


@dataclass(frozen=True)
class Slots:
    """``moments`` is 1 (now) or 2 (one control step ago, now); ``cameras`` has "" for none.

    ``size`` is that of the pictures in training, in pixels, or 0 when it is unknown.
    """

    moments: int
    cameras: tuple[str, ...]
    size: int

    @property
    def absent(self) -> tuple[int, ...]:
        """Slots of cameras that the robot lacks: always background."""
        width = len(self.cameras)
        return tuple(s for s in range(self.moments * width) if not self.cameras[s % width])

    def shown(self, observation: Observation, query: int) -> dict[int, Picture | None]:
        """Picture of each slot whose camera exists; None for the moment before the episode.

        Raises RefusedError RDTL-E031 when a picture is missing, RDTL-T012 when one has
        another size than in training.
        """
        moments = [observation.pictures]
        if self.moments == 2:
            if observation.previous is None and query > 0:
                raise _missing(f"previous, at query {query}", "the pictures of one step before")
            moments = [observation.previous or {}, observation.pictures]
        first = self.moments == 2 and observation.previous is None
        slots: dict[int, Picture | None] = {}
        for number, pictures in enumerate(moments):
            for place, camera in enumerate(self.cameras):
                if camera:
                    before = first and number == 0
                    slot = number * len(self.cameras) + place
                    slots[slot] = None if before else self._picture(pictures, camera)
        return slots

    def _picture(self, pictures: dict[str, Picture], camera: str) -> Picture:
        if camera not in pictures:
            raise _missing(f"pictures: {', '.join(sorted(pictures)) or 'none'}", f"camera {camera}")
        picture, size = pictures[camera], self.size
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
            found = f"pictures: {camera} is {picture.dtype} {picture.shape}"
            raise _missing(found, f"camera {camera} as uint8 (height, width, 3)")
        if size and picture.shape != (size, size, 3):
            raise other_size(f"camera {camera}: {picture.shape[:2]}", size)
        return picture


def of(config: RdtConfig, contract: Contract, size: int) -> Slots:
    """The slots of a network under a contract; further cameras of the network are absent.

    Raises RefusedError RDTL-T021 when the contract's cameras do not fit in.
    """
    grid: Any = config.img_pos_embed_config and config.img_pos_embed_config[0][1]
    if not isinstance(grid, list | tuple) or len(grid) != 3 or grid[0] not in (1, 2):
        raise _unfit(grid, "[1 or 2 moments, cameras, -tokens]")
    moments, width = grid[:2]
    cameras = contract.cameras[:width] + ("",) * (width - len(contract.cameras))
    if any(contract.cameras[width:]):
        raise _unfit(grid, f"{len(contract.cameras)} cameras of contract {contract.name}")
    return Slots(moments, cameras, size)


def other_size(found: str, size: int) -> RefusedError:
    """RDTL-T012 for pictures of another size than ``size``, that of the training."""
    return RefusedError(
        "RDTL-T012",
        "the pictures have another size than those of the training",
        where=f"{found}, the card says {size} x {size}",
        why="the policy would see something it has never seen",
        fix=f"--set task.camera_size={size}",
    )


def _unfit(grid: object, expected: str) -> RefusedError:
    return RefusedError(
        "RDTL-T021",
        "the network's picture slots do not fit",
        where=f"config.json: {FIELD} = [[…, {grid!r}]]; expected {expected}",
        why="a picture in another slot is another camera or another moment to the network",
        fix="name the contract that the checkpoint was trained under",
    )


def _missing(found: str, wanted: str) -> RefusedError:
    return RefusedError(
        "RDTL-E031",
        f"the observation lacks {wanted}",
        where=f"observation.{found}",
        why="a policy that sees less than in training only looks weak",
        fix="render every camera of the contract, and one step before each query as well when "
        "the policy's `sees_previous` says so",
    )
