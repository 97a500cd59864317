"""What the numbers of a data set or a policy mean: slots, units, frames, signs.

A contract travels with the statistics and with every policy. Whoever reads
numbers compares the whole contract, not its name: RDT's 128-number vector is
filled differently by nearly everybody, and a wrong unit or sign does not crash,
it only ruins the success rate. Slot numbers are RDT's (right arm).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from typing import Any

from launcher.core.errors import RefusedError

UNIFIED_SIZE = 128


@dataclass(frozen=True)
class Part:
    """One group of neighbouring slots: ``first`` … ``first + size - 1``.

    A slot holds ``value * scale + offset`` of its ``source``, a name of
    :mod:`rdt.data.unified`; ``unit`` and ``frame`` are those of the slot.
    """

    name: str
    source: str
    first: int
    size: int
    unit: str
    frame: str
    scale: float = 1.0
    offset: float = 0.0
    low: float | None = None
    high: float | None = None

    @property
    def slots(self) -> tuple[int, ...]:
        return tuple(range(self.first, self.first + self.size))

    @property
    def physical(self) -> tuple[float, str]:
        """What a slot's 1 is in a physical unit: 0.05 and "m" of "0.05 m goal shift"."""
        number, _, rest = self.unit.partition(" ")
        try:
            return float(number) / abs(self.scale), rest.split()[0]
        except (ValueError, IndexError):
            return 1.0, self.unit if self.unit != "none" else "1"

    @property
    def slots_text(self) -> str:
        """Its slots for a person: "10" or "30–32"."""
        return str(self.first) + (f"–{self.slots[-1]}" if self.size > 1 else "")


@dataclass(frozen=True)
class Contract:
    """Meaning of states, actions and pictures; `digest` covers every field.

    ``cameras`` stand in the order of a network's picture slots, "" for a camera that
    the robot lacks. ``mask`` says of which slots the network is told that they are in
    use: "union" of state and action, or "action".
    """

    name: str
    state: tuple[Part, ...]
    action: tuple[Part, ...]
    mask: str
    state_normalisation: str
    state_std_floor: float
    action_normalisation: str
    simulator_gripper: str
    cameras: tuple[str, ...]
    camera_rotation: str
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
    def mask_slots(self) -> tuple[int, ...]:
        """The one mask of RDT, sorted. It must hold all action slots (RDTL-D018)."""
        state = self.state_slots if self.mask == "union" else ()
        return tuple(sorted({*state, *self.action_slots}))

    def slot_name(self, slot: int) -> str:
        """What stands in a state's slot, e.g. "end-effector position 2 (m)"."""
        for part in self.state:
            if slot in part.slots:
                return f"{part.name} {slot - part.first} ({part.unit})"
        return "unused"

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
        Part(
            "gripper opening, 1 = open",
            "distance of the fingers",
            10,
            1,
            "share of 0.08 m",
            "fingers",
            scale=12.5,
            low=0.0,
            high=1.0,
        ),
        Part("end-effector position", "eef_pos", 30, 3, "m", "world"),
        Part("end-effector rotation", "axis_angle as 6d", 33, 6, "none", "world"),
    ),
    action=(
        Part(
            "gripper, 1 = open", "gripper", 10, 1, "none", "fingers", -0.5, 0.5, low=0.0, high=1.0
        ),
        Part("end-effector linear velocity", "translation", 39, 3, "0.05 m goal shift", "world"),
        Part(
            "end-effector angular velocity, rotation vector",
            "rotation",
            42,
            3,
            "0.5 rad goal shift",
            "world",
        ),
    ),
    mask="union",
    state_normalisation="zscore",
    state_std_floor=0.01,
    action_normalisation="none",
    simulator_gripper="-1 = open, +1 = close",
    cameras=("agentview", "eye_in_hand"),
    camera_rotation="raw",
    control_hz=20,
    obs_action_alignment="before",
)

_JOINTS = Part("joint position", "joint_pos", 0, 7, "rad", "joints")

# The conventions of two public fine-tunes, for their checkpoints only. Both feed upstream's
# pictures as they are and observations as upstream's files hold them, one step late.
LIBERO_RAW_VELOCITY = replace(
    LIBERO_VELOCITY,
    name="libero-raw-velocity",
    state=(
        _JOINTS,
        Part(
            "finger position",
            "fingers",
            10,
            2,
            "share of -0.04245 … 0.05185 m",
            "fingers",
            1 / 0.0943,
            0.04245 / 0.0943,
        ),
    ),
    action=(
        Part("gripper, 1 = close", "gripper sign", 10, 1, "none", "fingers"),
        *LIBERO_VELOCITY.action[1:],
    ),
    # Its training used the state's slots, in which no arm action lies; its evaluation these.
    mask="action",
    state_normalisation="none",
    cameras=("agentview", "eye_in_hand", ""),
    obs_action_alignment="after",
)

LIBERO_EEF6D = replace(
    LIBERO_RAW_VELOCITY,
    name="libero-eef6d",
    state=(
        _JOINTS,
        Part("first finger's position", "first finger", 10, 1, "m", "fingers"),
        Part("end-effector position", "eef_pos", 30, 3, "m", "world"),
        Part(
            "end-effector rotation, misread",
            "axis_angle read as euler, as 6d",
            33,
            6,
            "none",
            "world",
        ),
    ),
    action=(
        Part("gripper, 1 = close", "gripper", 10, 1, "none", "fingers", 0.5, 0.5, 0.0, 1.0),
        Part("end-effector shift", "translation", 30, 3, "1.2 cm at |a| = 1", "world", scale=1.2),
        Part("end-effector turn", "rotation as 6d of euler", 33, 6, "none", "world"),
    ),
    mask="union",
)

LIBERO_EEF6D_METRES = replace(
    LIBERO_EEF6D,
    name="libero-eef6d-metres",
    action=(
        LIBERO_EEF6D.action[0],
        replace(LIBERO_EEF6D.action[1], unit="0.012 m at |a| = 1", scale=0.012),
        LIBERO_EEF6D.action[2],
    ),
)

CONTRACTS = {
    contract.name: contract
    for contract in (LIBERO_VELOCITY, LIBERO_RAW_VELOCITY, LIBERO_EEF6D, LIBERO_EEF6D_METRES)
}


def require_same(found: Any, where: str) -> Contract:
    """The contract named in ``found`` (JSON form), when every field agrees with ours.

    Raises RefusedError RDTL-T012 with the file, the field and both values.
    """
    name = found.get("name") if isinstance(found, dict) else found
    ours = CONTRACTS.get(str(name)) if isinstance(found, dict) else None
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
