"""One side of :mod:`benchmarks.policy_call`: ``… policy_side SIDE OUT.npy QUERY …``.

Both sides have the same random weights (SigLIP so400m, rdt-1b, bf16), the same
pictures and the same noise. Weights are written in bf16 at once: 3.3 GB. Query 0 is
the first one of an episode, 1 comes sixteen control steps later, 2 one step after that.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from rdt.encoders import pictures
from rdt.encoders.siglip import Siglip
from rdt.model.presets import PRESETS
from rdt.model.rdt import Rdt
from rdt.policy.policy import Observation
from rdt.policy.rdt import RdtPolicy, Request
from rdt.spec.card import Card
from rdt.spec.contract import LIBERO_RAW_VELOCITY as CONTRACT
from tests.rdt import literal, small_policy

SO400M = {
    "hidden_size": 1152,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "intermediate_size": 4304,
    "image_size": 384,
    "patch_size": 14,
}
WORDS = 32
CAMERA_SIZE = 256
STEPS = (0, 16, 17)
"""Control step of each query."""


def filled(make: Callable[[], nn.Module]) -> Any:
    """A module in bf16 with random weights of a trained network's scale; norms are 1."""
    with torch.device("meta"):
        module = make()
    module.to(torch.bfloat16).to_empty(device="cpu")
    block = torch.randn(1_000_003, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.ndim == 1:
                parameter.fill_(1.0 if name.endswith("weight") else 0.0)
                continue
            flat, scale = parameter.view(-1), parameter.shape[-1] ** -0.5
            for start in range(0, len(flat), len(block)):
                part = flat[start : start + len(block)]
                torch.mul(block[: len(part)], scale, out=part)
    return module.eval()


def vision() -> Siglip:
    """SigLIP so400m."""
    from transformers import SiglipVisionConfig, SiglipVisionModel

    config = SiglipVisionConfig(**SO400M, vision_use_head=False)  # type: ignore[arg-type]
    model = filled(lambda: SiglipVisionModel(config))
    embeddings = model.embeddings
    embeddings.position_ids = torch.arange(embeddings.num_positions)[None]
    return Siglip(model)


class OneSentence:
    """32 random tokens in place of T5's."""

    def tokens(self, instruction: str) -> Tensor:
        random = torch.Generator().manual_seed(1)
        return torch.randn(WORDS, 4096, generator=random).to(torch.bfloat16)


def observation(step: int) -> Observation:
    """What is seen at a control step, and one before."""
    small = small_policy.observation(step, first=step == 0, instruction="go")
    before = small_policy.pictures(step - 1, CAMERA_SIZE) if step else None
    seen = small_policy.pictures(step, CAMERA_SIZE)
    return Observation(**{**vars(small), "pictures": seen, "previous": before})


def card() -> Card:
    """That of a foreign checkpoint."""
    made = small_policy.card(CONTRACT)
    return Card(**{**vars(made), "horizon": PRESETS["1b"].pred_horizon})


def ours(network: Rdt, see: Siglip) -> Callable[[Request], np.ndarray]:
    """The policy."""
    policy = RdtPolicy(network, see, OneSentence(), card(), CONTRACT, seed=0)
    return lambda request: policy.chunks([request]).unified[0]


def reference(network: Rdt, see: Siglip) -> Callable[[Request], np.ndarray]:
    """Six pictures through the encoder, and keys computed again in every diffusion step."""
    policy = RdtPolicy(network, see, OneSentence(), card(), CONTRACT, seed=0)
    weights = dict(network.state_dict())

    @torch.inference_mode()
    def call(request: Request) -> np.ndarray:
        seen = request.observation
        shown = []
        for moment in (seen.previous, seen.pictures):
            for camera in CONTRACT.cameras:
                there = moment[camera] if moment is not None and camera else None
                shown.append(pictures.grey(384) if there is None else pictures.fitted(there, 384))
        features = see(torch.from_numpy(np.stack(shown))).flatten(0, 1)[None]
        mask = torch.zeros(1, 1, 128, dtype=torch.bfloat16)
        mask[..., list(CONTRACT.mask_slots)] = 1.0
        inputs = literal.Inputs(
            lang=OneSentence().tokens("go")[None],
            lang_valid=torch.ones(1, WORDS, dtype=torch.bool),
            img=features,
            img_valid=None,
            state=torch.from_numpy(policy._state(request)).to(mask)[None, None],
            mask=mask,
            freq=torch.tensor([float(CONTRACT.control_hz)]),
        )
        noise = policy._noise(request).to(mask)[None]
        heads, steps = network.config.num_heads, network.config.sampling_steps
        return literal.sample(weights, heads, inputs, noise, steps, "sample")[0].float().numpy()

    return call


def attention_flop(q: tuple[int, ...], k: tuple[int, ...], *_: Any, **__: Any) -> int:
    """Of attention on a CPU, which torch's counter leaves out: 4 · B · N · T · L · d."""
    return 4 * q[0] * q[1] * q[2] * k[2] * q[3]


COUNTED = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention_flop}


def main() -> None:
    """Run the queries in turn; the last line of output is JSON with the costs of each."""
    side, out, *numbers = sys.argv[1:]
    network, see = filled(lambda: Rdt(PRESETS["1b"])), vision()
    call = {"ours": ours, "reference": reference}[side](network, see)
    costs, answers = [], []
    for query in map(int, numbers):
        request = Request(observation(STEPS[query]), "episode", query)
        wall, cpu = time.perf_counter(), time.process_time()
        with FlopCounterMode(display=False, custom_mapping=COUNTED) as counter:
            answers.append(call(request))
        costs.append(
            {
                "cpu_s": time.process_time() - cpu,
                "wall_s": time.perf_counter() - wall,
                "flop": counter.get_total_flops(),
            }
        )
    np.save(out, np.stack(answers))
    print(json.dumps(costs))


if __name__ == "__main__":
    main()
