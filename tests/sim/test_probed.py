"""What a look at the simulator found stays true where it cannot be kept."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from launcher.core.checks import Finding
from rdt.sim import probed

SEEN = Finding("RDTL-E001", "ok", "drawn as published")


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[Finding]:
    """The looks that were taken; each costs some CPU seconds, so nobody draws here."""
    taken: list[Finding] = []

    def probe() -> list[Finding]:
        taken.append(SEEN)
        return [SEEN]

    monkeypatch.setitem(sys.modules, "rdt.sim.probe", SimpleNamespace(probe=probe))
    return taken


def test_a_cache_that_cannot_be_written_hides_no_finding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, looks: list[Finding]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert [probed.findings(), probed.findings()] == [[SEEN], [SEEN]]
    assert len(looks) == 2


@pytest.mark.parametrize("text", ["", "{", "[]", '{"findings": [{"no": 1}], "at": ""}', "\0\xff"])
def test_a_copy_that_cannot_be_read_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, looks: list[Finding], text: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert probed.findings() == [SEEN]
    (copy,) = tmp_path.glob("rdtl/probe/*.json")
    assert probed.findings()[0].what.startswith("drawn as published (seen ")
    copy.write_text(text, encoding="latin-1")
    assert probed.findings() == [SEEN]
    assert len(looks) == 2
