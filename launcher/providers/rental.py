"""What a rental is, made of the lines of the ledger: caps, requests, boxes and their cost."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Caps:
    """What a rental may cost at most."""

    price: float
    """US dollars an hour."""
    hours: float
    total: float
    """US dollars for all boxes of the rental together."""
    destroy: bool = False
    """At a cap, destroy a box whose uploads are not proven, instead of stopping it."""


@dataclass
class Rented:
    """One box of a rental."""

    id: int
    label: str
    price: float
    since: float
    machine: int
    ended: float | None = None
    """When it was given back or found gone; None: it is there."""
    running_since: float = 0.0
    """When its hours began to count, or began again."""
    stopped: float | None = None
    """When its hours ended; only the disk costs since then."""
    at_cap: bool = False
    """We told it to stop at a cap, and it was not ready again since: nobody took it away."""
    missing: float | None = None
    """Since when the provider's list is without it; one list may be wrong."""
    hours: float = 0.0
    """Hours that ended with a stop or with another price."""
    paid: float = 0.0
    """US dollars for these, at the price of then."""
    priced: bool = False
    """The provider has said what it costs; until then it is what was agreed."""
    kept_hours: float = 0.0
    """Hours that it was stopped, until it was started again."""
    storage_price: float = 0.0
    address: tuple[str, int] | None = None
    """Where ssh got in when it became ready."""
    ready: bool = False
    """Booted, reached, and what was wanted: from now on there may be something to lose on it."""
    proven: bool = False
    """Its recipe has ended and everything it makes is proven to be elsewhere."""


@dataclass
class Try:
    """One request to rent; ``box`` is unset as long as nobody knows whether it did."""

    label: str
    offer: int
    machine: int
    price: float
    storage_price: float
    since: float
    owner: dict[str, Any]
    box: int | None = None
    nothing: bool = False


@dataclass
class Rental:
    """What one ``rdtl cloud up`` rents, with all of its boxes."""

    name: str
    provider: str
    begun: float
    wanted: dict[str, Any]
    caps: Caps
    interruptible: bool
    recipe: dict[str, Any]
    """Name and settings of the recipe that the box is for."""
    tries: dict[str, Try] = field(default_factory=dict)
    boxes: dict[int, Rented] = field(default_factory=dict)
    closed: bool = False
    newest: float = 0.0
    """Time of its newest line."""

    @property
    def over(self) -> bool:
        """Closed, and nothing of it costs or may turn out to."""
        return self.closed and not self.open_boxes and not self.unclear

    @property
    def open_boxes(self) -> list[Rented]:
        """Boxes that cost something."""
        return [box for box in self.boxes.values() if box.ended is None]

    @property
    def at_stake(self) -> list[Rented]:
        """Open boxes with something on them that may be nowhere else."""
        return [box for box in self.open_boxes if box.ready and not box.proven]

    @property
    def unclear(self) -> list[Try]:
        """Requests of which nobody knows what became of them."""
        return [one for one in self.tries.values() if one.box is None and not one.nothing]

    def spent(self, now: float) -> float:
        """US dollars that all boxes have cost until ``now``, from the time of the request on."""
        return sum(_cost(box, now) for box in self.boxes.values())

    def hours_left(self, now: float, price: float) -> float:
        """Hours that a box of ``price`` may go on under the caps."""
        used = sum(_hours(box, now) for box in self.boxes.values())
        return min(self.caps.hours - used, (self.caps.total - self.spent(now)) / max(price, 1e-9))


def _hours(box: Rented, now: float) -> float:
    """Hours that the box ran, or may have run."""
    return box.hours + _running(box, now)


def _running(box: Rented, now: float) -> float:
    """Hours since they began to count at the price of now."""
    return 0.0 if box.stopped is not None else ((box.ended or now) - box.running_since) / 3600


def _cost(box: Rented, now: float) -> float:
    kept = box.kept_hours
    if box.stopped is not None:
        kept += ((box.ended or now) - box.stopped) / 3600
    return box.paid + _running(box, now) * box.price + kept * box.storage_price


def all_of(lines: Iterable[dict[str, Any]]) -> dict[str, Rental]:
    """All rentals by name, the oldest first; of one name the newest."""
    found: dict[str, Rental] = {}
    for line in lines:
        if line["event"] == "begin":
            found.pop(line["rental"], None)
            found[line["rental"]] = _begun(line)
        if line["rental"] in found:
            found[line["rental"]].newest = line["time"]
            _apply(found[line["rental"]], line)
    return found


def _begun(line: dict[str, Any]) -> Rental:
    return Rental(
        name=line["rental"],
        provider=line["provider"],
        begun=line["time"],
        wanted=line["wanted"],
        caps=Caps(**line["caps"]),
        interruptible=line["interruptible"],
        recipe=line["recipe"],
    )


def _apply(rental: Rental, line: dict[str, Any]) -> None:
    """Take one line into account; lines of later versions that are not known change nothing."""
    event, now = line["event"], line["time"]
    if event == "try":
        rental.tries[line["label"]] = Try(
            line["label"], line["offer"], line["machine"], line["price"], line["storage"], now,
            line["owner"],
        )  # fmt: skip
    elif event == "nothing":
        rental.tries[line["label"]].nothing = True
    elif event == "created":
        _created(rental, rental.tries[line["label"]], line["box"])
    elif event == "changed":
        rental.caps, rental.recipe = Caps(**line["caps"]), line["recipe"]
    elif event == "closed":
        rental.closed = True
    elif box := rental.boxes.get(line.get("box", -1)):
        _change(box, event, now, line)


def _created(rental: Rental, one: Try, box: int) -> None:
    one.box, one.nothing = box, False
    made = Rented(box, one.label, one.price, one.since, one.machine)
    made.running_since, made.storage_price = one.since, one.storage_price
    rental.boxes.setdefault(box, made)


def _change(box: Rented, event: str, now: float, line: dict[str, Any]) -> None:
    if event == "price":
        if box.priced:  # the first one counts from the request on
            _close_hours(box, now)
        box.price, box.priced = line["price"], True
    elif event == "ready":
        box.ready, box.at_cap, box.address = True, False, _address(line.get("address"))
    elif event in ("begun", "proven"):
        box.proven = event == "proven"
    elif event == "stopping":
        box.at_cap = True
    elif event == "stopped" and box.stopped is None:
        _close_hours(box, now)
        # earlier versions say it with the stop itself
        box.stopped, box.at_cap = now, box.at_cap or bool(line.get("at_cap"))
    elif event == "started" and box.stopped is not None:
        box.kept_hours += (now - box.stopped) / 3600
        box.running_since, box.stopped = now, None
    elif event == "missing":
        box.missing = now
    elif event == "ended":
        box.ended = now
    elif event == "seen":  # again, or still: its hours went on
        box.missing = box.ended = None


def _address(pair: Any) -> tuple[str, int] | None:
    return (str(pair[0]), int(pair[1])) if pair else None


def _close_hours(box: Rented, now: float) -> None:
    """What ran until now is paid at the price until now."""
    hours = _running(box, now)
    box.hours, box.paid = box.hours + hours, box.paid + hours * box.price
    if box.stopped is None:
        box.running_since = now
