"""An episode that never comes back ends its process and counts; a suspended one does neither."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from jobs import book, evaluate, evaluated, watch
from launcher import diagnose
from launcher.core import files
from launcher.core.job import Job
from launcher.core.runs import RunDir
from launcher.presets import JOB_ENVIRONMENT
from launcher.report import shards
from rdt.sim.episode import Outcome
from rdt.spec import planned as planned_episodes
from rdt.spec import record as records
from rdt.spec.record import EpisodeKey
from tests.evaluation.test_exactness import ROOT, new_run, whole_lines
from tests.evaluation.test_workers import alive, children_of, wait_for

LIMIT_S = 0.6
"""Of an episode; its process is ended after twice that time."""


def planned(root: Path, steps: int = 2, limit_s: float = LIMIT_S) -> RunDir:
    """Four episodes of a policy that does nothing; the second is the one that may hang."""
    grid = {"policies": ["zero"], "init_states": (0, 4), "episode_minutes": limit_s / 60}
    return new_run(root, {"max_steps": steps}, grid)


def start(run: RunDir, how: str) -> subprocess.Popen[bytes]:
    """The only task of a run in a process group of its own; what it says is added to a log."""
    place = {"RDTL_STAGE": "evaluate", "RDTL_ERROR_FILE": str(run.root / "error.json")}
    with (run.root / "log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "tests.evaluation.hanging", str(run.root), how],
            env={**os.environ, **JOB_ENVIRONMENT, **place, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.DEVNULL,
            stderr=log,
            start_new_session=True,
        )


def statuses(run: RunDir) -> dict[int, list[str]]:
    """What each initial state's lines say, sorted."""
    found: dict[int, list[str]] = {}
    for line in records.read_lines(run.records):
        found.setdefault(line.init_state, []).append(line.status)
    return {state: sorted(found[state]) for state in sorted(found)}


def parts(run: RunDir) -> set[Path]:
    """Its files of records."""
    return set(run.records.glob("part-*"))


@pytest.mark.parametrize("how", [pytest.param("asleep", marks=pytest.mark.slow), "busy"])
def test_it_is_ended_with_its_stacks_and_its_record(tmp_path: Path, how: str) -> None:
    run = planned(tmp_path)
    assert start(run, how).wait(30) == -watch.DEADLY
    assert statuses(run) == {0: ["fail"], 1: ["env_error"]}
    log = (tmp_path / "log").read_text()
    assert f" in {how}" in log and "Current thread" in log and "zero-libero_object-t0-i1-n0" in log
    assert [found.code for found in diagnose.diagnose(tmp_path / "log")] == ["RDTL-E033"]
    error = files.read_json(tmp_path / "error.json")
    assert (error["code"], error["exit_status"]) == ("RDTL-E033", 128 + watch.DEADLY)


def test_a_look_at_a_renderer_that_waits_for_ever_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # where no earlier look is kept
    run = planned(tmp_path)
    assert start(run, "look").wait(30) == -watch.DEADLY
    assert not run.records.exists() or not parts(run)
    assert " in asleep" in (tmp_path / "log").read_text()
    assert [found.code for found in diagnose.diagnose(tmp_path / "log")] == ["RDTL-E033"]
    error = files.read_json(tmp_path / "error.json")
    assert (error["code"], error["what"]) == ("RDTL-E033", watch.LOOK)
    assert "osmesa" in error["fix"]


def test_one_that_hangs_each_time_has_its_tries_and_the_others_are_done(tmp_path: Path) -> None:
    """From the second start on it comes last."""
    run = planned(tmp_path)
    assert start(run, "asleep").wait(30) == -watch.DEADLY
    before = parts(run)
    assert start(run, "asleep").wait(30) == -watch.DEADLY
    assert statuses(run) == {0: ["fail"], 1: ["env_error"] * 2, 2: ["fail"], 3: ["fail"]}
    (its,) = (path for path in parts(run) - before if "env_error" in path.read_text())
    for number in range(2, evaluate.MOST_TRIES - 1):  # what further starts leave, quicker
        shutil.copy(its, its.with_stem(f"{its.stem}-{number}"))
    assert start(run, "asleep").wait(30) == -watch.DEADLY
    assert start(run, "asleep").wait(30) == 0
    tried = ["env_error"] * evaluate.MOST_TRIES
    assert statuses(run) == {0: ["fail"], 1: tried, 2: ["fail"], 3: ["fail"]}


def test_one_that_crashes_each_time_comes_last(tmp_path: Path) -> None:
    """As a renderer may, or the kernel when memory runs out: nobody writes a record then."""
    run = planned(tmp_path)
    assert start(run, "crashes").wait(30) == -signal.SIGABRT
    assert statuses(run) == {0: ["fail"]}
    assert start(run, "crashes").wait(30) == -signal.SIGABRT
    assert statuses(run) == {0: ["fail"], 2: ["fail"], 3: ["fail"]}
    assert start(run, "well").wait(30) == 0
    assert statuses(run) == {state: ["fail"] for state in range(4)}
    asked = planned_episodes.from_config(files.read_json(run.plan)["config"])
    assert shards.scan(run.records, asked).foreign == [], "notes of episodes are no strange files"


