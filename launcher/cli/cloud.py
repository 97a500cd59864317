"""``rdtl cloud offers | up``: rent a machine and run a recipe on it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from launcher.cli import common, complete
from launcher.cli.group import Group

if TYPE_CHECKING:
    from launcher.providers.rental import Caps
    from launcher.providers.wanted import Wanted

app = typer.Typer(
    cls=Group,
    help="Rent a machine, run a recipe on it, and leave nothing behind.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

RecipeArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="[RECIPE]",
        help="What the machine is for; without: a bare machine.",
        autocompletion=complete.recipes,
    ),
]
ProviderOption = Annotated[Literal["vast"], typer.Option("--provider", help="Whose machines.")]
ProfileOption = Annotated[
    str | None, typer.Option("--profile", help="A profile of the recipe, instead of its default.")
]
SetOption = Annotated[
    list[str],
    typer.Option(
        "--set", help="Value of a parameter, e.g. workspace=/data.", callback=common.pairs
    ),
]
GpusOption = Annotated[
    int | None, typer.Option("--gpus", min=1, help="GPUs, instead of the recipe's number.")
]
GpuOption = Annotated[
    str | None,
    typer.Option("--gpu", help="Regular expression that the GPU's name matches, e.g. H100."),
]
VramOption = Annotated[float | None, typer.Option("--vram-gb", help="Memory of each GPU.")]
DiskOption = Annotated[float | None, typer.Option("--disk-gb", help="Free disk.")]
PriceOption = Annotated[
    float | None, typer.Option("--max-price", min=0, help="US dollars an hour at most.")
]
InterruptibleOption = Annotated[
    bool,
    typer.Option(
        "--interruptible", help="A cheaper machine that may be taken away; its work goes on on "
        "another one, from the last uploaded checkpoint.",
    ),
]  # fmt: skip
DISK_GB = 50.0
"""For what does not say how much it needs; left to the provider it would be 8."""


@app.command()
def offers(
    recipe: RecipeArgument = None,
    profile: ProfileOption = None,
    settings: SetOption = [],  # noqa: B006
    provider: ProviderOption = "vast",
    gpus: GpusOption = None,
    gpu: GpuOption = None,
    vram: VramOption = None,
    disk: DiskOption = None,
    max_price: PriceOption = None,
    interruptible: InterruptibleOption = False,
    as_json: common.JsonOption = False,
) -> None:
    """Show what is on offer for a recipe, cheapest first, and why the rest does not fit."""
    from launcher.cli import cloud_offers
    from launcher.providers import vast

    output = common.start_output(as_json)
    wanted, _ = _wanted(recipe, profile, settings, (gpus, gpu, vram, disk))
    found = cloud_offers.show(output, vast.connect(), wanted, max_price, interruptible)
    output.result([vars(offer) for offer in found])


@app.command()
def up(
    recipe: RecipeArgument = None,
    profile: ProfileOption = None,
    settings: SetOption = [],  # noqa: B006
    secret: Annotated[
        list[str],
        typer.Option("--secret", help="Where a secret lies: NAME=env:VARIABLE or NAME=file:PATH."),
    ] = [],  # noqa: B006
    name: Annotated[
        str | None, typer.Option("--name", help="Name of the rental, instead of the recipe's.")
    ] = None,
    provider: ProviderOption = "vast",
    gpus: GpusOption = None,
    gpu: GpuOption = None,
    vram: VramOption = None,
    disk: DiskOption = None,
    max_price: PriceOption = None,
    max_hours: Annotated[
        float | None, typer.Option(min=0, help="Hours that its boxes may run together.")
    ] = None,
    max_total: Annotated[
        float | None,
        typer.Option(min=0, help="US dollars for all of it; default: price times hours."),
    ] = None,
    at_cap: Annotated[
        Literal["stop", "destroy"],
        typer.Option(help="At a cap: stop a box whose uploads are not proven, or destroy it."),
    ] = "stop",
    interruptible: InterruptibleOption = False,
    down_after: Annotated[
        bool,
        typer.Option("--down-after", help="Give it back when the recipe has proven its uploads."),
    ] = False,
    download_url: Annotated[
        str, typer.Option(help="What a new box downloads to measure its network.")
    ] = "",
    loading_minutes: Annotated[
        float, typer.Option(min=0, help="How long a box may load its image.")
    ] = 15.0,
    ssh_minutes: Annotated[
        float, typer.Option(min=0, help="How long ssh may need to get in after that.")
    ] = 5.0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print offers, request and costs; rent nothing.")
    ] = False,
    as_json: common.JsonOption = False,
) -> None:
    """Rent a machine that is what a recipe needs, and run the recipe there.

    The same command goes on where an earlier one was interrupted, with the box that is there.
    Ctrl-C leaves everything running. Nothing costs more than the caps.
    """
    from launcher.cli import cloud_offers, cloud_up
    from launcher.providers.phases import Patience

    output = common.start_output(as_json)
    wanted, values = _wanted(recipe, profile, settings, (gpus, gpu, vram, disk))
    asked = _recipe(recipe, profile, values, down_after)
    if dry_run:
        cloud_offers.dry_run(output, wanted, max_price, max_hours, max_total, interruptible)
        return
    patience = Patience(
        loading=loading_minutes * 60,
        ssh=ssh_minutes * 60,
        directory=values.get("workspace", "/"),
        download_url=download_url,
    )
    cloud_up.run(
        output,
        cloud_up.Wish(
            name or (recipe or "box").removesuffix(".yaml").rpartition("/")[2],
            wanted,
            _caps(max_price, max_hours, max_total, at_cap),
            interruptible,
            asked,
            secret,
            patience,
        ),
    )


def _wanted(
    recipe: str | None,
    profile: str | None,
    settings: list[str],
    changes: tuple[int | None, str | None, float | None, float | None],
) -> tuple[Wanted, dict[str, str]]:
    """The machine that a recipe asks for, with what options say instead; and its parameters."""
    from launcher.providers.wanted import Wanted

    given: dict[str, Any] = {"gpus": 1}
    values: dict[str, str] = {}
    if recipe:
        from launcher.dag import load, resolve

        loaded = load.load(recipe)
        values = resolve.parameters(loaded.recipe, profile, resolve.given(settings))
        given = resolve.machine(loaded, profile, values).model_dump(exclude_none=True)
    options = dict(zip(("gpus", "gpu", "vram_gb", "disk_gb"), changes, strict=True))
    given |= {key: value for key, value in options.items() if value is not None}
    given["disk_gb"] = given.get("disk_gb") or DISK_GB
    return Wanted(**given), values


def _recipe(
    recipe: str | None, profile: str | None, values: dict[str, str], down_after: bool
) -> dict[str, Any]:
    """What the ledger keeps of the recipe; empty for a bare machine."""
    if recipe is None:
        return {}
    path = Path(recipe)
    name = str(path.absolute()) if path.suffix == ".yaml" and path.exists() else recipe
    return {"name": name, "profile": profile, "settings": values, "down_after": down_after}


def _caps(price: float | None, hours: float | None, total: float | None, at_cap: str) -> Caps:
    from launcher.core.errors import UsageError
    from launcher.providers.rental import Caps

    if price is None or hours is None:
        raise UsageError(
            "RDTL-B064",
            "say what it may cost",
            where="--max-price and --max-hours",
            why="whoever forgets a rented machine pays for it until somebody looks",
            fix="--dry-run shows what there is; then e.g. --max-price 3 --max-hours 12",
        )
    return Caps(price, hours, price * hours if total is None else total, at_cap == "destroy")
