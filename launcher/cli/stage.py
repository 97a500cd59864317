"""``rdtl stage``: bytes in from stores, out to stores, proven."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from launcher.cli import common, complete
from launcher.cli.group import Group

if TYPE_CHECKING:
    from collections.abc import Callable

    from launcher.output import Output
    from launcher.staging.cache import Cache
    from launcher.staging.progress import Progress
    from launcher.staging.store import Listing
    from launcher.staging.uri import Uri

app = typer.Typer(
    cls=Group,
    help="Bring data and checkpoints here from stores, results out, and prove every byte.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

UriArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="URI|ASSET…",
        help="gs://, s3://, rclone:REMOTE:PATH, hf://, https://, ssh://, file://, or the name of "
        "a file of configs/assets.",
        autocompletion=complete.configurations("assets"),
    ),
]
CacheOption = Annotated[
    Path | None,
    typer.Option("--cache", help="Where assets lie; default: the site's.", envvar="RDTL_CACHE"),
]
TransfersOption = Annotated[int, typer.Option(min=1, max=256, help="Files at once.")]
BandwidthOption = Annotated[
    str | None, typer.Option(help="Cap for all transfers together, e.g. 10M for 10 MiB/s.")
]

KEPT = "what is transferred is kept and not asked for again; the same command brings the rest"
"""After Ctrl-C."""


@app.command("in")
def stage_in(
    uris: UriArgument,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Transfer again what is there, and replace it.")
    ] = False,
    fits: Annotated[
        str | None, typer.Option("--as", help="The defined asset that the URI must hold.")
    ] = None,
    settings: Annotated[
        list[str], typer.Option("--set", help="A parameter of an asset, e.g. remote=gg1.")
    ] = [],  # noqa: B006
    run: Annotated[
        Path | None, typer.Option(help="The run that reads it: kept until that run is done.")
    ] = None,
    transfers: TransfersOption = 8,
    bandwidth: BandwidthOption = None,
    site: common.SiteOption = "local",
    cache: CacheOption = None,
    as_json: common.JsonOption = False,
) -> None:
    """Bring what URIs name into the cache; print where it lies.

    Every byte is proven by the store's checksums or a manifest. What is there already is not
    transferred again; several who ask at once share one transfer.
    """
    from launcher.staging import fetch
    from launcher.staging.transfer import Order

    output = common.start_output(as_json)
    asked = [_wanted(text, fits, settings) for text in uris]
    answers: list[dict[str, Any]] = []
    output.if_interrupted = KEPT
    for place, listed in asked:
        order = Order(
            place,
            listed=listed,
            run=run.resolve() if run else None,
            fresh=fresh,
            transfers=transfers,
            bandwidth=bandwidth,
            say=output.say,
            show=_shown(output),
        )
        staged = fetch.bring(cache_of(cache, site), order)
        output.text(str(staged.path))
        contents = staged.asset.manifest
        counts = {"files": len(contents.files), "bytes": contents.size, "moved": staged.moved}
        answers.append(
            {"uri": str(place), "path": str(staged.path), "digest": contents.digest, **counts}
        )
        done = f"all proven, {staged.moved} transferred now" if staged.moved else "there already"
        output.say(f"{place}: {counts['files']} files, {contents.size / 1e6:.1f} MB, {done}")
    output.result({"assets": answers})


@app.command("out")
def stage_out(
    folder: Annotated[Path, typer.Argument(help="What is to go.")],
    uri: Annotated[str, typer.Argument(metavar="URI", help="The folder that it becomes there.")],
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace what else was uploaded there.")
    ] = False,
    delete: Annotated[
        bool, typer.Option("--delete", help="Delete here what is proven to be there.")
    ] = False,
    transfers: TransfersOption = 8,
    bandwidth: BandwidthOption = None,
    as_json: common.JsonOption = False,
) -> None:
    """Upload a folder and prove that it is there, whole.

    By the store's checksums, or by reading back where it has none; its manifest is written last.
    """
    from launcher.staging import send
    from launcher.staging import uri as uris

    output = common.start_output(as_json)
    place = uris.parse(uri)
    output.if_interrupted = KEPT
    parcel = send.Parcel(
        folder.absolute(),
        place,
        replace=replace,
        delete=delete,
        transfers=transfers,
        bandwidth=bandwidth,
        say=output.say,
        show=_shown(output),
    )
    sent = send.send(parcel)
    contents = sent.manifest
    output.text(
        f"{place}: {len(contents.files)} files, {contents.size / 1e6:.1f} MB, all proven, "
        f"{sent.moved} transferred now{', deleted here' if delete else ''}"
    )
    output.result(
        {
            "uri": str(place),
            "digest": contents.digest,
            "files": len(contents.files),
            "bytes": contents.size,
            "moved": sent.moved,
        }
    )


def _wanted(
    text: str, fits: str | None, settings: list[str]
) -> tuple[Uri, Callable[[], Listing] | None]:
    """The place that is meant, and how it is listed when it must be a defined asset."""
    from launcher.staging import uri

    plain = uri.is_uri(text) or "/" in text  # no asset's name: refused with the forms of a URI
    if plain and not fits and not settings:
        return uri.parse(text), None  # definitions cost a quarter of a second
    from launcher.staging import definitions

    wanted = definitions.wanted(text, fits, settings)
    return wanted.uri, wanted.list


def cache_of(cache: Path | None, site: str) -> Cache:
    """The cache that an option names, else the site's."""
    from launcher.staging.cache import Cache

    if cache:
        return Cache(cache.absolute())
    from launcher import sites

    return Cache(sites.assets_root(sites.load(site)))


def _shown(output: Output) -> Callable[[Progress], None]:
    """Progress for a person as a changing line, for a program as JSON lines on stderr."""
    import json
    import sys

    def person(progress: Progress) -> None:
        output.status(str(progress))

    def program(progress: Progress) -> None:
        print(json.dumps({"progress": progress.to_dict()}), file=sys.stderr, flush=True)

    return program if output.as_json else person
