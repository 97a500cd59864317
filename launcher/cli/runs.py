"""``rdtl runs``: look at runs. What changes them is in :mod:`launcher.cli.runs_change`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from launcher.cli import common, complete, runs_text
from launcher.cli.group import Group

if TYPE_CHECKING:
    from launcher.core.runs import RunDir

app = typer.Typer(
    cls=Group,
    help="Look at runs, continue them, end them.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
RunArgument = Annotated[
    str,
    typer.Argument(
        metavar="RUN",
        help="A run directory, or a run's name in --runs-dir.",
        autocompletion=complete.runs,
    ),
]
OfSiteOption = Annotated[
    str | None,
    typer.Option(
        "--site",
        help="Only runs of this site; of a cluster over ssh the runs that lie there.",
        autocompletion=complete.configurations("sites"),
    ),
]

LOOKING = "nothing was ended but the looking; the same command looks again"
"""After Ctrl-C."""


def find_run(name: str, runs_dir: Path, site: str | None) -> RunDir:
    """The run called ``name``; UsageError RDTL-U014 when there is none."""
    from launcher import status

    run = named_run(name, runs_dir, site)
    status.open_run(run)
    return run


def named_run(name: str, runs_dir: Path, site: str | None) -> RunDir:
    """A directory as given, NAME or NAME-SITE of ``runs_dir``: the first with a plan, if any."""
    from launcher.core.runs import RunDir

    candidates = [Path(name), runs_dir / name, *([runs_dir / f"{name}-{site}"] if site else [])]
    path = next((path for path in candidates if (path / "plan.json").exists()), runs_dir / name)
    return RunDir(path.resolve())


def every_run(runs_dir: Path, site: str | None) -> list[RunDir]:
    """All runs of ``runs_dir``, of one site if it is named; the newest first."""
    from launcher.core import plan
    from launcher.core.runs import RunDir

    plans = sorted(runs_dir.glob("*/plan.json"), key=lambda path: -path.stat().st_mtime)
    wanted = [path for path in plans if site is None or plan.read(path).site == site]
    return [RunDir(path.parent.resolve()) for path in wanted]


@app.command("list")
def list_runs(
    site: OfSiteOption = None,
    runs_dir: common.RunsOption = Path("runs"),
    as_json: common.JsonOption = False,
) -> None:
    """All runs of a directory with their state, the newest first."""
    from launcher import status

    output = common.start_output(as_json)
    found = status.of_all(every_run(runs_dir, site))
    if not found:
        output.say(f"no runs in {runs_dir.resolve()}; `rdtl demo` makes one")
    else:
        rows = [
            [
                one.run.root.name,
                one.word,
                runs_text.done(one),
                runs_text.age(one.run.plan.stat().st_mtime),
                runs_text.current_stage(one),
            ]
            for one in found
        ]
        output.table(str(runs_dir), ["run", "state", "tasks done", "made", "stage"], rows)
    output.result([runs_text.facts(one) for one in found])


@app.command("show")
def show(
    run: RunArgument,
    diff: Annotated[
        bool, typer.Option("--diff", help="What differs between the code that ran and now.")
    ] = False,
    site: OfSiteOption = None,
    runs_dir: common.RunsOption = Path("runs"),
    as_json: common.JsonOption = False,
) -> None:
    """The stages of one run, their attempts, why they wait and how they failed."""
    from launcher import status

    output = common.start_output(as_json)
    one = status.of(find_run(run, runs_dir, site))
    document = runs_text.facts(one)
    rows = [
        [
            s.stage.name,
            f"{s.counts.get('done', 0)}/{s.stage.array}",
            str(s.attempts),
            runs_text.others(s),
        ]
        for s in one.stages
    ]
    title = f"{one.run.root.name}: {one.word}"
    output.table(title, ["stage", "tasks done", "attempts", "others"], rows)
    output.text()
    for line in runs_text.remarks(one):
        output.text(f"  {line}")
    if diff:
        from launcher import diff as differences

        found = differences.of(one.run)
        document["diff"] = found.to_dict()
        for line in found.lines():
            output.text(line)
    output.result(document)


@app.command("logs")
def logs(
    run: RunArgument,
    stage: Annotated[str | None, typer.Option("--stage", help="Of this stage.")] = None,
    task: Annotated[int | None, typer.Option("--task", min=0, help="Of this array task.")] = None,
    attempt: Annotated[
        int | None, typer.Option("--attempt", min=1, help="Of this attempt.")
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on printing until the task has ended.")
    ] = False,
    site: OfSiteOption = None,
    runs_dir: common.RunsOption = Path("runs"),
    as_json: common.JsonOption = False,
) -> None:
    """Print a log: of what failed, else of what runs, else the newest."""
    from launcher import logs as reading
    from launcher import status

    output = common.start_output(as_json)
    one = status.of(find_run(run, runs_dir, site))
    log = reading.choose(one, stage, task, attempt)
    output.say(f"stage {log.stage}, task {log.index}, attempt {log.attempt}: {log.paths()[0]}")
    lines = []
    output.if_interrupted = LOOKING
    for node, line in reading.follow(log, one) if follow else reading.read(log):
        output.text(f"[{node}] {line}" if log.nodes > 1 else line)
        lines.append(line)
    output.result({"stage": log.stage, "task": log.index, "attempt": log.attempt, "lines": lines})


@app.command("watch")
def watch(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUN]…",
            help="Runs; none: those of --runs-dir that are alive.",
            autocompletion=complete.runs,
        ),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Print one frame and end.")] = False,
    site: OfSiteOption = None,
    runs_dir: common.RunsOption = Path("runs"),
) -> None:
    """Watch runs: progress, speed, loss, time left, what they wait for. Ctrl-C ends the looking."""
    from launcher import status
    from launcher.watch import live

    output = common.start_output(False)
    if runs:
        named = [find_run(name, runs_dir, site) for name in runs]
    else:
        found = status.of_all(every_run(runs_dir, site))
        named = [one.run for one in found if one.live]
    if not named:
        output.say(f"nothing is alive in {runs_dir.resolve()}; rdtl runs list shows all runs")
        return
    output.if_interrupted = LOOKING
    live.watch(named, once=once)


@app.command("fetch")
def fetch(
    run: RunArgument,
    destination: Annotated[Path, typer.Argument(metavar="DEST", help="A new directory.")],
    site: OfSiteOption = None,
    runs_dir: common.RunsOption = Path("runs"),
    as_json: common.JsonOption = False,
) -> None:
    """Copy report, records and policy to DEST, whole or not at all."""
    from launcher import fetch as fetching
    from launcher import sites

    output = common.start_output(as_json)
    target = destination.absolute()
    far = sites.load(site) if site else None
    with output.working(f"copying {run}"):
        if site and far and far.ssh:
            copied = fetching.fetch_from(far, site, run, target)
        else:
            copied = fetching.fetch(find_run(run, runs_dir, site), target)
    output.say(f"{destination}: {', '.join(copied)}")
    output.result({"destination": str(target), "copied": copied})
