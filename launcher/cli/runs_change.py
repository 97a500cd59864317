"""``rdtl runs``: continue, end and clean runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from launcher.cli import common, complete
from launcher.cli.runs import OfSiteOption, RunArgument, every_run, find_run

if TYPE_CHECKING:
    from launcher.core.plan import Plan
    from launcher.core.runs import RunDir
    from launcher.output import Output
    from launcher.resubmit import Which


def add_to(app: typer.Typer) -> None:
    """Add these commands to ``rdtl runs``."""
    app.command("resume")(resume)
    app.command("resubmit")(resubmit)
    app.command("cancel")(cancel)
    app.command("clean")(clean)


def resume(
    run: RunArgument,
    jobs: common.JobsOption = None,
    site: OfSiteOption = None,
    runs_dir: common.RunsOption = Path("runs"),
    as_json: common.JsonOption = False,
) -> None:
    """Drive a run on to its end, from its directory alone; whoever started it may be gone."""
    from launcher import child, status

    output = common.start_output(as_json)
    run_dir = find_run(run, runs_dir, site)
    child.require_own(run_dir, "continue")
    _drive(output, run_dir, status.open_run(run_dir), jobs)


def resubmit(
    run: RunArgument,
    failed: Annotated[bool, typer.Option("--failed", help="Only tasks that failed.")] = False,
    missing: Annotated[
        bool, typer.Option("--missing", help="Only tasks that ended, or were lost, without a word.")
    ] = False,
    as_new: Annotated[
        str | None,
        typer.Option(
            "--as-new",
            metavar="NAME",
            help="The identical run again, as a run of your own: same code, image, configuration.",
        ),
    ] = None,
    jobs: common.JobsOption = None,
    site: OfSiteOption = None,
    runs_dir: common.RunsOption = Path("runs"),
    as_json: common.JsonOption = False,
) -> None:
    """Submit again what is missing or failed, and nothing that is done or alive.

    On a cluster it returns once everything is submitted; here it drives the run to its end.
    """
    from launcher import child, sites, status
    from launcher import resubmit as again
    from launcher.core.errors import UsageError
    from launcher.core.runs import RunDir

    output = common.start_output(as_json)
    run_dir = find_run(run, runs_dir, site)
    if as_new:
        if failed or missing:
            raise UsageError("RDTL-U006", "--as-new runs everything: leave --failed, --missing out")
        where = status.open_run(run_dir).site
        new = RunDir((runs_dir / f"{as_new}-{where}").resolve())
        _drive(output, new, child.make(run_dir, new), jobs)
        return
    which: Which = "failed" if failed and not missing else "all"
    which = "missing" if missing and not failed else which
    child.require_own(run_dir, "continue")
    the_plan = status.open_run(run_dir)
    backend = common.backend_for(run_dir, sites.of_run(run_dir, the_plan.site), jobs)
    done, early = again.resubmit(run_dir, backend, which)
    for part in done:
        jobs_ = f"job {', '.join(part.ids)}" if part.ids else "not sent yet: rdtl runs resume does"
        output.say(f"{part.stage}: {len(part.indices)} task(s) as attempt {part.attempt} ({jobs_})")
    for name in early:
        output.say(
            f"{name}: has begun without these tasks; once it has ended, "
            f"rdtl runs resume {run_dir.root} runs it again"
        )
    if not done:
        output.say("nothing to submit: everything is done or alive, or waits for another stage")
    if done and not backend.submits_ahead:
        common.drive_on(output, run_dir, the_plan, backend)
    output.result([vars(part) for part in done])


def _drive(output: Output, run: RunDir, plan: Plan, jobs: int | None) -> None:
    """Drive ``run`` to its end; a training length that is measured is written down."""
    from launcher import config, sites, summary
    from launcher.schema import RunConfig

    backend = common.backend_for(run, sites.of_run(run, plan.site), jobs)
    length = None
    if "command" not in plan.config:
        data = config.read_yaml(run.config)
        length = summary.LengthRecorder(run, config.validate(RunConfig, data, str(run.config)))
    common.drive_on(output, run, plan, backend, length)
    output.say(f"done: rdtl runs show {run.root}")
    output.result({"run": str(run.root), "state": "done"})


def cancel(
    run: RunArgument,
    site: OfSiteOption = None,
    runs_dir: common.RunsOption = Path("runs"),
    as_json: common.JsonOption = False,
) -> None:
    """End everything of a run that waits or runs: one scancel for all stages."""
    from launcher import cancel as ending
    from launcher import status

    output = common.start_output(as_json)
    run_dir = find_run(run, runs_dir, site)
    done = ending.cancel(run_dir)
    jobs = ", ".join(done.jobs)
    if done.jobs and done.tasks:
        output.say(f"{done.tasks} task(s) asked to end ({jobs})")
    elif done.jobs:  # one that is just ending, or waits for what failed, or a launcher
        output.say(f"no task of this run is alive; what was left of it was asked to end ({jobs})")
    elif done.tasks:
        output.say(f"{done.tasks} task(s) were not in the queue and will not be submitted")
    else:
        output.say("nothing of this run is alive")
    output.say(f"{done.over} task(s) were over before; what they made is kept")
    if status.of(run_dir).word != "done":
        output.say(f"rdtl runs resume {run_dir.root} continues it")
    output.result(vars(done))


def clean(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUN]…", help="Runs; none: all of --runs-dir.", autocompletion=complete.runs
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only list what would be removed.")
    ] = False,
    site: OfSiteOption = None,
    runs_dir: common.RunsOption = Path("runs"),
    as_json: common.JsonOption = False,
) -> None:
    """Remove half-written files, and checkpoints of finished runs whose policy is exported."""
    from launcher import clean as cleaning

    output = common.start_output(as_json)
    named = [find_run(name, runs_dir, site) for name in runs or []]
    waste, kept = cleaning.find(named or every_run(runs_dir, site))
    for one in kept:
        output.say(f"left alone: {one.run.root.name}: {one.why}")
    for item in waste:
        output.text(f"{item.size / 1e6:10.1f} MB  {item.path}  ({item.why})")
        if not dry_run:
            cleaning.remove(item)
    total = sum(item.size for item in waste) / 1e6
    output.say(f"{total:.1f} MB {'could be' if dry_run else 'were'} freed")
    output.result(
        {
            "dry_run": dry_run,
            "kept": {str(one.run.root): one.why for one in kept},
            "removed": [{**vars(item), "path": str(item.path)} for item in waste],
        }
    )
