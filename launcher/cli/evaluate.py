"""``rdtl evaluate``: success rates of a checkpoint or of a reference policy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from launcher.cli import common
from launcher.cli.dry_run import show as show_plan

if TYPE_CHECKING:
    from launcher.schema import RunConfig


def evaluate(
    config_file: Annotated[
        str, typer.Argument(metavar="CONFIG", help="A file of configs/evaluate.")
    ],
    checkpoint: Annotated[
        Path | None,
        typer.Option("--checkpoint", help="Policy directory; adds the policy rdt.", exists=True),
    ] = None,
    shards: Annotated[int | None, typer.Option("--shards", min=1, help="Array tasks.")] = None,
    site: common.SiteOption = "local",
    settings: common.SetOption = [],  # noqa: B006  typer copies it
    runtime: common.RuntimeOption = None,
    image: common.ImageOption = None,
    name: common.NameOption = None,
    runs_dir: common.RunsOption = Path("runs"),
    jobs: common.JobsOption = None,
    dry_run: common.DryRunOption = False,
    as_json: common.JsonOption = False,
) -> None:
    """Run episodes as an array and report rates with their intervals."""
    from launcher import config, summary

    output = common.start_output(as_json)
    path = config.find("evaluate", config_file)
    settings = [*([f"evaluate.shards={shards}"] if shards else []), *settings]
    run_config = config.load_run_config(path, settings, ["evaluate"])
    run_config = with_checkpoint(run_config.model_copy(update={"train": None}), checkpoint)
    run, plan, the_site = common.prepare(run_config, site, runs_dir, name, runtime, image, dry_run)
    if dry_run:
        show_plan(output, run, plan, the_site)
        return
    common.execute(output, run, plan, the_site, config.to_yaml(run_config), jobs)
    summary.show(output, run)


def with_checkpoint(config: RunConfig, checkpoint: Path | None) -> RunConfig:
    """The configuration with policy rdt from ``checkpoint`` (and unchanged without one)."""
    if checkpoint is None:
        return config
    old = config.evaluate
    assert old is not None
    policies = old.policies if "rdt" in old.policies else ["rdt", *old.policies]
    update = {"checkpoint": str(checkpoint.resolve()), "policies": policies}
    return config.model_copy(update={"evaluate": old.model_copy(update=update)})
