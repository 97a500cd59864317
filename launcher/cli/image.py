"""``rdtl image``: build container images, look at them, move them."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from launcher.cli import common, complete
from launcher.cli.group import Group

if TYPE_CHECKING:
    from launcher.images.store import BuiltImage

app = typer.Typer(
    cls=Group,
    help="Build, inspect, push, pull and clean up container images.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

NameArgument = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        help="A definition of configs/images, e.g. all-cpu.",
        autocompletion=complete.configurations("images"),
    ),
]
WithOption = Annotated[
    Literal["apptainer", "docker"], typer.Option("--with", help="Which kind of image.")
]
BuilderOption = Annotated[
    str | None,
    typer.Option(
        "--builder",
        help="A file of configs/builders (default: local if it exists, else default).",
        autocompletion=complete.configurations("builders"),
    ),
]


@app.command("build")
def build(
    name: NameArgument,
    kind: WithOption,
    source: Annotated[
        str | None,
        typer.Option("--from", help="Make the SIF of the Docker image (docker) or of an archive."),
    ] = None,
    builder: BuilderOption = None,
    as_json: common.JsonOption = False,
) -> None:
    """Build an image, unless nothing that goes into it has changed."""
    from launcher.core.errors import UsageError
    from launcher.images import builder as builders
    from launcher.images.build import build as build_image

    output = common.start_output(as_json)
    if source and kind == "docker":
        raise UsageError(
            "RDTL-U006", "--from belongs to --with apptainer", fix="leave one of them out"
        )
    output.if_interrupted = "nothing half-built is left; the same command builds it"
    with output.working(f"building {name}"):
        image = build_image(name, kind, source, builders.load(builder), output.say)
    output.text(_line(image))
    output.result(asdict(image))


@app.command("list")
def list_images(builder: BuilderOption = None, as_json: common.JsonOption = False) -> None:
    """What the store holds."""
    from launcher.images import builder as builders
    from launcher.images.store import Store

    output = common.start_output(as_json)
    store = Store(builders.load(builder).cache_directory())
    images = store.images()
    rows = [
        [i.name, i.kind, i.architecture, f"{i.size_bytes / 1e6:.0f} MB", i.built, i.sha256[:12]]
        for i in images
    ]
    if rows:
        columns = ["image", "kind", "architecture", "size", "built", "sha256"]
        output.table(str(store.root), columns, rows)
    else:
        output.say(f"no images in {store.root}; rdtl image build NAME makes one")
    output.result([asdict(image) for image in images])


@app.command("inspect")
def inspect(
    image: Annotated[str, typer.Argument(help="A definition's name or the path of a SIF.")],
    kind: WithOption = "apptainer",
    test: Annotated[bool, typer.Option("--test", help="Run the image's own tests here.")] = False,
    builder: BuilderOption = None,
    as_json: common.JsonOption = False,
) -> None:
    """Check an image completely (its whole file is hashed) and show what it is."""
    from launcher.images import builder as builders
    from launcher.images import definition, selftest
    from launcher.images.resolve import resolve, verify

    output = common.start_output(as_json)
    how = builders.load(builder)
    found = resolve(image, kind, how)
    with output.working(f"hashing {found.reference}"):
        verify(found, full=True)
    facts = asdict(found)
    labels = facts.pop("labels")
    for name, value in {**facts, **labels}.items():
        output.text(f"{name:<32} {value}")
    lines = selftest.run(found, definition.load(found.name)[0], how) if test else []
    for line in lines:
        output.text(line)
    output.result({**facts, "labels": labels, "tests": lines})


@app.command("push")
def push(
    name: NameArgument,
    repository: Annotated[str, typer.Argument(help="HOST/PATH, without a tag.")],
    kind: WithOption = "apptainer",
    builder: BuilderOption = None,
    as_json: common.JsonOption = False,
) -> None:
    """Send a built image to a registry; prints the reference that `pull` takes."""
    from launcher.images import builder as builders
    from launcher.images import transfer
    from launcher.images.resolve import resolve

    output = common.start_output(as_json)
    how = builders.load(builder)
    with output.working(f"sending {name} to {repository}"):
        reference = transfer.push(resolve(name, kind, how), repository, how)
    output.text(reference)
    output.result({"reference": reference})


@app.command("pull")
def pull(
    reference: Annotated[str, typer.Argument(help="What `rdtl image push` printed.")],
    builder: BuilderOption = None,
    as_json: common.JsonOption = False,
) -> None:
    """Fetch an image; its content is compared with the digest in its reference."""
    from launcher.images import builder as builders
    from launcher.images import transfer

    output = common.start_output(as_json)
    with output.working(f"fetching {reference}"):
        image = transfer.pull(reference, builders.load(builder))
    output.text(_line(image))
    output.result(asdict(image))


@app.command("clean")
def clean(
    days: Annotated[
        float, typer.Option("--days", min=0, help="Remove what nobody has used for so long.")
    ] = 30.0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only list what would be removed.")
    ] = False,
    builder: BuilderOption = None,
    as_json: common.JsonOption = False,
) -> None:
    """Remove SIFs that a newer build has replaced and nobody has asked for since days."""
    from launcher.images import builder as builders
    from launcher.images import clean as cleaning
    from launcher.images.store import Store

    output = common.start_output(as_json)
    store = Store(builders.load(builder).cache_directory())
    waste = cleaning.find(store, days)
    for item in waste:
        output.text(f"{item.size / 1e6:10.1f} MB  {item.what}  ({item.days:.0f} days unused)")
        if not dry_run:
            store.remove(item.path)
    total = sum(item.size for item in waste) / 1e6
    output.say(f"{total:.1f} MB {'could be' if dry_run else 'were'} freed")
    removed = [{**vars(item), "path": str(item.path)} for item in waste]
    output.result({"dry_run": dry_run, "removed": removed})


@app.command("dockerfile")
def dockerfile(name: NameArgument, builder: BuilderOption = None) -> None:
    """Print the Dockerfile of a definition."""
    _show(name, builder, "docker")


@app.command("def")
def definition_file(name: NameArgument, builder: BuilderOption = None) -> None:
    """Print the Apptainer definition file of a definition."""
    _show(name, builder, "apptainer")


def _show(name: str, builder: str | None, kind: Literal["apptainer", "docker"]) -> None:
    from launcher.images import builder as builders
    from launcher.images.build import rendered

    common.start_output(False).text(rendered(name, kind, builders.load(builder)).rstrip())


def _line(image: BuiltImage) -> str:
    identity = f"  sha256:{image.sha256}" if image.kind == "apptainer" else ""  # Docker's is the Id
    what = f"{image.name} ({image.kind}, {image.architecture}, {image.size_bytes / 1e6:.0f} MB)"
    return f"{what}: {image.reference}{identity}"
