"""``rdtl run``: any command on any site."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from launcher.cli import common
from launcher.cli.dry_run import show as show_plan


def run(
    command: Annotated[list[str], typer.Argument(metavar="-- CMD…", help="Command and arguments.")],
    site: common.SiteOption = "local",
    nodes: Annotated[int, typer.Option("--nodes", min=1, help="Nodes.")] = 1,
    gpus: Annotated[int, typer.Option("--gpus", min=0, help="GPUs per node.")] = 0,
    per: Annotated[
        str, typer.Option("--per", help="Start CMD once per `node`, or per `gpu` with RANK set.")
    ] = "node",
    minutes: Annotated[int, typer.Option("--minutes", min=1, help="Wall-clock limit.")] = 60,
    memory_gb: Annotated[float, typer.Option("--memory-gb", min=0.1, help="Per node.")] = 1.0,
    runtime: common.RuntimeOption = None,
    image: common.ImageOption = None,
    name: common.NameOption = None,
    runs_dir: common.RunsOption = Path("runs"),
    dry_run: common.DryRunOption = False,
    as_json: common.JsonOption = False,
) -> None:
    """Run any command on a site: here, or as a Slurm job on N nodes.

    The git working tree around the current directory is copied into the run
    directory and the command runs in that copy; outside a git tree nothing is copied.
    """
    from launcher import presets, run_command, sites, snapshot
    from launcher.core.errors import UsageError
    from launcher.runtime import choose

    output = common.start_output(as_json)
    if per not in ("node", "gpu"):
        raise UsageError("RDTL-U006", f"--per is node or gpu, not {per}")
    the_site = sites.load(site)
    container = choose(the_site, runtime, image, submits=not dry_run)
    run_dir, here = run_command.directory(runs_dir, name, site), Path.cwd()
    work = snapshot.work_directory(run_dir.work, here)
    if work == here:
        output.say(f"no files of a git tree around {here}: nothing is copied for the jobs")
    plan = presets.command(
        command,
        site,
        the_site,
        run_dir,
        container,
        nodes=nodes,
        gpus=gpus,
        per_gpu=per == "gpu",
        working_directory=work,
        minutes=minutes,
        memory_gb=memory_gb,
    )
    if dry_run:
        show_plan(output, run_dir, plan, the_site)
        return
    if older := run_command.older_code(run_dir, here):
        output.say(older)
    tail = run_command.LogTail(run_dir, plan.stages[0], output)
    try:
        text = run_command.as_yaml(command)
        common.execute(output, run_dir, plan, the_site, text, None, tail, start=here)
    finally:
        tail.rest()
    output.result({"run": str(run_dir.root), "logs": tail.read()})
