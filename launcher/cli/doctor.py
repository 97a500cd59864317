"""``rdtl doctor``: every check that a machine or site can be given, with its remedy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from launcher.cli import common


def doctor(
    site: common.SiteOption = "local",
    runs_dir: common.RunsOption = Path("runs"),
    explain: Annotated[
        bool, typer.Option("--list", help="List the checks instead of running them.")
    ] = False,
    as_json: common.JsonOption = False,
) -> None:
    """Check this machine and a site for what can silently go wrong (exit 3 if something would)."""
    from launcher import heavy, registry, sites

    output = common.start_output(as_json)
    if explain:
        rows = [[check.name, " ".join(check.codes), check.about] for check in registry.CHECKS]
        output.table("checks", ["check", "codes", "looks at"], rows)
        output.result(
            [{"name": c.name, "codes": c.codes, "about": c.about} for c in registry.CHECKS]
        )
        return
    heavy.show(output, registry.run_all(sites.load(site), runs_dir.resolve()))
