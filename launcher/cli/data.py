"""``rdtl data``: look at demonstrations before anything learns from them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from launcher.cli import common, complete
from launcher.cli.group import Group

if TYPE_CHECKING:
    from launcher.output import Output
    from rdt.spec.contract import Contract

app = typer.Typer(
    cls=Group,
    help="Collect, verify, look at and measure demonstrations, and prepare them for training.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

SET = "A LIBERO HDF5 file or folder, or a folder of an RLDS or LeRobot set."
ContractOption = Annotated[
    str,
    typer.Option(
        help="What the numbers mean to the network: one of the contracts.",
        autocompletion=complete.contracts,
    ),
]
GripperOption = Annotated[
    int, typer.Option("--gripper-open", help="The sign of the command that opens: -1 or 1.")
]
AlignmentOption = Annotated[
    Literal["before", "after"] | None,
    typer.Option(help="Whether rows hold what was seen before or after their action."),
]
COLUMNS = ("mean", "std", "min", "q01", "q99", "max")
RAW: dict[str, tuple[str, ...]] = {
    "action": ("translation 0-2 (0.05 m goal shift)", "rotation 3-5 (0.5 rad)", "gripper 6"),
    "state": ("position 0-2 (m)", "axis-angle 3-5 (rad)", "fingers 6-7 (m)"),
}


TaskOption = Annotated[list[str] | None, typer.Option(help="Only this task; repeatable.")]
DemoOption = Annotated[
    list[str] | None, typer.Option(help="Only this demonstration of each task; repeatable.")
]


@app.command("verify")
def verify(
    path: Annotated[Path, typer.Argument(help=SET)],
    contract: ContractOption = "libero-velocity",
    statistics: Annotated[
        Path | None, typer.Option(help="A file of statistics that must be of these data.")
    ] = None,
    name: Annotated[str, typer.Option(help="The set's name in that file, if it has several.")] = "",
    task: TaskOption = None,
    demo: DemoOption = None,
    gripper_open: GripperOption = -1,
    alignment: AlignmentOption = None,
    as_json: common.JsonOption = False,
) -> None:
    """Read a data set as training would and check what goes silently wrong.

    What is declared is compared with what the data say of themselves; ends with status 3
    on errors.
    """
    import json

    from launcher import heavy

    output = common.start_output(as_json)
    request = source_request(contract, task, demo, gripper_open, alignment) | {
        "path": str(path.resolve()),
        "statistics": str(statistics.resolve()) if statistics else None,
        "name": name,
    }
    with output.working(f"reading {path}"):
        findings = heavy.run_check("data", json.dumps(request))
    heavy.show(output, findings)


@app.command("stats")
def stats(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH…", help=SET)],
    format: Annotated[
        Literal["rdt", "openpi", "openpi-flat"],
        typer.Option(help="RDT's dataset_stat.json, or one of openpi's dataset_statistics.json."),
    ],
    out: Annotated[Path, typer.Option(help="The file to write; replaced as a whole.")],
    contract: ContractOption = "libero-velocity",
    name: Annotated[str, typer.Option(help="The set's name in the file.")] = "",
    task: TaskOption = None,
    demo: DemoOption = None,
    gripper_open: GripperOption = -1,
    alignment: AlignmentOption = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Processes; default: one a core.")] = None,
    as_json: common.JsonOption = False,
) -> None:
    """Measure data sets: mean, spread, range and quantiles of actions and states.

    In one pass, whatever the size; the file carries the contract and a digest of the data.
    """
    import json

    from launcher import heavy
    from launcher.presets import JOB_ENVIRONMENT
    from rdt.spec.contract import CONTRACTS

    output = common.start_output(as_json)
    for path in paths:
        require_outside(out.resolve(), path.resolve())
    request = source_request(contract, task, demo, gripper_open, alignment) | {
        "paths": [str(path.resolve()) for path in paths],
        "format": format,
        "out": str(out.resolve()),
        "name": name,
        "processes": jobs,
    }
    with output.working(f"measuring {', '.join(map(str, paths))}"):
        answer = heavy.call("jobs.statistics", json.dumps(request), environment=JOB_ENVIRONMENT)
    result = answer["result"]
    for title, measured in result["sets"].items():
        _show(output, title, measured, CONTRACTS[contract] if format == "rdt" else None)
    output.text(f"written: {result['path']}")
    output.result(result)


def source_request(
    contract: str,
    tasks: list[str] | None,
    demos: list[str] | None,
    gripper_open: int,
    alignment: str | None,
) -> dict[str, Any]:
    """What :meth:`rdt.data.declared.DeclaredSet.of` reads, but for the path."""
    from rdt.spec.contract import CONTRACTS

    common.require_contract(contract, list(CONTRACTS))
    return {
        "contract": contract,
        "tasks": tasks or [],
        "demos": demos or [],
        "gripper_open": _sign(gripper_open),
        "alignment": alignment,
    }


def _sign(value: int) -> int:
    """-1 or 1, or UsageError RDTL-U029."""
    from launcher.core.errors import UsageError

    if value in (-1, 1):
        return value
    raise UsageError(
        "RDTL-U029",
        f"a gripper command has no sign {value}",
        where=f"--gripper-open {value}",
        why="one sign opens the fingers, the other closes them",
        fix="say -1 (LIBERO's own) or 1",
    )


def require_outside(out: Path, path: Path) -> None:
    """UsageError RDTL-D075 for what would lie inside the data set or replace its file: sources
    stay as they are. Both paths resolved."""
    from launcher.core.errors import UsageError

    if not path.exists() or (out != path and path not in out.parents):
        return
    raise UsageError(
        "RDTL-D075",
        "what is written would lie inside the data set",
        where=f"--out {out}, which is {'the data set' if out == path else f'in {path}'}",
        why="source data stay as they are, and readers look at every file of some layouts",
        fix="name a place elsewhere",
    )


def _show(output: Output, name: str, measured: dict[str, Any], contract: Contract | None) -> None:
    error = measured["quantile_error"]
    quantiles = "exact" if error == 0 else f"within {error:.2g}"
    output.text(
        f"{name}: {measured['episodes']} episodes, {measured['steps']} steps, "
        f"quantiles {quantiles}, digest {measured['digest'][:12]}"
    )
    for part, names in RAW.items():
        numbers: Sequence[int] = range(len(measured[part]["mean"]))
        if contract:
            parts = contract.action if part == "action" else contract.state
            names = tuple(f"{p.name} {p.slots_text} ({p.unit})" for p in parts)
            numbers = contract.action_slots if part == "action" else contract.state_slots
        rows = [
            [str(place), *(f"{measured[part][column][place]:.4g}" for column in COLUMNS)]
            for place in numbers
        ]
        output.table(part, ["", *COLUMNS], rows)
        for text in names:
            output.text(f"  {text}")
