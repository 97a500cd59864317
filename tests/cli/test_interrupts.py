"""Ctrl-C in commands that take long: nothing goes on, 130, and the command that continues."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from tests.cli.interrupting import descendants, interrupt
from tests.cli.run_rdtl import rdtl
from tests.rdt import synthetic


def said(text: str) -> str:
    """What was said of the interrupt."""
    (line,) = [line for line in text.splitlines() if line.startswith("interrupted; ")]
    return line


@pytest.mark.parametrize(
    "everybody", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["terminal", "kill"]
)
def test_a_command_is_ended_and_goes_on_by_the_words_it_leaves(
    everybody: bool, tmp_path: Path
) -> None:
    """Also what its shell has started; also where only the launcher hears it."""
    script = 'echo x >> "$RDTL_RUN_DIR/ran"; test -e "$RDTL_RUN_DIR/go" || sleep 60'
    run = tmp_path / "runs" / "a-local"
    done = interrupt(
        *("run", "--name", "a", "--", "sh", "-c", script),
        when=lambda: (ran := run / "ran").exists() and ran.stat().st_size > 0,
        cwd=tmp_path,
        everybody=everybody,
    )
    assert done.returncode == 130
    *_, next_command = said(done.stderr).partition("to go on: ")
    program, *words = shlex.split(next_command)
    assert program == "rdtl"
    (run / "go").touch()
    resumed = rdtl(*words, cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert (run / "ran").read_text().split() == ["x", "x"]


def test_json_stays_empty_and_the_words_go_to_people(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "a-local"
    script = 'touch "$RDTL_RUN_DIR/ran"; sleep 60'
    done = interrupt(
        *("run", "--name", "a", "--json", "--", "sh", "-c", script),
        when=(run / "ran").exists,
        cwd=tmp_path,
    )
    assert (done.returncode, done.stdout) == (130, "")
    assert "rdtl runs resume" in said(done.stderr)


def test_following_a_log_ends_the_looking_only(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "a-local"
    script = 'touch "$RDTL_RUN_DIR/ran"; sleep 60'

    def looked() -> bool:
        done = interrupt(
            *("runs", "logs", "a-local", "--follow"),
            when=lambda: any("stage run" in path.read_text() for path in tmp_path.glob("*.err")),
            cwd=tmp_path,
        )
        assert done.returncode == 130
        assert "nothing was ended but the looking" in said(done.stderr)
        return True

    done = interrupt(
        *("run", "--name", "a", "--", "sh", "-c", script),
        when=lambda: (run / "ran").exists() and looked(),
        cwd=tmp_path,
    )
    assert done.returncode == 130, "the run went on until it was interrupted itself"


@pytest.mark.parametrize(
    ("verb", "everybody"),
    [pytest.param("stats", True, marks=pytest.mark.slow), ("stats", False), ("verify", True)],
)
def test_looking_at_data_leaves_no_process_and_no_half_file(
    verb: str, everybody: bool, tmp_path: Path
) -> None:
    demo = synthetic.demonstration(1, steps=400, size=64)
    for number in range(4):
        synthetic.write(
            tmp_path / "set" / f"{number}_demo.hdf5", {f"demo_{n}": demo for n in range(5)}
        )
    out = tmp_path / "out" / "stats.json"
    options = {"stats": ["--format", "rdt", "--out", str(out), "--jobs", "2"], "verify": []}
    jobs = {"stats": ("jobs.statistics", 3), "verify": ("jobs.check", 1)}
    mark = f"{verb}-{tmp_path.name}"

    def at_work() -> bool:
        name, least = jobs[verb]
        words = descendants(mark).values()
        return any(name in each for each in words) and len(words) > least

    done = interrupt(
        *("data", verb, str(tmp_path / "set"), *options[verb]),
        when=at_work,
        cwd=tmp_path,
        mark=mark,
        everybody=everybody,
    )
    assert done.returncode == 130
    assert said(done.stderr)
    assert not out.exists() or json.loads(out.read_text())  # it may just have been finished
    assert not list(tmp_path.rglob("*.part"))
