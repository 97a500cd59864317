"""Counts to intervals and p-values, against published figures and SciPy."""

from __future__ import annotations

from math import isclose

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from launcher.report.intervals import fisher_greater, mcnemar, wilson

KNOWN = [
    (490, 500, 96.4, 98.9),
    (475, 500, 92.7, 96.6),
    (450, 500, 87.1, 92.3),
    (250, 500, 45.6, 54.4),
    (1940, 2000, 96.2, 97.7),
    (49, 50, 89.5, 99.6),
    (10, 10, 72.2, 100.0),
    (0, 50, 0.0, 7.1),
    (195, 200, 94.3, 98.9),
    (1960, 2000, 97.3, 98.5),
]
COUNTS = st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
TABLES = st.tuples(COUNTS, COUNTS).map(lambda pair: (*pair[0], *pair[1]))


@pytest.mark.parametrize(("k", "n", "low", "high"), KNOWN)
def test_wilson_gives_the_known_intervals(k: int, n: int, low: float, high: float) -> None:
    assert [round(100 * bound, 1) for bound in wilson(k, n)] == [low, high]


@given(COUNTS)
@settings(max_examples=200, deadline=None)
def test_wilson_agrees_with_scipy_and_holds_the_rate(count: tuple[int, int]) -> None:
    k, n = count
    ours = wilson(k, n)
    theirs = stats.binomtest(k, n).proportion_ci(0.95, method="wilson")
    assert isclose(ours.low, theirs.low, abs_tol=1e-12)
    assert isclose(ours.high, theirs.high, abs_tol=1e-12)
    assert 0 <= ours.low <= k / n <= ours.high <= 1
    assert ours.low < ours.high


@given(COUNTS)
@settings(max_examples=100, deadline=None)
def test_wilson_mirrors_failures_and_narrows_with_more_episodes(count: tuple[int, int]) -> None:
    k, n = count
    low, high = wilson(k, n)
    mirrored = wilson(n - k, n)
    assert isclose(low, 1 - mirrored.high, abs_tol=1e-12)
    more = wilson(4 * k, 4 * n)
    assert more.high - more.low < high - low


def test_wilson_is_exact_at_the_ends() -> None:
    assert wilson(0, 7).low == 0.0
    assert wilson(7, 7).high == 1.0


@pytest.mark.parametrize(("k", "n"), [(1, 0), (0, 0), (-1, 5), (6, 5)])
def test_impossible_counts_are_refused(k: int, n: int) -> None:
    with pytest.raises(ValueError, match="episodes"):
        wilson(k, n)
    if n:
        with pytest.raises(ValueError, match="against"):
            fisher_greater(k, n, 0, 5)


@given(TABLES)
@settings(max_examples=100, deadline=None)
def test_fisher_agrees_with_scipy(table: tuple[int, int, int, int]) -> None:
    k1, n1, k2, n2 = table
    square = [[k1, n1 - k1], [k2, n2 - k2]]
    one = stats.fisher_exact(square, alternative="greater").pvalue
    assert isclose(fisher_greater(*table), one, rel_tol=1e-7, abs_tol=1e-12)


def test_fisher_knows_its_direction() -> None:
    assert fisher_greater(16, 20, 0, 20) < 1e-6
    assert fisher_greater(0, 20, 16, 20) == 1.0


@pytest.mark.parametrize(
    ("b", "c", "p"), [(6, 0, 0.031), (8, 1, 0.039), (15, 5, 0.041), (5, 0, 0.063), (20, 10, 0.099)]
)
def test_mcnemar_gives_the_known_values(b: int, c: int, p: float) -> None:
    assert mcnemar(b, c) == pytest.approx(p, abs=5.01e-4)
    assert mcnemar(b, c) == mcnemar(c, b)


@given(st.integers(0, 300), st.integers(0, 300))
@settings(max_examples=100, deadline=None)
def test_mcnemar_is_the_sign_test_of_the_discordant_pairs(b: int, c: int) -> None:
    expected = stats.binomtest(b, b + c).pvalue if b + c else 1.0
    assert isclose(mcnemar(b, c), expected, rel_tol=1e-9)


def test_mcnemar_refuses_negative_counts() -> None:
    with pytest.raises(ValueError, match="discordant"):
        mcnemar(-1, 3)
