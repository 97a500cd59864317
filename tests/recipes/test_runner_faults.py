"""Faults really made: killed, stopped, rebooted, full disks, damaged and missing files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.core import dag_processes
from launcher.core.dag import Step
from tests.recipes.boxes import ALONE, LIMIT_S, Box, begun, ended_box, processes_of, wait_for

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root")
HOLD = "until test -f $RDTL_STEP.go; do sleep 0.05; done; echo >> $RDTL_STEP.ended"


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    with ended_box(tmp_path) as found:
        yield found


@pytest.mark.parametrize("at", ["a", "b", "c"])
@pytest.mark.parametrize(
    "stubborn", ["", "trap '' PIPE; (while :; do echo || true; sleep 0.05; done) & "]
)
def test_a_runner_killed_in_any_step(box: Box, at: str, stubborn: str) -> None:
    steps = [
        Step(name, script=ALONE + stubborn + HOLD, needs=needs, outputs=(f"{name}.ended",))
        for name, needs in (("a", ()), ("b", ("a",)), ("c", ("b",)))
    ]
    box.write(*steps)
    box.work.mkdir()
    for name in "abc"["abc".index(at) + 1 :] + "abc"[: "abc".index(at)]:
        (box.work / f"{name}.go").touch()
    box.kill_when(lambda: begun(box, at) == 1)
    (box.work / f"{at}.go").touch()
    box.start()
    assert box.finished() == 0, box.events("step_fail")
    assert {name: begun(box, name) for name in "abc"} == {n: 2 if n == at else 1 for n in "abc"}
    assert box.names("step_skip") == list("abc"[: "abc".index(at)])
    assert box.names("step_done") == ["a", "b", "c"]


def test_what_a_killed_runner_left_is_ended_before_the_step_starts_again(box: Box) -> None:
    mark = f"sleep 600.{os.getpid()}"
    box.write(Step("s", script=f"trap '' PIPE; (setsid {mark} &) ; {ALONE}{mark}"))
    box.kill_when(lambda: begun(box, "s") == 1)
    # The step goes on without its runner; what it begins last may come a moment later.
    wait_for(lambda: len(processes_of(mark.replace(" ", "\0"))) == 2)
    assert json.loads(box.call("status").stdout)["steps"]["s"]["status"] == "interrupted"
    box.write(Step("s", script=ALONE))
    box.start()
    assert box.finished() == 0
    assert processes_of(mark.replace(" ", "\0")) == []
    assert box.events("start")[-1]["strays"] >= 2


def test_stop_also_ends_what_a_killed_runner_left(box: Box) -> None:
    mark = f"sleep 600.{os.getpid()}"
    box.write(Step("s", script=f"{ALONE}{mark}"))
    box.kill_when(lambda: begun(box, "s") == 1)
    wait_for(lambda: processes_of(mark.replace(" ", "\0")))
    said = json.loads(box.call("stop").stdout)
    assert said == {"state": "not running", "ended": 1}
    assert processes_of(mark.replace(" ", "\0")) == []


def test_following_a_runner_that_is_killed_ends_with_gone(box: Box) -> None:
    box.write(Step("s", script=ALONE + HOLD))
    pid = box.start()
    follower = subprocess.Popen(box.argv("follow"), stdout=subprocess.PIPE, text=True)
    box.kill(pid)
    out, _ = follower.communicate(timeout=LIMIT_S)
    assert follower.returncode == 4
    assert json.loads(out.splitlines()[-1])["event"] == "gone"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_all_steps_and_the_next_start_runs_them(box: Box, number: int) -> None:
    box.write(Step("done", argv=("true",)), *(Step(n, script=ALONE + HOLD) for n in ("x", "y")))
    pid = box.start()
    wait_for(lambda: begun(box, "x") and begun(box, "y") and box.names("step_done"))
    os.kill(pid, number)
    assert box.finished() == 143
    assert processes_of(str(box.folder)) == []
    assert [e["reason"] for e in box.events("step_fail")] == ["stopped", "stopped"]
    for name in "xy":
        (box.work / f"{name}.go").touch()
    assert box.call("run").returncode == 0
    assert (begun(box, "x"), begun(box, "y")) == (2, 2)
    assert box.names("step_skip") == ["done"]


@pytest.mark.slow  # waits out the time that a step has to end
def test_a_step_that_does_not_hear_term_is_killed(box: Box) -> None:
    box.write(Step("s", script="trap '' TERM; touch on; while :; do sleep 0.1; done"))
    box.start()
    wait_for((box.work / "on").exists)
    began = time.monotonic()
    assert box.call("stop").returncode == 0
    assert dag_processes.GRACE_S <= time.monotonic() - began < dag_processes.GRACE_S + 10
    assert processes_of(str(box.folder)) == []


def interrupted_as(box: Box, process: dag_processes.Process) -> None:
    """A run that was cut off in step s, as if runner and step had been this process."""
    box.write(Step("a", script=ALONE), Step("s", script=ALONE + HOLD, needs=("a",)))
    box.kill_when(lambda: begun(box, "s") == 1)
    for pid in processes_of("s.go"):
        os.kill(pid, signal.SIGKILL)
    (box.work / "s.go").touch()
    for path in (box.run.runner, box.run.step("s") / "state.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"process": vars(process)}))


@AS_ROOT
def test_after_a_reboot_numbers_of_processes_mean_nothing(box: Box, tmp_path: Path) -> None:
    """All processes are gone, and another one has the number, the start time and another boot."""
    with subprocess.Popen(["sleep", "600"], start_new_session=True) as other:
        try:
            interrupted_as(box, dag_processes.of(other.pid))
            assert box.run.owner() is not None, "on this boot it would be that process"
            boot = tmp_path / "boot_id"
            boot.write_text("11111111-2222-3333-4444-555555555555\n")
            mount = 'mount --bind "$0" /proc/sys/kernel/random/boot_id && exec "$@"'
            argv = ["unshare", "-m", "sh", "-c", mount, str(boot), *box.argv("run")]
            subprocess.run(argv, check=True, timeout=LIMIT_S, cwd="/")
            assert other.poll() is None, "a stranger was ended"
        finally:
            other.kill()
    assert (begun(box, "a"), begun(box, "s")) == (1, 2)


def test_a_fault_of_the_runner_in_a_step_is_told(box: Box) -> None:
    """Python itself refuses this command, which no part of the runner expects."""
    box.write(Step("s", argv=("true", "a\0b")), Step("other", argv=("true",)))
    assert box.call("run").returncode == 1
    (told,) = box.events("step_fail")
    assert (told["step"], told["code"]) == ("s", "RDTL-B058")
    assert "the runner failed: ValueError" in told["reason"]
    assert box.names("step_done") == ["other"]


def test_a_number_that_another_process_has_now_is_not_the_runner(box: Box) -> None:
    """A box that is a container keeps the boot id of its host when it starts again."""
    with subprocess.Popen(["sleep", "600"], start_new_session=True) as other:
        try:
            real = dag_processes.of(other.pid)
            earlier = dag_processes.Process(real.pid, real.start_time - 5, real.boot_id)
            interrupted_as(box, earlier)
            assert box.call("run").returncode == 0
            assert other.poll() is None, "a stranger was ended"
        finally:
            other.kill()
    assert (begun(box, "a"), begun(box, "s")) == (1, 2)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MB as the run directory."""
    folder = tmp_path / "run"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "none", folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.slow
