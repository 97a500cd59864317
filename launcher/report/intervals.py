"""Exact and near-exact statistics of counts: Wilson, Fisher, McNemar.

Standard library only. The tests sum integers (``math.comb``), so their tails hold
no rounding and ties are ties; an evaluation has thousands of episodes at most.
"""

from __future__ import annotations

from math import comb, sqrt
from statistics import NormalDist
from typing import NamedTuple

Z_95 = NormalDist().inv_cdf(0.975)


class Interval(NamedTuple):
    """Bounds of a proportion in [0, 1], or of a difference of two in [-1, 1]; low <= high."""

    low: float
    high: float


def wilson(successes: int, episodes: int) -> Interval:
    """Wilson's 95 % score interval of a success rate.

    Unlike the textbook interval it stays inside [0, 1] and keeps a width at 0 of n
    and n of n. Raises ValueError unless 0 <= successes <= episodes and episodes > 0.
    """
    if not 0 <= successes <= episodes or episodes == 0:
        raise ValueError(f"{successes} successes of {episodes} episodes")
    n, p, z2 = episodes, successes / episodes, Z_95**2
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z_95 * sqrt(p * (1 - p) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == episodes else min(1.0, centre + half)
    return Interval(low, high)


def fisher_greater(k1: int, n1: int, k2: int, n2: int) -> float:
    """One-sided p of Fisher's exact test: k1 of n1 is not better than k2 of n2.

    Raises ValueError when a count is outside its total.
    """
    weights = _hypergeometric(k1, n1, k2, n2)
    return sum(weight for k, weight in weights.items() if k >= k1) / sum(weights.values())


def _hypergeometric(k1: int, n1: int, k2: int, n2: int) -> dict[int, int]:
    """Number of ways to every first count, with both totals and all successes fixed."""
    if not (0 <= k1 <= n1 and 0 <= k2 <= n2):
        raise ValueError(f"{k1} of {n1} against {k2} of {n2}")
    total = k1 + k2
    possible = range(max(0, total - n2), min(n1, total) + 1)
    return {k: comb(n1, k) * comb(n2, total - k) for k in possible}


def mcnemar(only_first: int, only_second: int) -> float:
    """Exact two-sided McNemar p from the discordant pairs; 1.0 when there are none.

    ``only_first`` pairs succeeded with the first policy alone, ``only_second`` with
    the second alone. Raises ValueError for negative counts.
    """
    if min(only_first, only_second) < 0:
        raise ValueError(f"{only_first} and {only_second} discordant pairs")
    n = only_first + only_second
    tail = sum(comb(n, i) for i in range(min(only_first, only_second) + 1))
    return min(1.0, float(2 * tail / 2**n))


def paired_difference(both: int, only_first: int, only_second: int, neither: int) -> Interval:
    """Newcombe's 95 % score interval of first rate minus second rate over paired episodes.

    It combines the two Wilson intervals with the correlation of the pairs (his method 10), so
    that it keeps a width without disagreements. Raises ValueError without pairs.
    """
    n = both + only_first + only_second + neither
    first, second = both + only_first, both + only_second
    (low1, high1), (low2, high2) = wilson(first, n), wilson(second, n)
    p1, p2 = first / n, second / n
    product = float(both * neither - only_first * only_second)
    if product > 0:
        product = max(0.0, product - n / 2)
    margins = first * (n - first) * second * (n - second)
    correlation = product / sqrt(margins) if margins else 0.0

    def reach(a: float, b: float) -> float:
        return sqrt(max(0.0, a * a - 2 * correlation * a * b + b * b))

    return Interval(
        max(-1.0, p1 - p2 - reach(p1 - low1, high2 - p2)),
        min(1.0, p1 - p2 + reach(p2 - low2, high1 - p1)),
    )
