"""Targets on seeds, and on what hypothesis makes of them: cut, overwritten, spliced.

`make fuzz` goes on for as long as it is told to, guided by coverage.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.seeds import SEEDS
from tests.fuzz.targets import TARGETS

EXAMPLES = {"config": 40, "recipe": 30, "line": 25}
LONGER = 40
"""Times as many examples in `make test-all`."""
PIECES = [
    b"\0", b"\n", b": ", b"- ", b"[", b"]", b"{", b"}", b"&a ", b"*a", b"!!", b"<<: ", b"'", b'"',
    b"${", b"../", b"\xff", b"\x80" * 11, b"-1", b"1e999", b"NaN", b"null", b"9" * 400, b"\r",
]  # fmt: skip
edits = st.lists(
    st.tuples(
        st.floats(0, 1, exclude_max=True),
        st.integers(0, 40),
        st.sampled_from(PIECES) | st.binary(max_size=12),
    ),
    max_size=4,
)


def edited(seed: bytes, changes: list[tuple[float, int, bytes]]) -> bytes:
    """``seed`` with pieces put in the place of others."""
    for place, gone, piece in changes:
        at = int(place * len(seed))
        seed = seed[:at] + piece + seed[at + gone :]
    return seed


def search(name: str, folder: Path, examples: int) -> int:
    """How many inputs the target stood; raises what it raises for the smallest one that fails."""
    stood = 0

    @settings(
        max_examples=examples, deadline=None, database=None, suppress_health_check=HealthCheck
    )
    @given(seed=st.sampled_from(SEEDS[name]) | st.binary(max_size=80), changes=edits)
    def look(seed: bytes, changes: list[tuple[float, int, bytes]]) -> None:
        nonlocal stood
        TARGETS[name](edited(seed, changes), folder)
        stood += 1

    look()
    return stood


@pytest.mark.parametrize("name", TARGETS)
def test_seeds(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was a finding once, and what is right, end as they should."""
    monkeypatch.chdir(tmp_path)
    for seed in SEEDS[name]:
        TARGETS[name](seed, tmp_path)
    assert not (tmp_path / "HERE").exists()


@pytest.mark.parametrize("name", TARGETS)
def test_what_is_made_of_seeds(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    wanted = EXAMPLES.get(name, 80)
    assert search(name, tmp_path, wanted) >= wanted


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_more_of_them(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    wanted = LONGER * EXAMPLES.get(name, 80)
    assert search(name, tmp_path, wanted) >= wanted
