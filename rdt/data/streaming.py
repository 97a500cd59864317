"""Mean, spread, range and quantiles of rows that come piece by piece, in any grouping.

Moments are merged as Chan, Golub and LeVeque do it, in float64. Quantiles are exact as
long as no more than ``exact_rows`` rows came; beyond that the rows are let go, and a second
pass counts them in 65,536 bins between the now known minimum and maximum: then a quantile
is wrong by half a bin at most, i.e. by (max - min) / 131,072.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]
EXACT_ROWS = 1 << 20
BINS = 1 << 16


@dataclass(frozen=True)
class Moments:
    """Of ``count`` rows; ``mean``, ``squares`` (sum of squared deviations), ``low`` and
    ``high`` are (d,) float64."""

    count: int
    mean: Float
    squares: Float
    low: Float
    high: Float

    @classmethod
    def of(cls, rows: NDArray[np.floating]) -> Moments:
        """Of (n, d) rows, n > 0."""
        values = np.asarray(rows, np.float64)
        mean = values.mean(axis=0)
        squares = ((values - mean) ** 2).sum(axis=0)
        return cls(len(values), mean, squares, values.min(axis=0), values.max(axis=0))

    def merged(self, other: Moments) -> Moments:
        """Of the rows of both."""
        count = self.count + other.count
        apart = other.mean - self.mean
        return Moments(
            count,
            self.mean + apart * (other.count / count),
            self.squares + other.squares + apart**2 * (self.count * other.count / count),
            np.minimum(self.low, other.low),
            np.maximum(self.high, other.high),
        )

    @property
    def std(self) -> Float:
        """Spread (d,) of a population."""
        return np.sqrt(self.squares / self.count)


class Stream:
    """Moments of all rows so far, and the rows themselves while they are few enough.

    ``rows`` is None once more than ``exact_rows`` came: memory no longer grows.
    """

    def __init__(self, exact_rows: int = EXACT_ROWS) -> None:
        self.exact_rows = exact_rows
        self.moments: Moments | None = None
        self.rows: list[NDArray[np.floating]] | None = []

    def add(self, rows: NDArray[np.floating]) -> None:
        """Take in (n, d) rows, n > 0."""
        self._take(Moments.of(rows), [rows])

    def merge(self, other: Stream) -> None:
        """Take in what another stream, of other rows, has taken in."""
        if other.moments is not None:
            self._take(other.moments, other.rows)

    def _take(self, moments: Moments, rows: list[NDArray[np.floating]] | None) -> None:
        self.moments = moments if self.moments is None else self.moments.merged(moments)
        if self.rows is None or rows is None or self.moments.count > self.exact_rows:
            self.rows = None
        else:
            self.rows.extend(rows)

    def quantiles(self, shares: tuple[float, ...]) -> Float:
        """Exact quantiles (len(shares), d), linear between neighbours; only while `rows` is."""
        assert self.rows, "there are no rows, or too many: count them in a second pass"
        columns = range(self.rows[0].shape[1])
        found = [
            np.quantile(np.concatenate([rows[:, c] for rows in self.rows]), shares) for c in columns
        ]
        return np.asarray(found, np.float64).T


class Histogram:
    """Counts (d, 65,536) int64 between ``low`` and ``high``, each (d,); mergeable."""

    def __init__(self, low: Float, high: Float) -> None:
        self.low, self.width = low, (high - low) / BINS
        self.counts = np.zeros((len(low), BINS), np.int64)

    def add(self, rows: NDArray[np.floating]) -> None:
        """Count (n, d) rows that lie between low and high."""
        width = np.where(self.width > 0, self.width, 1.0)
        bins = ((np.asarray(rows, np.float64) - self.low) / width).astype(np.int64)
        np.clip(bins, 0, BINS - 1, out=bins)
        for column, counts in enumerate(self.counts):
            places, times = np.unique(bins[:, column], return_counts=True)
            counts[places] += times

    def merge(self, other: Histogram) -> None:
        """Add the counts of another histogram over the same range."""
        self.counts += other.counts

    @property
    def error(self) -> Float:
        """How far a quantile can be off, (d,): half a bin."""
        return self.width / 2

    def quantiles(self, shares: tuple[float, ...]) -> Float:
        """Quantiles (len(shares), d): both neighbours by their bins' middles, linear between."""
        found = []
        for column, counts in enumerate(self.counts):
            ends = counts.cumsum()
            places = np.asarray(shares) * (ends[-1] - 1)
            bins = np.searchsorted(ends, [np.floor(places), np.ceil(places)], "right")
            below, above = self.low[column] + (bins + 0.5) * self.width[column]
            found.append(below + (above - below) * (places % 1))
        return np.asarray(found).T
