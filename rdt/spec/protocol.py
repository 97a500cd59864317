"""Everything that can change a success rate, with one fingerprint.

Two result sets whose fingerprints differ are never averaged. The fields follow
the public LIBERO protocol (10 settle steps, 20 Hz, success = `done` at any
step); the simulator versions are part of it because MuJoCo 3.3.3 and 3.4.0 each
changed published rates.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from launcher.core import files
from launcher.core.errors import RefusedError
from rdt.spec import planned, suites

FILE = "protocol.json"
STACK = "stack.json"
"""What the probe of the simulator found before the first episode, on the node that had it first."""
WEIGHTS = "weights.json"
"""Which copy of a checkpoint is evaluated: path, weights (ema or raw), dtype, origin, findings."""
SERVER = "server.json"
"""What is to be warned of in the answers of a policy server: findings; absent without any."""
AGREEMENT = "agreement"
"""Folder: what policy servers found of their free batches, a file each."""
ACTIONS = "actions"
"""Folder: the actions of an episode, float32 of shape (steps, 7), a file each."""
BEGUN = "begun"
"""Folder: the episode in which a process is, or has died, a file each."""
SETTLE_ACTION = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0)
CAMERAS = ("agentview", "eye_in_hand")
RESET_RULES = {
    "exact": "clear-initializers+reseed+hard-reset+zero-warmstart",
    "openvla-sequential": "seed-once-a-task+hard-reset+zero-warmstart",
}
"""What happens before an episode, by the value of ``evaluate.reset``."""
SEED_RULE = "policy seed, episode, query"
FREE = "batches of whoever asks"
UNTOLD = "the server's own"
"""The seed rule of a server that is none of ours: where its noise comes from is not known."""


class Sight(NamedTuple):
    """What the policy under test makes of an observation.

    ``preprocessing`` names a contract with its digest, or what a foreign server is sent;
    ``views`` the picture slots in order, "background" where the robot has no camera;
    ``seed_rule`` what else its answer is a function of (:func:`seed_rule`).
    """

    preprocessing: str = "none"
    views: tuple[str, ...] = ()
    seed_rule: str = SEED_RULE


BLIND = Sight()
"""Nothing: only references are run."""


@dataclass(frozen=True)
class Protocol:
    """One evaluation protocol. `max_steps` holds the limit of an episode by suite, in steps after
    settling; `gripper` is the sign of the last number of an action."""

    max_steps: dict[str, int]
    wide_mm: int
    camera_size: int
    settle_steps: int
    execution_horizon: int
    env_seed: int
    policy_seed: int
    mujoco: str
    robosuite: str
    simulator: str
    gl: str
    preprocessing: str = "none"
    views: tuple[str, ...] = ()
    cameras: tuple[str, ...] = CAMERAS
    camera_rotation: str = "raw"
    gripper: str = "-1 = open, +1 = close"
    control_hz: int = 20
    reset_rule: str = RESET_RULES["exact"]
    settle_action: tuple[float, ...] = SETTLE_ACTION
    init_states: str = "benchmark"
    success: str = "done at any step"
    policy_seed_rule: str = SEED_RULE
    version: int = 2

    @property
    def suite(self) -> str:
        """The evaluated suites, separated by commas."""
        return ", ".join(self.max_steps)

    @property
    def repeats(self) -> bool:
        """Whether an answer depends on observation, seed, episode and query alone."""
        return self.policy_seed_rule != UNTOLD and FREE not in self.policy_seed_rule

    @property
    def limits(self) -> str:
        """The limit of an episode: a number, or with several suites one of each."""
        if len(self.max_steps) == 1:
            return str(*self.max_steps.values())
        return ", ".join(f"{limit} ({suite})" for suite, limit in self.max_steps.items())

    def lines(self) -> dict[str, Any]:
        """Every field for a table."""
        return {"suite": self.suite, **vars(self), "max_steps": self.limits}

    def fingerprint(self) -> str:
        """Twelve hex digits over all fields."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def seed_rule(
    batching: str, rows: int, device: str, dtype: str = "float32", seed: str = SEED_RULE
) -> str:
    """What a network's answer is a function of besides the observation: noise and rounding.

    Sums are rounded otherwise in a batch of another shape, on another kind of device and in
    another type, so an episode may end otherwise. One row in float32 on a CPU goes without saying.
    """
    kind = device.partition(":")[0]
    said = FREE if batching == "free" else f"batches of {rows}" * (rows > 1)
    rounding = [said, kind * (kind != "cpu"), dtype * (dtype != "float32")]
    return ", ".join([seed, *filter(None, rounding)])


