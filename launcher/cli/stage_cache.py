"""``rdtl stage verify|list|clean``: what lies in the cache, whether it is right, what may go."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from launcher.cli import common
from launcher.cli.stage import CacheOption, cache_of

if TYPE_CHECKING:
    from launcher.staging.cache import Cache
    from launcher.staging.keep import Kept


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    app.command("verify")(verify)
    app.command("list")(list_assets)
    app.command("clean")(clean)


def verify(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[URI|DIGEST|FOLDER]…", help="None: everything in the cache."),
    ] = None,
    site: common.SiteOption = "local",
    cache: CacheOption = None,
    as_json: common.JsonOption = False,
) -> None:
    """Read every byte again and compare it with the manifest.

    Ends with status 1 when anything differs.
    """
    from launcher.core.errors import EXIT_FAILED, RdtlError
    from launcher.staging import keep

    output = common.start_output(as_json)
    store = cache_of(cache, site)
    folders = [_find(store, name) for name in names] if names else store.assets()
    answers: list[dict[str, Any]] = []
    for folder in folders:
        try:
            found = keep.verify(folder, lambda file: output.status(f"read {file.path}"))
            output.text(f"ok    {folder.name[:12]}  {len(found.files)} files, {found.size} bytes")
            answers.append({"path": str(folder), "ok": True, "files": len(found.files)})
        except RdtlError as error:
            for line in error.problem.lines():
                output.say(line)
            answers.append({"path": str(folder), "ok": False, "error": error.to_dict()})
    output.clear_status()
    output.result({"assets": answers})
    if not all(answer["ok"] for answer in answers):
        raise typer.Exit(EXIT_FAILED)


def list_assets(
    site: common.SiteOption = "local",
    cache: CacheOption = None,
    as_json: common.JsonOption = False,
) -> None:
    """What lies in the cache, where from, and how many runs read it."""
    from dataclasses import asdict

    from launcher.staging import keep

    output = common.start_output(as_json)
    store = cache_of(cache, site)
    found = keep.overview(store)
    rows = [row for kept in found for row in _rows(kept)]
    columns = ["asset", "MB", "files", "days unused", "runs", "from"]
    output.table(str(store.root), columns, rows)
    output.result({"root": str(store.root), "assets": [_plain(asdict(kept)) for kept in found]})


def clean(
    days: Annotated[
        float, typer.Option(min=0, help="Remove what nobody has used for so long.")
    ] = 30.0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only list what would be removed.")
    ] = False,
    site: common.SiteOption = "local",
    cache: CacheOption = None,
    as_json: common.JsonOption = False,
) -> None:
    """Remove assets that no run reads and nobody has used lately."""
    from dataclasses import asdict

    from launcher.staging import keep

    output = common.start_output(as_json)
    gone = keep.clean(cache_of(cache, site), days, output.say, remove=not dry_run)
    for kept in gone:
        output.text(f"{kept.digest[:12]}  {kept.size / 1e6:10.1f} MB  {' '.join(kept.uris)}")
    freed = sum(kept.size for kept in gone) / 1e6
    assets = "asset" if len(gone) == 1 else "assets"
    output.text(f"{len(gone)} {assets}, {freed:.1f} MB{' would be' if dry_run else ''} removed")
    output.result({"removed": [_plain(asdict(kept)) for kept in gone], "dry_run": dry_run})


def _find(cache: Cache, name: str) -> Path:
    """The folder of a cached asset by URI or digest, or any other folder."""
    from launcher.core.errors import UsageError
    from launcher.staging import uri

    if uri.is_uri(name):
        source = cache.source(uri.parse(name))
        found = [cache.root / "assets" / source.digest] if source else []
    else:
        found = [folder for folder in cache.assets() if folder.name.startswith(name)]
    if not found and Path(name).is_dir():
        return Path(name).absolute()
    if len(found) == 1:
        return found[0]
    raise UsageError(
        "RDTL-G026",
        f"there is {'more than one asset' if found else 'nothing'} of that name to verify",
        where=f"{name} in {cache.root}",
        fix="rdtl stage list shows what there is",
    )


def _rows(kept: Kept) -> list[list[str]]:
    """A row of the table, and one more for each further URI."""
    name = kept.digest[:12] + ("" if kept.whole else " DAMAGED")
    facts = [f"{kept.size / 1e6:.1f}", str(kept.files), f"{max(0.0, kept.unused_days):.1f}"]
    first, *more = kept.uris or ("",)
    return [
        [name, *facts, str(len(kept.runs)), first],
        *(["", "", "", "", "", one] for one in more),
    ]


def _plain(data: dict[str, Any]) -> dict[str, Any]:
    return {**data, "runs": [str(run) for run in data["runs"]]}
