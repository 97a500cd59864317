"""``rdtl data buffer``: samples are prepared on disk while a training reads them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from launcher.cli import common, data
from rdt.spec.recipe import SEED

if TYPE_CHECKING:
    from launcher.output import Output


def add_to(app: typer.Typer) -> None:
    """Add the command to ``rdtl data``."""
    app.command("buffer")(buffer)


def buffer(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH…", help=data.SET)],
    out: Annotated[Path, typer.Option(help="The folder of the buffer, of one training alone.")],
    chunks: Annotated[int, typer.Option(help="Chunk files that are kept ready.")] = 512,
    samples: Annotated[int, typer.Option(help="Samples in a chunk.")] = 512,
    shortest: Annotated[int, typer.Option(help="Episodes of fewer steps are left out.")] = 32,
    longest: Annotated[int, typer.Option(help="Episodes of more steps are left out.")] = 2048,
    fill_up: Annotated[
        bool, typer.Option("--fill-up", help="End when all chunks are there, before a training.")
    ] = False,
    seed: Annotated[int, typer.Option(help="The training's: it decides the order.")] = SEED,
    weight: Annotated[
        list[float] | None, typer.Option(help="How often an epoch shows a set; once for each PATH.")
    ] = None,
    moments: Annotated[
        int, typer.Option(min=1, help="Pictures of each camera, the last is now.")
    ] = 2,
    horizon: Annotated[int, typer.Option(min=1, help="Actions of a sample.")] = 64,
    contract: data.ContractOption = "libero-velocity",
    task: data.TaskOption = None,
    demo: data.DemoOption = None,
    gripper_open: data.GripperOption = -1,
    alignment: data.AlignmentOption = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Processes; default: one a core.")] = None,
    as_json: common.JsonOption = False,
) -> None:
    """Keep a buffer of prepared samples filled, for sets whose pictures are slow to decode.

    Goes on until it is interrupted; it may be killed and started again at any moment.
    """
    import json
    import os

    from launcher import heavy
    from launcher.presets import JOB_ENVIRONMENT

    output = common.start_output(as_json)
    for path in paths:
        data.require_outside(out.resolve(), path.resolve())
    request = data.source_request(contract, task, demo, gripper_open, alignment) | {
        "paths": [str(path.resolve()) for path in paths],
        "folder": str(out.resolve()),
        "chunks": chunks,
        "samples": samples,
        "lengths": [shortest, longest],
        "seed": seed,
        "weights": _weights(weight, paths),
        "moments": moments,
        "horizon": horizon,
        "fill_up": fill_up,
        "processes": jobs or len(os.sched_getaffinity(0)),
    }
    plan: dict[str, Any] = {}
    made = 0
    for answer in heavy.stream("jobs.buffer", json.dumps(request), environment=JOB_ENVIRONMENT):
        if "plan" in answer:
            plan = answer["plan"]
            _show(output, plan)
        made += answer.get("made", 0)
        output.status(f"{made} chunks made")
    output.text(f"full: {made} chunks made; `rdtl data buffer` without --fill-up keeps it full")
    output.result(plan | {"made": made, "folder": request["folder"]})


def _weights(weights: list[float] | None, paths: list[Path]) -> list[float]:
    """One for each of ``paths``, or UsageError RDTL-D063."""
    from launcher.core.errors import UsageError

    if weights is None or len(weights) == len(paths):
        return weights or [1.0] * len(paths)
    raise UsageError(
        "RDTL-D063",
        "not every data set has a weight",
        where=f"--weight {' --weight '.join(map(str, weights))}, for {len(paths)} data sets",
        why="the order of the samples would not be that of the training",
        fix="say --weight once for each PATH, in their order, or not at all",
    )


def _show(output: Output, plan: dict[str, Any]) -> None:
    output.say(
        f"{plan['chunks']} chunks of {plan['samples']} samples take {plan['bytes'] / 1e9:.2f} GB, "
        f"of which {plan['bytes_there'] / 1e9:.2f} GB are there; "
        f"{plan['bytes_free'] / 1e9:.2f} GB are free"
    )
    output.say(
        f"an epoch has {plan['samples_of_an_epoch']} samples; of {plan['episodes']} episodes "
        f"{plan['too_short']} are too short and {plan['too_long']} too long"
    )