def test_a_note_that_goes_while_it_is_read_is_none(tmp_path: Path) -> None:
    """Other tasks of the array end their episodes meanwhile."""
    its = Job(planned(tmp_path), {}, "evaluate", 0, 1, attempt=0, node=0)
    book.Book(its, "x", evaluated.Tested()).begin(EpisodeKey("zero", "libero_object", 0, 3, 0))
    (its.run.records / "begun" / "gone").symlink_to(tmp_path / "gone")
    assert book.begun(its) == {"zero-libero_object-t0-i3-n0"}


@pytest.mark.parametrize("steps", [142, 150, 290, 300])
def test_actions_that_do_not_fit_on_the_disk_are_no_record(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    """Written by numpy itself some lengths of them were published cut, without a word."""
    run = planned(small_disk)
    key = EpisodeKey("zero", "libero_object", 0, 0, 0)
    monkeypatch.setattr(book.Book, "record", lambda *_: None)
    mine = book.Book(Job(run, {}, "evaluate", 0, 1, attempt=0, node=0), "x", evaluated.Tested())
    outcome = cast(Outcome, SimpleNamespace(actions=np.zeros((steps, 7), np.float32)))
    actions = run.records / "actions"
    actions.mkdir(parents=True)
    with (small_disk / "filler").open("wb") as filler:
        free = os.statvfs(small_disk).f_bavail
        os.posix_fallocate(filler.fileno(), 0, 4096 * (free - (steps * 28 + 128) // 4096))
    with pytest.raises(OSError, match="No space left"):
        mine.write(("fail", outcome, ""), key)
    assert list(actions.iterdir()) == []


@pytest.mark.slow
def test_a_suspended_episode_goes_on(tmp_path: Path) -> None:
    """One job as Slurm does it, which stops all of it, and of one the process alone."""
    stopped = []
    for name, send in (("job", os.killpg), ("process", os.kill)):
        run = planned(tmp_path / name, steps=8, limit_s=2.4)  # 0.4 s an episode
        job = start(run, "well")
        wait_for(lambda run=run: whole_lines(run), 30)
        time.sleep(0.2)  # into the next episode
        send(job.pid, signal.SIGSTOP)
        stopped.append((run, job))
    time.sleep(max(2 * 2.4, watch.LEAP_S) + 0.6)
    for _, job in stopped:
        os.kill(job.pid, signal.SIGCONT)  # first, so that what watches it finds it at work
    os.killpg(stopped[0][1].pid, signal.SIGCONT)
    for run, job in stopped:
        assert job.wait(30) == 0
        assert statuses(run) == {state: ["fail"] for state in range(4)}


@pytest.mark.slow
def test_one_that_is_slow_ends_nobody(tmp_path: Path) -> None:
    """Its process notices by itself between two queries, by the same clock."""
    run = planned(tmp_path, steps=60)
    job = start(run, "well")
    wait_for(lambda: "timeout" in statuses(run).get(0, []), 30)
    job.kill()
    assert job.wait() == -signal.SIGKILL


def test_killed_twice_around_its_end_it_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """With what watches it: before that acts, and in the moment in which it does."""
    run = planned(tmp_path)
    job = start(run, "asleep")
    wait_for(lambda: whole_lines(run), 30)
    time.sleep(random.Random(0).uniform(0, LIMIT_S))
    os.killpg(job.pid, signal.SIGKILL)
    job.wait()
    before = parts(run)
    job = start(run, "asleep")
    while not parts(run) - before:
        assert alive(job.pid) or parts(run) - before, "it ended without its record"
    os.killpg(job.pid, signal.SIGKILL)
    assert job.wait() in (-signal.SIGKILL, -signal.SIGALRM), "or its watch was a moment faster"
    assert start(run, "well").wait(30) == 0
    found = statuses(run)
    assert found.pop(1) in (["fail"], ["env_error", "fail"])
    assert found == {0: ["fail"], 2: ["fail"], 3: ["fail"]}
    assert len(records.read_folder(run.records)) == 4


@pytest.mark.slow
def test_what_watches_is_started_again(tmp_path: Path) -> None:
    """Somebody kills it in the episode before."""
    run = planned(tmp_path, steps=30, limit_s=1.8)
    job = start(run, "asleep")
    wait_for(lambda: children_of(job.pid), 30)
    for child in children_of(job.pid):
        os.kill(child, signal.SIGKILL)
    assert job.wait(30) == -watch.DEADLY
    assert statuses(run) == {0: ["fail"], 1: ["env_error"]}


@pytest.mark.slow
def test_it_ends_also_when_its_record_may_or_can_not_be_written(tmp_path: Path) -> None:
    newer, lost = planned(tmp_path / "newer"), planned(tmp_path / "lost")
    # One after the other: the first one's time would be over while the second starts.
    jobs = [start(newer, "asleep")]
    wait_for(lambda: whole_lines(newer), 30)
    newer.ledger.publish("claim.evaluate.a1", indices=[0])
    jobs.append(start(lost, "asleep"))
    its = Job(lost, {}, "evaluate", 0, 1, attempt=0, node=0)
    wait_for(lambda: any("-i1-" in name for name in book.begun(its)), 30)
    lost.records.rename(tmp_path / "away")
    assert [job.wait(30) for job in jobs] == [-watch.DEADLY] * 2
    assert statuses(newer) == {0: ["fail"]}
    assert "this try is not written down: " in (tmp_path / "lost" / "log").read_text()
