"""``rdtl cloud status | attach | down``: what is rented, and an end to it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from launcher.cli import common

if TYPE_CHECKING:
    from launcher.output import Output
    from launcher.providers.reconcile import Reconciled
    from launcher.providers.rental import Rental, Rented

NameArgument = Annotated[
    str | None, typer.Argument(metavar="[RENTAL]", help="Its name; without: the only open one.")
]


def add_to(app: typer.Typer) -> None:
    """Add the commands for what is rented to ``rdtl cloud``."""
    for command in (status, attach, hosts, down):
        app.command()(command)
    app.command(hidden=True)(guard)


def status(as_json: common.JsonOption = False) -> None:
    """Compare the ledger with the provider, enforce the caps, and show every box and its cost.

    Exit status 3 when a box is there that nobody should be paying for.
    """
    from launcher.core.errors import EXIT_REFUSED
    from launcher.providers import caps, vast
    from launcher.providers import guard as watching
    from launcher.providers.ledger import Ledger, default_root

    output = common.start_output(as_json)
    ledger = Ledger(default_root())
    seen = caps.enforce(ledger, vast.connect(), output.say)
    if any(one.open_boxes or one.unclear for one in seen.rentals.values()):
        watching.start(ledger)
    _print(output, seen)
    for finding in seen.findings:
        output.finding(finding)
    output.result(_facts(seen))
    if any(finding.severity == "error" for finding in seen.findings):
        raise SystemExit(EXIT_REFUSED)


def attach(name: NameArgument = None, as_json: common.JsonOption = False) -> None:
    """Show the recipe that runs on a rented box, from its beginning; starts nothing."""
    from launcher.cli import cloud_up
    from launcher.dag import live
    from launcher.providers import job, rentals, vast
    from launcher.providers.ledger import Ledger, default_root
    from launcher.providers.reconcile import reconcile

    output = common.start_output(as_json)
    ledger, provider = Ledger(default_root()), vast.connect()
    seen = reconcile(ledger, provider)
    rental = rentals.find(seen.rentals, name)
    box, address = _running(seen, rental)
    link = job.place(
        ledger, rental.name, box.id, address, lambda: cloud_up.gone(ledger, provider, box.id)
    )
    output.say(f"{link.name}: {cloud_up.shell(link)}")
    output.if_interrupted = cloud_up.goes_on(rental)
    if rental.recipe:
        what = job.begun(rental, link)
        output.result(live.result(what, live.watch(what, output)))


def hosts(
    names: Annotated[list[str], typer.Argument(metavar="RENTAL…", help="One box of each.")],
    site: Annotated[str, typer.Option("--site", help="Name of the site file to write.")] = "boxes",
    directory: Annotated[
        str | None,
        typer.Option("--shared", help="A directory that all of them see under the same path."),
    ] = None,
    as_json: common.JsonOption = False,
) -> None:
    """Make several rented boxes one site of kind hosts, for `rdtl train --site`.

    A site file of this name that it did not write itself is kept.
    """
    from launcher import config, sites
    from launcher.core import files
    from launcher.providers import access, rentals, vast
    from launcher.providers.ledger import Ledger, default_root
    from launcher.providers.reconcile import reconcile

    output = common.start_output(as_json)
    ledger = Ledger(default_root())
    ssh, path = ledger.root / f"{site}.ssh", Path("configs") / "sites" / f"{site}.yaml"
    options = ["-F", str(ssh)]
    _require_ours(path, options)
    seen = reconcile(ledger, vast.connect())
    found = [rentals.find(seen.rentals, name) for name in names]
    reached = {one.name: (box.id, at) for one in found for box, at in [_running(seen, one)]}
    files.write_text(ssh, access.ssh_config(ledger, reached))
    gpus = {one.name: int(one.wanted["gpus"]) for one in found}
    data = {
        "kind": "hosts",
        "hosts": [{"host": name, "slots": max(1, number)} for name, number in gpus.items()],
        "gpus_per_node": min(gpus.values()),
        "ssh_options": options,
        "shared_directory": directory,
    }
    files.write_text(path, config.to_yaml(config.validate(sites.Site, data, str(path))))
    output.say(f"wrote {path}; rdtl doctor --site {site} asks the boxes and checks them")
    output.result({"site": str(path), "hosts": list(gpus), "ssh": str(ssh)})


def _require_ours(path: Path, options: list[str]) -> None:
    """UsageError RDTL-S058 for a site file that was not written for boxes of this ledger."""
    import yaml

    from launcher.core.errors import UsageError

    if not path.exists():
        return
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError):
        found = None
    if not isinstance(found, dict) or found.get("ssh_options") != options:
        raise UsageError(
            "RDTL-S058",
            "there is another site of this name already",
            where=str(path),
            why="rdtl cloud hosts did not write it for rentals of this ledger",
            fix="--site with another name, or remove this file",
        )


def down(
    name: NameArgument = None,
    force: Annotated[
        bool, typer.Option("--force", help="Also with what is not proven to be elsewhere.")
    ] = False,
    as_json: common.JsonOption = False,
) -> None:
    """Give back the boxes of a rental, once what they made is proven to be elsewhere."""
    from launcher.providers import rentals, vast
    from launcher.providers.ledger import Ledger, default_root

    output = common.start_output(as_json)
    ledger = Ledger(default_root())
    closed = rentals.down(ledger, vast.connect(), name, output.say, force=force)
    spent = closed.spent(time.time())
    output.text(f"rental {closed.name} is closed; it cost {spent:.2f} $ by our count")
    output.result({"rental": closed.name, "spent": spent})


def guard() -> None:
    """Watch the caps until nothing is rented."""
    from launcher.providers import guard as watching
    from launcher.providers import vast
    from launcher.providers.ledger import Ledger, default_root

    output = common.start_output(False)
    watching.watch(Ledger(default_root()), vast.connect(), output.say)


def _running(seen: Reconciled, rental: Rental) -> tuple[Rented, tuple[str, int]]:
    from launcher.core.errors import RemoteError

    for box in rental.open_boxes:
        listed = seen.listed.get(box.id)
        if box.ready and listed and listed.state == "running" and listed.addresses:
            known = box.address in listed.addresses  # where ssh got in; others may be shut
            return box, box.address if box.address and known else listed.addresses[0]
    raise RemoteError(
        "RDTL-B066",
        f"no box of {rental.name} runs and is ready",
        where=", ".join(str(box.id) for box in rental.open_boxes) or "no box",
        fix="the same `rdtl cloud up` goes on with it",
    )


def _facts(seen: Reconciled) -> dict[str, Any]:
    now = time.time()
    rentals = [
        {
            "name": one.name,
            "closed": one.closed,
            "recipe": one.recipe.get("name"),
            "spent": one.spent(now),
            "caps": vars(one.caps),
            "unclear": [entry.label for entry in one.unclear],
            "boxes": [
                {**vars(box), "state": _state(seen, box)}
                for box in one.boxes.values()
                if box.ended is None
            ],
        }
        for one in seen.rentals.values()
    ]
    unknown = [{"box": box.id, "label": box.label, "state": box.state} for box in seen.unknown]
    found = [finding.to_dict() for finding in seen.findings]
    return {"rentals": rentals, "unknown": unknown, "findings": found}


def _print(output: Output, seen: Reconciled) -> None:
    now, rows = time.time(), []
    for one in seen.rentals.values():
        for box in one.open_boxes:
            left = max(0.0, one.hours_left(now, box.price))
            rows.append(
                [one.name, str(box.id), _state(seen, box), f"{box.price:.3f}",
                 f"{one.spent(now):.2f} of {one.caps.total:.2f}", f"{left:.1f}",
                 "yes" if box.proven else "no"]
            )  # fmt: skip
    columns = ["rental", "box", "state", "$/h", "spent $", "hours left", "uploads proven"]
    output.table(f"{len(rows)} boxes are rented", columns, rows)
    for one in seen.rentals.values():
        for entry in one.unclear:
            output.text(f"  {one.name}: a request of {entry.label} got no answer yet")
    for other in seen.unknown:
        output.text(f"  not ours, left alone: box {other.id} ({other.label or 'no label'})")


def _state(seen: Reconciled, box: Rented) -> str:
    listed = seen.listed.get(box.id)
    state = listed.state if listed else "not listed"
    return "starting" if state == "running" and not box.ready else state
