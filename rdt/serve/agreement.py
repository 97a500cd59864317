"""How often a batch's answers are those that the requests get alone, looked at while serving."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from launcher.core import files
from rdt.serve.exact import Asked

EVERY = 16
"""One request of every so many batches is computed again, alone: costs a server a few percent."""
Chunks = Callable[[Sequence[Asked]], NDArray[np.float32]]


class Agreement:
    """Computes batches, and now and then one of their requests alone.

    ``equal`` of ``looked`` answers (H, 7) were the same, bit for bit; ``largest`` is the largest
    difference of an action, in its units. ``file`` gets the three numbers at each look; a server
    that is started again counts on from there.
    """

    def __init__(self, compute: Chunks, file: Path | None = None, every: int = EVERY) -> None:
        self._compute, self._file, self._every = compute, file, every
        self._batches = 0
        told = files.read_json(file) if file and file.exists() else {}
        self.looked: int = told.get("looked", 0)
        self.equal: int = told.get("equal", 0)
        self.largest: float = told.get("largest", 0.0)
        self._note()

    def __call__(self, asked: Sequence[Asked]) -> NDArray[np.float32]:
        """Chunks (n, H, 7) of n queries."""
        answers = self._compute(asked)
        if len(asked) > 1:
            if self._batches % self._every == 0:
                which = self.looked % len(asked)
                self._look(answers[which], self._compute([asked[which]])[0])
            self._batches += 1
        return answers

    def _look(self, together: NDArray[np.float32], alone: NDArray[np.float32]) -> None:
        self.looked += 1
        self.equal += np.array_equal(together, alone)
        self.largest = max(self.largest, float(np.abs(together - alone).max()))
        self._note()

    def _note(self) -> None:
        if self._file:
            told = {"looked": self.looked, "equal": self.equal, "largest": self.largest}
            files.write_json(self._file, told)

    def text(self) -> str:
        """One line for the log."""
        if not self.looked:
            return "agreement of free batches: no batch had two requests"
        return (
            f"agreement of free batches: {self.equal} of {self.looked} answers "
            f"({100 * self.equal / self.looked:.1f} %) are those of the request alone, "
            f"largest difference {self.largest:.1e}"
        )
