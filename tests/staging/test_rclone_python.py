"""rclone-python executes what is in a path; what we use of it cannot be reached by one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from launcher.core.errors import RemoteError
from launcher.staging import engine, remote_names, uri
from launcher.staging.stores import store_for

HOSTILE = ["$(touch ran-dollar)", "`touch ran-tick`", '"; touch ran-quote; echo "', "it's"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def traces(here: Path) -> list[str]:
    return sorted(path.name for path in here.glob("ran-*"))


def test_the_package_executes_what_is_in_a_path(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If this fails the package has changed, and decision 0006 may be taken anew."""
    from rclone_python import rclone

    monkeypatch.setenv("PATH", f"{Path(engine.program()).parent}:/usr/bin:/bin")
    (here / "source").mkdir()
    (here / "source" / "a.txt").write_text("a")
    for path in HOSTILE[:3]:
        rclone.copy(str(here / "source"), f"{here}/target {path}", show_progress=False)
    assert traces(here) == ["ran-dollar", "ran-quote", "ran-tick"]


@pytest.mark.parametrize("name", HOSTILE)
def test_our_call_executes_nothing(
    here: Path, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / name
    folder.mkdir()
    program = shutil.copy(engine.program(), folder / "rclone")
    config = folder / "rclone.conf"
    config.write_text("[gg1]\ntype = drive\n\n[$(>ran-remote)]\ntype = drive\n")
    monkeypatch.setenv("RCLONE_CONFIG", str(config))
    monkeypatch.setattr(engine, "program", lambda: str(program))
    assert remote_names.known() == ["gg1", "$(>ran-remote)"]
    assert traces(here) == []


@pytest.mark.parametrize("path", HOSTILE)
def test_the_engine_executes_nothing(
    here: Path, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = here / path
    source.mkdir(parents=True)
    (source / path.replace("/", "")).write_text("a")
    monkeypatch.setenv("RCLONE_CONFIG_X_TYPE", "alias")
    monkeypatch.setenv("RCLONE_CONFIG_X_REMOTE", str(here))
    listing = store_for("rclone").list(uri.parse(f"rclone:x:{path}"))
    target = store_for("file").remote(uri.parse(f"file://{here}/target {path}"))  # type: ignore[attr-defined]
    engine.Engine().move(listing.remote, target, [entry.path for entry in listing.entries])
    assert len(list((here / f"target {path}").iterdir())) == 1
    assert traces(here) == []


def test_an_unknown_remote_is_named_with_what_is_near(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "rclone.conf").write_text("[gg1]\ntype = drive\n")
    monkeypatch.setenv("RCLONE_CONFIG", str(here / "rclone.conf"))
    with pytest.raises(RemoteError, match=r"RDTL-G014[^\n]*did you mean gg1"):
        store_for("rclone").list(uri.parse("rclone:gg2:libero"))
