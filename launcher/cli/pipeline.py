"""``rdtl pipeline``: every stage that a configuration asks for, as one chain of jobs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from launcher.cli import common, complete
from launcher.cli.dry_run import show as show_plan


def pipeline(
    config_file: Annotated[
        str,
        typer.Argument(
            metavar="CONFIG",
            help="A file of configs/pipelines.",
            autocompletion=complete.configurations("pipelines"),
        ),
    ],
    detach: Annotated[
        bool, typer.Option("--detach", help="Submit everything to the cluster and return.")
    ] = False,
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
    """Stage → collect → train → evaluate → report: what the configuration has sections for.

    On a cluster the stages are jobs that wait for each other; the same command, from
    any process and days later, shows where they are and continues what is missing.
    """
    from launcher import config, summary
    from launcher.core.errors import UsageError

    output = common.start_output(as_json)
    path = config.find("pipelines", config_file)
    run_config = config.load_run_config(path, settings, [])
    if run_config.train is None and run_config.evaluate is None:
        raise UsageError(
            "RDTL-U005",
            "a pipeline needs a section train or evaluate",
            where=str(path),
            fix="add `train: {}` or `evaluate: {}`; an empty mapping takes all defaults",
        )
    run, plan, the_site = common.prepare(run_config, site, runs_dir, name, runtime, image, dry_run)
    if dry_run:
        show_plan(output, run, plan, the_site)
        return
    if detach:
        common.submit_all(output, run, plan, the_site, config.to_yaml(run_config))
        return
    length = summary.LengthRecorder(run, run_config)
    common.execute(output, run, plan, the_site, config.to_yaml(run_config), jobs, length)
    if run_config.evaluate:
        summary.show(output, run)
    else:
        output.result({"run": str(run.root), "policy": str(run.policy)})
