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


def test_a_link_to_a_library_that_is_gone_hinders_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, looks: list[Finding]
) -> None:
    (tmp_path / "libOSMesa.so.8").symlink_to(tmp_path / "gone")
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert probed.findings() == [SEEN]


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


def test_what_is_kept_besides_the_cache_is_seen_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, looks: list[Finding]
) -> None:
    """A container's home ends with its job; the run stays."""
    for home in ("one", "other"):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / home))
        assert probed.findings(tmp_path / "run")
    assert len(looks) == 1


def test_another_copy_of_the_same_look_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, looks: list[Finding]
) -> None:
    """Each run has its code in a folder of its own; another look is another one."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    text = Path(probed.__file__).with_name("probe.py").read_text()
    for run, said in (("one", text), ("other", text), ("newer", text + "\n")):
        (tmp_path / run).mkdir()
        (tmp_path / run / "probe.py").write_text(said)
        monkeypatch.setattr(probed, "__file__", str(tmp_path / run / "probed.py"))
        probed.findings()
    assert len(looks) == 2


def test_by_egl_another_driver_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, looks: list[Finding]
) -> None:
    """A home that nodes with other GPUs share."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("MUJOCO_GL", "egl")
    monkeypatch.setattr(probed, "NVIDIA", tmp_path)
    for version in ("550.54", "550.54", "570.86"):
        (tmp_path / "version").write_text(version)
        probed.findings()
    assert len(looks) == 2
