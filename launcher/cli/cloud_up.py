"""What ``rdtl cloud up`` does: a box, then the recipe on it, and another box if it is taken."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

from launcher.core import box_facts
from launcher.core.errors import RdtlError, UsageError
from launcher.dag import client, lint, live, load, places, resolve, secrets
from launcher.dag.client import Order
from launcher.doctor import before
from launcher.output import Output
from launcher.providers import caps, guard, job, rentals, vast
from launcher.providers.ledger import ENDING, Ledger, default_root
from launcher.providers.phases import Patience, Ready
from launcher.providers.provider import Provider
from launcher.providers.reconcile import reconcile
from launcher.providers.rent import Renting
from launcher.providers.rental import Caps, Rental
from launcher.providers.wanted import Wanted

GUARD_S = 180.0
"""In its round the guard asks each box for some 45 seconds, and may give it back."""


@dataclass(frozen=True)
class Wish:
    """What a user asks for."""

    name: str
    wanted: Wanted
    caps: Caps
    interruptible: bool
    recipe: dict[str, Any]
    secrets: list[str]
    patience: Patience


def run(output: Output, wish: Wish) -> None:
    """Rent, run the recipe to its end, and say what is left; see `rdtl cloud up --help`."""
    given = _before(output, wish)
    _require_download(wish.patience.download_url)
    ledger, provider = Ledger(default_root()), vast.connect()
    renting: Renting | None = None
    while True:
        try:
            # Until the recipe is at work the guard would see the end of the one before.
            with ledger.held(wish.name), ledger.held(wish.name, ENDING, GUARD_S):
                renting = renting or _begin(output, ledger, provider, wish)
                ready = _box(output, renting)
                alive = functools.partial(gone, ledger, provider, ready.box)
                link = job.place(ledger, wish.name, ready.box, ready.address, alive)
                if not wish.recipe:
                    output.text(shell(link))
                    output.result({"rental": wish.name, "box": ready.box, "ssh": shell(link)})
                    return
                ledger.write("begun", wish.name, box=ready.box)
                what, after = _start(output, ledger.rental(wish.name), link, given)
            view = live.watch(what, output, after)
        except RdtlError as error:
            if error.problem.code != "RDTL-B066" or not wish.interruptible or not renting:
                raise
            renting.require_open()
            output.say(f"{error.problem.what}; the work goes on on another one")
            continue
        with ledger.held(wish.name, ENDING, GUARD_S):
            _after(output, ledger, provider, wish, live.result(what, view))
        if failed := live.failure(what, view):
            raise failed
        return


def _before(output: Output, wish: Wish) -> dict[str, str]:
    """Refuse before anything costs: mistakes in the recipe, missing or unknown secrets."""
    if not wish.recipe:
        secrets.references(wish.secrets, (), "no recipe")
        return {}
    loaded, settings = load.load(wish.recipe["name"]), wish.recipe["settings"]
    references = secrets.references(wish.secrets, loaded.recipe.secrets, loaded.recipe.name)
    if wish.interruptible and settings.get("upload") == "":
        raise UsageError(
            "RDTL-B064",
            "an interruptible machine needs a place for uploads",
            where="the parameter upload is empty",
            why="it is given back when it is taken away, with all that lies on it alone: every "
            "new one would begin, and cost, from the start",
            fix="--set upload=…, or without --interruptible",
        )
    root = resolve.run_directory(loaded.recipe, wish.recipe["profile"], places.local_root())
    graph = resolve.resolve(loaded, root, wish.recipe["profile"], settings)
    found = [*lint.findings(loaded, graph), *lint.flaws(loaded.recipe, wish.recipe["profile"])]
    before.refuse(output, found, "rdtl recipe lint lists all")
    names = sorted({name for step in graph.steps for name in step.secrets})
    if not job.closing(graph):
        output.say("this recipe brings nothing away by itself: fetch what you need before `down`")
    return secrets.read(names, references, loaded.recipe)


def _require_download(address: str) -> None:
    """UsageError RDTL-B070 when what boxes are to download does not come from here either."""
    try:
        if address:
            box_facts.download_mbps(address, seconds=0.0)
    except OSError as error:
        raise UsageError(
            "RDTL-B070",
            "what --download-url names cannot be downloaded",
            where=" ".join(str(error).split())[:200],
            why="each box would be rented, fail at it and be given back",
            fix="an address that curl gets from here, or leave --download-url out",
        ) from error


def _begin(output: Output, ledger: Ledger, provider: Provider, wish: Wish) -> Renting:
    """The rental, once: what is given back meanwhile does not begin anew, with new caps."""
    rental = rentals.begin(
        ledger,
        provider,
        wish.name,
        wish.wanted,
        wish.caps,
        interruptible=wish.interruptible,
        recipe=wish.recipe,
    )
    output.say(f"rental {wish.name}, at most {caps.words(rental)}")
    watched = functools.partial(guard.start, ledger)
    return Renting(ledger, provider, wish.name, wish.patience, output.say, watched)


def _box(output: Output, renting: Renting) -> Ready:
    ready = renting.ready()
    gpus = ", ".join(sorted({name for name, _ in ready.facts.gpus})) or "no GPU"
    output.say(
        f"box {ready.box} is ready: {len(ready.facts.gpus)} × {gpus}, "
        f"{ready.facts.disk_gb:.0f} GB free, driver {ready.facts.driver or 'none'}, "
        f"{ready.price:.3f} $/h"
    )
    return ready


def _start(
    output: Output, rental: Rental, link: places.Place, given: dict[str, str]
) -> tuple[Order, int]:
    """Start the recipe there or find it at work; also the last event before it."""
    made = rental.recipe
    what = client.order(link, made["name"], made["profile"], made["settings"])
    after = client.start(what, lambda: given)
    word = "runs already" if after is None else "started"
    output.say(f"{what.graph.name}: {word} on {link.name}")
    output.if_interrupted = goes_on(rental)
    return what, after or 0


def goes_on(rental: Rental) -> str:
    """What is so while somebody looks at a recipe on a rented box, and stays so after Ctrl-C."""
    return (
        f"it goes on without you, and costs; to look again: rdtl cloud attach {rental.name}; "
        f"to end it: rdtl cloud down {rental.name}"
    )


def _after(
    output: Output, ledger: Ledger, provider: Provider, wish: Wish, result: dict[str, Any]
) -> None:
    """Say what the rental is now, give it back if that was asked for and nothing is lost."""
    seen = reconcile(ledger, provider)
    rental = seen.rentals[wish.name]
    proofs = [rentals.prove(ledger, seen, rental, box) for box in rental.open_boxes]
    missing = "; ".join(one.missing for one in proofs if one.missing)
    if not missing and wish.recipe["down_after"]:
        rentals.down(ledger, provider, wish.name, output.say, force=False)
    else:
        output.say(f"not proven to be elsewhere: {missing}" if missing else "all is uploaded")
        output.say(f"the box stays and costs on until: rdtl cloud down {wish.name}")
    output.result({"rental": wish.name, "proven": not missing, "recipe": result})


def gone(ledger: Ledger, provider: Provider, box: int) -> str:
    """What the provider says of a box that does not run; empty while it does, or is silent."""
    try:
        listed = reconcile(ledger, provider).listed.get(box)
    except RdtlError:
        return ""
    if listed is None:
        return "the provider has it no more"
    return "" if listed.state != "stopped" else f"stopped {listed.words}".strip()


def shell(link: places.Place) -> str:
    """The ssh command into a box, for a person."""
    import shlex

    assert link.connection is not None
    return shlex.join(["ssh", *link.connection.options, link.connection.host])
