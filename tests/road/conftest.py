"""One uninterrupted run, outside any image, that the runs inside the image are compared with."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.road import small_demo


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run directory of a small demo that nobody disturbed."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    done = small_demo.run(folder, "--runtime", "none")
    assert done.returncode == 0, done.stderr
    assert "95 % interval" in done.stdout
    return folder / "runs" / "demo-quick-local"
