"""From files to a policy that can be asked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from launcher.core.errors import RefusedError
from rdt import checkpoint
from rdt.checkpoint.opening import Wanted
from rdt.encoders import language, siglip
from rdt.encoders.language import Language
from rdt.encoders.words import Words
from rdt.model.policy_network import PolicyNetwork
from rdt.model.rdt import Rdt
from rdt.policy.rdt import Batching, RdtPolicy
from rdt.policy.sight import Vision
from rdt.spec import card as cards
from rdt.spec.card import Card
from rdt.spec.contract import CONTRACTS, Contract, require_same


@dataclass(frozen=True)
class Settings:
    """How a policy runs.

    ``vision`` and ``language`` say where the encoders of a network without its own lie
    (folder or hub id; for language also a folder of embeddings); None: the public ones.
    ``weights`` chooses among the copies of a checkpoint, ``contract`` replaces the card's
    for adopted weights. ``rows`` is the size of fixed batches; ``compiled`` is the option
    of that name of :class:`rdt.model.rdt.Rdt`, for GPUs.
    """

    dtype: torch.dtype = torch.float32
    device: str = "cpu"
    batching: Batching = "fixed"
    rows: int = 1
    compiled: bool = False
    vision: str | None = None
    language: str | None = None
    weights: Wanted = "auto"
    contract: str | None = None


def load(source: str | Path, seed: int, settings: Settings = Settings()) -> RdtPolicy:
    """The policy of a checkpoint that has a card: a folder, a file in it or a hub id.

    Raises what :func:`rdt.checkpoint.load` and :func:`assemble` raise, RdtlError or
    RefusedError RDTL-T012 (no card, or one that does not fit the network) and RefusedError
    RDTL-T002 (weights of a run of ours that are no float32 average).
    """
    loaded = checkpoint.load(source, settings.dtype, settings.device, settings.weights)
    print("\n".join(loaded.lines()), flush=True)  # into the job's log
    card = loaded.card or cards.read(loaded.origin.path.parent)
    where = loaded.origin.path.parent / cards.FILE
    contract = contract_of(card, settings.contract, str(where))
    if card.origin == "trained":
        _require(where, "weights", card.weights, "ema", "RDTL-T002")
        _require(where, "dtype", card.dtype, "float32", "RDTL-T002")
    _require(where, "horizon", card.horizon, loaded.config.pred_horizon, "RDTL-T012")
    if isinstance(loaded.network, PolicyNetwork):
        size = loaded.network.vision.config.image_size
        _require(where, "camera_size", card.camera_size, size, "RDTL-T012")
    return assemble(loaded.network, card, contract, seed, settings)


def contract_of(card: Card, name: str | None, where: str) -> Contract:
    """The card's contract, or for adopted weights the one called ``name``.

    Raises RefusedError RDTL-T012 for a contract that these weights cannot be read under,
    RDTL-E071 for weights that were trained here.
    """
    own = require_same(card.contract, where)
    if name is None or name == own.name:
        return own
    if card.origin == "trained":
        raise RefusedError(
            "RDTL-E071",
            f"weights trained under {own.name} are not read under {name}",
            where=f"{where}: origin = trained; evaluate.contract or sweep.contracts = {name}",
            why="the run that trained them knows what their numbers mean",
            fix="leave the contract out; only adopted weights leave it open",
        )
    other = CONTRACTS.get(name) or require_same(name, "evaluate.contract")
    _require(Path(where), "state_normalisation", other.state_normalisation, "none", "RDTL-T012")
    return other


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


def _require(where: Path, field: str, found: object, expected: object, code: str) -> None:
    if found != expected:
        raise RefusedError(
            code,
            f"the policy card and the policy disagree in {field}",
            where=f"{where}: {field} = {found!r}, expected {expected!r}",
            why="the result would not be that of the trained policy",
            fix="name a policy directory written by one training run",
        )
