"""Locks of torch's builder, left by a process that was really killed while it built."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rdt.training import extensions

BUILDER = """
import importlib.util, sys, time
spec = importlib.util.spec_from_file_location("file_baton", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
assert module.FileBaton(sys.argv[2]).try_acquire()
print("building", flush=True)
time.sleep(600)
"""


@pytest.fixture
def builders(tmp_path: Path) -> Iterator[dict[str, subprocess.Popen[str]]]:
    """Two processes that hold a lock as torch.utils.cpp_extension does; one is killed."""
    spec = pytest.importorskip("torch.utils.file_baton").__file__
    found = {}
    for name in ("alive", "dead"):
        (tmp_path / name).mkdir()
        found[name] = subprocess.Popen(
            [sys.executable, "-c", BUILDER, spec, str(tmp_path / name / "lock")],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert found[name].stdout.readline() == "building\n"
    found["dead"].send_signal(signal.SIGKILL)
    found["dead"].wait()
    yield found
    found["alive"].kill()
    found["alive"].wait()


@pytest.mark.train
def test_only_locks_of_dead_builders_go(
    tmp_path: Path,
    builders: dict[str, subprocess.Popen[str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert (tmp_path / "dead/lock").exists()
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    extensions.prepare()
    assert not (tmp_path / "dead/lock").exists()
    assert (tmp_path / "alive/lock").exists()
    assert "RDTL-T026" in capsys.readouterr().err


def test_each_start_has_its_own_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = set()
    for port in ("10001", "10002"):
        monkeypatch.delenv("TORCH_EXTENSIONS_DIR", raising=False)
        monkeypatch.setenv("MASTER_PORT", port)
        extensions.prepare()
        seen.add(os.environ["TORCH_EXTENSIONS_DIR"])
    assert len(seen) == 2
