"""What the lines of a training's record show and nobody may be there to read; each said once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from statistics import median

SLOW_SHARE, SLOW_LINES = 0.1, 3
"""Waiting for data is worth a word above this share of the time, on so many lines in a row."""
LINES, FALLEN, FALLEN_BY = 5, 0.8, 0.25
"""Of fresh weights the loss is below this share of its beginning after this part of all steps:
medians over so many lines."""


class Signs:
    """Looks at each line. ``fresh``: the weights were drawn and not loaded; ``before``: the
    lines before this start."""

    def __init__(self, fresh: bool, before: Iterable[Mapping[str, float]] = ()) -> None:
        self._losses = [line["train/loss"] for line in before if "train/loss" in line]
        self._looks_at_loss = fresh
        self._waits: list[float] = []
        self._began = self._told = False

    def look(self, line: Mapping[str, float], step: int, total: int | None) -> list[str]:
        """What to say after a line of the record at ``step`` of ``total``: mostly nothing."""
        said = (self._waiting(line["train/data_wait"], step),
                self._not_falling(line["train/loss"], step, total))  # fmt: skip
        return [text for text in said if text]

    def _waiting(self, share: float, step: int) -> str:
        slow = self._began and not self._told and share > SLOW_SHARE
        # The first line of a start tells nothing: workers begin, and caches are cold.
        self._waits, self._began = [*self._waits, share] if slow else [], True
        if len(self._waits) < SLOW_LINES:
            return ""
        self._told = True
        waited = sum(self._waits) / SLOW_LINES
        return (
            f"warning RDTL-T024: the training waits for its data {waited:.0%} of the time "
            f"({SLOW_LINES} lines up to step {step}); a loader that keeps up waits less than "
            f"{SLOW_SHARE:.0%}. Is the disk slow or shared? `rdtl data verify` names layouts that "
            "are slow to read (RDTL-D035), `rdtl data buffer` prepares samples once"
        )

    def _not_falling(self, loss: float, step: int, total: int | None) -> str:
        self._losses.append(loss)
        due = total is not None and step >= FALLEN_BY * total and len(self._losses) >= 4 * LINES
        if not (self._looks_at_loss and due):
            return ""
        self._looks_at_loss = False
        first, last = median(self._losses[:LINES]), median(self._losses[-LINES:])
        if last < FALLEN * first:
            return ""
        return (
            f"warning RDTL-T019: the loss has not come down: {first:.5f} at the beginning, "
            f"{last:.5f} at step {step} of {total}. Look at train.learning_rate, and at the "
            "statistics and conventions of the data (`rdtl data verify`)"
        )
