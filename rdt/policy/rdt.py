"""A trained policy: observations to chunks of actions, one at a time or many at once.

States, slots and clipping are those of :mod:`rdt.data.unified`, the same code that
made the training data. The noise of a chunk depends on (seed, episode, query) alone.
Two ways to batch: "fixed" gives every request the answer that it would get alone,
bit for bit on one machine, because pictures and keys are computed row by row and
the network always samples the same number of rows of a length that the request's
own instruction decides. "free" computes whatever is there in one go.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from launcher.core.errors import RefusedError
from rdt import diffusion
from rdt.data import rotations, unified
from rdt.encoders.language import Language
from rdt.model.rdt import Rdt
from rdt.policy import slots
from rdt.policy.condition import Conditions
from rdt.policy.memory import Memory
from rdt.policy.policy import Observation
from rdt.policy.sight import Sight, Vision
from rdt.spec.card import Card
from rdt.spec.contract import UNIFIED_SIZE, Contract
from rdt.spec.record import EpisodeKey

if TYPE_CHECKING:
    from rdt.sim.libero import Simulator

Batching = Literal["fixed", "free"]
SENTENCES = 256
SHORTEST = 32
"""Language tokens of the shortest shape in fixed batches; longer ones double."""


@dataclass(frozen=True)
class Request:
    """One query: what is seen, in which episode, how many queries the episode had before."""

    observation: Observation
    episode: str
    query: int


class Chunks(NamedTuple):
    """Answers in the order of the requests.

    actions (B, H, 7) float32 in [-1, 1]; unified (B, H, 128) float32, as the network
    gave them.
    """

    actions: NDArray[np.float32]
    unified: NDArray[np.float32]


class RdtPolicy:
    """A network with its encoders under a contract; see :mod:`rdt.policy.loading`."""

    sees = True

    def __init__(
        self,
        network: Rdt,
        vision: Vision,
        language: Language,
        card: Card,
        contract: Contract,
        seed: int,
        batching: Batching = "fixed",
        rows: int = 1,
    ) -> None:
        """``rows`` is the size of fixed batches; more requests are several batches.

        Raises ValueError for fewer than one row or another batching.
        """
        if rows < 1 or batching not in get_args(Batching):
            raise ValueError(f"batching {batching!r} with {rows} rows: fixed or free, from 1 row")
        self.network = network.eval().requires_grad_(False)
        self.card, self.contract, self.seed = card, contract, seed
        self.batching, self.rows = batching, rows
        self.language = language
        self._sentences: Memory[Tensor] = Memory(SENTENCES)
        self._slots = slots.of(network.config, contract, card.camera_size)
        self.sees_previous = self._slots.moments == 2
        together = batching == "free"
        self.sight = Sight(network, vision, contract.camera_rotation, together)
        self._conditions = Conditions(network, self.sight, self._slots.absent, together)
        like = next(network.parameters())
        self._mask = like.new_zeros(1, 1, UNIFIED_SIZE)
        self._mask[..., list(contract.mask_slots)] = 1.0
        self._freq = torch.tensor([float(contract.control_hz)], device=like.device)
        self._alphas = diffusion.alphas_cumprod()
        self._like = like
        self._episode = ""

    def begin(self, simulator: Simulator, key: EpisodeKey) -> None:
        """Note the episode; its key seeds the noise. The simulator is not looked at."""
        self._episode = key.text()

    def chunk(self, observation: Observation, query: int) -> NDArray[np.float32]:
        """Actions (horizon, 7) in [-1, 1]; errors are those of :meth:`chunks`."""
        return self.chunks([Request(observation, self._episode, query)]).actions[0]

    @torch.inference_mode()
    def chunks(self, requests: Sequence[Request]) -> Chunks:
        """A chunk for every request, of which there is at least one; instructions may differ.

        Raises RefusedError RDTL-E031 (a picture is missing), RDTL-E043 (a number of the
        state is not finite), RDTL-T012 (pictures of another size), RDTL-D020 (unknown
        instruction), RDTL-D021 (embedding of another width), RDTL-D043 (too long).
        """
        states = np.stack([self._state(request) for request in requests])
        shown = [self._slots.shown(r.observation, r.query) for r in requests]
        sentences = [self._sentence(request.observation.instruction) for request in requests]
        seen = self.sight.tokens(shown)
        answers = np.empty((len(requests), self.card.horizon, UNIFIED_SIZE), np.float32)
        for length, chosen in self._batches([len(tokens) for tokens in sentences]):
            rows = self.rows if self.batching == "fixed" else len(chosen)
            keys = self._conditions.keys(
                rows, length, [sentences[i] for i in chosen], [seen[i] for i in chosen]
            )
            noise = [self._noise(requests[i]) for i in chosen]
            answers[chosen] = self._sample(states[chosen], noise, rows, keys)
        return Chunks(unified.decode_action(answers, self.contract), answers)

    def _batches(self, lengths: list[int]) -> list[tuple[int, list[int]]]:
        """Padded language length and indices of each call of the network."""
        if self.batching == "free":
            return [(max(lengths), list(range(len(lengths))))]
        longest = self.network.config.max_lang_cond_len
        shapes: dict[int, list[int]] = defaultdict(list)
        for index, length in enumerate(lengths):
            shape = min(longest, max(SHORTEST, 1 << (length - 1).bit_length()))
            shapes[max(shape, length)].append(index)  # the network refuses what is too long
        return [
            (shape, indices[start : start + self.rows])
            for shape, indices in sorted(shapes.items())
            for start in range(0, len(indices), self.rows)
        ]

    def _sample(
        self, states: NDArray[np.float32], noise: list[Tensor], rows: int, keys: list
    ) -> NDArray[np.float32]:
        """Chunks (n, H, 128) of the first n of ``rows`` rows; the others are padding."""
        n, like = len(states), self._like
        state = like.new_zeros(rows, 1, UNIFIED_SIZE)
        state[:n, 0] = torch.from_numpy(states).to(state)
        start = like.new_zeros(rows, self.card.horizon, UNIFIED_SIZE)
        start[:n] = torch.stack(noise).to(start)
        mask = self._mask.expand(rows, -1, -1)
        chunk = self.network.sample(state, mask, self._freq, keys, start, self._alphas)
        return chunk[:n].float().cpu().numpy()

    def _state(self, request: Request) -> NDArray[np.float32]:
        """What the network eats of the robot, (128,)."""
        observation = request.observation
        robot = unified.RobotState(
            _marked(observation.eef_pos),
            rotations.quat_to_axis_angle(_marked(observation.eef_quat)),
            _marked(observation.gripper_qpos),
            _marked(observation.joint_pos),
        )
        state = unified.encode_state(robot, self.contract)
        card = self.card
        with np.errstate(over="ignore"):  # a number too large for float32 is found below
            eaten = unified.normalise_state(state, card.state_mean, card.state_std, self.contract)
        bad = np.flatnonzero(~np.isfinite(eaten))
        if len(bad):
            raise RefusedError(
                "RDTL-E043",
                "the robot's state is not finite",
                where=f"slot {bad[0]}: {self.contract.slot_name(int(bad[0]))}; "
                f"episode {request.episode!r}, query {request.query}",
                why="one such number makes every action of the chunk NaN",
                fix="look at the simulator or the sensor that the number comes from",
            )
        return eaten

    def _sentence(self, instruction: str) -> Tensor:
        """Tokens (L, width) in the network's dtype, encoded once."""
        tokens = self._sentences.get(instruction)
        if tokens is None:
            tokens = self.language.tokens(instruction).to(self._like)
            self._sentences.put(instruction, tokens)
        return tokens

    def _noise(self, request: Request) -> Tensor:
        """Normal numbers (H, 128) float32."""
        text = f"{self.seed}/{request.episode}/{request.query}"
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
        random = torch.Generator().manual_seed(seed)
        return torch.randn(self.card.horizon, UNIFIED_SIZE, generator=random)


def _marked(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    """NaN for every number that is not finite: a clip would hide an infinite one."""
    return np.where(np.isfinite(numbers), numbers, np.nan)
