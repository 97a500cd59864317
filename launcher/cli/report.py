"""``rdtl report``: aggregate the records of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from launcher.cli import common


def report(
    run: Annotated[Path, typer.Argument(help="A run directory.", exists=True, file_okay=False)],
    as_json: common.JsonOption = False,
) -> None:
    """Write RUN/report/{episodes.csv, summary.csv, index.html} and print the table."""
    import launcher.report
    from launcher import summary
    from launcher.core.runs import RunDir

    output = common.start_output(as_json)
    launcher.report.build(run.resolve())
    summary.show(output, RunDir(run.resolve()))
