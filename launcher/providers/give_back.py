"""A box stops or goes back, and that is known and not assumed."""

from __future__ import annotations

import contextlib
import time

from launcher.core.errors import RefusedError, RemoteError
from launcher.providers.ledger import Ledger
from launcher.providers.provider import GoneError, Provider
from launcher.providers.rental import Rental

STOP_LOOKS = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds before each look whether it has stopped."""
LOOKS = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0)
"""Seconds before each look whether it is gone."""


def give_back(ledger: Ledger, provider: Provider, rental: Rental, box: int, why: str) -> None:
    """Destroy a box of this rental, and look until the provider has it no more.

    Raises RefusedError RDTL-B006 for a box that is not of this rental, RemoteError RDTL-B004 when
    it stays.
    """
    if box not in rental.boxes:
        raise RefusedError(
            "RDTL-B006",
            f"box {box} is not one of the rental {rental.name}",
            why="only what this ledger rented is ever destroyed",
            fix="rdtl cloud status",
        )
    try:
        provider.destroy(box)
    except GoneError:
        ledger.write("ended", rental.name, box=box, why=f"{why} (it was gone)")
        return
    for wait in LOOKS:
        time.sleep(wait)
        if all(one.id != box for one in provider.boxes()):
            ledger.write("ended", rental.name, box=box, why=why)
            return
    raise RemoteError(
        "RDTL-B004",
        f"box {box} was told to go and is still there",
        where=f"rental {rental.name}",
        why="it may cost money until it is gone",
        fix=f"rdtl cloud down {rental.name} tries again; then the provider's own page",
    )


def stop(ledger: Ledger, provider: Provider, rental: Rental, box: int, why: str) -> None:
    """Stop a box at a cap, and look until it has stopped.

    That we stop it is written before: whoever sees the stop first must not take it for a box that
    was taken away. Raises RemoteError RDTL-B004 when it goes on.
    """
    with contextlib.suppress(OSError):  # a full disk must not keep its hours going
        ledger.write("stopping", rental.name, box=box, why=why)
    try:
        provider.stop(box)
    except GoneError:
        ledger.write("ended", rental.name, box=box, why="the provider has it no more")
        return
    for wait in STOP_LOOKS:
        time.sleep(wait)
        if any(one.id == box and one.state == "stopped" for one in provider.boxes()):
            ledger.write("stopped", rental.name, box=box, why=why)
            return
    raise RemoteError(
        "RDTL-B004",
        f"box {box} was told to stop and goes on",
        where=f"rental {rental.name}",
        why="it costs money by the hour until it has stopped",
        fix=f"rdtl cloud status tries again; rdtl cloud down {rental.name} --force ends it",
    )