@AS_ROOT
def test_a_full_disk_is_named_and_what_was_finished_is_kept(box: Box, small_disk: Path) -> None:
    fill = f"{ALONE}test -f full || {{ touch full; cat /dev/zero > {small_disk}/filler; }}"
    box.write(
        Step("first", script=ALONE),
        Step("filling", script=fill, needs=("first",)),
        Step("beside", script=f"{ALONE}until test -f full; do sleep 0.05; done; sleep 1"),
    )
    assert box.call("run").returncode == 1
    (failed,) = box.events("step_fail")
    assert (failed["step"], failed["code"]) == ("filling", "RDTL-G009")
    assert box.run.state("beside")["status"] == "done", "written with the reserve"
    assert box.events("end")
    (small_disk / "filler").unlink()
    assert box.call("run").returncode == 0
    assert {name: begun(box, name) for name in ("first", "filling", "beside")} == {
        "first": 1, "filling": 2, "beside": 1,
    }  # fmt: skip


@AS_ROOT
def test_a_log_that_fills_the_disk_costs_the_step_nothing(box: Box, small_disk: Path) -> None:
    words = "head -c 5000000 /dev/zero | tr '\\0' x | fold -w 100; touch made"
    box.write(Step("s", script=words, outputs=("made",)))
    assert box.call("run").returncode == 0
    assert box.run.state("s")["status"] == "done"
    assert box.events("end")[0]["done"] == 1


