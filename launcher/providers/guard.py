"""A process that watches the caps while no command runs, and ends with the last box.

It starts with each request to rent, which is in the ledger by then, and lives on this machine,
because the key of the account must not be on a box. While this machine is off nobody watches:
`rdtl cloud status` does it once.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from launcher.core.errors import RdtlError
from launcher.providers import caps, rentals
from launcher.providers.ledger import ENDING, Ledger
from launcher.providers.provider import Provider, Say
from launcher.providers.rental import Rental

EVERY_S = 30.0
LATE_S = 900.0
"""So long after its newest line a rental without boxes is watched, until it is closed."""


def start(ledger: Ledger) -> None:
    """Start the guard of this ledger, unless it is there."""
    with _lock(ledger) as free:
        if not free:
            return
    with (ledger.root / "guard.log").open("ab") as log:
        subprocess.Popen(
            [sys.executable, "-P", "-m", "launcher", "cloud", "guard"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env={**os.environ, "XDG_STATE_HOME": str(ledger.root.parent.parent)},
        )


def watch(ledger: Ledger, provider: Provider, say: Say) -> None:
    """Enforce the caps until nothing is rented any more; returns at once if another one does."""
    while _there(ledger):  # again: a request that came at the end found the lock still taken
        with _lock(ledger) as free:
            if not free:
                return
            while there := _there(ledger):
                _round(ledger, provider, there, say)
                left = [max(1.0, _left_s(one)) for one in _there(ledger)]
                time.sleep(min([EVERY_S, *left]))


def _there(ledger: Ledger) -> list[Rental]:
    """Rentals that cost something, or may: also one whose last box may turn out to be there."""
    late = time.time() - LATE_S
    known = ledger.rentals().values()
    return [r for r in known if r.open_boxes or r.unclear or (not r.closed and r.newest > late)]


def _round(ledger: Ledger, provider: Provider, there: list[Rental], say: Say) -> None:
    """Enforce the caps, and again after each question to a box, which may take its time."""
    enforce = functools.partial(caps.enforce, ledger, provider, say)
    _told(enforce, say)
    for rental in [one for one in there if one.recipe.get("down_after")]:
        _told(functools.partial(_if_proven, ledger, provider, rental, say), say)
        _told(enforce, say)


def _if_proven(ledger: Ledger, provider: Provider, rental: Rental, say: Say) -> None:
    """Not while an `rdtl cloud up` begins new work on the box, or looks at the end of the old."""
    try:
        with ledger.held(rental.name, ENDING):
            rentals.if_proven(ledger, provider, rental, say)
    except RdtlError as error:
        if error.problem.code != "RDTL-B067":
            raise


def _told(act: Callable[[], object], say: Say) -> None:
    """Do it; whatever goes wrong is told and ends nothing: nobody else watches."""
    try:
        act()
    except Exception as error:
        with contextlib.suppress(OSError):  # the log may lie on a disk that is full
            say(str(error) if isinstance(error, RdtlError) else repr(error))


def _left_s(rental: Rental) -> float:
    """Seconds until a box of this rental is to be ended."""
    prices = [box.price for box in rental.open_boxes if box.stopped is None]
    left = min((rental.hours_left(time.time(), p) * 3600 for p in prices), default=EVERY_S)
    return left - caps.LEAD_S


@contextmanager
def _lock(ledger: Ledger) -> Iterator[bool]:
    with (ledger.root / "guard.lock").open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
