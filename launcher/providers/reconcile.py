"""What the ledger says and what the provider says, made one.

Only boxes whose id or label is in the ledger are ever ours. Everything else that the account has
is told and never touched.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from launcher import owner
from launcher.core.checks import Finding
from launcher.providers.ledger import LABEL, Ledger
from launcher.providers.provider import Box, Provider
from launcher.providers.rental import Rental, Rented, Try

SETTLE_S = 120.0
"""A request that was sent may still be carried out this long after its sender ended."""
LISTED_S = 30.0
"""A box is gone when lists are without it for so long; a new one need not be in them yet."""


@dataclass
class Reconciled:
    """The rentals as they are now, and what the provider says of their boxes."""

    rentals: dict[str, Rental]
    listed: dict[int, Box]
    unknown: list[Box] = field(default_factory=list)
    """Boxes of the account that are not in the ledger."""
    findings: list[Finding] = field(default_factory=list)


def reconcile(ledger: Ledger, provider: Provider) -> Reconciled:
    """Ask the provider once, bring the ledger up to date, and say what is unusual."""
    listed = {box.id: box for box in provider.boxes()}
    now = time.time()
    rentals = {n: r for n, r in ledger.rentals().items() if r.provider == provider.name}
    labels = {one.label: rental for rental in rentals.values() for one in rental.tries.values()}
    known = {number for rental in rentals.values() for number in rental.boxes}
    result = Reconciled(rentals, listed)
    for box in listed.values():
        if box.id not in known and box.label in labels:
            rental = labels[box.label]
            ledger.write("created", rental.name, label=box.label, box=box.id)
            result.findings.append(_found(rental, box))
        elif box.id not in known:
            result.unknown.append(box)
    for rental in rentals.values():
        _settle(ledger, rental, set(labels) & {box.label for box in listed.values()}, now)
        _compare(ledger, rental, listed, now)
    result.rentals = {n: r for n, r in ledger.rentals().items() if n in rentals}
    result.findings += [_forgotten(r) for r in result.rentals.values() if r.closed and r.open_boxes]
    result.findings += [_unknown(box) for box in result.unknown if box.label.startswith(LABEL)]
    return result


def _settle(ledger: Ledger, rental: Rental, seen: set[str], now: float) -> None:
    """Note of which requests nothing came."""
    for one in rental.unclear:
        if one.label not in seen and now - one.since > SETTLE_S and certainly_over(one):
            ledger.write("nothing", rental.name, label=one.label)


def certainly_over(one: Try) -> bool:
    """Whether whoever sent a request has ended (or sits on another machine, long ago)."""
    return owner.is_gone(one.owner) or time.time() - one.since > 3600


def _compare(ledger: Ledger, rental: Rental, listed: dict[int, Box], now: float) -> None:
    """Note which boxes are gone or there again, stopped or running again, and at what price."""
    for box in rental.boxes.values():
        if there := listed.get(box.id):
            _note(ledger, rental.name, box, there)
        elif box.ended is None and box.missing is None:
            ledger.write("missing", rental.name, box=box.id)
        elif box.ended is None and now - (box.missing or now) > LISTED_S:
            ledger.write("ended", rental.name, box=box.id, why="the provider has it no more")


def _note(ledger: Ledger, name: str, box: Rented, there: Box) -> None:
    """What a box is that the provider lists, whatever was thought of it before."""
    if box.ended is not None or box.missing is not None:
        ledger.write("seen", name, box=box.id)
    if there.state == "stopped":
        if box.stopped is None:
            ledger.write("stopped", name, box=box.id, why=there.words)
        return
    if box.stopped is not None:
        ledger.write("started", name, box=box.id)
    if there.price and (not box.priced or abs(there.price - box.price) > 1e-6):
        ledger.write("price", name, box=box.id, price=there.price)


def _found(rental: Rental, box: Box) -> Finding:
    return Finding(
        "RDTL-B003",
        "warning",
        f"box {box.id} of the rental {rental.name} was rented, and its answer was lost",
        where=f"label {box.label}",
        why="the program that rented it ended before it could write the id down",
        fix=f"rdtl cloud up goes on with it; rdtl cloud down {rental.name} gives it back",
    )


def _forgotten(rental: Rental) -> Finding:
    numbers = ", ".join(str(box.id) for box in rental.open_boxes)
    return Finding(
        "RDTL-B003",
        "error",
        f"the rental {rental.name} is closed, but a box of it is there and costs money",
        where=f"box {numbers}",
        fix=f"rdtl cloud down {rental.name}",
    )


def _unknown(box: Box) -> Finding:
    return Finding(
        "RDTL-B003",
        "warning",
        f"box {box.id} has a label of ours, but is not in this ledger",
        where=box.label,
        why="another machine or another user of the account rented it; it is not touched here",
        fix="rdtl cloud down where it was rented, or the provider's own page",
    )
