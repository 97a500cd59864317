"""What every provider of machines can do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from launcher.core.errors import RemoteError
from launcher.providers.wanted import Offer, Wanted

Say = Callable[[str], None]
"""Tells a person what happens."""


@dataclass(frozen=True)
class Order:
    """One box that is to be rented. Nothing in it is secret: a provider keeps it in clear."""

    label: str
    image: str
    disk_gb: float
    bid: float | None = None
    """US dollars an hour for an interruptible machine; None: one that nobody takes away."""


@dataclass(frozen=True)
class Box:
    """A machine that the account has, as the provider describes it."""

    id: int
    label: str
    state: str
    """``loading``, ``running``, or ``stopped``."""
    price: float
    """US dollars an hour."""
    addresses: tuple[tuple[str, int], ...] = ()
    """Hosts and ports of its sshd, the best first."""
    words: str = ""
    """What the provider says about its state."""


class UnclearError(RemoteError):
    """A request got no answer, and it may or may not have been carried out."""


class GoneError(RemoteError):
    """What a request was about does not exist (any more)."""


class Provider(Protocol):
    """A market of machines. Every method raises RemoteError RDTL-B060 to B062 and B068."""

    name: str

    def search(self, wanted: Wanted, price: float, *, interruptible: bool) -> list[Offer]:
        """Offers, cheapest first, as the provider sent them: hold them to ``wanted`` again."""

    def body(self, order: Order) -> dict[str, Any]:
        """What :meth:`create` sends; shown by a dry run."""

    def create(self, offer: int, order: Order) -> int:
        """Rent; the id of the box. UnclearError: look for the label. GoneError: not rented."""

    def boxes(self) -> list[Box]:
        """All machines of the account, whoever rented them."""

    def attach_key(self, box: int, public_key: str) -> None:
        """Let this ssh key in."""

    def start(self, box: int) -> None:
        """Let a stopped machine run again; GoneError: there is no such box."""

    def stop(self, box: int) -> None:
        """End what costs by the hour, keep the disk; GoneError: there is no such box."""

    def destroy(self, box: int) -> None:
        """Give the machine back with all that is on it; GoneError: there is no such box."""
