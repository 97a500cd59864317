"""``rdtl runs``: look at runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from launcher.cli import common

app = typer.Typer(help="List and show runs.", no_args_is_help=True, rich_markup_mode=None)


@app.command("list")
def list_runs(
    runs_dir: common.RunsOption = Path("runs"), as_json: common.JsonOption = False
) -> None:
    """All runs of a directory with their state."""
    from launcher.core.runs import RunDir

    output = common.start_output(as_json)
    found = [describe(RunDir(path.parent)) for path in sorted(runs_dir.glob("*/plan.json"))]
    if not found:
        output.say(f"no runs in {runs_dir.resolve()}; `rdtl demo` makes one")
    else:
        rows = [[run["name"], run["site"], run["state"]] for run in found]
        output.table(str(runs_dir), ["run", "site", "stages done"], rows)
    output.result(found)


@app.command("show")
def show(
    run: Annotated[Path, typer.Argument(help="A run directory.", exists=True, file_okay=False)],
    as_json: common.JsonOption = False,
) -> None:
    """The stages of one run, their attempts and their newest logs."""
    from launcher.core.runs import RunDir

    output = common.start_output(as_json)
    facts = describe(RunDir(run.resolve()))
    rows = [[s["stage"], f"{s['done']}/{s['tasks']}", str(s["attempts"])] for s in facts["stages"]]
    output.table(f"{facts['name']} on {facts['site']}", ["stage", "tasks done", "attempts"], rows)
    output.text(f"\nlogs: {run / 'logs'}")
    output.result(facts)


def describe(run: Any) -> dict[str, Any]:
    """State of a run from its ledger alone (nothing is asked of a scheduler)."""
    from launcher.core import plan
    from launcher.core.errors import UsageError

    if not run.plan.exists():
        raise UsageError(
            "RDTL-U014",
            "this is no run directory",
            where=f"{run.plan} does not exist",
            fix="rdtl runs list shows the runs",
        )
    the_plan = plan.read(run.plan)
    stages = [
        {
            "stage": stage.name,
            "tasks": stage.array,
            "done": sum(run.ledger.done(stage.name, i, stage.nodes) for i in range(stage.array)),
            "attempts": run.ledger.current_attempt(stage.name),
        }
        for stage in the_plan.stages
    ]
    finished = sum(stage["done"] == stage["tasks"] for stage in stages)
    return {
        "name": run.root.name,
        "site": the_plan.site,
        "state": f"{finished}/{len(stages)}",
        "stages": stages,
    }
