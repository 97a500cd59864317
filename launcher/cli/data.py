"""``rdtl data``: look at demonstrations before anything learns from them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from launcher.cli import common

app = typer.Typer(help="Verify demonstrations.", no_args_is_help=True, rich_markup_mode=None)


@app.command("verify")
def verify(
    path: Annotated[Path, typer.Argument(help="A LIBERO HDF5 file.", exists=True, dir_okay=False)],
    as_json: common.JsonOption = False,
) -> None:
    """Read a demonstration file as training would and check what goes silently wrong."""
    from launcher import heavy

    output = common.start_output(as_json)
    heavy.show(output, heavy.run_check("data", str(path.resolve())))
