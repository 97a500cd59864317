"""What staging needs of this machine. Takes (site, runs directory), as all checks."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

from launcher import sites
from launcher.core.checks import Finding
from launcher.core.errors import RdtlError
from launcher.sites import Site
from launcher.staging import engine


def staging(site: Site, runs_dir: Path) -> list[Finding]:
    """There is an rclone that starts, and the cache of assets can be written."""
    return [_rclone(), _cache(sites.assets_root(site))]


def _rclone() -> Finding:
    try:
        argv = [engine.program(), "version"]
        said = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=30).stdout
    except RdtlError as error:
        return replace(Finding.of(error), severity="warning")
    except (OSError, subprocess.SubprocessError) as error:
        return Finding("RDTL-G012", "warning", "rclone does not start", str(error))
    return Finding("RDTL-G012", "ok", said.splitlines()[0])


def _cache(root: Path) -> Finding:
    existing = next(path for path in (root, *root.parents) if path.exists())
    if not os.access(existing, os.W_OK | os.X_OK):
        return Finding(
            "RDTL-G005",
            "warning",
            "the cache of staged assets cannot be written",
            where=str(existing),
            why="whatever a configuration names by URI lies there",
            fix="set assets in the site file to a directory of yours that all nodes see",
        )
    free = shutil.disk_usage(existing).free / 1e9
    return Finding("RDTL-G005", "ok", f"assets: {free:.0f} GB free in {root}")
