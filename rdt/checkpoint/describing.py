"""A checkpoint in plain data: what ``rdtl checkpoint inspect`` prints."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from launcher.core.checks import Finding
from launcher.core.errors import RdtlError
from rdt.checkpoint import fit, tensors
from rdt.checkpoint.fit import Fit
from rdt.checkpoint.opening import Checkpoint


def describe(checkpoint: Checkpoint) -> dict[str, Any]:
    """Everything that the files say, and what is wrong with them as findings.

    Reads every number once, to see that it is one.
    """
    compared = fit.compare(checkpoint)
    broken = not_finite(checkpoint)
    findings = [*checkpoint.notes, *_findings(checkpoint, compared, broken)]
    origin = checkpoint.origin
    return {
        "path": str(origin.path),
        "config": str(origin.config),
        "layout": origin.layout,
        "weights": origin.weights,
        "dtype": origin.dtype,
        "bytes": origin.path.stat().st_size,
        "copies": [copy._asdict() | {"path": str(copy.path)} for copy in checkpoint.copies],
        "tensors": len(checkpoint.header),
        "parameters": sum(stored.numel for stored in checkpoint.header.values()),
        "groups": [group._asdict() for group in checkpoint.groups()],
        "sizes": sizes(checkpoint),
        "fit": compared._asdict() | {"fields": [d._asdict() for d in compared.fields]},
        "not_finite": broken,
        "card": asdict(checkpoint.card) if checkpoint.card else None,
        "findings": [finding.to_dict() for finding in findings],
    }


def sizes(checkpoint: Checkpoint) -> dict[str, Any]:
    """The sizes in config.json by their names in the field; widths in numbers, times in steps."""
    config = checkpoint.config
    return {
        "hidden": config.hidden_size,
        "depth": config.depth,
        "heads": config.num_heads,
        "horizon": config.pred_horizon,
        "action": config.action_dim,
        "state": config.state_token_dim,
        "language_tokens": config.max_lang_cond_len,
        "language_width": config.lang_token_dim,
        "pictures": config.picture_slots,
        "picture_tokens": config.picture_tokens,
        "picture_width": config.img_token_dim,
        "sampling_steps": config.sampling_steps,
        "predicts": config.prediction_type,
    }


def not_finite(checkpoint: Checkpoint) -> list[str]:
    """Names of tensors with a NaN or an infinity in them."""
    return [
        name
        for window in tensors.windows(checkpoint.origin.path, checkpoint.header)
        for name, tensor in window.items()
        if tensor.dtype in tensors.REAL and not bool(torch.isfinite(tensor).all())
    ]


def _findings(checkpoint: Checkpoint, compared: Fit, broken: list[str]) -> list[Finding]:
    return [
        fits(checkpoint, compared),
        _finite(checkpoint.origin.path, broken),
        carded(checkpoint),
    ]


def fits(checkpoint: Checkpoint, compared: Fit) -> Finding:
    """Whether names and shapes are those of config.json's network."""
    try:
        fit.require(checkpoint, compared)
    except RdtlError as error:
        return Finding.of(error)
    return Finding(
        "RDTL-T020", "ok", f"all {len(checkpoint.header)} tensors of config.json's network"
    )


def _finite(path: Path, broken: list[str]) -> Finding:
    if not broken:
        return Finding("RDTL-T018", "ok", "every number is finite")
    return Finding(
        "RDTL-T018",
        "error",
        f"{len(broken)} tensors hold NaN or infinity: {fit.some(broken)}",
        where=str(path),
        why="every action of such a network is NaN",
        fix="take an earlier checkpoint: this training had gone wrong",
    )


def carded(checkpoint: Checkpoint) -> Finding:
    """Whether there is a card that belongs to the weights."""
    path = checkpoint.origin.path
    if checkpoint.card is not None:
        return Finding("RDTL-T012", "ok", "the card belongs to these weights (sha256)")
    return Finding(
        "RDTL-T012",
        "warning",
        "these weights have no card: what their 128 numbers mean is unknown",
        where=str(path.parent),
        why="a wrong unit or sign does not crash, it ruins the success rate",
        fix=f"rdtl checkpoint adopt {path} --contract NAME",
    )
