"""From what is wanted to a box that is that: offers, requests, phases with deadlines.

A rental goes on where it stands, whoever began it: an unclear request is looked up by its label
before anything else is sent, a box that is there is used, and one that does not become what was
wanted is given back before the next is taken.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from launcher.core.errors import RdtlError, RefusedError, RemoteError
from launcher.providers import access, reconcile
from launcher.providers.caps import choose, no_offer, require_time
from launcher.providers.give_back import give_back
from launcher.providers.ledger import Ledger
from launcher.providers.phases import SLOWEST_POLL_S, Patience, Phases, Ready, UnfitError
from launcher.providers.provider import GoneError, Order, Provider, Say, UnclearError
from launcher.providers.rental import Rental, Rented
from launcher.providers.wanted import Offer, Wanted

MOST_BOXES = 4
"""Boxes that one rental tries before it gives up."""
LOOKS = (1.0, 2.0, 4.0, 8.0)
"""Seconds between looks for a request without answer."""
BID_ABOVE = 1.2
"""A bid that just wins is outbid soon."""


class Renting:
    """Brings one rental to a ready box."""

    def __init__(
        self,
        ledger: Ledger,
        provider: Provider,
        name: str,
        patience: Patience,
        say: Say,
        watched: Callable[[], None],
    ) -> None:
        """``watched`` sees to it that somebody watches the caps; called whenever it may cost."""
        self._ledger, self._provider, self._name = ledger, provider, name
        self._begun = self._rental.begun
        self._watched = watched
        self._phases, self._say = Phases(ledger, provider, name, patience, say), say

    @property
    def _rental(self) -> Rental:
        return self._ledger.rental(self._name)

    def require_open(self) -> None:
        """RemoteError RDTL-B066 when this rental was given back, or another one has its name."""
        rental = self._rental
        if rental.closed or rental.begun != self._begun:
            raise _given_back(self._name)

    def ready(self) -> Ready:
        """A box of this rental that is ready, rented now if there is none.

        Raises RefusedError RDTL-B063 no offer fits, B064 a cap would be passed, B006 two boxes
        with something to lose; RemoteError
        RDTL-B004 no box became usable, B065 unclear whether one was rented, B066 the rental was
        given back, and what the provider and ssh raise.
        """
        access.public_key(self._ledger)  # what can fail here fails before anything costs
        self._clear()
        refused: list[str] = []
        while True:
            self.require_open()
            box = self._one_box() or self._rent()
            try:
                return self._phases.ready(box)
            except UnfitError as error:
                refused.append(f"box {box.id}: {error}")
                self._refuse(self._rental.boxes[box.id], str(error))
            if len(refused) >= MOST_BOXES:
                raise _unusable(refused)

    def _refuse(self, box: Rented, why: str) -> None:
        """Give a box back that became nothing; RemoteError RDTL-B004 for one that was ready."""
        if box.ready and box.ended is None:
            raise _kept(box.id, why)
        self._say(f"box {box.id} is given back: {why}")
        if box.ended is None:
            give_back(self._ledger, self._provider, self._rental, box.id, why)

    def _clear(self) -> None:
        """Wait until it is known what became of earlier requests; RemoteError RDTL-B065."""
        while True:
            reconcile.reconcile(self._ledger, self._provider)
            unclear = self._rental.unclear
            if not unclear:
                return
            if not all(reconcile.certainly_over(one) for one in unclear):
                raise _unclear([one.label for one in unclear])
            self._say("an earlier request got no answer; waiting until it is known what it did")
            time.sleep(min(SLOWEST_POLL_S, reconcile.SETTLE_S / 4))

    def _one_box(self) -> Rented | None:
        """The box that this rental has; what it cannot use any more is given back."""
        rental = self._rental
        held = [box.id for box in rental.at_stake if not _taken_away(rental, box)]
        if len(held) > 1:
            raise _two(rental, held)
        there = sorted(rental.open_boxes, key=lambda box: (box.id not in held, not box.ready))
        kept = [box for box in there if not _taken_away(rental, box)]
        for box in there:
            if box not in kept[:1]:
                why = "it was taken away" if box.stopped else "the rental has another one"
                self._say(f"box {box.id} is given back: {why}")
                give_back(self._ledger, self._provider, rental, box.id, why)
        if not kept:
            return None
        self._watched()
        if kept[0].stopped is not None:
            self._start(kept[0])
        return self._rental.boxes[kept[0].id]

    def _start(self, box: Rented) -> None:
        """Let a box run again that was stopped, with what lies on its disk."""
        require_time(self._rental, box.price)
        self._say(f"box {box.id} was stopped; it is started again")
        self._ledger.write("started", self._name, box=box.id)  # from the request on it may cost
        self._provider.start(box.id)

    def _rent(self) -> Rented:
        """Take the best offer that the caps allow; one that is gone is followed by the next."""
        for offer in choose(self._provider, self._rental, self._say):
            try:
                return self._take(offer)
            except GoneError as error:
                self._say(f"offer {offer.id} is gone: {error.problem.where}")
        raise no_offer("every offer that fits was gone when it was asked for")

    def _take(self, offer: Offer) -> Rented:
        """Ask for one offer, with a line in the ledger before and after."""
        rental = self._rental
        wanted, price, bid = Wanted(**rental.wanted), offer.price, None
        if rental.interruptible:
            bid = bid_for(offer, rental.caps.price)
            price = bid + offer.storage_price
        label = self._ledger.attempt(
            rental.name, offer.id, offer.machine, price, offer.storage_price
        )
        try:
            self.require_open()  # after the line: whoever closes it now sees the request
        except RemoteError:
            self._ledger.write("nothing", rental.name, label=label)
            raise
        self._say(
            f"renting {offer.gpus} × {offer.gpu} in {offer.place or 'an unknown place'} "
            f"for {price:.3f} $/h (offer {offer.id})"
        )
        self._watched()  # it sees the request in the ledger, and stays
        try:
            number = self._provider.create(
                offer.id, Order(label, wanted.image, wanted.rented_disk_gb, bid)
            )
        except UnclearError:
            found = self._look(label)
            if found is None:
                raise
            return found
        except RdtlError:
            self._ledger.write("nothing", rental.name, label=label)
            raise
        self._ledger.write("created", rental.name, label=label, box=number)
        return self._rental.boxes[number]

    def _look(self, label: str) -> Rented | None:
        """The box of a request that got no answer, if it is there."""
        self._say("no answer; looking for the box by its label")
        for wait in LOOKS:
            time.sleep(wait)
            reconcile.reconcile(self._ledger, self._provider)
            if (number := self._rental.tries[label].box) is not None:
                return self._rental.boxes[number]
        return None


def _taken_away(rental: Rental, box: Rented) -> bool:
    """Whether a box was stopped and is not worth a start: its rental goes on on another one."""
    if box.stopped is None or box.at_cap:
        return False
    return rental.interruptible or not box.ready


def bid_for(offer: Offer, cap: float) -> float:
    """US dollars an hour to bid for an interruptible machine, without its disk."""
    least = offer.price - offer.storage_price
    return min(least * BID_ABOVE, cap - offer.storage_price)


def _unusable(refused: list[str]) -> RemoteError:
    return RemoteError(
        "RDTL-B004",
        f"{len(refused)} boxes were rented and none became usable; all are given back",
        where="; ".join(refused)[:600],
        fix="run the same command again later, or ask for another kind of machine",
    )


def _given_back(name: str) -> RemoteError:
    return RemoteError(
        "RDTL-B066",
        f"the rental {name} was given back",
        where="by rdtl cloud down, or when its uploads were proven",
        why="nothing more is rented for it",
        fix="rdtl cloud status; the same `rdtl cloud up` begins a new rental, with new caps",
    )


def _kept(box: int, why: str) -> RemoteError:
    return RemoteError(
        "RDTL-B004",
        f"box {box} was ready before and cannot be used now",
        where=why,
        why="what lies on it may not be uploaded, so it is kept",
        fix="run the same command again; rdtl cloud down --force gives it back as it is",
    )


def _two(rental: Rental, boxes: list[int]) -> RefusedError:
    return RefusedError(
        "RDTL-B006",
        f"the rental {rental.name} has several boxes with something on them that is nowhere else",
        where=f"boxes {', '.join(map(str, boxes))}",
        why="its work goes on on one of them, and the others would be wiped",
        fix="look at each (rdtl cloud status), end all but one on the provider's page, then the "
        f"same command again; or rdtl cloud down {rental.name}",
    )


def _unclear(labels: list[str]) -> RemoteError:
    return RemoteError(
        "RDTL-B065",
        "it is unclear whether a box was rented",
        where=f"label {', '.join(labels)}",
        why=f"a request without answer may be carried out {reconcile.SETTLE_S:.0f} s later",
        fix="run the same command again in two minutes; rdtl cloud status shows what there is",
    )
