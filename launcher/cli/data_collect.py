"""``rdtl data collect``: demonstrations of whole suites by the scripted experts."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from launcher.cli import common
from rdt.spec.recipe import SEED

if TYPE_CHECKING:
    from launcher.output import Output


def add_to(app: typer.Typer) -> None:
    """Add the command to ``rdtl data``."""
    app.command("collect")(collect)


def collect(
    out: Annotated[Path, typer.Argument(help="Folder; the files go to OUT/SUITE.")],
    suite: Annotated[Literal["libero_object", "libero_spatial"], typer.Option(help="Whose tasks.")],
    task: Annotated[
        list[int] | None, typer.Option(min=0, help="Only this task; repeatable. Default: all.")
    ] = None,
    demos: Annotated[int, typer.Option(min=1, help="Demonstrations of each task.")] = 50,
    camera_size: Annotated[int, typer.Option(help="Pixels of a picture: 64, 128, 256.")] = 128,
    render_every: Annotated[
        int, typer.Option(min=1, help="Only each n-th step gets a picture of its own.")
    ] = 1,
    noise: Annotated[
        float, typer.Option(help="Two standard deviations of the noise on executed translation.")
    ] = 0.25,
    seed: Annotated[int, typer.Option(help="Of the noise.")] = SEED,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Processes; default: what cores and memory carry.")
    ] = None,
    as_json: common.JsonOption = False,
) -> None:
    """Collect demonstrations by scripted experts, in LIBERO's layout.

    Killed and run again, it continues; the files do not depend on --jobs. Ends with status 1
    when the expert could not do a task; the others are kept.
    """
    import json

    from launcher import config, heavy, sites
    from launcher.presets import COLLECT_MB, JOB_ENVIRONMENT
    from launcher.schema import Collect, Task

    output = common.start_output(as_json)
    _require_noise(noise)
    chosen = {"suite": suite, "camera_size": camera_size}
    how = {"demos": demos, "noise": noise, "render_every": render_every}
    request: dict[str, Any] = {
        "out": str(out.resolve()),
        "tasks": sorted(set(task or [])),
        "task": config.validate(Task, chosen, "--camera-size").model_dump(mode="json"),
        "collect": config.validate(Collect, how, "--noise").model_dump(mode="json"),
        "seed": seed,
        "processes": sites.local_jobs(sites.load("local"), COLLECT_MB, jobs),
    }
    result: dict[str, Any] = {}
    progress = _Progress(output, request["processes"])
    for answer in heavy.stream(
        "jobs.collect_set", json.dumps(request), environment=JOB_ENVIRONMENT
    ):
        progress.hear(answer)
        result = answer.get("result", result)
    output.clear_status()
    _show(output, result)


def _require_noise(noise: float) -> None:
    """UsageError RDTL-D074 for none: every retry would be an episode that is there already."""
    from launcher.core.errors import UsageError

    if noise > 0:
        return
    raise UsageError(
        "RDTL-D074",
        "demonstrations without noise would be made twice",
        where=f"--noise {noise}",
        why="where the expert fails, the next initial state is taken, and without noise that "
        "is the next demonstration again",
        fix="take a little, e.g. --noise 0.05; `actions` are without noise in any case",
    )


class _Progress:
    """Says how far a collection is and how long it may take."""

    def __init__(self, output: Output, processes: int) -> None:
        self._output, self._processes = output, processes
        self._made = self._there = self._demos = 0
        self._started = time.monotonic()

    def hear(self, answer: dict[str, Any]) -> None:
        """One answer of the program that collects."""
        if "plan" in answer:
            plan = answer["plan"]
            self._demos, self._there = plan["demos"], plan["there"]
            self._output.say(
                f"{self._demos} demonstrations into {plan['folder']}, {self._there} are there; "
                f"{self._processes} at once (--jobs)"
            )
        if "made" in answer:
            self._made += 1
            left = self._demos - self._there - self._made
            minutes = (time.monotonic() - self._started) / self._made * left / 60
            self._output.status(
                f"{self._there + self._made}/{self._demos} demonstrations, about {minutes:.0f} min "
                f"left; {answer['made']['task']}: {answer['made']['line']}"
            )


def _show(output: Output, result: dict[str, Any]) -> None:
    """The files, and what the expert could not do (then SystemExit 1)."""
    from launcher.core.checks import Finding
    from launcher.core.errors import EXIT_FAILED

    rows = [
        [each["task"], str(each["demos"]), str(each["steps"] or "–")] for each in result["tasks"]
    ]
    output.table(result["folder"], ["task", "demonstrations", "steps"], rows)
    failed = [each for each in result["tasks"] if each["error"]]
    for each in failed:
        error = each["error"]
        output.finding(
            Finding(
                "RDTL-D072",
                "error",
                f"the expert did not do task {each['task_id']}, {each['task']}: {error['what']}",
                where=f"{error['where']}; {each['demos']} of {result['demos']} are there",
                why="a file with fewer demonstrations than asked for would be another data set",
                fix=f"leave --task {each['task_id']} out, or take another folder and less --noise",
            )
        )
    output.result(result)
    if failed:
        raise SystemExit(EXIT_FAILED)
