"""A rented box becomes ready: it runs, ssh gets in, and it is what was wanted."""

from __future__ import annotations

import time
from dataclasses import dataclass

from launcher.core.errors import RdtlError, RemoteError
from launcher.providers import access, reconcile
from launcher.providers.caps import too_dear
from launcher.providers.ledger import Ledger
from launcher.providers.provider import Box, GoneError, Provider, Say
from launcher.providers.rental import Rental, Rented
from launcher.providers.wanted import Facts, Wanted

FIRST_POLL_S, SLOWEST_POLL_S = 0.5, 10.0
ASKS = 3
"""Times that a new box is asked what it is before it counts as broken."""


@dataclass(frozen=True)
class Patience:
    """How long the phases of a box may take, in seconds from the request on."""

    loading: float = 900.0
    """Until the provider says that it runs: it pulls the image."""
    ssh: float = 300.0
    """From then on until ssh gets in."""
    directory: str = "/"
    """Where the recipe works: the disk that counts."""
    download_url: str = ""
    """What is downloaded to measure the box's network; empty: the offer is believed."""


@dataclass(frozen=True)
class Ready:
    """A box that is what was wanted."""

    box: int
    address: tuple[str, int]
    price: float
    facts: Facts


class UnfitError(Exception):
    """A box that does not become what was wanted."""


class Phases:
    """What a box of one rental goes through; each phase has its deadline."""

    def __init__(
        self, ledger: Ledger, provider: Provider, name: str, patience: Patience, say: Say
    ) -> None:
        self._ledger, self._provider, self._name = ledger, provider, name
        self._patience, self._say = patience, say

    @property
    def _rental(self) -> Rental:
        return self._ledger.rental(self._name)

    def ready(self, box: Rented) -> Ready:
        """Wait for the machine and hold it to what was wanted; UnfitError when it is not."""
        running = self._running(box)
        if too_dear(self._rental, running.price):
            raise UnfitError(f"it costs {running.price:.3f} $/h, more than the cap")
        address = self._reached(box)
        facts = self._facts(box, address)
        wanted = self._rental.wanted
        # a box that was ready before has the recipe's own files on its disk
        expected = Wanted(**{**wanted, "disk_gb": 0} if box.ready else wanted)
        if problems := facts.problems(expected):
            raise UnfitError(f"[RDTL-B001] {'; '.join(problems)}")
        self._ledger.write("ready", self._name, box=box.id, address=list(address))
        return Ready(box.id, address, running.price or box.price, facts)

    def _facts(self, box: Rented, address: tuple[str, int]) -> Facts:
        """What the machine says of itself; a new one that does not say it is UnfitError."""
        link = access.connection(self._ledger, self._name, box.id, address, alone=True)
        for attempt in range(1, ASKS + 1):
            try:
                facts = access.ask(link, self._patience.directory, self._patience.download_url)
                if attempt == ASKS or not facts.download_failed:
                    return facts
            except RdtlError as error:
                if box.ready:
                    raise
                if attempt == ASKS or error.problem.code == "RDTL-B013":
                    raise UnfitError(f"[{error.problem.code}] {error.problem.where}") from error
            time.sleep(attempt)
        raise AssertionError("the last try returns or raises")

    def _running(self, box: Rented) -> Box:
        """Wait until the provider says that the box runs."""
        deadline, pause = box.running_since + self._patience.loading, FIRST_POLL_S
        while True:
            listed = reconcile.reconcile(self._ledger, self._provider).listed.get(box.id)
            if listed and listed.state == "running" and listed.addresses:
                return listed
            if self._rental.boxes[box.id].ended is not None:
                raise UnfitError("[RDTL-B066] the provider has it no more")
            words = f"{listed.state} {listed.words}".strip() if listed else "not listed yet"
            stays = listed and listed.state == "stopped" and not self._may_start(box)
            if time.time() > deadline or stays:
                raise UnfitError(f"[RDTL-B004] it does not run: {words}")
            self._say(f"box {box.id}: {words}")
            time.sleep(pause)
            pause = min(pause * 1.5, SLOWEST_POLL_S)

    def _may_start(self, box: Rented) -> bool:
        """Whether a box that stands still was told to start: that takes its time, too."""
        return box.at_cap or (box.ready and not self._rental.interruptible)

    def _reached(self, box: Rented) -> tuple[str, int]:
        """Give the box our key and wait until ssh gets in; the address that did."""
        deadline, pause, said = time.time() + self._patience.ssh, FIRST_POLL_S, ""
        key = access.public_key(self._ledger)
        while True:
            self._attach(box, key)
            listed = reconcile.reconcile(self._ledger, self._provider).listed.get(box.id)
            for address in listed.addresses if listed else ():
                link = access.connection(self._ledger, self._name, box.id, address, alone=True)
                if not (said := access.answers(link)):
                    return address
            if time.time() > deadline:
                raise UnfitError(f"[RDTL-B004] ssh does not get in: {said or 'no address'}")
            time.sleep(pause)
            pause = min(pause * 1.5, SLOWEST_POLL_S)

    def _attach(self, box: Rented, key: str) -> None:
        try:
            self._provider.attach_key(box.id, key)
        except GoneError as error:
            raise UnfitError("[RDTL-B066] the provider has it no more") from error
        except RemoteError as error:
            self._say(f"the key is not attached yet: {error.problem.where}")
