"""Recipes written by tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from launcher.core import dag
from launcher.dag import load, resolve
from launcher.dag.load import Loaded


def loaded(folder: Path, steps: dict[str, Any], **more: Any) -> Loaded:
    """A recipe called ``made`` with these steps, written to ``folder`` and read back."""
    path = folder / "made.yaml"
    path.write_text(yaml.safe_dump({"name": "made", "about": "a test", "steps": steps, **more}))
    return load.load(str(path))


def graph(folder: Path, steps: dict[str, Any], **more: Any) -> dag.Graph:
    """Its graph with all defaults; the run directory is ``/run``."""
    return resolve.resolve(loaded(folder, steps, **more), "/run")
