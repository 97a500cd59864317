"""From files to a policy that can be asked."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from launcher.core.errors import RdtlError, RefusedError
from rdt.encoders import language, siglip
from rdt.encoders.language import Language
from rdt.encoders.words import Words
from rdt.model.policy_network import PolicyNetwork, build
from rdt.model.rdt import Rdt
from rdt.policy.rdt import Batching, RdtPolicy
from rdt.policy.sight import Vision
from rdt.spec import card as cards
from rdt.spec.card import Card
from rdt.spec.contract import Contract, require_same

CONFIG, WEIGHTS = "config.json", "model.safetensors"


@dataclass(frozen=True)
class Settings:
    """How a policy runs.

    ``vision`` and ``language`` say where the encoders of a network without its own lie
    (folder or hub id; for language also a folder of embeddings); None: the public ones.
    ``rows`` is the size of fixed batches; ``compiled`` is the option of that name of
    :class:`rdt.model.rdt.Rdt`, for GPUs.
    """

    dtype: torch.dtype = torch.float32
    device: str = "cpu"
    batching: Batching = "fixed"
    rows: int = 1
    compiled: bool = False
    vision: str | None = None
    language: str | None = None


def load(policy_dir: Path, seed: int, settings: Settings = Settings()) -> RdtPolicy:
    """Load ``policy_dir`` (config.json, model.safetensors, card.json).

    Raises RdtlError or RefusedError with code RDTL-T012 (card, sizes), RDTL-T002
    (weights that are no float32 average), RDTL-T020 (weights that do not fit).
    """
    card = cards.read(policy_dir)
    contract = require_same(card.contract, str(policy_dir / cards.FILE))
    _require_card(policy_dir, "training.weights", card.training.weights, "ema", "RDTL-T002")
    _require_card(policy_dir, "training.dtype", card.training.dtype, "float32", "RDTL-T002")
    network = _network(policy_dir, contract)
    sizes = (network.config.pred_horizon, network.vision.config.image_size)
    _require_card(policy_dir, "horizon", card.horizon, sizes[0], "RDTL-T012")
    _require_card(policy_dir, "camera_size", card.camera_size, sizes[1], "RDTL-T012")
    return assemble(network, card, contract, seed, settings)


def assemble(
    network: Rdt, card: Card, contract: Contract, seed: int, settings: Settings
) -> RdtPolicy:
    """A network with its own encoders, or with those that ``settings`` name.

    Raises RdtlError RDTL-T020 for encoders and RefusedError RDTL-D021 for embeddings
    that do not load or fit.
    """
    dtype, device = settings.dtype, settings.device
    network = network.to(device=device, dtype=dtype)
    network.compiled = settings.compiled
    see: Vision
    say: Language
    if isinstance(network, PolicyNetwork):
        see, say = network.vision, Words()
    else:
        see = siglip.load(settings.vision or siglip.PUBLIC, dtype, device)
        width = network.config.lang_token_dim
        say = language.load(settings.language or language.PUBLIC, width, dtype, device)
    return RdtPolicy(network, see, say, card, contract, seed, settings.batching, settings.rows)


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
