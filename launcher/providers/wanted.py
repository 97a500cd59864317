"""What a rented machine must be, and whether an offer or the booted machine is that.

An offer is what a provider claims, facts are what the machine itself says
(:mod:`launcher.core.box_facts`). Both are held to the same :class:`Wanted`, so no filter exists
only on the provider's side.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from launcher.core.box_facts import least_mebibytes

MEMORY_SHARE = 0.97
"""A machine shows a little less memory than the number that it is let with."""


@dataclass(frozen=True)
class Wanted:
    """The least that a machine must offer; 0 and None mean any."""

    gpus: int = 0
    """GPUs, exactly: what a recipe divides its batch by."""
    gpu: str | None = None
    """Regular expression that each GPU's name matches, as offered and as nvidia-smi says it."""
    vram_gb: float = 0
    disk_gb: float = 0
    memory_gb: float = 0
    cpus: int = 0
    min_driver: str | None = None
    cuda: str | None = None
    download_mbps: float = 0
    reliability: float = 0.95
    image: str = "nvidia/cuda:12.8.1-cudnn-devel-ubuntu24.04"

    def to_dict(self) -> dict[str, Any]:
        """JSON form; ``Wanted(**data)`` is its inverse."""
        return asdict(self)

    @property
    def rented_disk_gb(self) -> float:
        """Disk to rent, so that ``disk_gb`` are free beside the image."""
        return float(math.ceil(self.disk_gb * 1.1 + 5))

    def names(self, name: str) -> bool:
        """Whether a GPU of this name will do."""
        return self.gpu is None or bool(re.search(self.gpu, name))


@dataclass(frozen=True)
class Offer:
    """What a provider offers, in our units."""

    id: int
    machine: int
    gpu: str
    gpus: int
    vram_gb: float
    disk_gb: float
    memory_gb: float
    cpus: float
    price: float
    """US dollars an hour, with the disk that was asked for; the lowest bid if interruptible."""
    storage_price: float
    """US dollars an hour for the disk alone: what a stopped machine goes on to cost."""
    download_price: float
    """US dollars for a gigabyte."""
    download_mbps: float
    driver: str
    cuda: str
    reliability: float
    place: str
    hours: float
    """How long the machine may be kept at most."""

    def problems(self, wanted: Wanted, price: float, hours: float) -> list[str]:
        """Why this offer is not what is wanted for ``hours`` at ``price`` an hour; empty: it is."""
        least = [
            ("disk", self.disk_gb, wanted.rented_disk_gb, "GB"),
            ("memory", self.memory_gb, wanted.memory_gb * MEMORY_SHARE, "GB"),
            ("CPU cores", self.cpus, wanted.cpus, ""),
            ("download", self.download_mbps, wanted.download_mbps, "Mbit/s"),
            ("reliability", self.reliability, wanted.reliability, ""),
            ("time to rent", self.hours, hours, "h"),
        ]
        found = _gpu_problems(wanted, [(self.gpu, self.vram_gb)] * self.gpus)
        found += [_below(*entry) for entry in least if entry[1] < entry[2]]
        found += _version_problems(wanted, self.driver, self.cuda)
        if self.price > price:
            found.append(f"price {self.price:.3f} $/h, cap {price:.3f}")
        return found


@dataclass(frozen=True)
class Facts:
    """What a booted machine says of itself."""

    gpus: tuple[tuple[str, float], ...]
    """Name and memory of each GPU, in thousands of MiB as providers count."""
    disk_gb: float
    memory_gb: float
    cpus: int
    driver: str
    cuda: str
    download_mbps: float | None
    """Unset: not measured."""
    download_failed: str = ""
    """Why it could not be measured, though that was asked for."""

    def problems(self, wanted: Wanted) -> list[str]:
        """Why this machine is not what was wanted; empty: it is."""
        least = [
            ("free disk", self.disk_gb, wanted.disk_gb, "GB"),
            ("memory", self.memory_gb, wanted.memory_gb * MEMORY_SHARE, "GB"),
            ("CPU cores", self.cpus, wanted.cpus, ""),
        ]
        if self.download_mbps is not None:
            least.append(("download", self.download_mbps, wanted.download_mbps, "Mbit/s"))
        found = _gpu_problems(wanted, self.gpus)
        found += [_below(*entry) for entry in least if entry[1] < entry[2]]
        if self.download_failed:
            found.append(f"the timed download failed: {self.download_failed}")
        return found + _version_problems(wanted, self.driver, self.cuda)


def _gpu_problems(wanted: Wanted, gpus: Sequence[tuple[str, float]]) -> list[str]:
    found = []
    if wanted.gpus and len(gpus) != wanted.gpus:
        found.append(f"{len(gpus)} GPU(s), wanted {wanted.gpus}")
    if wrong := sorted({name for name, _ in gpus if not wanted.names(name)}):
        found.append(f"GPU {', '.join(wrong)}, wanted {wanted.gpu}")
    smallest = min((memory for _, memory in gpus), default=0.0)
    if smallest * 1000 < least_mebibytes(wanted.vram_gb):
        found.append(_below("memory of a GPU", smallest, wanted.vram_gb, "GB"))
    return found


def _below(name: str, has: float, least: float, unit: str) -> str:
    return f"{name} {has:g}, wanted {least:g} {unit}".rstrip()


def _version_problems(wanted: Wanted, driver: str, cuda: str) -> list[str]:
    pairs = [("driver", driver, wanted.min_driver), ("CUDA", cuda, wanted.cuda)]
    return [
        f"{name} {has or 'unknown'}, wanted {least}"
        for name, has, least in pairs
        if least and version(has) < version(least)
    ]


def version(text: str) -> tuple[int, ...]:
    """``570.86.15`` as numbers that compare."""
    return tuple(int(number) for number in re.findall(r"\d+", text))
