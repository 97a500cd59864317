"""No rental costs more than its caps: before a box is taken, and while it runs."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

from launcher.core.errors import RefusedError
from launcher.providers.give_back import give_back, stop
from launcher.providers.ledger import Ledger
from launcher.providers.provider import Provider, Say
from launcher.providers.reconcile import Reconciled, reconcile
from launcher.providers.rental import Rental, Rented
from launcher.providers.wanted import Offer, Wanted

SHORTEST_H = 0.1
"""A box for less than this would be booted for nothing."""
LEAD_S = 60.0
"""So long before a cap is reached its box is ended: asking and ending take time, and cost."""


def choose(provider: Provider, rental: Rental, say: Say) -> Iterator[Offer]:
    """Offers that fit and that the caps allow, cheapest first, asked for now.

    RefusedError RDTL-B063 when none fits, B064 when the caps leave no time for it. A machine that
    this rental had before is not taken again.
    """
    wanted, now = Wanted(**rental.wanted), time.time()
    had = {box.machine for box in rental.boxes.values()}
    offers = provider.search(wanted, rental.caps.price, interruptible=rental.interruptible)
    fitting, reasons = [], dict[str, int]()
    for offer in offers:
        problems = offer.problems(wanted, rental.caps.price, 0)
        if not problems and offer.machine not in had:
            fitting.append(offer)
        for problem in problems:
            reasons[problem] = reasons.get(problem, 0) + 1
    if reasons:
        say(f"{len(offers) - len(fitting)} of {len(offers)} offers do not fit")
    if not fitting:
        often = sorted(reasons, key=lambda reason: -reasons[reason])[:3]
        raise no_offer(f"{len(offers)} offers; {'; '.join(often) or 'none left'}")
    possible = [o for o in fitting if rental.hours_left(now, o.price) >= SHORTEST_H]
    if not possible:
        require_time(rental, fitting[0].price)
    # one that may be kept for the whole time is better than a cheaper one that may not
    return iter(sorted(possible, key=lambda o: o.hours < rental.hours_left(now, o.price)))


def enforce(ledger: Ledger, provider: Provider, say: Say) -> Reconciled:
    """End what is over its caps; returns what there is afterwards.

    A box is destroyed when nothing is to lose on it, or when the caps say so; otherwise it is
    stopped: its hours end, its disk stays and costs on. One that cannot be ended is told and
    holds up no other. Raises what :func:`reconcile` does, after what the ledger alone says is done.
    """
    try:
        seen = reconcile(ledger, provider)
    except Exception:  # no list, or no room for the ledger: hours go on all the same
        known = ledger.rentals().values()
        _end_over(ledger, provider, [one for one in known if one.provider == provider.name], say)
        raise
    ended = _end_over(ledger, provider, seen.rentals.values(), say)
    return reconcile(ledger, provider) if ended else seen


def _end_over(ledger: Ledger, provider: Provider, rentals: Iterable[Rental], say: Say) -> bool:
    """End every box that is over a cap, each for itself; whether there was one."""
    over = [
        (rental, box) for rental in rentals for box in rental.open_boxes if is_over(rental, box)
    ]
    for rental, box in over:
        try:
            end(ledger, provider, rental, box, say)
        except Exception as error:  # whatever is wrong with this box, the next one costs as well
            say(f"box {box.id} of {rental.name} could not be ended: {error}")
    return bool(over)


def is_over(rental: Rental, box: Rented) -> bool:
    """Whether a box runs that the caps do not allow (any more)."""
    if box.stopped is not None:
        return False
    left_s = rental.hours_left(time.time(), box.price) * 3600
    return left_s <= LEAD_S or too_dear(rental, box.price)


def too_dear(rental: Rental, price: float) -> bool:
    """Whether an hour costs more than the cap."""
    return price > rental.caps.price + 1e-9


def end(ledger: Ledger, provider: Provider, rental: Rental, box: Rented, say: Say) -> None:
    """End the hours of one box that is over a cap."""
    why = f"a cap of {rental.name} is reached: {words(rental)}"
    if box.proven or not box.ready or rental.caps.destroy:
        say(f"[RDTL-B064] {why}; box {box.id} is given back")
        give_back(ledger, provider, rental, box.id, why)
        return
    say(
        f"[RDTL-B064] {why}; box {box.id} is stopped. Its disk stays, with what is not uploaded, "
        f"and costs {box.storage_price * 24:.2f} $ a day until `rdtl cloud down {rental.name}`"
    )
    stop(ledger, provider, rental, box.id, why)


def words(rental: Rental) -> str:
    """The caps, for a person."""
    caps = rental.caps
    return f"{caps.price:.2f} $/h, {caps.hours:g} h, {caps.total:.2f} $ together"


def no_offer(why: str) -> RefusedError:
    """RDTL-B063."""
    return RefusedError(
        "RDTL-B063",
        "there is no offer to take",
        where=why,
        fix="rdtl cloud offers RECIPE shows what there is and why it does not fit",
    )


def require_time(rental: Rental, price: float) -> None:
    """RefusedError RDTL-B064 when the caps leave no time for a box of this price."""
    now = time.time()
    if (left := rental.hours_left(now, price)) >= SHORTEST_H and not too_dear(rental, price):
        return
    raise RefusedError(
        "RDTL-B064",
        "the caps do not allow this box",
        where=f"{words(rental)}; spent {rental.spent(now):.2f} $; at {price:.3f} $/h that is "
        f"{max(0.0, left) * 60:.0f} minutes more",
        why="a box that is ended before its work begins is paid for nothing",
        fix="raise --max-total, --max-hours or --max-price",
    )
