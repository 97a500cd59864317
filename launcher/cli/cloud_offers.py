"""What is on offer, and what `rdtl cloud up` would do with it."""

from __future__ import annotations

import json

from launcher.core.errors import UsageError
from launcher.output import Output
from launcher.providers import rent, vast
from launcher.providers.http import Api
from launcher.providers.provider import Order, Provider
from launcher.providers.wanted import Offer, Wanted

ANY_PRICE = 1000.0
"""US dollars an hour: no machine costs as much."""


def show(
    output: Output, provider: Provider, wanted: Wanted, price: float | None, interruptible: bool
) -> list[Offer]:
    """Print and return the offers that fit; say how many do not, and why."""
    cap = ANY_PRICE if price is None else price
    found = provider.search(wanted, cap, interruptible=interruptible)
    fitting = [offer for offer in found if not offer.problems(wanted, cap, 0)]
    rows = [
        [str(o.id), f"{o.gpus} × {o.gpu}", f"{o.vram_gb:.0f}", f"{o.disk_gb:.0f}",
         f"{o.download_mbps:.0f}", f"{o.hours / 24:.0f}", f"{o.price:.3f}",
         f"{o.storage_price * 24:.2f}", f"{o.download_price * 1000:.2f}", o.place]
        for o in fitting[:20]
    ]  # fmt: skip
    output.table(
        f"{len(fitting)} of {len(found)} offers fit",
        ["offer", "GPUs", "GB each", "disk GB", "Mbit/s", "days", "$/h", "disk $/day", "$/TB in",
         "place"],
        rows,
    )  # fmt: skip
    reasons: dict[str, int] = {}
    for offer in found:
        for problem in offer.problems(wanted, cap, 0):
            reasons[problem] = reasons.get(problem, 0) + 1
    for problem in sorted(reasons, key=lambda one: -reasons[one])[:5]:
        output.say(f"  {reasons[problem]} × {problem}")
    return fitting


def dry_run(
    output: Output,
    wanted: Wanted,
    price: float | None,
    hours: float | None,
    total: float | None,
    interruptible: bool,
) -> None:
    """What would be asked for, what there is, what it would cost."""
    fitting: list[Offer] = []
    try:
        fitting = show(output, vast.connect(), wanted, price, interruptible)
    except UsageError as error:  # what would be sent can be shown without an account
        output.say(f"no offers: {error.problem.what} ({error.problem.where})")
    best = fitting[0] if fitting else None
    cap = ANY_PRICE if price is None else price
    bid = rent.bid_for(best, cap) if best and interruptible else None
    order = Order("rdtl-RANDOM", wanted.image, wanted.rented_disk_gb, bid)
    body = vast.Vast(Api(vast.URL, "")).body(order)
    search = vast.search_body(wanted, cap, interruptible=interruptible)
    output.text(f"search  POST /api/v0/bundles/ {json.dumps(search)}")
    output.text(f"create  PUT /api/v0/asks/{best.id if best else 'OFFER'}/ {json.dumps(body)}")
    hourly = None if best is None else best.price if bid is None else bid + best.storage_price
    costs = None if hourly is None else _costs(output, hourly, hours, total)
    output.text("nothing was rented")
    offers = [vars(offer) for offer in fitting]
    output.result({"offers": offers, "search": search, "body": body, "costs": costs})


def _costs(output: Output, hourly: float, hours: float | None, total: float | None) -> float | None:
    """Say and return what the rental costs; None while no hours are given."""
    if hours is None:
        output.text(f"costs   {hourly:.3f} $/h, {hourly * 24:.2f} $ a day")
        return None
    costs = hourly * hours if total is None else min(hourly * hours, total)
    output.text(f"costs   {costs:.2f} $ for {hours:g} h at {hourly:.3f} $/h, traffic not counted")
    return costs