def from_config(
    config: dict[str, Any], versions: dict[str, str], gl: str, sight: Sight = BLIND
) -> Protocol:
    """Build the protocol of a resolved configuration.

    ``versions`` maps distribution names (mujoco, robosuite and whichever has LIBERO)
    to installed versions; ``gl`` is the value of MUJOCO_GL. Raises UsageError RDTL-E070 for a
    suite without a known limit and RDTL-U020 for a task that its suite lacks, RdtlError RDTL-E028
    for one of LIBERO-plus where ``versions`` has none.
    """
    task, evaluate = config["task"], config["evaluate"]
    names = sorted({suite for suite, _ in planned.tasks(config)})
    return Protocol(
        max_steps={name: suites.max_steps(name, task["max_steps"]) for name in names},
        wide_mm=task["wide_mm"],
        camera_size=task["camera_size"],
        settle_steps=task["settle_steps"],
        execution_horizon=evaluate["execution_horizon"],
        env_seed=task["env_seed"],
        policy_seed=evaluate["policy_seed"],
        mujoco=versions["mujoco"],
        robosuite=versions["robosuite"],
        simulator=_simulator(names, versions),
        gl=gl,
        preprocessing=sight.preprocessing,
        views=sight.views,
        policy_seed_rule=sight.seed_rule,
        reset_rule=RESET_RULES[evaluate["reset"]],
    )


def _simulator(names: list[str], versions: dict[str, str]) -> str:
    """The distributions whose tasks those of the suites ``names`` are: LIBERO's, LIBERO-plus's."""
    varied = {name in suites.PLUS for name in names}
    if True in varied and suites.PLUS_PACKAGE not in versions:
        raise suites.plus_missing()
    liberos = [name for name in versions if name not in ("mujoco", "robosuite")]
    used = [name for name in liberos if (name == suites.PLUS_PACKAGE) in varied]
    return ", ".join(f"{name} {versions[name]}" for name in used)


def publish(protocol: Protocol, records_dir: Path) -> None:
    """Leave ``protocol`` beside the records, once, before the first of them.

    Every task of an evaluation calls it. Raises RefusedError RDTL-E021 when the
    records there follow another protocol, naming each field that differs.
    """
    data = {**asdict(protocol), "fingerprint": protocol.fingerprint()}
    if files.publish_once(records_dir / FILE, data):
        return
    there = read(records_dir)
    if there.fingerprint() != protocol.fingerprint():
        raise RefusedError(
            "RDTL-E021",
            "the records of this run follow another protocol",
            where=f"{records_dir / FILE}: {differences(there, protocol)}",
            why="episodes of two protocols measure two things and have no common rate",
            fix="restore what changed, or evaluate under another name (--name OTHER)",
        )


def read(records_dir: Path) -> Protocol:
    """The protocol that the records of ``records_dir`` follow.

    Raises RefusedError RDTL-E021 when the file is missing, was altered or comes
    from another version.
    """
    path = records_dir / FILE
    try:
        data: dict[str, Any] = files.read_json(path)
        fingerprint = data.pop("fingerprint")
        lists = {name: tuple(value) for name, value in data.items() if isinstance(value, list)}
        protocol = Protocol(**{**data, **lists})
    except (FileNotFoundError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise RefusedError(
            "RDTL-E021",
            "the protocol of these records cannot be read",
            where=f"{path}: {type(error).__name__}: {error}",
            why="a success rate without its protocol can be compared with nothing",
            fix="put the original file back, or evaluate again under another name (--name OTHER)",
        ) from error
    if protocol.fingerprint() != fingerprint:
        raise RefusedError(
            "RDTL-E021",
            "the protocol file was altered after the evaluation",
            where=f"{path}: fingerprint = {fingerprint}, its fields give {protocol.fingerprint()}",
            why="the records no longer follow what it says",
            fix="put the original file back, or evaluate again under another name (--name OTHER)",
        )
    return protocol


def differences(there: Protocol, here: Protocol) -> str:
    """The fields in which two protocols differ, as ``field A there, B here; …``."""
    old, new = there.lines(), here.lines()
    changed = [field for field in old if old[field] != new[field]]
    return "; ".join(f"{field} {old[field]} there, {new[field]} here" for field in changed)
