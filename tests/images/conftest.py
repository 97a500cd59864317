"""One small image file for all tests of runtimes: making it is what costs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from launcher.core.runtimes import Container
from tests.images import small, ways


@pytest.fixture(scope="session")
def small_sif() -> Iterator[Container]:
    """A bare Debian as a SIF on a path that every user can reach."""
    if reason := small.unavailable("apptainer"):
        pytest.skip(reason)
    with ways.open_folder() as folder:
        yield small.sif(folder)
