"""``rdtl --version``: what is installed here, in the form that a report of a mistake needs."""

from __future__ import annotations

import platform
import sys
from typing import Any

from launcher.cli import common


def show(as_json: bool) -> None:
    """Print version, commit of a clone, Python, packages and site files."""
    found = facts()
    output = common.start_output(as_json)
    output.text(f"rdtl {found['rdtl']}{_commit(found['git'])}")
    output.text(f"{'python':<22} {found['python']}  {found['interpreter']}")
    output.text(f"{'platform':<22} {found['platform']}")
    for name, version in found["packages"].items():
        output.text(f"{name:<22} {version or 'not installed'}")
    for name, path in found["sites"].items():
        output.text(f"{f'site {name}':<22} {path}")
    output.result(found)


def facts() -> dict[str, Any]:
    """The same for programs. Nothing is imported for it: packages are asked by their metadata."""
    from launcher import __version__, config, create, snapshot

    return {
        "rdtl": __version__,
        "git": snapshot.git_state(config.CHECKOUT.parent),
        "python": platform.python_version(),
        "interpreter": sys.executable,
        "platform": platform.platform(),
        "packages": {name: create.version(name) for name in create.VERSIONED},
        "sites": {name: str(config.find("sites", name)) for name in config.names("sites")},
    }


def _commit(git: dict[str, Any] | None) -> str:
    if not git:
        return ""
    return f" (commit {git['commit'][:12]}{', changed since' if git['dirty'] else ''})"
