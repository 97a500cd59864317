"""``rdtl runs``: look at runs. What changes them is in :mod:`launcher.cli.runs_change`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from launcher.cli import common

if TYPE_CHECKING:
    from launcher.core.runs import RunDir
    from launcher.judges import State
    from launcher.status import RunStatus, StageStatus

app = typer.Typer(
    help="Look at runs, continue them, end them.", no_args_is_help=True, rich_markup_mode=None
)
RunArgument = Annotated[
    str, typer.Argument(metavar="RUN", help="A run directory, or a run's name in --runs-dir.")
]
ORDER: tuple[State, ...] = ("running", "waiting", "failed", "gone", "unknown", "unsubmitted")


def find_run(name: str, runs_dir: Path) -> RunDir:
    """The run called ``name``: a directory as given, or one of ``runs_dir``."""
    from launcher import status
    from launcher.core.runs import RunDir

    path = Path(name) if Path(name).is_dir() else runs_dir / name
    run = RunDir(path.resolve())
    status.open_run(run)
    return run


@app.command("list")
def list_runs(
    runs_dir: common.RunsOption = Path("runs"), as_json: common.JsonOption = False
) -> None:
    """All runs of a directory with their state."""
    from launcher import status
    from launcher.core.runs import RunDir

    output = common.start_output(as_json)
    runs = [RunDir(path.parent.resolve()) for path in runs_dir.glob("*/plan.json")]
    found = sorted(status.of_all(runs), key=lambda one: -one.run.plan.stat().st_mtime)
    if not found:
        output.say(f"no runs in {runs_dir.resolve()}; `rdtl demo` makes one")
    else:
        rows = [
            [one.run.root.name, one.word, _tasks(one), _age(one.run.plan.stat().st_mtime), _at(one)]
            for one in found
        ]
        output.table(str(runs_dir), ["run", "state", "tasks done", "made", "stage"], rows)
    output.result([facts(one) for one in found])


@app.command("show")
def show(
    run: RunArgument,
    diff: Annotated[
        bool, typer.Option("--diff", help="What differs between the code that ran and now.")
    ] = False,
    runs_dir: common.RunsOption = Path("runs"),
    as_json: common.JsonOption = False,
) -> None:
    """The stages of one run, their attempts, why they wait and how they failed."""
    from launcher import status

    output = common.start_output(as_json)
    one = status.of(find_run(run, runs_dir))
    document = facts(one)
    rows = [
        [s.stage.name, f"{s.counts.get('done', 0)}/{s.stage.array}", str(s.attempts), _words(s)]
        for s in one.stages
    ]
    title = f"{one.run.root.name}: {one.word}"
    output.table(title, ["stage", "tasks done", "attempts", "others"], rows)
    output.text()
    for line in remarks(one):
        output.text(f"  {line}")
    if diff:
        from launcher import diff as differences

        found = differences.of(one.run)
        document["diff"] = found.to_dict()
        for line in found.lines():
            output.text(line)
    output.result(document)


def remarks(one: RunStatus) -> list[str]:
    """What a person should know beside the table."""
    said = [
        f"{s.stage.name}: {s.counts[state]} {state}: {s.why(state)}"
        for s in one.stages
        for state in ORDER
        if s.why(state)
    ]
    said += [f"{s.stage.name}: job {', '.join(s.jobs())}" for s in one.stages if s.jobs()]
    if one.note:
        said.append(f"the scheduler does not answer: {one.note}")
    elif one.asked_at:
        said.append(f"the queue was asked {_age(one.asked_at)} ago")
    if one.word in ("failed", "stopped"):
        said.append(f"next: rdtl runs resume {one.run.root.name}, after the cause is gone")
    said.append(f"logs: rdtl runs logs {one.run.root.name}, files in {one.run.root / 'logs'}")
    return said


def facts(one: RunStatus) -> dict[str, Any]:
    """JSON form of a run's state."""
    return {
        "name": one.run.root.name,
        "run": str(one.run.root),
        "site": one.plan.site,
        "state": one.word,
        "note": one.note,
        "stages": [
            {
                "stage": s.stage.name,
                "tasks": s.stage.array,
                "done": s.counts.get("done", 0),
                "counts": s.counts,
                "attempts": s.attempts,
                "why": {state: s.why(state) for state in ORDER if s.why(state)},
                "jobs": s.jobs(),
            }
            for s in one.stages
        ],
    }


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
    runs_dir: common.RunsOption = Path("runs"),
    as_json: common.JsonOption = False,
) -> None:
    """Print a log: of what failed, else of what runs, else the newest."""
    from launcher import logs as reading
    from launcher import status

    output = common.start_output(as_json)
    one = status.of(find_run(run, runs_dir))
    log = reading.choose(one, stage, task, attempt)
    output.say(f"stage {log.stage}, task {log.index}, attempt {log.attempt}: {log.paths()[0]}")
    lines = []
    for node, line in reading.follow(log, one) if follow else reading.read(log):
        output.text(f"[{node}] {line}" if log.nodes > 1 else line)
        lines.append(line)
    output.result({"stage": log.stage, "task": log.index, "attempt": log.attempt, "lines": lines})


@app.command("watch")
def watch(
    runs: Annotated[
        list[str] | None,
        typer.Argument(metavar="[RUN]…", help="Runs; none: those of --runs-dir that are alive."),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Print one frame and end.")] = False,
    runs_dir: common.RunsOption = Path("runs"),
) -> None:
    """Watch runs: progress, speed, loss, time left, what they wait for. Ctrl-C ends the looking."""
    from launcher import status
    from launcher.core.runs import RunDir
    from launcher.watch import live

    output = common.start_output(False)
    if runs:
        named = [find_run(name, runs_dir) for name in runs]
    else:
        every = [RunDir(path.parent.resolve()) for path in runs_dir.glob("*/plan.json")]
        named = [one.run for one in status.of_all(every) if one.live]
    if not named:
        output.say(f"nothing is alive in {runs_dir.resolve()}; rdtl runs list shows all runs")
        return
    live.watch(named, once=once)


@app.command("fetch")
def fetch(
    run: RunArgument,
    destination: Annotated[Path, typer.Argument(metavar="DEST", help="A new directory.")],
    runs_dir: common.RunsOption = Path("runs"),
    as_json: common.JsonOption = False,
) -> None:
    """Copy report, records and policy to DEST, whole or not at all."""
    from launcher import fetch as fetching

    output = common.start_output(as_json)
    copied = fetching.fetch(find_run(run, runs_dir), destination.absolute())
    output.say(f"{destination}: {', '.join(copied)}")
    output.result({"destination": str(destination.absolute()), "copied": copied})


def _words(stage: StageStatus) -> str:
    others = [f"{stage.counts[s]} {s}" for s in ORDER if stage.counts.get(s)]
    return ", ".join(others) or "–"


def _tasks(one: RunStatus) -> str:
    return f"{one.counts['done']}/{sum(one.counts.values())}"


def _at(one: RunStatus) -> str:
    """The first stage that is not done."""
    open_ = [s for s in one.stages if s.counts.get("done", 0) < s.stage.array]
    return open_[0].stage.name if open_ else "–"


def _age(at: float) -> str:
    """Time since ``at`` (seconds since 1970) in its largest unit."""
    seconds = max(0.0, time.time() - at)
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
