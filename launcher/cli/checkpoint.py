"""``rdtl checkpoint``: look at weights, say what they mean, pass them on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from launcher.cli import common, complete
from launcher.cli.group import Group

if TYPE_CHECKING:
    from launcher.output import Output
    from rdt.spec.contract import Contract, Part

app = typer.Typer(
    cls=Group,
    help="Inspect, adopt and export checkpoints.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

SourceArgument = Annotated[
    str,
    typer.Argument(metavar="PATH", help="A folder, a run, a file of weights, or a hub id."),
]
WeightsOption = Annotated[
    Literal["auto", "ema", "raw"],
    typer.Option(help="Which copy: auto takes the average (EMA) where it is float32."),
]


@app.command("inspect")
def inspect(
    path: SourceArgument,
    weights: WeightsOption = "auto",
    as_json: common.JsonOption = False,
) -> None:
    """Say what a checkpoint is and what is wrong with it.

    Every tensor is compared with config.json and every number looked at; with a card,
    also what the network eats and emits. Ends with status 3 when something is wrong.
    """
    from launcher import heavy
    from launcher.core.checks import Finding

    output = common.start_output(as_json)
    report = _job("inspect", path, weights)
    _show_files(output, report)
    _show_groups(output, report)
    if report["card"]:
        from rdt.spec.contract import require_same

        _show_card(output, report["card"], require_same(report["card"]["contract"], path))
    output.text()
    heavy.show(output, [Finding(**finding) for finding in report["findings"]], report)


@app.command("adopt")
def adopt(
    path: SourceArgument,
    contract: Annotated[
        str,
        typer.Option(
            help="The contract under which it was trained.", autocompletion=complete.contracts
        ),
    ],
    weights: WeightsOption = "auto",
    as_json: common.JsonOption = False,
) -> None:
    """Give foreign weights a card: what their numbers mean.

    It is written beside the weights and holds their digest. Another card is never
    overwritten.
    """
    from rdt.spec.contract import CONTRACTS

    output = common.start_output(as_json)
    common.require_contract(contract, list(CONTRACTS))
    result = _job("adopt", path, weights, contract)
    output.text(f"card {result['path']}")
    _show_card(output, result["card"], CONTRACTS[contract])
    output.result(result)


@app.command("export")
def export(
    path: SourceArgument,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A folder that does not exist yet.")],
    weights: WeightsOption = "auto",
    as_json: common.JsonOption = False,
) -> None:
    """Write the layout that the reference reads.

    A flat config.json, pytorch_model.bin with plain tensors, and a README.md made from
    the card.
    """
    output = common.start_output(as_json)
    result = _job("export", path, weights, str(out))
    output.text(f"from {result['source']}")
    for name, size in result["bytes"].items():
        output.text(f"  {size:>14,} bytes  {Path(result['folder']) / name}")
    output.result(result)


def _job(verb: str, *arguments: str) -> dict[str, Any]:
    from launcher import heavy
    from launcher.presets import JOB_ENVIRONMENT

    # A job may not reach the hub; a person who names a hub id here means just that.
    environment = {k: v for k, v in JOB_ENVIRONMENT.items() if not k.startswith("HF_")}
    with common.current.working(f"{verb} {arguments[0]}"):
        result: dict[str, Any] = heavy.call(
            "jobs.checkpoint", verb, *arguments, environment=environment
        )
    return dict(result["result"])


def _show_files(output: Output, report: dict[str, Any]) -> None:
    sizes = report["sizes"]
    others = [copy["path"] for copy in report["copies"] if copy["path"] != report["path"]]
    for name, text in (
        ("weights", report["path"]),
        ("", f"{report['weights']}, {report['dtype']}, {_size(report['bytes'])}, "
             f"{report['tensors']} tensors, {report['parameters']:,} parameters"),
        ("also", "\n          ".join(others)),
        ("config", report["config"]),
        ("layout", report["layout"]),
        ("network", f"hidden {sizes['hidden']}, depth {sizes['depth']}, heads {sizes['heads']}; "
                    f"predicts {sizes['horizon']} x {sizes['action']} ({sizes['predicts']}, "
                    f"{sizes['sampling_steps']} steps)"),
        ("sees", f"{sizes['pictures']} pictures of {sizes['picture_tokens']} x "
                 f"{sizes['picture_width']}"),
        ("reads", f"up to {sizes['language_tokens']} x {sizes['language_width']} of language, "
                  f"a state of {sizes['state']}"),
    ):  # fmt: skip
        if text:
            output.text(f"{name:<9} {text}")


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.2f} MB"


def _show_groups(output: Output, report: dict[str, Any]) -> None:
    rows = [
        [g["name"], str(g["tensors"]), f"{g['parameters']:,}", ", ".join(g["dtypes"])]
        for g in report["groups"]
    ]
    output.table("Parameters", ["part", "tensors", "parameters", "type"], rows)


def _show_card(output: Output, card: dict[str, Any], contract: Contract) -> None:
    cameras = ", ".join(camera or "none" for camera in contract.cameras)
    rows = [("contract", contract.name), ("origin", card["origin"])]
    if training := card["training"]:
        rows += [("trained", f"{training['steps']} steps on {training['suite']}")]
        rows += [("task", training["task"])]
    rows += [
        ("cameras", f"{cameras}; rotation {contract.camera_rotation}"),
        ("vision", card["encoders"]["vision"]),
        ("language", card["encoders"]["language"]),
        ("states", f"normalised: {contract.state_normalisation}; mask: {contract.mask}"),
        ("gripper", f"{contract.simulator_gripper} (simulator); {contract.control_hz} Hz"),
    ]
    output.text("\nCard")
    for name, text in rows:
        output.text(f"  {name:<9} {text}")
    _show_parts(output, "It eats (state)", contract.state)
    _show_parts(output, "It emits (action)", contract.action)


def _show_parts(output: Output, title: str, parts: Sequence[Part]) -> None:
    rows = [[part.name, part.slots_text, part.unit] for part in parts]
    output.table(title, ["meaning", "slots", "unit"], rows)
