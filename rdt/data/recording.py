"""What every reader of data sets yields: episodes with their numbers in one convention.

What differs between copies of the same demonstrations is named in :class:`Conventions`
and settled by :func:`aligned`: row t always is what is seen and felt before action t,
and -1 always opens the gripper. Pictures stay as they lie in the file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from launcher.core.checks import Finding
from launcher.core.errors import RdtlError, RefusedError
from rdt.data import widths
from rdt.data.ranges import ByteFile
from rdt.data.unified import RobotState
from rdt.spec.contract import Contract

CAMERAS = ("agentview", "eye_in_hand")


@dataclass(frozen=True)
class Conventions:
    """What a set's own numbers mean, where copies differ.

    ``gripper_open``: the sign of actions[:, 6] that opens the fingers. ``alignment``:
    whether a row holds what was observed "before" or "after" its action. ``rotation`` of
    the pictures: "raw" (bottom-up, as the simulator renders) or "180".
    """

    gripper_open: int = -1
    alignment: str = "before"
    rotation: str = "raw"


@dataclass(frozen=True)
class Episode:
    """One demonstration; ``length`` in control steps, after alignment."""

    file: Path
    name: str
    task: str
    instruction: str
    length: int


class Recording(NamedTuple):
    """One episode with its numbers, aligned and with -1 = open.

    ``actions`` (T, 7) and ``robot`` (T, ·) in the file's own float type, ``sampled`` (n,)
    int64 rows with a picture of their own, ``pictures``: where each camera's lie, a thing
    that only its reader understands; ``quaternion`` (T, 4) xyzw of the hand or None.
    """

    episode: Episode
    actions: NDArray[Any]
    robot: RobotState
    sampled: NDArray[np.int64]
    pictures: dict[str, Any]
    quaternion: NDArray[Any] | None = None


Wanted = tuple[Any, int, NDArray[np.uint8]]
"""(place of an episode's pictures, first row, where the rows go: (n, S, S, 3) uint8)."""


class RawPlaces(NamedTuple):
    """Pictures that lie raw and in one piece: of each episode the number in ``files``
    (episodes,) int64, and the offset of its first picture (cameras, episodes) int64."""

    files: Sequence[ByteFile]
    numbers: NDArray[np.int64]
    offsets: NDArray[np.int64]


class Reader(Protocol):
    """One layout on disk. Making one reads descriptions only; all else raises RdtlError.

    ``place``: the named tuple that tells where one episode's pictures of a camera lie, of
    numbers, texts, paths, tuples and arrays.
    """

    path: Path
    kind: str
    place: type[Any]

    @property
    def conventions(self) -> Conventions:
        """What the numbers mean."""
        ...

    def recordings(self) -> Iterator[Recording]:
        """Every chosen episode in the set's order."""
        ...

    def picture_size(self, place: Any) -> tuple[int, int]:
        """Height and width of the pictures at ``place``."""
        ...

    def raw(self, places: Sequence[Sequence[Any]]) -> RawPlaces | None:
        """Where the pictures at ``places`` (by camera, by episode) lie, if all of them are raw."""
        ...

    def read(self, wanted: Sequence[Wanted]) -> None:
        """Read the rows of ``wanted``, each to its place."""
        ...

    def files(self) -> list[Path]:
        """Every file that the set consists of."""
        ...

    def findings(self) -> list[Finding]:
        """What is readable but slow or suspicious; complete after `recordings`."""
        ...


def aligned(
    actions: NDArray[Any],
    robot: RobotState,
    conventions: Conventions,
    lengths: dict[str, int],
    where: str,
) -> tuple[NDArray[Any], RobotState]:
    """Actions (T, 7) with -1 = open, and the robot's state before each of them.

    ``lengths``: rows of each part of the episode; they must agree, and one control step
    must be left (RdtlError RDTL-D031). ``where`` names file and episode.
    """
    widths.require("action", actions.shape[1], where)
    rows = _common_length(lengths | {"actions": len(actions)}, where)
    shift = 1 if conventions.alignment == "after" else 0
    if rows - shift < 1:
        raise RdtlError(
            "RDTL-D031",
            "an episode holds no control step",
            where=f"{where}: {rows} rows, observations {conventions.alignment} actions",
            why="short episodes are used and padded, but here is nothing to use",
            fix="remove it from the list of demonstrations, or collect it again",
        )
    actions = actions[shift:].copy()
    if conventions.gripper_open > 0:
        actions[:, 6] *= -1
    return actions, RobotState(*(np.asarray(part)[: rows - shift] for part in robot))


def _common_length(lengths: dict[str, int], where: str) -> int:
    if len(set(lengths.values())) == 1:
        return next(iter(lengths.values()))
    raise RdtlError(
        "RDTL-D031",
        "the parts of an episode differ in length",
        where=f"{where}: " + ", ".join(f"{name} {n}" for name, n in lengths.items()),
        why="nobody can tell which action answers which observation",
        fix="collect or convert this episode again, or choose others",
    )


def split_state(state: NDArray[Any], joints: NDArray[Any] | None, where: str) -> RobotState:
    """LIBERO's ``state`` (T, 8) of position, axis-angle and fingers, as robot state.

    Without ``joints`` (T, 7) the joint positions are NaN. Raises RefusedError RDTL-D004.
    """
    widths.require("state", state.shape[1], where)
    if joints is None:
        joints = np.full((len(state), 7), np.nan, state.dtype)
    return RobotState(state[:, :3], state[:, 3:6], state[:, 6:], joints)


def require_joints(robot: RobotState, contract: Contract, where: str) -> None:
    """Refuse (RDTL-D034) a contract that needs the joints when they are not recorded."""
    needed = any(part.source == "joint_pos" for part in contract.state)
    if needed and np.isnan(np.asarray(robot.joint_pos)).all():
        raise RefusedError(
            "RDTL-D034",
            "the data set has no joint positions",
            where=f"{where}; contract {contract.name}",
            why="the contract fills slots of the state with them",
            fix="choose a contract without joints, or a copy of the data that has them",
        )


def require_alignment(declared: str | None, layout: str) -> str:
    """The declared alignment, or the layout's own; RefusedError RDTL-D027 for other words."""
    value = declared or layout
    if value not in ("before", "after"):
        raise RefusedError(
            "RDTL-D027",
            "the alignment of observations and actions is not known",
            where=f"declared: {value!r}",
            why="off by one, every action would answer the wrong picture",
            fix='say "before" or "after", after replaying a demonstration to find out',
        )
    return value
