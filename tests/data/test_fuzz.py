"""Damaged bytes of every layout: a coded error or the same episodes, and files left alone.

A flipped byte in a picture or a number cannot be noticed where the layout has no
checksum; an episode or a step that goes missing must be.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from launcher.core.errors import RdtlError
from rdt.data.store import open_store
from tests.data import writers
from tests.data.writers import Demo

Damage = tuple[int, str, float, bytes]
Write = Callable[[list[Demo], Path], Path]

LAYOUTS: dict[str, Write] = {
    "hdf5": writers.write_regenerated,
    "rlds": lambda demos, path: writers.write_rlds(
        [writers.rlds_episode(demo) for demo in demos], path / "set"
    ),
    "lerobot": writers.write_lerobot2,
}
damages = st.tuples(
    st.integers(0, 15),
    st.sampled_from(["cut", "overwrite", "insert"]),
    st.floats(0, 1, exclude_max=True),
    st.binary(min_size=1, max_size=24),
)


def spoiled(content: bytes, damage: Damage) -> bytes:
    _, kind, place, data = damage
    at = int(place * len(content))
    if kind == "cut":
        return content[:at]
    return content[:at] + data + content[at + (len(data) if kind == "overwrite" else 0) :]


def look(path: Path) -> list[tuple[str, int]]:
    """Open the set and read every picture; names and lengths of the episodes."""
    store = open_store(path)
    out = np.zeros((len(store), store.picture_size, store.picture_size, 3), np.uint8)
    for camera in store.cameras:
        store.frames(camera, np.arange(len(store)), out)
    store.unfinite()
    return [(episode.name, episode.length) for episode in store.episodes]


@pytest.fixture(scope="module", params=LAYOUTS)
def whole(
    request: pytest.FixtureRequest, demos: list[Demo], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A small data set of one layout, from the first steps of the collected episodes."""
    folder = tmp_path_factory.mktemp(request.param)
    return LAYOUTS[request.param]([demos[0].part(4, 4), demos[1].part(3, 4)], folder)


@settings(
    max_examples=120, deadline=5000, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(damage=damages)
def test_damaged_bytes(damage: Damage, whole: Path) -> None:
    files = [whole] if whole.is_file() else sorted(p for p in whole.rglob("*") if p.is_file())
    file = files[damage[0] % len(files)]
    content = file.read_bytes()
    broken = spoiled(content, damage)
    try:
        file.write_bytes(broken)
        try:
            found = look(whole)
        except RdtlError as error:
            assert error.problem.code.startswith("RDTL-D")
            assert error.problem.where
        else:
            assert [length for _, length in found] == [4, 3]
        assert file.read_bytes() == broken
    finally:
        file.write_bytes(content)


def test_reading_changes_nothing(whole: Path) -> None:
    """Neither content nor time of any file, nor the list of files."""

    def digest() -> dict[str, tuple[str, int]]:
        files = [whole] if whole.is_file() else [p for p in whole.rglob("*") if p.is_file()]
        return {
            str(p): (hashlib.sha256(p.read_bytes()).hexdigest(), p.stat().st_mtime_ns)
            for p in files
        }

    before = digest()
    look(whole)
    assert digest() == before


def test_read_only_files_suffice(whole: Path) -> None:
    """Files are opened for reading: as the kernel sees it, not only as we mean it."""
    store = open_store(whole)
    out = np.zeros((1, store.picture_size, store.picture_size, 3), np.uint8)
    store.frames("agentview", np.arange(1), out)
    folder = whole if whole.is_dir() else whole.parent
    for entry in Path("/proc/self/fd").iterdir():
        try:
            target = entry.readlink()
        except FileNotFoundError:  # the listing's own descriptor
            continue
        if target.is_relative_to(folder):
            flags = Path("/proc/self/fdinfo", entry.name).read_text().split("flags:")[1].split()[0]
            assert int(flags, 8) & 0o3 == 0
