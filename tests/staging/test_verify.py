"""Proof of files that are read while they arrive: it is of what lies there in the end."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from launcher.staging.store import StoreEntry
from launcher.staging.verify import LARGE, Prover

DATA = os.urandom(2 * LARGE)
ENTRY = StoreEntry("a", len(DATA), {"md5": hashlib.md5(DATA).hexdigest()})


def begun(folder: Path, first: bytes) -> Prover:
    """A prover that has read ``first`` of the file, which is still arriving."""
    prover = Prover(folder)
    prover.follow(ENTRY)  # before there is anything: nothing happens
    (folder / "a").write_bytes(first)
    prover.follow(ENTRY)
    reading, read = prover._begun["a"]
    read.result(timeout=30)
    assert reading.length == len(first)
    return prover


def test_what_was_read_while_it_arrived_counts(tmp_path: Path) -> None:
    prover = begun(tmp_path, DATA[:LARGE])
    reading, _ = prover._begun["a"]
    with (tmp_path / "a").open("ab") as writer:
        writer.write(DATA[LARGE:])
    prover.start(ENTRY)
    (file,) = prover.collect(wait=True)
    assert file.sha256 == hashlib.sha256(DATA).hexdigest()
    assert reading.length == len(DATA), "it was read once, to its end"


@pytest.mark.parametrize("anew", [True, False])
def test_what_was_written_again_is_read_again(tmp_path: Path, anew: bool) -> None:
    prover = begun(tmp_path, b"other" + DATA[5:LARGE])
    if anew:
        (tmp_path / "a").unlink()
    (tmp_path / "a").write_bytes(DATA)
    prover.start(ENTRY)
    assert [file.path for file in prover.collect(wait=True)] == ["a"]


def test_right_bytes_of_a_file_that_is_gone_prove_nothing(tmp_path: Path) -> None:
    prover = begun(tmp_path, DATA)
    (tmp_path / "a").rename(tmp_path / "b")  # so that its number is not given out again
    (tmp_path / "a").write_bytes(b"other" + DATA[5:])
    prover.start(ENTRY)
    assert prover.collect(wait=True) == []
    assert not (tmp_path / "a").exists()
