"""``rdtl data inspect``: what is in a data set, on the terminal and as one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from launcher.cli import common, data


def add_to(app: typer.Typer) -> None:
    """Add this command to ``rdtl data``."""
    app.command("inspect")(inspect)


def inspect(
    path: Annotated[Path, typer.Argument(help=data.SET)],
    out: Annotated[
        Path | None, typer.Option(help="A folder for index.html, with pictures and charts.")
    ] = None,
    contract: data.ContractOption = "libero-velocity",
    task: data.TaskOption = None,
    demo: data.DemoOption = None,
    gripper_open: data.GripperOption = -1,
    alignment: data.AlignmentOption = None,
    as_json: common.JsonOption = False,
) -> None:
    """Show what is in a data set: tasks, lengths, conventions, coverage; with --out pictures.

    Judging is for `verify`; this ends with status 0 whatever it finds.
    """
    import json

    from launcher import heavy
    from launcher.inspection import text
    from launcher.presets import JOB_ENVIRONMENT

    output = common.start_output(as_json)
    request = data.source_request(contract, task, demo, gripper_open, alignment) | {
        "path": str(path.resolve()),
        "pictures": out is not None,
    }
    if out is not None:
        data.require_outside(out.resolve(), path.resolve())
    with output.working(f"reading {path}"):
        found = heavy.call("jobs.inspect_data", json.dumps(request), environment=JOB_ENVIRONMENT)
    result = found["result"]
    text.show(output, result)
    if out is not None:
        result["page"] = str(_write_page(result, path, out))
        output.text(f"\nwritten: {result['page']}")
    del result["sheets"]  # pictures are for the page
    output.result(result)


def _write_page(result: dict[str, object], path: Path, out: Path) -> Path:
    from launcher.core import files
    from launcher.core.errors import file_system
    from launcher.inspection import page

    target = out.resolve() / "index.html"
    try:
        files.write_text(target, page.render(result, f"rdtl data inspect {path} --out {out}"))
    except OSError as error:
        raise file_system(error, "the page was being written") from error
    return target
