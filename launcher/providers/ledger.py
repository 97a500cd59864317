"""The ledger: every rental of this user, written before anything is rented.

One append-only file of JSON lines in the user's state directory, readable by its owner alone.
Each try to rent has a label of its own that nobody else has and that is in the ledger before the
request goes out, so a box is found again whoever was killed and whenever. What a rental is now is
always derived from its lines.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from launcher import owner
from launcher.core import files
from launcher.core.errors import RemoteError
from launcher.providers import rental
from launcher.providers.rental import Rental

LABEL = "rdtl-"
ENDING = "ending"
"""The lock of whoever may give boxes back: an `up` that begins or ends, or the guard."""


class Ledger:
    """The file, and what lies beside it for each rental."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path = root / "ledger.jsonl"

    def write(self, event: str, name: str, **facts: Any) -> None:
        """Add a line, on disk when this returns."""
        line = json.dumps({"time": time.time(), "event": event, "rental": name, **facts})
        descriptor = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            size = os.fstat(descriptor).st_size
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                os.write(descriptor, b"\n")  # somebody was killed within a line: it ends here
            files.append_line(descriptor, line)
        finally:
            os.close(descriptor)
        files.sync_directory(self.root)

    def begin(self, new: Rental) -> Rental:
        """Write a new rental down."""
        self.write(
            "begin",
            new.name,
            provider=new.provider,
            wanted=new.wanted,
            caps=vars(new.caps),
            interruptible=new.interruptible,
            recipe=new.recipe,
        )
        return self.rental(new.name)

    def attempt(self, name: str, offer: int, machine: int, price: float, storage: float) -> str:
        """Announce a request to rent; returns the label that the box will have."""
        label = f"{LABEL}{uuid.uuid4().hex}"
        self.write("try", name, label=label, offer=offer, machine=machine, price=price,
                   storage=storage, owner=owner.me())  # fmt: skip
        return label

    def rental(self, name: str) -> Rental:
        """One rental as it is now."""
        return self.rentals()[name]

    def rentals(self) -> dict[str, Rental]:
        """All rentals by name as they are now, the oldest first; of one name the newest."""
        return rental.all_of(self._lines())

    def folder(self, name: str) -> Path:
        """Where known_hosts and evidence of a rental lie."""
        path = self.root / "rentals" / name.replace("/", "_")
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        return path

    def known_hosts(self, name: str, box: int) -> Path:
        """The host keys of one box."""
        return self.folder(name) / f"known_hosts.{box}"

    @contextmanager
    def held(self, name: str, lock: str = "lock", wait_s: float = 0.0) -> Iterator[None]:
        """Only one process works on a rental; RemoteError RDTL-B067 while another one does.

        ``lock``: :data:`ENDING` to give its boxes back, or so that nobody else does meanwhile.
        """
        until = time.monotonic() + wait_s
        with (self.folder(name) / lock).open("a+", encoding="utf-8") as handle:
            while not _locked(handle):
                if time.monotonic() >= until:
                    handle.seek(0)
                    raise busy(name, handle.read().strip())
                time.sleep(0.2)
            handle.truncate(0)
            handle.write(f"process {os.getpid()}")
            handle.flush()
            yield

    def _lines(self) -> Iterator[dict[str, Any]]:
        if not self._path.exists():
            return
        for line in files.read_whole_lines(self._path)[0]:
            try:
                yield json.loads(line)
            except ValueError:  # its writer was killed before the end of the line
                continue


def _locked(handle: IO[str]) -> bool:
    with suppress(BlockingIOError):
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def default_root() -> Path:
    """The user's ledger: $XDG_STATE_HOME/rdtl/cloud or ~/.local/state/rdtl/cloud."""
    state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(state).expanduser() / "rdtl" / "cloud"


def busy(name: str, who: str) -> RemoteError:
    """RDTL-B067."""
    return RemoteError(
        "RDTL-B067",
        f"another program works on the rental {name}",
        where=who,
        why="two that rent for one name would pay for two boxes",
        fix=f"rdtl cloud attach {name}, or --name for a rental of its own",
    )
