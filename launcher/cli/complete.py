"""What the shell offers after TAB: names of sites, configurations, runs, recipes, images.

Each function is called by the shell's own completion with what was typed so far. An answer
must come at once and never be an error: where nothing can be read, nothing is offered.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

import typer


def configurations(kind: str) -> Callable[[str], list[str]]:
    """Completes names of ``configs/KIND``; the shell itself offers files where none fits."""

    def complete(incomplete: str) -> list[str]:
        from launcher import config

        return _beginning(incomplete, config.names(kind))

    return complete


def runs(ctx: typer.Context, incomplete: str) -> list[str]:
    """Completes names of runs in --runs-dir."""
    root = Path(ctx.params.get("runs_dir") or os.environ.get("RDTL_RUNS", "runs"))
    return _beginning(incomplete, (path.parent.name for path in root.glob("*/plan.json")))


def recipes(incomplete: str) -> list[str]:
    """Completes names of recipes."""
    from launcher.dag import load

    return _beginning(incomplete, load.names())


def contracts(incomplete: str) -> list[str]:
    """Completes names of contracts."""
    from rdt.spec.contract import CONTRACTS

    return _beginning(incomplete, CONTRACTS)


def _beginning(incomplete: str, names: Iterable[str]) -> list[str]:
    return sorted(name for name in names if name.startswith(incomplete))
