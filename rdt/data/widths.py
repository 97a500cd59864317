"""Numbers per row: what LIBERO's arrays must have, and whose an array with others is."""

from __future__ import annotations

from launcher.core.errors import RefusedError

ACTION = 7
STATE = 8

_ACTION_OWNERS = {
    6: "an arm without gripper",
    8: "a state of LIBERO (position 3, rotation 3, fingers 2), or joint actions with a gripper",
    9: "another robot, or LIBERO's robot_states (fingers 2, position 3, quaternion 4)",
    10: "end-effector actions with a rotation in six numbers",
    14: "a robot with two arms, such as R1 Lite or ALOHA",
    15: "waypoints: relative pose, gripper and duration, padded",
    16: "a robot with two arms and their grippers",
    32: "actions padded for a pi0 policy",
    128: "RDT's unified vector",
}
_STATE_OWNERS = {
    6: "ee_states (position 3, rotation 3), the fingers are missing",
    7: "joint_state (the seven joint angles), or an action",
    9: "robot_states (fingers 2, position 3, quaternion 4)",
    14: "a robot with two arms, such as R1 Lite or ALOHA",
    15: "joint_state and state together",
    32: "states padded for a pi0 policy",
    39: "robot0_proprio-state, all that the simulator says of the robot",
    128: "RDT's unified vector",
}


def probably(what: str, width: int) -> str:
    """To what an ``action`` or ``state`` of ``width`` numbers probably belongs."""
    owners = _ACTION_OWNERS if what == "action" else _STATE_OWNERS
    return owners.get(width, "another robot")


def require(what: str, width: int, where: str) -> None:
    """Refuse an ``action`` (RDTL-D003) or ``state`` (RDTL-D004) that is not LIBERO's.

    ``where``: the file and key, for the message. For data and for statistics of them alike.
    """
    expected = ACTION if what == "action" else STATE
    if width == expected:
        return
    raise RefusedError(
        "RDTL-D003" if what == "action" else "RDTL-D004",
        f"{width} numbers per {what}, LIBERO has {expected}",
        where=f"{where}: probably {probably(what, width)}",
        why="numbers of another robot or of another key fit no slot of the contract",
        fix="use `state` (8) and not `joint_state` (7)"
        if what == "state" and width == 7
        else "use the data, or compute the statistics, of LIBERO's own robot",
    )
