"""``rdtl shell``: an interactive shell where jobs run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from launcher.cli import common

if TYPE_CHECKING:
    from launcher.core.runs import RunDir
    from launcher.sites import Site


def shell(
    command: Annotated[
        list[str] | None, typer.Argument(metavar="[-- CMD…]", help="Instead of bash.")
    ] = None,
    into: Annotated[
        str | None, typer.Option("--into", help="A run or a job id: join its running job.")
    ] = None,
    site: common.SiteOption = "local",
    runtime: common.RuntimeOption = None,
    image: common.ImageOption = None,
    minutes: Annotated[int, typer.Option("--minutes", min=1, help="Wall-clock limit.")] = 60,
    memory_gb: Annotated[float, typer.Option("--memory-gb", min=0.1, help="Memory.")] = 1.0,
    runs_dir: common.RunsOption = Path("runs"),
) -> None:
    """Open a shell in the image of a site's jobs, or inside a running job.

    With --into it has that job's image, binds, variables and code snapshot, and
    shares its resources. Without a terminal, give a command after --.
    """
    from launcher import shell as shells
    from launcher import sites

    common.start_output(False).if_interrupted = ""  # the exit status is the shell's own
    the_site = sites.load(site)
    words = command or []
    terminal = sys.stdin.isatty()
    if into:
        run, stages = shells.find_stages(runs_dir, into)
        job, options = next(iter(stages)), ["--overlap"]
        if the_site.kind == "slurm":
            job, task = shells.running_job(the_site, list(stages))
            options.append(f"--jobid={task}")
        inner = shells.inner_command(run, stages[job], words)
    else:
        run = own_run(the_site, site, runtime, image, runs_dir, minutes, memory_gb)
        inner = shells.inner_command(run, "run", words)
        options = [f"--time={minutes}", f"--mem={int(memory_gb * 1000)}M", "--job-name=rdtl-shell"]
    if the_site.kind == "slurm":
        inner = shells.srun(the_site, options, inner, terminal=terminal)
    raise SystemExit(shells.start(the_site, run, inner))


def own_run(
    the_site: Site,
    site: str,
    runtime: str | None,
    image: str | None,
    runs_dir: Path,
    minutes: int,
    memory_gb: float,
) -> RunDir:
    """A run directory for the shell: its plan says what the shell ran in."""
    from launcher import presets, run_command
    from launcher.create import create
    from launcher.runtime import choose

    run = run_command.directory(runs_dir, None, site)
    plan = presets.command(
        ["bash"],
        site,
        the_site,
        run,
        choose(the_site, runtime, image),
        nodes=1,
        gpus=0,
        per_gpu=False,
        working_directory=Path.cwd(),
        minutes=minutes,
        memory_gb=memory_gb,
    )
    create(run, plan, run_command.as_yaml(["bash"]))
    return run
