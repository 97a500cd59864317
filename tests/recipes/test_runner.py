"""The runner as a box sees it: one file under a bare Python, detached, followed, run again."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from launcher.core import dag_files
from launcher.core.dag import Marker, Step, Verify
from launcher.core.dag_execute import Log, execute
from launcher.core.dag_files import BoxRun, Recorder
from launcher.core.dag_follow import Tail
from launcher.core.redaction import Redaction
from tests.recipes.boxes import Box, bare_python, processes_of, wait_for

CANARY = "canary-5e1f-secret"


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path, bare_python())


def test_steps_run_after_what_they_need_and_are_skipped_when_proven(box: Box) -> None:
    make = Step("make", script="echo x >> made", outputs=("made",))
    use = Step("use", script="cat made", needs=("make",), verify=Verify(cheap="test -s made"))
    always = Step("always", argv=("true",), always=True)
    box.write(use, make, always)
    assert box.call("run").returncode == 0
    assert box.names("step_done").index("make") < box.names("step_done").index("use")
    assert (box.run.step("use") / "log").read_text() == "x\n"
    assert box.call("run").returncode == 0
    assert sorted(box.names("step_skip")) == ["make", "use"]
    assert box.names("step_done")[-1] == "always"
    assert (box.work / "made").read_text() == "x\n"
    assert box.run.rc.read_text() == "0\n"


def test_what_changed_runs_again_with_what_comes_after_it(box: Box) -> None:
    (box.folder / "work").mkdir()
    (box.work / "in").write_text("1")
    steps = [
        Step("a", script="cat in > a", inputs=("in",), outputs=("a",)),
        Step("b", script="cp a b", needs=("a",), outputs=("b",)),
        Step("other", argv=("true",)),
    ]
    box.write(*steps)
    box.call("run")
    (box.work / "in").write_text("2")
    said = json.loads(box.call("plan").stdout)
    assert {each["step"]: each["would"] for each in said} == {
        "a": "run", "b": "run", "other": "skip",
    }  # fmt: skip
    box.call("run")
    assert (box.work / "b").read_text() == "2"
    assert box.names("step_skip") == ["other"]


@pytest.mark.parametrize("what", ["output", "proof"])
def test_a_step_whose_product_is_gone_runs_again_alone(box: Box, what: str) -> None:
    steps = [
        Step("a", script="echo good > a", outputs=("a",), verify=Verify(cheap="grep good a")),
        Step("b", script="echo x >> b", needs=("a",), outputs=("b",)),
    ]
    box.write(*steps)
    box.call("run")
    if what == "output":
        (box.work / "a").unlink()
    else:
        (box.work / "a").write_text("rotten")
    plan = json.loads(box.call("plan").stdout)
    assert plan[0]["would"] == "run"
    assert ("not there" in plan[0]["why"]) == (what == "output")
    box.call("run")
    assert box.names("step_done") == ["a", "b", "a"]
    assert (box.work / "b").read_text() == "x\n"


def test_a_failure_blocks_what_needs_it_and_nothing_else(box: Box) -> None:
    box.write(
        Step("bad", script="echo why; exit 7"),
        Step("after", argv=("true",), needs=("bad",)),
        Step("later", argv=("true",), needs=("after",)),
        Step("logs", argv=("true",), needs=("later",), after_failure=True),
        Step("other", argv=("true",)),
    )
    assert box.call("run").returncode == 1
    (failed,) = box.events("step_fail")
    assert (failed["rc"], failed["code"], failed["last"]) == (7, "RDTL-B058", ["why"])
    assert box.names("blocked") == ["after", "later"]
    assert sorted(box.names("step_done")) == ["logs", "other"]
    end = box.events("end")[-1]
    assert (end["rc"], end["done"], end["failed"], end["blocked"]) == (1, 2, 1, 2)


@pytest.mark.parametrize(
    ("step", "code"),
    [
        (Step("s", argv=("true",), outputs=("never",)), "RDTL-B054"),
        (Step("s", argv=("true",), inputs=("never",)), "RDTL-B054"),
        (Step("s", argv=("true",), verify=Verify(cheap="echo no; false")), "RDTL-B055"),
        (Step("s", argv=("true",), verify=Verify(deep=("false",))), "RDTL-B055"),
        (Step("s", argv=("true",), verify=Verify("sleep 9", timeout_s=0.3)), "RDTL-B057"),
        (Step("s", argv=("sleep", "60"), timeout_s=0.3), "RDTL-B057"),
        (Step("s", argv=("/no/such/program",)), "RDTL-B058"),
        (Step("s", script="false | true"), "RDTL-B058"),
        (Step("s", script="read line"), "RDTL-B058"),
    ],
)
def test_a_good_exit_code_is_not_enough_and_nothing_waits_for_ever(
    box: Box, step: Step, code: str
) -> None:
    box.write(step)
    assert box.call("run").returncode == 1
    (failed,) = box.events("step_fail")
    assert failed["code"] == code
    assert box.run.state("s").get("status") in ("failed", None)


@pytest.mark.parametrize(("remedies", "tries"), [(("halve-micro-batch",), 1), (("retry",), 2)])
def test_the_longest_time_is_spent_again_only_where_the_step_says_so(
    box: Box, remedies: tuple[str, ...], tries: int
) -> None:
    slow = Step("s", argv=("sleep", "60"), timeout_s=0.3, retries=1, retry_wait_s=0.1)
    box.write(replace(slow, remedies=remedies))
    assert box.call("run").returncode == 1
    assert len(box.events("step_begin")) == tries
    (failed,) = box.events("step_fail")
    assert failed["code"] == "RDTL-B057"


def test_tokens_bound_what_runs_at_once_and_the_longest_way_goes_first(box: Box) -> None:
    at_work = "$(($(wc -l < begun) - $(cat ended 2>/dev/null | wc -l)))"
    work = f"echo >> begun; test {at_work} -le 2; sleep 0.2; echo >> ended"
    steps = [Step(f"s{n}", script=work, resources={"net": 1}, expected_s=n) for n in range(1, 7)]
    box.write(*steps, tokens={"net": 2})
    assert box.call("run").returncode == 0
    assert set(box.names("step_begin")[:2]) == {"s6", "s5"}
    assert set(box.names("step_begin")[-2:]) == {"s1", "s2"}


def test_a_detached_runner_outlives_its_client_and_a_second_start_attaches(box: Box) -> None:
    box.write(Step("s", script="until test -f go; do sleep 0.05; done"))
    pid = box.start()
    assert os.getsid(pid) != os.getsid(0)
    follower = subprocess.Popen(box.argv("follow"), stdout=subprocess.PIPE, text=True)
    assert follower.stdout is not None
    seen = [json.loads(follower.stdout.readline())["seq"] for _ in range(2)]
    follower.kill()
    follower.wait()
    again = json.loads(box.call("start").stdout)
    assert again == {"state": "running", "pid": pid}
    assert json.loads(box.call("run").stderr)["code"] == "RDTL-B050"
    (box.work / "go").touch()
    rest = box.call("follow", "--after", str(seen[-1]))
    events = [json.loads(line) for line in rest.stdout.splitlines()]
    assert [e["seq"] for e in events if e["event"] != "alive"] == [3, 4]
    assert events[-1]["event"] == "end" and rest.returncode == 0
    assert len(box.events("start")) == 1


def test_secrets_reach_the_step_that_names_them_and_no_file(box: Box) -> None:
    show = 'echo "it is $KEY"; env | grep -c CANARY_OF_NOBODY || true; cat /proc/$$/cmdline'
    box.write(
        Step("uses", script=f'{show}; test "$KEY" = {CANARY[:6]}"{CANARY[6:]}"', secrets=("KEY",)),
        Step("not", script='test -z "${KEY-}"'),
    )
    done = box.call("run", secrets=f"KEY={CANARY}\nOTHER=unused-secret\n")
    assert done.returncode == 0, box.events("step_fail")
    files = [path for path in box.folder.rglob("*") if path.is_file()]
    assert len(files) > 8
    assert [path for path in files if CANARY.encode() in path.read_bytes()] == []
    assert "it is [hidden]" in (box.run.step("uses") / "log").read_text()


def test_missing_and_readable_secrets_are_refused_before_anything_runs(box: Box) -> None:
    box.write(Step("s", argv=("true",), secrets=("KEY",)))
    done = box.call("start")
    assert done.returncode == 3
    assert json.loads(done.stderr)["code"] == "RDTL-B052"
    file = box.folder / "keys"
    file.write_text("KEY=value-of-key\n")
    file.chmod(0o644)
    done = box.call("run", "--secrets", str(file))
    assert done.returncode == 3 and "others may read" in done.stderr
    file.chmod(0o600)
    assert box.call("run", "--secrets", str(file)).returncode == 0
    assert box.names("step_begin") == ["s"]


def test_deep_proofs_can_be_asked_for_again(box: Box) -> None:
    proof = Verify(cheap="true", deep="grep good a")
    box.write(
        Step("s", script="echo good > a", outputs=("a",), verify=proof), Step("t", argv=("true",))
    )
    box.call("run")
    assert box.call("verify").returncode == 0
    (box.work / "a").write_text("rotten")
    done = box.call("verify", "s")
    assert done.returncode == 1
    assert json.loads(done.stdout)["good"] is False
    assert box.events("check_failed") == [], "looking is not telling"


def test_a_damaged_download_is_found_and_fetched_again(box: Box) -> None:
    (box.folder / "work").mkdir()
    (box.work / "source").write_bytes(os.urandom(100_000))
    fetch = (
        "cp source copy; echo >> tries; "
        "if test $(wc -l < tries) -eq 1; then printf X | dd of=copy seek=500 conv=notrunc; fi"
    )
    proof = Verify(cheap="test $(stat -c %s copy) -eq 100000", deep="cmp source copy")
    step = Step("fetch", script=fetch, outputs=("copy",), verify=proof)
    box.write(replace(step, retries=1, retry_wait_s=0.0))
    assert box.call("run").returncode == 0
    assert (box.work / "copy").read_bytes() == (box.work / "source").read_bytes()
    (retry,) = box.events("retry")
    assert retry["reason"].startswith("RDTL-B055")


@pytest.mark.parametrize(("remedies", "tries"), [((), 1), (("retry",), 3)])
def test_what_a_proof_says_is_told_and_tried_again_only_where_the_recipe_allows_it(
    box: Box, remedies: tuple[str, ...], tries: int
) -> None:
    proof = Verify(cheap='"$RDTL_PYTHON" "$RDTL_RUNNER_PYZ" check counts . txt=5')
    step = Step("fetch", script="echo >> tries; touch 1.txt", outputs=("tries",), verify=proof)
    box.write(replace(step, retries=2, retry_wait_s=0.0, remedies=remedies))
    assert box.call("run").returncode == 1
    (failed,) = box.events("step_fail")
    assert failed["code"] == "RDTL-G002", failed
    assert len((box.work / "tries").read_text()) == tries


def test_status_of_each_step(box: Box) -> None:
    box.write(
        Step("a", argv=("true",)),
        Step("b", argv=("false",)),
        Step("c", argv=("true",), needs=("b",)),
    )
    box.call("run")
    status = json.loads(box.call("status").stdout)
    assert {name: step["status"] for name, step in status["steps"].items()} == {
        "a": "done", "b": "failed", "c": "waiting",
    }  # fmt: skip
    assert (status["alive"], status["rc"]) == (False, 1)
    assert status["seq"] == box.events()[-1]["seq"]


def test_what_a_step_started_ends_with_it(box: Box) -> None:
    mark = f"sleep 600.{os.getpid()}"
    box.write(Step("s", script=f"{mark} & echo ready"))
    assert box.call("run").returncode == 0
    assert box.events("step_done")[0]["seconds"] < 30
    wait_for(lambda: processes_of(mark.replace(" ", "\0")) == [], 5)


def test_a_process_that_cannot_be_noted_is_ended(tmp_path: Path) -> None:
    def began(pid: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    seconds = f"600.{os.getpid()}"
    log = Log(tmp_path / "log", Redaction())
    with pytest.raises(OSError, match="full"):
        execute(("sleep", seconds), os.environ, tmp_path, log, print, lambda _: None, began)
    assert processes_of(seconds) == []


def test_events_and_logs_stay_small_and_lose_no_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dag_files, "EVENTS_BYTES", 5000)
    recorder = Recorder(BoxRun(tmp_path))
    tail = Tail(BoxRun(tmp_path), 0)
    seen = []
    for number in range(300):
        recorder.tell("marker", step="s", number=number)
        if number % 7 == 0:
            seen += [event["seq"] for event in tail.new()]
    seen += [event["seq"] for event in tail.new()]
    assert seen == list(range(1, 301))
    assert sum(path.stat().st_size for path in tmp_path.glob("events*")) < 3 * 5000
    recorder.close(0)
    assert Recorder(BoxRun(tmp_path)).seq == 300


def test_a_log_keeps_lines_that_stay_and_few_of_those_that_are_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, lines = Log(tmp_path / "log", Redaction([CANARY])), []
    bar = (
        b"".join(b"\r%d%%" % n for n in range(50)) + b"\rstep=1 loss=2\r\nsecret " + CANARY.encode()
    )
    for n in range(0, len(bar), 7):  # a pipe cuts where it likes
        log.add(bar[n : n + 7], lines.append)
    log.close(lines.append)
    kept = (tmp_path / "log").read_text().splitlines()
    assert kept == ["0%", "step=1 loss=2", "secret [hidden]"]
    assert len(lines) == 52, "but every line was looked at"


def test_the_runner_needs_nothing_of_this_repository(box: Box) -> None:
    box.write(Step("s", script='"$RDTL_PYTHON" "$RDTL_RUNNER_PYZ" status "$RDTL_RUN"'))
    assert box.call("run").returncode == 0
    said = json.loads((box.run.step("s") / "log").read_text())
    assert said["alive"] and said["steps"]["s"]["status"] == "running"
    assert sys.executable not in (box.run.step("s") / "log").read_text()


def test_a_step_marker_is_told_while_the_step_runs(box: Box) -> None:
    marker = Marker("step", r"step=(?P<step>\d+)")
    box.write(Step("s", script="echo step=0; sleep 600", markers=(marker,)))
    box.start()
    wait_for(lambda: box.events("marker"))
    assert json.loads(box.call("stop").stdout) == {"state": "stopped"}
    assert box.finished() == 143
