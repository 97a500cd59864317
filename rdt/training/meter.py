"""Speed, waiting and use of the machine between two lines of the record."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from typing import TypeVar

import torch

Item = TypeVar("Item")


class Meter:
    """Measures on one rank; ``samples`` of all ranks in a step."""

    def __init__(self, device: torch.device, samples: int) -> None:
        self._device, self._samples = device, samples
        self._counted = find_spec("pynvml") is not None  # what torch asks NVML with
        self._waited, self._steps = 0.0, 0
        self._wall, self._cpu = time.monotonic(), time.process_time()

    def batches(self, found: Iterable[Item]) -> Iterator[Item]:
        """``found``, with the time that it takes to get each noted as waiting for data."""
        iterator = iter(found)
        while True:
            began = time.monotonic()
            try:
                item = next(iterator)
            except StopIteration:
                return
            self._waited += time.monotonic() - began
            yield item

    def step(self) -> None:
        """A step is done."""
        self._steps += 1

    def read(self) -> dict[str, float]:
        """Numbers since the last time; shares are of 0 … 1.

        Of a CPU `system/utilisation` is that of one core by this rank, and above 1 with
        several threads.
        """
        wall, cpu = time.monotonic(), time.process_time()
        seconds = max(wall - self._wall, 1e-9)
        found = {
            "train/samples_per_second": self._steps * self._samples / seconds,
            "train/data_wait": self._waited / seconds,
        }
        if self._device.type == "cuda":
            found["system/memory_gb"] = torch.cuda.max_memory_allocated(self._device) / 1e9
            found |= self._use_of_gpu()
        else:
            found["system/utilisation"] = (cpu - self._cpu) / seconds
        self._waited, self._steps = 0.0, 0
        self._wall, self._cpu = wall, cpu
        return {name: round(value, 4) for name, value in found.items()}

    def _use_of_gpu(self) -> dict[str, float]:
        """Share of the last moments; nothing where NVML does not tell, as of a slice of a GPU."""
        if not self._counted:
            return {}
        try:
            return {"system/utilisation": torch.cuda.utilization(self._device) / 100}
        except Exception as error:  # NVML has a type of its own for each refusal
            self._counted = False
            said = f"{type(error).__name__}: {error}"
            print(f"the use of the GPU is not recorded: {said}", file=sys.stderr, flush=True)
            return {}
