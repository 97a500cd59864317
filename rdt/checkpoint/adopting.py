"""A card for weights that were trained elsewhere.

Their numbers follow somebody else's conventions, which no file of theirs tells.
A person names them (a contract); here it is made sure that such a network can be
fed that way at all.
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

from launcher.core.errors import RefusedError
from rdt.checkpoint import places
from rdt.checkpoint.opening import VISION, Checkpoint
from rdt.policy import slots
from rdt.spec import card as cards
from rdt.spec.card import SIGLIP, T5, Card, statistics_digest, weights_sha256
from rdt.spec.contract import UNIFIED_SIZE, Contract

T5_WIDTH, SIGLIP_WIDTH, SIGLIP_TOKENS = 4096, 1152, 729


def adopt(checkpoint: Checkpoint, contract: Contract) -> Card:
    """Write card.json beside the weights and return it; an equal card may be there already.

    Raises RefusedError RDTL-T012 for another card, a contract that cannot hold or a file
    beside one that its folder is read from, RDTL-T021
    for a network with fewer cameras than the contract.
    """
    _require_preferred(checkpoint.origin.path)
    card = _card(checkpoint, contract)
    folder = checkpoint.origin.path.parent
    if checkpoint.card is None:
        card.write(folder)
    elif checkpoint.card.contract != card.contract:
        raise RefusedError(
            "RDTL-T012",
            "these weights have another card",
            where=f"{folder / cards.FILE}: contract {checkpoint.card.contract['name']}, "
            f"asked for {contract.name}",
            why="whoever wrote it may know better; results under it would change their meaning",
            fix=f"remove {folder / cards.FILE} if it is wrong, then adopt again",
        )
    return checkpoint.card or card


def _require_preferred(path: Path) -> None:
    if (other := places.preferred(path)) is not None:
        raise RefusedError(
            "RDTL-T012",
            "its folder is read from another file of weights",
            where=f"{path}: the folder stands for {other}",
            why="a card beside both would hold the digest of one, and the folder be refused",
            fix=f"adopt {other}, or move {path.name} and config.json into a folder of their own",
        )


def _card(checkpoint: Checkpoint, contract: Contract) -> Card:
    _require_statistics(checkpoint, contract)
    _require_sizes(checkpoint, contract)
    mean, std = (0.0,) * UNIFIED_SIZE, (1.0,) * UNIFIED_SIZE
    return Card(
        contract=contract.to_dict(),
        encoders={"vision": SIGLIP, "language": T5},
        weights=checkpoint.origin.weights,
        dtype=checkpoint.origin.dtype,
        weights_sha256=weights_sha256(checkpoint.origin.path),
        state_mean=mean,
        state_std=std,
        statistics_digest=statistics_digest(mean, std),
        horizon=checkpoint.config.pred_horizon,
        camera_size=0,
        origin="adopted",
        training=None,
        versions={"torch": version("torch")},
    )


def _require_statistics(checkpoint: Checkpoint, contract: Contract) -> None:
    if contract.state_normalisation != "none":
        raise RefusedError(
            "RDTL-T012",
            f"the contract {contract.name} needs the statistics of the training data",
            where=f"{checkpoint.origin.path}: contract.state_normalisation = "
            f"{contract.state_normalisation}",
            why="it normalises states, and foreign weights come without those numbers",
            fix="name a contract that does not normalise, or use the card of the run that trained "
            "these weights",
        )


def _require_sizes(checkpoint: Checkpoint, contract: Contract) -> None:
    config = checkpoint.config
    slots.of(config, contract, 0)
    for field, found, wanted in (
        (VISION, checkpoint.data.get(VISION), None),
        ("action_dim", config.action_dim, UNIFIED_SIZE),
        ("state_token_dim", config.state_token_dim, UNIFIED_SIZE),
        ("lang_token_dim", config.lang_token_dim, T5_WIDTH),
        ("img_token_dim", config.img_token_dim, SIGLIP_WIDTH),
        ("img_cond_len", f"{config.picture_tokens} a picture", f"{SIGLIP_TOKENS} a picture"),
    ):
        if found != wanted:
            raise RefusedError(
                "RDTL-T012",
                f"this network cannot be fed under the contract {contract.name}",
                where=f"{checkpoint.origin.config}: {field} = {found}, expected {wanted}",
                why=f"adopted weights see pictures through {SIGLIP} and words through {T5}",
                fix="name the contract under which it was trained",
            )
