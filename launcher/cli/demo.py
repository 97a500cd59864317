"""``rdtl demo``: the whole road on this machine or on a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from launcher.cli import common
from launcher.cli.dry_run import show as show_plan


def demo(
    site: common.SiteOption = "local",
    quick: Annotated[
        bool,
        typer.Option(
            "--quick",
            help="The same road with fewer of everything (5 minutes); its policy learns nothing.",
        ),
    ] = False,
    wide: Annotated[
        bool, typer.Option("--wide", help="Objects shifted by up to 60 mm: blind replay fails.")
    ] = False,
    minutes: Annotated[
        float | None, typer.Option("--minutes", min=0.1, help="Train this long (measured once).")
    ] = None,
    settings: common.SetOption = [],  # noqa: B006  typer copies it
    runtime: common.RuntimeOption = None,
    image: common.ImageOption = None,
    name: common.NameOption = None,
    runs_dir: common.RunsOption = Path("runs"),
    jobs: common.JobsOption = None,
    dry_run: common.DryRunOption = False,
    as_json: common.JsonOption = False,
) -> None:
    """Collect, verify, train, evaluate, report: the whole road on real LIBERO, without GPU.

    Killed and run again, it continues. The report is RUN/report/index.html.
    """
    from launcher import config, sites, summary

    output = common.start_output(as_json)
    the_site = sites.load(site)
    preset = config.find("demo", "quick" if quick else "wide" if wide else "default")
    if quick and wide:
        settings = [*WIDE, "name=demo-quick-wide", *settings]
    if minutes:
        settings = [f"train.minutes={minutes}", *settings]
    settings = [*spread(the_site.nodes), *settings]
    run_config = config.load_run_config(preset, settings, ["collect", "train", "evaluate"])
    run, plan, the_site = common.prepare(run_config, site, runs_dir, name, runtime, image, dry_run)
    if dry_run:
        show_plan(output, run, plan, the_site)
        return
    length = summary.LengthRecorder(run, run_config)
    common.execute(output, run, plan, the_site, config.to_yaml(run_config), jobs, length)
    summary.show(output, run)


WIDE = ["task.wide_mm=60"]


def spread(nodes: int) -> list[str]:
    """Two ranks: both here, or one on each of two nodes. The arithmetic is the same."""
    return ["train.nodes=2", "train.ranks_per_node=1"] if nodes > 1 else []
