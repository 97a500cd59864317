"""Rentals begin and end here: one name, one kind of machine, and no box left behind."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from launcher.core.errors import RefusedError, UsageError
from launcher.providers import job
from launcher.providers.give_back import give_back
from launcher.providers.job import Proof
from launcher.providers.ledger import Ledger
from launcher.providers.provider import Provider, Say
from launcher.providers.reconcile import Reconciled, reconcile
from launcher.providers.rental import Caps, Rental, Rented
from launcher.providers.wanted import Wanted

TRIES = 3
AGAIN_S = 3.0


def begin(
    ledger: Ledger,
    provider: Provider,
    name: str,
    wanted: Wanted,
    caps: Caps,
    *,
    interruptible: bool,
    recipe: dict[str, Any],
) -> Rental:
    """The rental called ``name``: the one that is open, else a new one.

    Raises RefusedError RDTL-B069 when the open one is for something else, or of a closed one a
    box is still there or may turn out to be.
    """
    known = ledger.rentals().get(name)
    if known and not known.over:
        asked = (wanted.to_dict(), interruptible, *_work(recipe))
        same = (known.wanted, known.interruptible, *_work(known.recipe)) == asked
        if known.closed or not same or known.provider != provider.name:
            raise _other(known)
        if known.caps != caps or known.recipe != recipe:
            ledger.write("changed", name, caps=asdict(caps), recipe=recipe)
        return ledger.rental(name)
    now = time.time()
    return ledger.begin(
        Rental(name, provider.name, now, wanted.to_dict(), caps, interruptible, recipe)
    )


def _work(recipe: dict[str, Any]) -> tuple[object, object]:
    """What a box is for: of another profile it would be proven while this one's still trains."""
    return recipe.get("name"), recipe.get("profile")


def find(rentals: dict[str, Rental], name: str | None) -> Rental:
    """The rental called ``name``, or the only one that is open; UsageError RDTL-B069."""
    there = [one for one in rentals.values() if not one.over]
    if name is None and len(there) == 1:
        return there[0]
    if name in rentals:
        return rentals[name]
    words = ", ".join(one.name for one in there) or "none"
    raise UsageError(
        "RDTL-B069",
        f"there is no rental called {name}" if name else "which rental is meant",
        where=f"open rentals: {words}",
        fix="rdtl cloud status",
    )


def prove(ledger: Ledger, seen: Reconciled, rental: Rental, box: Rented) -> Proof:
    """Whether a box can go without a loss; what is proven is written down.

    A box that runs is asked again each time: more may have been made on it since.
    """
    there = seen.listed.get(box.id)
    if not box.ready or (box.proven and there is None):
        return Proof()
    if there is None:
        return Proof(missing="the provider's list is without it, which may be a moment's mistake")
    if there.state != "running" or not there.addresses:
        return Proof() if box.proven else Proof(missing=f"it cannot be asked, it is {there.state}")
    if not rental.recipe:
        return Proof(missing="it was rented without a recipe: nobody knows what is on it")
    until = time.monotonic() + job.ANSWER_S
    for again in range(TRIES):
        found = _asked(ledger, rental, box, there.addresses, until)
        if found.reached or again == TRIES - 1:
            break
        time.sleep(AGAIN_S)  # a busy sshd turns strangers away for a moment
    if not found.missing:
        ledger.write("proven", rental.name, box=box.id, places=list(found.places))
    return found


def _asked(
    ledger: Ledger, rental: Rental, box: Rented, addresses: Sequence[tuple[str, int]], until: float
) -> Proof:
    """What the box says at the first of its addresses that answers well, else at the last."""
    found = Proof(missing="it has no address")
    for address in addresses:
        found = job.proof(rental, job.place(ledger, rental.name, box.id, address, until=until))
        if not found.missing:
            break
    return found


def if_proven(ledger: Ledger, provider: Provider, rental: Rental, say: Say) -> bool:
    """Give everything of a rental back once its recipe has run and nothing is lost; whether so."""
    seen = reconcile(ledger, provider)
    boxes = seen.rentals[rental.name].open_boxes
    if not boxes or not all(box.ready for box in boxes):  # it is just being rented
        return False
    if any(prove(ledger, seen, rental, box).missing for box in boxes):
        return False
    down(ledger, provider, rental.name, say, force=False)
    return True


def down(ledger: Ledger, provider: Provider, name: str | None, say: Say, *, force: bool) -> Rental:
    """Close a rental and give back all of its boxes.

    It is closed first: whoever works with it rents nothing more for it.

    RefusedError RDTL-B006 when something on one of them is not proven to be elsewhere, unless
    ``force``; UsageError RDTL-B069 for an unknown name; RemoteError as :func:`give_back`.
    """
    seen = reconcile(ledger, provider)
    rental = find(seen.rentals, name)
    lost = {}
    for box in rental.open_boxes:
        if missing := prove(ledger, seen, rental, box).missing:
            lost[box.id] = missing
    if lost and not force:
        raise _not_proven(rental, lost)
    if not rental.closed:
        ledger.write("closed", rental.name)
    for box in rental.open_boxes:
        if box.id in lost:
            say(f"box {box.id} goes although {lost[box.id]}")
        give_back(ledger, provider, rental, box.id, "rdtl cloud down")
        say(f"box {box.id} is given back")
    now = ledger.rental(rental.name)
    if not now.over:  # also when another process asked for a box in these moments
        late = [one.label for one in now.unclear] + [f"box {box.id}" for box in now.open_boxes]
        raise RefusedError(
            "RDTL-B065",
            f"a request of {rental.name} got no answer, and a box may still come of it",
            where=", ".join(late),
            fix=f"rdtl cloud down {rental.name} again in two minutes",
        )
    return now


def _not_proven(rental: Rental, lost: dict[int, str]) -> RefusedError:
    return RefusedError(
        "RDTL-B006",
        "what is on the box is not proven to be elsewhere",
        where="; ".join(f"box {number}: {why}" for number, why in lost.items()),
        why="a box that is given back is wiped; nothing brings back what was not uploaded",
        fix=f"rdtl cloud up again finishes the uploads; rdtl cloud down {rental.name} --force "
        "gives it back with all that is on it",
    )


def _other(known: Rental) -> RefusedError:
    words = [str(word) for word in _work(known.recipe) if word]
    what = ", profile ".join(words) or "a machine without a recipe"
    state = "closed, but a box of it is there, or may be" if known.closed else "open"
    return RefusedError(
        "RDTL-B069",
        f"the rental {known.name} is for something else",
        where=f"{what} on {known.wanted['gpus']} × {known.wanted['gpu'] or 'any GPU'}, {state}",
        why="its box would be used for what it was not rented for",
        fix=f"--name for another rental, or rdtl cloud down {known.name}",
    )
