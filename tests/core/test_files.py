"""Whole or absent: writing, publishing, appending."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from launcher.core import files
from launcher.core.errors import RdtlError, full_disk


def test_a_folder_is_whole_or_absent(tmp_path: Path) -> None:
    final = tmp_path / "made" / "folder"
    with pytest.raises(ZeroDivisionError), files.whole_folder(final) as inside:
        (inside / "half").touch()
        raise ZeroDivisionError
    assert list(tmp_path.rglob("*")) == [tmp_path / "made"]
    with files.whole_folder(final) as inside:
        (inside / "whole").touch()
        assert not final.exists()
    with pytest.raises(OSError, match="not empty"), files.whole_folder(final) as inside:
        (inside / "other").touch()
    assert [path.name for path in final.iterdir()] == ["whole"]
    assert list(final.parent.iterdir()) == [final]


def test_a_killed_writer_leaves_the_old_content(tmp_path: Path) -> None:
    """Killed between writing and renaming, the reader still sees the old file, whole."""
    path = tmp_path / "state.json"
    files.write_json(path, {"version": 1})
    code = textwrap.dedent(f"""
        import os, pathlib
        from launcher.core import files
        with files.whole_file(pathlib.Path({str(path)!r})) as temporary:
            temporary.write_text("half of ver")
            print("written", flush=True)
            import time; time.sleep(60)
    """)
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as writer:
        assert writer.stdout and writer.stdout.readline() == b"written\n"
        writer.send_signal(signal.SIGKILL)
    assert files.read_json(path) == {"version": 1}


def test_a_failed_write_leaves_no_temporary_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="stop"), files.whole_file(tmp_path / "a") as temporary:
        temporary.write_text("x")
        raise ValueError("stop")
    assert list(tmp_path.iterdir()) == []


def _claim(folder: str, number: int, won) -> None:  # type: ignore[no-untyped-def]
    if files.publish_once(Path(folder) / "claim.json", {"by": number}):
        won.append(number)


def test_of_many_claimants_exactly_one_wins(tmp_path: Path) -> None:
    with multiprocessing.Manager() as manager:
        won = manager.list()
        claimants = [
            multiprocessing.Process(target=_claim, args=(str(tmp_path), n, won)) for n in range(12)
        ]
        for claimant in claimants:
            claimant.start()
        for claimant in claimants:
            claimant.join()
        assert len(won) == 1
        assert files.read_json(tmp_path / "claim.json")["by"] == won[0]
    assert [p.name for p in tmp_path.iterdir()] == ["claim.json"]


def test_a_line_counts_only_with_its_newline(tmp_path: Path) -> None:
    path = tmp_path / "part.jsonl"
    path.write_bytes(b'{"a": 1}\n{"a": 12')
    assert files.read_whole_lines(path) == (['{"a": 1}'], True)
    path.write_bytes(b'{"a": 1}\n')
    assert files.read_whole_lines(path) == (['{"a": 1}'], False)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small file system: needs root")
def test_a_really_full_disk_becomes_a_helpful_error(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(tmp_path)], check=True)
    try:
        files.write_text(tmp_path / "kept", "safe")
        with pytest.raises(OSError) as caught:
            files.write_text(tmp_path / "big", "x" * 200_000)
        assert caught.value.errno == errno.ENOSPC
        error = full_disk(caught.value, "a test was writing")
        assert isinstance(error, RdtlError)
        assert error.problem.code == "RDTL-G009"
        assert "safe" in error.problem.why
        assert (tmp_path / "kept").read_text() == "safe"
        assert [p.name for p in tmp_path.iterdir()] == ["kept"]
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_reading_while_writing_never_sees_half(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    files.write_json(path, {"n": 0, "pad": "y" * 5000})
    code = (
        "import sys, pathlib\nfrom launcher.core import files\n"
        "for n in range(400): files.write_json(pathlib.Path(sys.argv[1]), "
        "{'n': n, 'pad': 'y' * 5000})"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(path)]) as writer:
        seen = 0
        while writer.poll() is None:
            assert len(files.read_json(path)["pad"]) == 5000
            seen += 1
            time.sleep(0.001)
    assert writer.returncode == 0
    assert seen > 5
