"""What a rented box is for: a recipe that runs there, and the proof that nothing is lost."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from launcher.core import dag
from launcher.core.errors import RdtlError, RemoteError
from launcher.dag import client, follow
from launcher.dag.client import Order
from launcher.dag.places import Place
from launcher.providers import access
from launcher.providers.ledger import Ledger
from launcher.providers.rental import Rental

ASK_EVERY_S = 30.0
ANSWER_S = 45.0
"""A box may take so long to say what it has proven: less than a cap is enforced ahead of time."""
Alive = Callable[[], str]
"""Empty while the provider says that the box runs, else what it says instead."""


@dataclass(frozen=True)
class RentedPlace(Place):
    """A box that may be taken away: a connection that does not come back is explained."""

    alive: Alive = lambda: ""
    asked: list[float] = field(default_factory=lambda: [time.monotonic()])
    until: float | None = None
    """When (monotonic) every answer must be there: what is asked later or longer fails."""

    def argv(self, command: Sequence[str], *, alone: bool = False) -> list[str]:
        """As for other places; RemoteError RDTL-B066 when there is no box any more."""
        if time.monotonic() - self.asked[0] > ASK_EVERY_S:
            self.asked[0] = time.monotonic()
            if said := self.alive():
                raise RemoteError(
                    "RDTL-B066",
                    f"{self.name} does not run any more",
                    where=said,
                    why="it was taken away, given back, or stopped at a cap",
                    fix="rdtl cloud status; the same `rdtl cloud up` goes on",
                )
        if self.until is None:
            return super().argv(command, alone=alone)
        left = max(1.0, self.until - time.monotonic())
        return ["timeout", "--kill-after=2", f"{left:.1f}", *super().argv(command, alone=True)]


def place(
    ledger: Ledger,
    rental: str,
    box: int,
    address: tuple[str, int],
    alive: Alive = lambda: "",
    until: float | None = None,
) -> RentedPlace:
    """The box as a place for recipes; ``ledger`` has its key and its known hosts."""
    link = access.connection(ledger, rental, box, address)
    hosts = ledger.known_hosts(rental, box)
    return RentedPlace(f"box {box}", link, hosts, alive, until=until)


def begun(rental: Rental, where: Place) -> Order:
    """The recipe of a rental as it was started on a box; UsageError RDTL-U138 if it never was."""
    return client.begun(where, rental.recipe["name"], rental.recipe["profile"])


@dataclass(frozen=True)
class Proof:
    """Whether a box can go without a loss."""

    places: tuple[str, ...] = ()
    """Where what the recipe made is proven to be."""
    missing: str = ""
    """Why it is not proven; empty: it is."""
    reached: bool = True
    """Whether the box answered at all."""


def closing(graph: dag.Graph) -> list[str]:
    """Steps that bring results away: run however training ended, and never skipped."""
    return [step.name for step in graph.steps if step.always and step.after_failure]


def proof(rental: Rental, where: RentedPlace) -> Proof:
    """Ask the runner on a box what its last run has proven to be elsewhere.

    A closing step proves with a marker that has a value ``proven``, the place; its success alone
    says nothing, because a recipe may be told to keep everything on the box.
    """
    try:
        what = begun(rental, where)
        if not (wanted := closing(what.graph)):
            return Proof(missing="the recipe has no step that brings results away")
        if client.status(what)["alive"]:
            return Proof(missing="the recipe is still at work")
        places, done = _told(what, where.until)
    except RdtlError as error:
        problem = error.problem
        why = f"{problem.what} ({problem.where})"
        return Proof(missing=why, reached=problem.code != "RDTL-S037")
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        return Proof(missing=f"what the box answers is not understood ({error!r})")
    late = [name for name in wanted if name not in done or name not in places]
    if late:
        return Proof(missing=f"not proven by its last run: {', '.join(late)}")
    return Proof(tuple(places[name] for name in wanted))


def _told(what: Order, until: float | None) -> tuple[dict[str, str], set[str]]:
    """Places that steps of the newest run have proven, and which of them are done."""
    places: dict[str, str] = {}
    done: set[str] = set()
    for event in follow.events(what):
        if until is not None and time.monotonic() > until:
            raise RemoteError("RDTL-S037", "the box takes too long to answer", where=what.run)
        kind: Any = event and event["event"]
        if event is None or kind not in ("start", "step_begin", "marker", "step_done"):
            continue
        step = str(event.get("step", ""))
        if kind == "start":
            places, done = {}, set()
        elif kind == "step_begin":
            places.pop(step, None)
            done.discard(step)
        elif kind == "step_done":
            done.add(step)
        elif proven := event["values"].get("proven"):
            places[step] = str(proven)
    return places, done
