"""Small policies of the public shape: SigLIP, 2 x 3 picture slots, embedded instructions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rdt.encoders.siglip import Siglip
from rdt.model.config import NOISE_SCHEDULER, RdtConfig
from rdt.model.rdt import Rdt
from rdt.policy.policy import Observation
from rdt.policy.rdt import Batching, RdtPolicy, Request
from rdt.spec.card import SIGLIP, T5, Card
from rdt.spec.contract import LIBERO_RAW_VELOCITY, Contract
from tests.rdt import checkpoints

LANG, VISION_WIDTH, SIZE, PATCH, HORIZON = 24, 32, 42, 14, 8
TOKENS = (SIZE // PATCH) ** 2
INSTRUCTIONS = ("pick up the soup", "open the drawer", "turn on the stove and stop")


def vision_settings() -> dict[str, Any]:
    """Settings of a SigLIP vision model with 9 tokens of width 32."""
    return {
        "hidden_size": VISION_WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "image_size": SIZE,
        "patch_size": PATCH,
    }


def vision(dtype: torch.dtype = torch.float32) -> Siglip:
    """A random SigLIP in memory."""
    from transformers import SiglipVisionConfig, SiglipVisionModel

    torch.manual_seed(3)
    config = SiglipVisionConfig(**vision_settings(), vision_use_head=False)
    return Siglip(SiglipVisionModel(config).to(dtype))


def config(history: int = 2, cameras: int = 3, **changes: Any) -> RdtConfig:
    """config.json of a network with that picture grid."""
    return replace(
        RdtConfig(
            action_dim=128,
            pred_horizon=HORIZON,
            rdt={"hidden_size": 32, "depth": 4, "num_heads": 4},
            lang_token_dim=LANG,
            img_token_dim=VISION_WIDTH,
            state_token_dim=128,
            max_lang_cond_len=64,
            img_cond_len=history * cameras * TOKENS,
            lang_pos_embed_config=[["lang", -64]],
            img_pos_embed_config=[["image", [history, cameras, -TOKENS]]],
            noise_scheduler={**NOISE_SCHEDULER, "num_inference_timesteps": 3},
        ),
        **changes,
    )


def network(settings: RdtConfig, dtype: torch.dtype = torch.float32) -> Rdt:
    """Random weights everywhere, in the last layer and the position tables too."""
    torch.manual_seed(4)
    net = Rdt(settings)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return net.to(dtype).eval()


def card(contract: Contract, camera_size: int = 0) -> Card:
    """A card for a network with random weights; with a camera size it sees by itself."""
    own = camera_size > 0
    made = checkpoints.card(contract, *(("trained", "word-hash") if own else (SIGLIP, T5)))
    return replace(made, horizon=HORIZON, camera_size=camera_size)


class Sentences:
    """Fixed random tokens per instruction, of different lengths."""

    def tokens(self, instruction: str) -> Tensor:
        random = torch.Generator().manual_seed(len(instruction))
        length = 3 + len(instruction) % 5 + (40 if "stove" in instruction else 0)
        return torch.randn(length, LANG, generator=random)


def policy(
    dtype: torch.dtype = torch.float32,
    batching: Batching = "fixed",
    rows: int = 1,
    contract: Contract = LIBERO_RAW_VELOCITY,
    **changes: Any,
) -> RdtPolicy:
    """A policy of the public shape with random weights."""
    net = network(config(**changes), dtype)
    see = vision(dtype)
    return RdtPolicy(net, see, Sentences(), card(contract), contract, 5, batching, rows)


def pictures(seed: int, size: int = 60) -> dict[str, np.ndarray]:
    """Random pictures of the two cameras of LIBERO."""
    random = np.random.default_rng(seed)
    names = ("agentview", "eye_in_hand")
    return {name: random.integers(0, 256, (size, size, 3), np.uint8) for name in names}


def observation(seed: int, first: bool = False, instruction: str = "") -> Observation:
    """What is seen at step ``seed`` of a scene in which each step looks different."""
    random = np.random.default_rng(seed)
    return Observation(
        pictures=pictures(seed),
        eef_pos=random.standard_normal(3),
        eef_quat=np.array([0.0, 0.6, 0.0, 0.8]),
        gripper_qpos=np.array([0.03, -0.03]),
        joint_pos=random.standard_normal(7),
        instruction=instruction or INSTRUCTIONS[seed % 3],
        previous=None if first else pictures(seed - 1),
    )


def request(seed: int) -> Request:
    """One of many queries that differ in everything; every fourth begins an episode."""
    query = seed % 4
    return Request(observation(seed, first=query == 0), f"episode-{seed // 4}", query)


def save_sentence(folder: Path, name: str, tokens: Tensor) -> Path:
    """A bare embedding file."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(tokens, folder / f"{name}.pt")
    return folder / f"{name}.pt"


def trained_folder(folder: Path) -> Path:
    """A policy directory as training leaves it, with random weights."""
    from rdt.checkpoint import save
    from rdt.model.policy_network import build, config_from_run
    from rdt.spec.contract import LIBERO_VELOCITY
    from tests.rdt.test_policy_of_a_run import MODEL, SIZE

    torch.manual_seed(0)
    made = build(config_from_run(MODEL, SIZE, LIBERO_VELOCITY), LIBERO_VELOCITY, "test")
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    save(folder / "policy", made, card(LIBERO_VELOCITY, SIZE))
    return folder / "policy"
