"""The trained policy under evaluation: pictures, state and words to a chunk of actions.

States, slots and clipping are those of :mod:`rdt.data.unified`, the same code that
made the training data. The noise of a chunk depends on (seed, episode, query)
alone, so a result does not depend on who shares a process or in which order.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file

from launcher.core.errors import RdtlError, RefusedError
from rdt.data import rotations, unified
from rdt.encoders import language_tokens
from rdt.model.policy_network import PolicyNetwork, build
from rdt.policy.policy import Observation
from rdt.spec import card as cards
from rdt.spec.card import Card
from rdt.spec.contract import UNIFIED_SIZE, Contract, require_same
from rdt.spec.record import EpisodeKey

if TYPE_CHECKING:
    from rdt.sim.libero import Simulator

CONFIG, WEIGHTS = "config.json", "model.safetensors"


class RdtPolicy:
    """A policy of :func:`load`; sees pictures, keeps no state but the episode's key."""

    sees = True

    def __init__(self, network: PolicyNetwork, card: Card, contract: Contract, seed: int) -> None:
        self.network = network.eval()
        self.card = card
        self.contract = contract
        self.seed = seed
        self._episode = ""

    def begin(self, simulator: Simulator, key: EpisodeKey) -> None:
        """Note the episode; its key seeds the noise. The simulator is not looked at."""
        self._episode = key.text()

    @torch.inference_mode()
    def chunk(self, observation: Observation, query: int) -> NDArray[np.float32]:
        """Actions (horizon, 7) in [-1, 1] for one observation with pictures of all cameras.

        Raises RefusedError RDTL-T012 for pictures of another size than in training.
        """
        words, valid = language_tokens(observation.instruction)
        keys = self.network.condition(self._pictures(observation), words, valid)
        actions = self.network.act(self._state(observation), keys, self._noise(query))
        return unified.decode_action(actions[0].numpy(), self.contract)

    def _state(self, observation: Observation) -> torch.Tensor:
        robot = unified.RobotState(
            observation.eef_pos,
            rotations.quat_to_axis_angle(observation.eef_quat),
            observation.gripper_qpos,
            observation.joint_pos,
        )
        state = unified.encode_state(robot, self.contract)
        scores = unified.normalise_state(
            state, self.card.state_mean, self.card.state_std, self.contract
        )
        return torch.from_numpy(scores)[None, None]

    def _pictures(self, observation: Observation) -> torch.Tensor:
        size = self.card.camera_size
        pictures = [observation.pictures[camera] for camera in self.contract.cameras]
        for camera, picture in zip(self.contract.cameras, pictures, strict=True):
            if picture.shape != (size, size, 3):
                raise RefusedError(
                    "RDTL-T012",
                    "the pictures have another size than those of the training",
                    where=f"camera {camera}: {picture.shape[:2]}, the card says {size} x {size}",
                    why="the policy would see something it has never seen",
                    fix=f"set task.camera_size to {size}",
                )
        return torch.from_numpy(np.stack(pictures))[None]

    def _noise(self, query: int) -> torch.Tensor:
        text = f"{self.seed}/{self._episode}/{query}"
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
        random = torch.Generator().manual_seed(seed)
        return torch.randn(1, self.card.horizon, UNIFIED_SIZE, generator=random)


def load(policy_dir: Path, seed: int) -> RdtPolicy:
    """Load ``policy_dir`` (config.json, model.safetensors, card.json) for evaluation on the CPU.

    Raises RdtlError or RefusedError with code RDTL-T012 (card, sizes), RDTL-T002
    (weights that are no float32 average), RDTL-T020 (weights that do not fit).
    """
    torch.set_num_threads(1)  # one process per core; sums then do not depend on their number
    card = cards.read(policy_dir)
    contract = require_same(card.contract, str(policy_dir / cards.FILE))
    _require_card(policy_dir, "training.weights", card.training.weights, "ema", "RDTL-T002")
    _require_card(policy_dir, "training.dtype", card.training.dtype, "float32", "RDTL-T002")
    network = _network(policy_dir, contract)
    sizes = (network.config.pred_horizon, network.vision.config.image_size)
    _require_card(policy_dir, "horizon", card.horizon, sizes[0], "RDTL-T012")
    _require_card(policy_dir, "camera_size", card.camera_size, sizes[1], "RDTL-T012")
    return RdtPolicy(network, card, contract, seed)


def _network(policy_dir: Path, contract: Contract) -> PolicyNetwork:
    path = policy_dir / CONFIG
    try:
        network = build(json.loads(path.read_text(encoding="utf-8")), contract, str(path))
        weights = load_file(policy_dir / WEIGHTS)
        network.load_state_dict(weights, strict=True)
    except (OSError, ValueError, TypeError, SafetensorError, RuntimeError) as error:
        raise RdtlError(
            "RDTL-T020",
            "the weights of a policy do not load",
            where=f"{policy_dir}: {error}",
            why="a network with missing or foreign weights would be evaluated as if it were yours",
            fix="train again, or name a policy directory that is whole",
        ) from error
    return network


def _require_card(policy_dir: Path, field: str, found: object, expected: object, code: str) -> None:
    if found != expected:
        raise RefusedError(
            code,
            f"the policy card and the policy disagree in {field}",
            where=f"{policy_dir / cards.FILE}: {field} = {found!r}, expected {expected!r}",
            why="the result would not be that of the trained policy",
            fix="name a policy directory written by one training run",
        )
