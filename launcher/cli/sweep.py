"""``rdtl sweep``: one array over checkpoints, execution horizons and contracts, and a verdict."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from launcher.cli import common, complete, evaluate
from launcher.cli.checkpoint import WeightsOption
from launcher.cli.dry_run import show as show_plan

if TYPE_CHECKING:
    from launcher.output import Output
    from launcher.report.sweep import Swept
    from launcher.schema import RunConfig


class Place(NamedTuple):
    """Where a sweep runs, as the command line says it."""

    site: str
    runs_dir: Path
    runtime: str | None
    image: str | None
    jobs: int | None
    dry_run: bool


def sweep(
    config_file: Annotated[
        str,
        typer.Argument(
            metavar="CONFIG",
            help="A file of configs/evaluate.",
            autocompletion=complete.configurations("evaluate"),
        ),
    ],
    checkpoints: Annotated[
        list[str],
        typer.Option("--checkpoint", metavar="PATH", help="As rdtl evaluate; repeatable."),
    ] = [],  # noqa: B006  typer copies it
    weights: WeightsOption = "auto",
    horizons: Annotated[
        str | None, typer.Option(metavar="LIST", help="Execution horizons, e.g. 8,12,16.")
    ] = None,
    contracts: Annotated[
        list[str],
        typer.Option(
            "--contract",
            metavar="NAME",
            help="Read adopted weights so; repeatable.",
            autocompletion=complete.contracts,
        ),
    ] = [],  # noqa: B006
    follow: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="Sweep each new checkpoint of a training, to its end."),
    ] = None,
    shards: Annotated[int | None, typer.Option("--shards", min=1, help="Array tasks.")] = None,
    site: common.SiteOption = "local",
    settings: common.SetOption = [],  # noqa: B006
    runtime: common.RuntimeOption = None,
    image: common.ImageOption = None,
    name: common.NameOption = None,
    runs_dir: common.RunsOption = Path("runs"),
    jobs: common.JobsOption = None,
    dry_run: common.DryRunOption = False,
    as_json: common.JsonOption = False,
) -> None:
    """Evaluate every combination on the same episodes and say which to use."""
    import json

    from launcher import config, following
    from launcher.core.errors import UsageError

    output = common.start_output(as_json)
    said = {
        "evaluate.shards": shards,
        "evaluate.weights": weights if weights != "auto" else None,
        "sweep.checkpoints": json.dumps(checkpoints) if checkpoints else None,
        "sweep.horizons": f"[{horizons}]" if horizons else None,
        "sweep.contracts": json.dumps(contracts) if contracts else None,
    }
    settings = [*(f"{key}={value}" for key, value in said.items() if value), *settings]
    path = config.find("evaluate", config_file)
    base = sweeping(config.load_run_config(path, settings, ["evaluate"]))
    place = Place(site, runs_dir, runtime, image, jobs, dry_run)
    if follow is None:
        _one(output, base, name or f"sweep-{base.name}"[:40], place)
        return
    if as_json or dry_run:
        raise UsageError(
            "RDTL-U006",
            "--follow goes on for hours, a sweep after another",
            where="--json" if as_json else "--dry-run",
            why="either belongs to a single sweep",
            fix="leave it out, or name one checkpoint instead of --follow",
        )
    found: list[Swept] = []
    for step in following.checkpoints(follow):
        own = with_checkpoint(base, step)
        found += _one(output, own, f"{name or base.name}-{step.name}", place)
        _show_curve(output, found)


def sweeping(run_config: RunConfig) -> RunConfig:
    """The configuration with a section `sweep`, and with nothing that a sweep does not do.

    Raises UsageError RDTL-U028 for a contract that is none.
    """
    from launcher.schema import Sweep
    from rdt.spec.contract import CONTRACTS

    section = run_config.sweep or Sweep()
    for contract in section.contracts:
        common.require_contract(contract, list(CONTRACTS))
    evaluate = run_config.evaluate
    assert evaluate is not None
    update = {"policies": ["rdt"], "videos": 0, "server": None, "server_token": None}
    changes = {"sweep": section, "train": None, "evaluate": evaluate.model_copy(update=update)}
    return run_config.model_copy(update=changes)


def with_checkpoint(run_config: RunConfig, checkpoint: Path) -> RunConfig:
    """The sweep of one checkpoint."""
    assert run_config.sweep is not None
    section = run_config.sweep.model_copy(update={"checkpoints": [str(checkpoint)]})
    return run_config.model_copy(update={"sweep": section})


def _one(output: Output, run_config: RunConfig, name: str, place: Place) -> list[Swept]:
    """Run one sweep to its end and print it; nothing for a dry run."""
    from launcher import config, summary
    from launcher.report import sweep as reports

    _look_at_weights(output, run_config)
    run, plan, site = common.prepare(
        run_config, place.site, place.runs_dir, name, place.runtime, place.image, place.dry_run
    )
    if place.dry_run:
        show_plan(output, run, plan, site)
        return []
    common.execute(output, run, plan, site, config.to_yaml(run_config), place.jobs)
    summary.show(output, run)
    return [reports.load(run)]


def _look_at_weights(output: Output, run_config: RunConfig) -> None:
    """Say of each checkpoint which copy is taken; UsageError RDTL-E074 for too long a horizon."""
    from launcher.core.errors import UsageError

    section, chosen = run_config.sweep, run_config.evaluate
    assert section is not None
    assert chosen is not None
    for source in section.checkpoints or filter(None, [chosen.checkpoint]):
        told = evaluate.weights_chosen(source, chosen.weights)
        for finding in told.findings:
            output.finding(finding)
        if told.horizon and max(section.horizons) > told.horizon:
            fits = [str(h) for h in section.horizons if h <= told.horizon]
            raise UsageError(
                "RDTL-E074",
                f"of a chunk of {told.horizon} actions {max(section.horizons)} cannot be executed",
                where=f"sweep.horizons, {source}",
                why="such a cell would measure another horizon than its name says",
                fix=f"--horizons {','.join(fits) or told.horizon}",
            )


def _show_curve(output: Output, found: list[Swept]) -> None:
    from launcher.report import sweep as reports

    table = reports.curve(found)
    if len(found) > 1:
        output.table(table.title, table.columns, table.rows)
