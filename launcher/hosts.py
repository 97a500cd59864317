"""A list of hosts without a scheduler, and the same list in DeepSpeed's words.

A *slot* is one process, or one GPU where there are GPUs; slots are numbered from 0.
``include`` and ``exclude`` mean what they mean to DeepSpeed's launcher, so a site of
ours and a hostfile of theirs can say the same.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from launcher.core import files
from launcher.core.errors import UsageError
from launcher.schema_base import Section

LINE = re.compile(r"(?P<host>[A-Za-z0-9_][A-Za-z0-9_.-]*)(?:\s+slots=(?P<slots>[1-9]\d*))?")
CHOICE = re.compile(r"(?P<host>[^:@\s]+)(?::(?P<slots>\d+(?:,\d+)*))?")


class Host(Section):
    """One machine that ssh reaches without asking."""

    host: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")]
    """Name as ssh knows it (an alias of ~/.ssh/config is best)."""
    slots: Annotated[int, Field(gt=0)] = 1
    """Processes that run there at once; where there are GPUs, their number."""
    include: list[int] | None = None
    """Only these slots (numbers of GPUs); unset: all."""
    exclude: list[int] = Field(default=[])
    """Not these slots."""

    def devices(self) -> tuple[int, ...]:
        """Numbers of the slots that may be used, ascending."""
        wanted = range(self.slots) if self.include is None else self.include
        return tuple(sorted(set(wanted) - set(self.exclude)))

    @model_validator(mode="after")
    def _has_slots(self) -> Host:
        named = [*(self.include or []), *self.exclude]
        unknown = sorted({slot for slot in named if not 0 <= slot < self.slots})
        if unknown:
            raise ValueError(
                f"{self.host} has the slots 0 to {self.slots - 1}, include or exclude names "
                f"{', '.join(map(str, unknown))}"
            )
        if not self.devices():
            raise ValueError(f"no slot of {self.host} is left")
        return self


class Network(Section):
    """What the hosts of a site talk over; unset: found out before anything starts."""

    interface: str | None = None
    """Network interface of the same name on every host, e.g. eth0 or ib0."""
    ib: bool | None = None
    """InfiniBand or RoCE for NCCL; unset: used where every host has an active port."""


def read_list(path: Path) -> list[Host]:
    """Hosts of a list, ``NAME`` or ``NAME slots=N`` a line; UsageError RDTL-S057."""
    where = str(path)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise _bad(f"the list is not readable: {error}", where) from error
    found: dict[str, Host] = {}
    for number, line in enumerate(lines, 1):
        words = line.partition("#")[0].strip()
        if not words:
            continue
        match = LINE.fullmatch(words)
        if match is None or match["host"] in found:
            problem = "is no host" if match is None else "names a host for the second time"
            raise _bad(f"line {number} {problem}: {words!r}", where)
        found[match["host"]] = Host(host=match["host"], slots=int(match["slots"] or 1))
    if not found:
        raise _bad("the list names no host", where)
    return list(found.values())


def of_nodelist(words: str, slots: int) -> list[Host]:
    """Nodes that Slurm writes as ``n[1-4]``; UsageError RDTL-S057 where nobody can read that."""
    try:
        done = subprocess.run(
            ["scontrol", "show", "hostnames", words], capture_output=True, text=True, check=False
        )
    except FileNotFoundError as error:
        raise _bad("there is no scontrol here to read a list of nodes", words) from error
    names = done.stdout.split()
    if done.returncode or not names:
        raise _bad(
            "scontrol does not understand it", f"{words}: {' '.join(done.stderr.split())[:200]}"
        )
    return [Host(host=name, slots=slots) for name in names]


def choose(hosts: Sequence[Host], include: str | None, exclude: str | None) -> list[Host]:
    """``hosts`` narrowed by DeepSpeed's words, ``n1:0,2@n2``; UsageError RDTL-S057."""
    if include and exclude:
        raise _bad("--include and --exclude together", "DeepSpeed takes one of them")
    if include:
        kept = _slots_by_host(hosts, include, "--include")
        return [
            Host(host=h.host, slots=h.slots, include=kept[h.host]) for h in hosts if h.host in kept
        ]
    gone = _slots_by_host(hosts, exclude, "--exclude") if exclude else {}
    left = [h for h in hosts if set(h.devices()) - set(gone.get(h.host, []))]
    if not left:
        raise _bad("no host is left", f"--exclude {exclude}")
    return [h.model_copy(update={"exclude": [*h.exclude, *gone.get(h.host, [])]}) for h in left]


def _slots_by_host(hosts: Sequence[Host], words: str, option: str) -> dict[str, list[int]]:
    known = {host.host: host for host in hosts}
    found: dict[str, list[int]] = {}
    for word in words.split("@"):
        match = CHOICE.fullmatch(word)
        if match is None or match["host"] not in known or match["host"] in found:
            raise _bad(f"{word!r} names no host of the list, or one twice", f"{option} {words}")
        host = known[match["host"]]
        named = [int(slot) for slot in match["slots"].split(",")] if match["slots"] else None
        found[host.host] = list(host.devices()) if named is None else named
        missing = sorted(set(found[host.host]) - set(host.devices()))
        if missing:
            raise _bad(f"{host.host} has no slot {missing[0]}", f"{option} {words}")
    return found


def _bad(what: str, where: str) -> UsageError:
    return UsageError(
        "RDTL-S057",
        f"the hosts cannot be read: {what}",
        where=where,
        fix="a list has `NAME` or `NAME slots=N` a line; --include and --exclude are "
        "NAME[:SLOT,SLOT…][@NAME…]",
    )


def write_hostfile(path: Path, hosts: Sequence[Host]) -> None:
    """Write DeepSpeed's hostfile: every host with all of its slots.

    A file that says something else is kept: UsageError RDTL-S058.
    """
    text = "".join(f"{host.host} slots={host.slots}\n" for host in hosts)
    if path.exists() and path.read_text(encoding="utf-8", errors="replace") != text:
        raise UsageError(
            "RDTL-S058",
            "there is another file already",
            where=str(path),
            why="it may be a list that somebody wrote by hand",
            fix="--out another file, or remove this one",
        )
    files.write_text(path, text)


def filter_words(hosts: Sequence[Host]) -> list[str]:
    """DeepSpeed's ``--include`` that leaves the usable slots; nothing when all are used."""
    if all(len(host.devices()) == host.slots for host in hosts):
        return []
    chosen = [f"{h.host}:{','.join(map(str, h.devices()))}" for h in hosts]
    return ["--include", "@".join(chosen)]
