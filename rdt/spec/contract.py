"""What the numbers of a data set or a policy mean: slots, units, frames, signs.

A contract travels with the statistics and with every policy. Whoever reads
numbers compares the whole contract, not its name: RDT's 128-number vector is
filled differently by nearly everybody, and a wrong unit or sign does not crash,
it only ruins the success rate. Slot numbers are RDT's (right arm).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

from launcher.core.errors import RefusedError

UNIFIED_SIZE = 128


@dataclass(frozen=True)
class Part:
    """One group of neighbouring slots: ``first`` … ``first + size - 1``."""

    name: str
    first: int
    size: int
    unit: str
    frame: str
    form: str
    low: float | None = None
    high: float | None = None

    @property
    def slots(self) -> tuple[int, ...]:
        return tuple(range(self.first, self.first + self.size))


@dataclass(frozen=True)
class Contract:
    """Meaning of states, actions and pictures; `digest` covers every field."""

    name: str
    state: tuple[Part, ...]
    action: tuple[Part, ...]
    state_normalisation: str
    state_std_floor: float
    action_normalisation: str
    gripper_width_m: float
    simulator_gripper: str
    cameras: tuple[str, ...]
    camera_rotation: str
    picture_history: int
    control_hz: int
    obs_action_alignment: str

    @property
    def state_slots(self) -> tuple[int, ...]:
        """Slots that a state fills, in the order of `state`."""
        return tuple(slot for part in self.state for slot in part.slots)

    @property
    def action_slots(self) -> tuple[int, ...]:
        """Slots that an action fills, in the order of `action`."""
        return tuple(slot for part in self.action for slot in part.slots)

    @property
    def used_slots(self) -> tuple[int, ...]:
        """State and action slots together: the one mask of RDT (a union, see RDTL-D018)."""
        return tuple(sorted({*self.state_slots, *self.action_slots}))

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        data: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return data

    def digest(self) -> str:
        """Twelve hex digits over all fields."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:12]


LIBERO_VELOCITY = Contract(
    name="libero-velocity",
    state=(
        Part("gripper opening", 10, 1, "share of gripper_width_m", "fingers", "1 = open", 0.0, 1.0),
        Part("end-effector position", 30, 3, "m", "world", "xyz"),
        Part(
            "end-effector rotation",
            33,
            6,
            "none",
            "world",
            "first two columns of the rotation matrix, one after the other",
            -1.0,
            1.0,
        ),
    ),
    action=(
        Part("gripper", 10, 1, "none", "fingers", "1 = open, 0 = close", 0.0, 1.0),
        Part("end-effector linear velocity", 39, 3, "0.05 m goal shift", "world", "xyz", -1.0, 1.0),
        Part(
            "end-effector angular velocity",
            42,
            3,
            "0.5 rad goal shift",
            "world",
            "rotation vector",
            -1.0,
            1.0,
        ),
    ),
    state_normalisation="zscore",
    state_std_floor=0.01,
    action_normalisation="none",
    gripper_width_m=0.08,
    simulator_gripper="-1 = open, +1 = close",
    cameras=("agentview", "eye_in_hand"),
    camera_rotation="raw",
    picture_history=1,
    control_hz=20,
    obs_action_alignment="before",
)

CONTRACTS = {contract.name: contract for contract in (LIBERO_VELOCITY,)}


def require_same(found: dict[str, Any], where: str) -> Contract:
    """The contract named in ``found`` (JSON form), when every field agrees with ours.

    Raises RefusedError RDTL-T012 with the file, the field and both values.
    """
    name = found.get("name")
    ours = CONTRACTS.get(str(name))
    if ours is None:
        raise RefusedError(
            "RDTL-T012",
            f"the contract {name!r} is not known",
            where=f"{where}: contract.name",
            why="without it nobody knows which number is which",
            fix=f"use data with one of these contracts: {', '.join(sorted(CONTRACTS))}",
        )
    expected = ours.to_dict()
    for field in sorted({*expected, *found}):
        if found.get(field) != expected.get(field):
            raise RefusedError(
                "RDTL-T012",
                f"the contract differs in {field}",
                where=f"{where}: contract.{field} = {found.get(field)!r}, "
                f"here it is {expected.get(field)!r}",
                why="the numbers would be read with another meaning and the success rate be worth "
                "nothing",
                fix="collect and train again with this version, or use the version that wrote it",
            )
    return ours
