"""The capped executor keeps its cap, submitit's interface and its word when killed."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import submitit
from submitit.core import utils

from launcher.core import dag_processes
from launcher.submit.local import CappedExecutor
from tests.recipes.boxes import wait_for


def note_and_wait(folder: str, number: int) -> int:
    """How many of us were alive at once; task 0 stays until task 1 has been seen beside it."""
    mine = Path(folder) / f"alive-{number}"
    mine.touch()
    deadline = time.monotonic() + (60 if number == 0 else 0.05)
    most = 1
    while time.monotonic() < deadline and not (number == 0 and most > 1):
        most = max(most, len(list(Path(folder).glob("alive-*"))))
        time.sleep(0.002)
    mine.unlink()
    return most


def fail(text: str) -> None:
    raise ValueError(text)


def test_results_come_in_order_and_the_cap_holds(tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    executor = CappedExecutor(tmp_path / "x", jobs=3)
    jobs = executor.map_array(note_and_wait, [str(marks)] * 12, range(12))
    alive = [job.result() for job in jobs]
    assert max(alive) <= 3
    assert alive[0] >= 2, "nothing ran at the same time"


def all_together(folder: str, number: int, count: int) -> bool:
    """Whether all others came while we were there."""
    (Path(folder) / f"here-{number}").touch()
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and len(list(Path(folder).glob("here-*"))) < count:
        time.sleep(0.01)
    return len(list(Path(folder).glob("here-*"))) == count


def test_submitit_s_own_starts_everything_at_once(tmp_path: Path) -> None:
    count, marks = 6, tmp_path / "marks"
    marks.mkdir()
    tasks = ([str(marks)] * count, range(count), [count] * count)
    jobs = submitit.LocalExecutor(tmp_path / "x").map_array(all_together, *tasks)
    assert [job.result() for job in jobs] == [True] * count


def test_lambdas_and_batches_work_as_with_submitit(tmp_path: Path) -> None:
    executor = CappedExecutor(tmp_path, jobs=2)
    jobs = []
    with executor.batch():
        for number in range(4):
            jobs.append(executor.submit(lambda n: n + 1, number))
    assert [job.result() for job in jobs] == [1, 2, 3, 4]


def test_a_failing_call_brings_its_traceback(tmp_path: Path) -> None:
    job = CappedExecutor(tmp_path).submit(fail, "what went wrong")
    with pytest.raises(utils.FailedJobError, match="what went wrong"):
        job.result()


def test_a_killed_task_is_an_uncompleted_job_not_a_hang(tmp_path: Path) -> None:
    executor = CappedExecutor(tmp_path)
    job = executor.submit(os.kill, 0, 0)  # any call; it is killed from outside first
    job = executor.submit(time.sleep, 30)
    while job.process is None:
        executor.pump()
    job.process.kill()
    with pytest.raises(utils.UncompletedJobError, match="left no result"):
        job.result()


def test_cancelling_a_waiting_task_never_starts_it(tmp_path: Path) -> None:
    executor = CappedExecutor(tmp_path / "x", jobs=1)
    running = executor.submit(time.sleep, 30)
    waiting = executor.submit(Path.touch, tmp_path / "started")
    waiting.cancel()
    running.cancel()
    executor.pump()
    time.sleep(0.2)
    assert not (tmp_path / "started").exists()
    assert running.state == "FINISHED"


def test_tasks_die_with_a_killed_launcher(tmp_path: Path) -> None:
    code = textwrap.dedent(f"""
        import time
        from launcher.submit.local import CappedExecutor
        executor = CappedExecutor({str(tmp_path / "x")!r}, jobs=1)
        job = executor.submit(time.sleep, 60)
        print(job.process.pid, flush=True)
        time.sleep(60)
    """)
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as launcher:
        assert launcher.stdout
        pid = int(launcher.stdout.readline())
        assert Path(f"/proc/{pid}").exists()
        launcher.kill()
    # 0: there is none, or a zombie. It would end by itself after 60 s.
    wait_for(lambda: dag_processes.of(pid).start_time == 0, 20)
