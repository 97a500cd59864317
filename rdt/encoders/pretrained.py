"""Loading an encoder through transformers: nothing may be missing, and it does not chatter."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from launcher.core.errors import RdtlError


def load(kind: Any, source: str | Path, dtype: torch.dtype, **settings: Any) -> Any:
    """The encoder of class ``kind`` from a folder or a hub id, in ``dtype``.

    The other half of a whole model (a text tower, a decoder) is left out. Raises
    RdtlError RDTL-T020 when it does not load, or when a tensor would stay random.
    """
    try:
        with _quiet():
            model, report = kind.from_pretrained(
                source, dtype=dtype, output_loading_info=True, **settings
            )
    except (OSError, ValueError, RuntimeError) as error:
        raise _does_not_load(kind, source, f"{type(error).__name__}: {error}") from error
    if missing := sorted(report["missing_keys"]):
        raise _does_not_load(
            kind, source, f"{len(missing)} tensors are missing, among them {missing[0]}"
        )
    return model


def _does_not_load(kind: Any, source: str | Path, reason: str) -> RdtlError:
    return RdtlError(
        "RDTL-T020",
        "an encoder does not load",
        where=f"{source} as {kind.__name__}: {reason}",
        why="features of another or a random encoder are noise to the policy",
        fix="name a complete folder with config.json and weights, or a hub id that is reachable",
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """transformers lists every tensor that it leaves out, and draws progress bars."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
