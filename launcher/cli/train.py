"""``rdtl train``: fine-tune from a configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from launcher.cli import common, complete
from launcher.cli.dry_run import show as show_plan


def train(
    config_file: Annotated[
        str,
        typer.Argument(
            metavar="CONFIG",
            help="A file of configs/train.",
            autocompletion=complete.configurations("train"),
        ),
    ],
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
    """Fine-tune with DeepSpeed; demonstrations are collected first where the config says so."""
    from launcher import config, summary

    output = common.start_output(as_json)
    run_config = config.load_run_config(config.find("train", config_file), settings, ["train"])
    run_config = run_config.model_copy(update={"evaluate": None})
    run, plan, the_site = common.prepare(run_config, site, runs_dir, name, runtime, image, dry_run)
    if dry_run:
        show_plan(output, run, plan, the_site)
        return
    length = summary.LengthRecorder(run, run_config)
    common.execute(output, run, plan, the_site, config.to_yaml(run_config), jobs, length)
    output.say(f"policy: {run.policy}")
    output.say(f"next:   rdtl evaluate configs/evaluate/demo.yaml --checkpoint {run.policy}")
    output.result({"run": str(run.root), "policy": str(run.policy)})
