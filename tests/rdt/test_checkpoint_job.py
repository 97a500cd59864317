"""``python -m jobs.checkpoint`` where the file system refuses: an error with a code, no traceback.

Root may read and write everything, so the refusals come from limits and paths that bind it too.
"""

from __future__ import annotations

import errno
import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from jobs.checkpoint import main
from rdt.checkpoint import tensors
from tests.rdt import checkpoints

pytestmark = pytest.mark.train

NAMES = ("pytorch_model.bin", "model.safetensors")


@contextmanager
def limited(what: int, value: int) -> Iterator[None]:
    """A limit of the system for this process."""
    soft, hard = resource.getrlimit(what)
    resource.setrlimit(what, (value, hard))
    try:
        yield
    finally:
        resource.setrlimit(what, (soft, hard))


def error_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    """The error that the program answers with; its exit status is the error's."""
    status = main(list(arguments))
    error: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])["error"]
    assert status == error["exit_status"]
    return error


def test_a_card_that_cannot_be_written(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = checkpoints.reference(tmp_path, checkpoints.network(), NAMES[0])
    with limited(resource.RLIMIT_FSIZE, 0):
        error = error_of(capsys, "adopt", str(folder), "auto", "libero-eef6d")
    assert (error["code"], error["exit_status"]) == ("RDTL-G018", 1)
    assert "File too large" in error["what"]
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", NAMES[0]]


def test_outputs_that_cannot_be_there(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = checkpoints.reference(tmp_path / "rdt", checkpoints.network(), NAMES[0])
    (tmp_path / "afile").write_text("")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    below = error_of(capsys, "export", str(folder), "auto", str(tmp_path / "afile/x"))
    assert (below["code"], below["exit_status"]) == ("RDTL-G018", 1)
    assert "Not a directory" in below["what"]
    assert str(tmp_path / "afile") in below["where"]
    link = error_of(capsys, "export", str(folder), "auto", str(tmp_path / "dangling"))
    assert (link["code"], link["exit_status"]) == ("RDTL-U027", 2)
    assert (tmp_path / "dangling").is_symlink()
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_cannot_be_opened_is_not_damaged(name: str, tmp_path: Path) -> None:
    path = checkpoints.reference(tmp_path, checkpoints.network(), name) / name
    assert tensors.mapped(path)
    with limited(resource.RLIMIT_NOFILE, 3), pytest.raises(OSError, match="open") as caught:
        tensors.mapped(path)
    assert (caught.value.errno, caught.value.filename) == (errno.EMFILE, str(path))
