"""``data/windows.json``: the samples that a training learns from, and what they show of the data.

What is held out is named and counted apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from launcher.core.checks import Finding
from rdt.data import coverage
from rdt.data.coverage import Coverage, Ints
from rdt.data.declared import DeclaredSet
from rdt.data.order import Order
from rdt.data.sample_source import ANY, HORIZON, sampled_steps
from rdt.data.store import EpisodeStore
from rdt.spec import recipe
from rdt.training import held_out
from rdt.training.held_out import Flags


def describe(
    config: dict[str, Any],
    sources: Sequence[DeclaredSet],
    stores: Sequence[EpisodeStore],
    findings: Sequence[Finding],
) -> dict[str, Any]:
    """The content of the file; prints what an epoch shows.

    Raises what :func:`chosen` does, and for `train.checkpoint` what
    :func:`rdt.checkpoint.open_checkpoint` does.
    """
    held, samples, order = chosen(config, sources, stores)
    horizon = _horizon(config["train"]) if config["train"] else 1
    learned = sum(
        coverage.learned(s.ends, own, horizon) for s, own in zip(stores, samples, strict=True)
    )
    kept = [(s.ends - s.starts)[~out] for s, out in zip(stores, held, strict=True)]
    lengths = np.concatenate(kept)
    epoch = coverage.of_epoch(order, lengths, horizon)
    _print_epoch(order, epoch)
    steps = int(lengths.sum())
    return {
        "windows": sum(order.sizes),
        "epoch_samples": order.epoch,
        "horizon": horizon,
        "control_steps": steps,
        "control_steps_learned": learned,
        "coverage": learned / steps,
        "order": order.kind,
        "epoch": [row._asdict() for row in epoch],
        "episodes": [e for s, out in zip(stores, held, strict=True) for e in _episodes(s, out)],
        "findings": [finding.to_dict() for finding in findings],
    }


def chosen(
    config: dict[str, Any], sources: Sequence[DeclaredSet], stores: Sequence[EpisodeStore]
) -> tuple[list[Flags], list[Ints], Order]:
    """Which demonstrations (episodes,) of each set are held out, the steps (samples,) of the
    others that are samples, and the order of these.

    Raises RefusedError RDTL-T064 when not so many demonstrations can be held out, UsageError
    RDTL-T062 for a warm-up that is longer than the training on the others.
    """
    train = config["train"]
    held = _held_out(config, stores)
    samples = [sampled_steps(s, ANY, out) for s, out in zip(stores, held, strict=True)]
    weights = tuple(source.weight for source in sources)
    order = Order(tuple(map(len, samples)), config["seed"], weights, config["dataset"]["order"])
    if train and train["minutes"] is None:
        recipe.require_warmup(train["warmup_steps"], recipe.steps_of(train, order.epoch))
    return held, samples, order


def _horizon(train: dict[str, Any]) -> int:
    """Actions of a chunk: those of the checkpoint that training begins with, if it does.

    One that is not here, a name of the hub, is not fetched for this: it has as many as the
    published networks.
    """
    source = train["checkpoint"]
    if source is None:
        return int(train["model"]["horizon"])
    if not Path(source).exists():
        return HORIZON
    from rdt.checkpoint import open_checkpoint  # torch: other data sets are described without it

    return open_checkpoint(source).config.pred_horizon


def _held_out(config: dict[str, Any], stores: Sequence[EpisodeStore]) -> list[Flags]:
    """Flags (episodes,) of each set, as training has them."""
    share = config["dataset"]["held_out"] if config["train"] else 0
    if share:
        return held_out.choose([store.episodes for store in stores], share, config["seed"])
    return [np.zeros(len(store.ends), np.bool_) for store in stores]


def _episodes(store: EpisodeStore, held: Flags) -> list[dict[str, Any]]:
    counts = np.diff(np.searchsorted(store.sampled, [*store.starts, store.ends[-1]]))
    rows = zip(store.episodes, counts.tolist(), held.tolist(), strict=True)
    return [
        {"name": e.name, "steps": e.length, "windows": count, "held_out": out}
        for e, count, out in rows
    ]


def _print_epoch(order: Order, epoch: Sequence[Coverage]) -> None:
    print(f"an epoch of {order.epoch} draws in the order {order.kind}; beside other orders:")
    for row in epoch:
        never = f", {100 * row.never:.0f} % never in any epoch" if row.never else ""
        times = f"{row.fewest} to {row.most} times"
        print(f"  {row.order:<13} shows {100 * row.seen:5.1f} % ({times}){never}", flush=True)