@AS_ROOT
def test_a_disk_that_is_full_already_is_named_at_once(box: Box, small_disk: Path) -> None:
    box.write(Step("s", script=ALONE))
    fill = f"cat /dev/zero > {small_disk}/filler 2>/dev/null; test -s {small_disk}/filler"
    subprocess.run(["sh", "-c", fill], check=True)
    for verb in ("run", "start"):
        done = box.call(verb)
        assert done.returncode == 1
        assert json.loads(done.stderr)["code"] == "RDTL-G009"
    assert begun(box, "s") == 0


@pytest.mark.parametrize("text", ["", '{"status": "done", "finger', "[]", "\0" * 200])
def test_a_damaged_state_counts_as_none(box: Box, text: str) -> None:
    box.write(Step("a", script=ALONE), Step("b", script=ALONE, needs=("a",)))
    box.call("run")
    (box.run.step("b") / "state.json").write_text(text)
    assert box.call("run").returncode == 0
    assert (begun(box, "a"), begun(box, "b")) == (1, 2)


def test_damaged_events_and_runner_files_cost_only_themselves(box: Box) -> None:
    box.write(Step("a", script=ALONE))
    box.call("run")
    before = box.events()
    with box.run.events.open("a") as handle:
        handle.write('{"seq": 99, "ev')  # a power cut
    box.run.runner.write_text("\0\0")
    assert box.call("run").returncode == 0
    assert begun(box, "a") == 1
    events = box.events()
    assert events[: len(before)] == before
    assert [e["seq"] for e in events] == list(range(1, len(events) + 1))


def test_a_start_that_is_killed_before_its_word_ends_no_run(box: Box) -> None:
    """Where the start was, nobody reads any more."""
    box.write(Step("s", script=ALONE))
    program = (
        "import os, sys; from pathlib import Path; sys.path.insert(0, sys.argv[1])\n"
        "from launcher.core import dag_box, dag_files\n"
        "ear, mouth = os.pipe(); os.close(ear)\n"
        "dag_box._detach(dag_files.BoxRun(Path(sys.argv[2])), {}, mouth, None)\n"
    )
    words = [str(box.folder / "runner.pyz"), str(box.run.root)]
    subprocess.run([box.python, "-I", "-c", program, *words], check=True, timeout=LIMIT_S)
    wait_for(box.run.rc.exists)
    assert box.finished() == 0 and begun(box, "s") == 1


def test_of_many_starts_at_once_one_runs(box: Box) -> None:
    box.write(Step("s", script=ALONE + HOLD))
    starts = [subprocess.Popen(box.argv("start"), stdout=subprocess.PIPE) for _ in range(5)]
    said = [json.loads(start.communicate(timeout=LIMIT_S)[0]) for start in starts]
    (box.work / "s.go").touch()
    assert box.finished() == 0
    assert [each["state"] for each in said].count("started") == 1
    assert len({each["pid"] for each in said}) == 1
    assert begun(box, "s") == 1 and len(box.events("start")) == 1
