"""``rdtl runs`` on runs of this machine: real launchers, real tasks, real kills."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from launcher import child, snapshot
from launcher.core import files
from launcher.core.runs import RunDir
from launcher.staging.locks import held
from tests.cli.run_rdtl import rdtl
from tests.status.small_run import make, wait_until

ROOT = Path(__file__).parent.parent.parent
COUNT = 'echo $RDTL_INDEX >> "$RDTL_RUN_DIR/ran"; '


def start(*arguments: str, cwd: Path) -> subprocess.Popen[bytes]:
    """``rdtl ARGUMENTS`` in the background."""
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "launcher", *arguments],
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def show(run: RunDir, cwd: Path) -> dict[str, object]:
    done = rdtl("runs", "show", str(run.root), "--json", cwd=cwd)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def counts(run: RunDir, cwd: Path) -> dict[str, int]:
    stages = show(run, cwd)["stages"]
    return next(s["counts"] for s in stages if s["stage"] == "work")  # type: ignore[attr-defined]


def ran(run: RunDir) -> list[str]:
    path = run.root / "ran"
    return sorted(path.read_text().split()) if path.exists() else []


def test_a_killed_launcher_s_run_is_resumed_from_its_directory_alone(tmp_path: Path) -> None:
    script = COUNT + 'test -e "$RDTL_RUN_DIR/go" || sleep 60'
    run = make(tmp_path / "runs" / "a-local", "local", script, tasks=3)
    with start("runs", "resume", str(run.root), "--jobs", "1", cwd=tmp_path) as launcher:
        wait_until(lambda: ran(run) == ["0"])
        assert counts(run, tmp_path) == {"running": 1, "waiting": 2}
        listed = json.loads(rdtl("runs", "list", "--json", cwd=tmp_path).stdout)
        assert [(one["name"], one["state"]) for one in listed] == [("a-local", "running")]
        launcher.send_signal(signal.SIGKILL)
    assert counts(run, tmp_path) == {"gone": 3}
    assert show(run, tmp_path)["state"] == "stopped"
    (run.root / "go").touch()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    done = rdtl("runs", "resume", str(run.root), cwd=elsewhere)
    assert done.returncode == 0, done.stderr
    assert ran(run) == ["0", "0", "1", "2"]
    assert show(run, tmp_path)["state"] == "done"
    again = rdtl("runs", "resume", str(run.root), cwd=elsewhere)
    assert again.returncode == 0, again.stderr
    assert len(ran(run)) == 4, "what was done ran again"


def test_cancel_ends_the_launcher_and_its_tasks(tmp_path: Path) -> None:
    script = COUNT + "test $RDTL_INDEX = 0 || sleep 60"
    run = make(tmp_path / "runs" / "a-local", "local", script, tasks=3)
    with start("runs", "resume", "a-local", "--jobs", "2", cwd=tmp_path) as launcher:
        wait_until(lambda: len(ran(run)) >= 3)
        done = rdtl("runs", "cancel", "a-local", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "2 task(s) asked to end" in done.stderr
        launcher.wait(timeout=20)
    assert counts(run, tmp_path) == {"done": 1, "gone": 2}
    again = rdtl("runs", "cancel", "a-local", cwd=tmp_path)
    assert again.returncode == 0
    assert "nothing of this run is alive" in again.stderr


def test_cancel_tells_all_tasks_before_it_waits_for_one(tmp_path: Path) -> None:
    """Each saves until the others were told, too; one after another they would take minutes."""
    told = (
        'touch "$RDTL_RUN_DIR/told.$RDTL_INDEX"; i=0; until test -e "$RDTL_RUN_DIR/told.0" -a '
        '-e "$RDTL_RUN_DIR/told.1" -a -e "$RDTL_RUN_DIR/told.2"; do '
        "i=$((i + 1)); test $i = 50 && exit 1; sleep 0.1; done; "
        'touch "$RDTL_RUN_DIR/together.$RDTL_INDEX"; exit 86'
    )
    script = f"trap {shlex.quote(told)} TERM; {COUNT} while :; do sleep 0.1; done"
    run = make(tmp_path / "runs" / "a-local", "local", script, tasks=3)
    with start("runs", "resume", "a-local", "--jobs", "3", cwd=tmp_path) as launcher:
        wait_until(lambda: len(ran(run)) == 3)
        done = rdtl("runs", "cancel", "a-local", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        launcher.wait(timeout=60)
    assert len(list(run.root.glob("together.*"))) == 3


def test_cancel_ends_no_process_that_does_not_drive_the_run(tmp_path: Path) -> None:
    """The process id in the lock may be one of another machine."""
    run = make(tmp_path / "runs" / "a-local", "local", COUNT + "sleep 60", tasks=1)
    with start("runs", "resume", "a-local", cwd=tmp_path) as launcher:
        wait_until(lambda: ran(run) == ["0"])
        with subprocess.Popen(["sleep", "60"]) as other:
            (run.root / "launcher.lock").write_text(f"process {other.pid}\n")
            done = rdtl("runs", "cancel", "a-local", cwd=tmp_path)
            assert done.returncode == 3
            assert "RDTL-S039" in done.stderr
            assert other.poll() is None
            assert launcher.poll() is None
            other.kill()
        launcher.terminate()
        assert launcher.wait(timeout=20) == 130


def test_only_what_failed_is_submitted_again(tmp_path: Path) -> None:
    script = (
        COUNT + 'test -e "$RDTL_RUN_DIR/mended" || test $RDTL_INDEX != 1 || { echo hm; exit 4; }'
    )
    run = make(tmp_path / "runs" / "a-local", "local", script, tasks=3)
    first = rdtl("runs", "resume", "a-local", cwd=tmp_path)
    assert first.returncode == 1
    assert counts(run, tmp_path) == {"done": 2, "failed": 1}
    assert run.ledger.attempts("report") == [1]
    shown = rdtl("runs", "show", "a-local", cwd=tmp_path).stdout
    assert "work: 1 failed (1): exit code 4" in shown
    assert rdtl("runs", "logs", "a-local", cwd=tmp_path).stdout == "hm\n"
    nothing = rdtl("runs", "resubmit", "a-local", "--missing", cwd=tmp_path)
    assert "nothing to submit" in nothing.stderr
    (run.root / "mended").touch()
    done = rdtl("runs", "resubmit", "a-local", "--failed", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [(p["stage"], p["indices"]) for p in json.loads(done.stdout)] == [("work", [1])]
    assert ran(run) == ["0", "1", "1", "2"]
    assert show(run, tmp_path)["state"] == "done"
    assert run.ledger.attempts("report") == [1, 2], "the first one was made without the task"
    again = rdtl("runs", "resume", "a-local", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert run.ledger.attempts("report") == [1, 2], "nothing is new"


def test_logs_of_a_stage_a_task_and_an_attempt(tmp_path: Path) -> None:
    script = "echo task $RDTL_INDEX attempt $RDTL_ATTEMPT; test $RDTL_ATTEMPT = 2"
    make(tmp_path / "runs" / "a-local", "local", script, tasks=2)
    rdtl("runs", "resume", "a-local", cwd=tmp_path)
    rdtl("runs", "resume", "a-local", cwd=tmp_path)
    of = ("runs", "logs", "a-local", "--stage", "work")
    assert rdtl(*of, "--task", "1", cwd=tmp_path).stdout == "task 1 attempt 2\n"
    first = rdtl(*of, "--task", "1", "--attempt", "1", cwd=tmp_path)
    assert first.stdout == "task 1 attempt 1\n"
    assert rdtl("runs", "logs", "a-local", cwd=tmp_path).stdout == "reported\n"
    nothing = rdtl(*of, "--task", "9", cwd=tmp_path)
    assert nothing.returncode == 2
    assert "RDTL-U026" in nothing.stderr


def test_logs_can_be_followed_to_the_end(tmp_path: Path) -> None:
    script = "for i in 1 2 3; do printf 'line '; sleep 0.4; echo $i; done"
    run = make(tmp_path / "runs" / "a-local", "local", script, tasks=1)
    with start("runs", "resume", "a-local", cwd=tmp_path) as launcher:
        wait_until(lambda: run.log("work", 1, 0, 0).exists())
        done = rdtl("runs", "logs", "a-local", "--stage", "work", "--follow", cwd=tmp_path)
        launcher.wait(timeout=20)
    assert done.stdout == "line 1\nline 2\nline 3\n"


@pytest.mark.slow
@pytest.mark.parametrize("ends", ["saved", "with its launcher"])
def test_logs_are_not_followed_for_ever(tmp_path: Path, ends: str) -> None:
    """A task of this machine that saved is not started again, and none outlives its launcher."""
    script = 'echo begun; until test -e "$RDTL_RUN_DIR/go.$RDTL_INDEX"; do sleep 0.1; done; exit 86'
    run = make(tmp_path / "runs" / "a-local", "local", script, tasks=2)
    of = ("runs", "logs", "a-local", "--stage", "work", "--task", "0", "--follow")
    with start("runs", "resume", "a-local", "--jobs", "2", cwd=tmp_path) as launcher:
        try:
            wait_until(lambda: run.log("work", 1, 0, 0).exists())
            go = (run.root / "go.0").touch if ends == "saved" else launcher.kill
            threading.Timer(6, go).start()  # the log is followed by then
            done = rdtl(*of, cwd=tmp_path, timeout=40)
        finally:
            launcher.terminate()
    assert done.stdout == "begun\n"


def test_a_removed_account_s_run_is_listed(tmp_path: Path) -> None:
    """One on a cluster whose end nobody has seen: the queue is asked by the number."""
    if os.geteuid() != 0:
        pytest.skip("only root gives files to others")
    (tmp_path / "configs/sites").mkdir(parents=True)
    (tmp_path / "configs/sites/far.yaml").write_text("{kind: slurm}\n")
    (tmp_path / "squeue").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n')
    (tmp_path / "squeue").chmod(0o755)
    run = make(tmp_path / "runs" / "a-far", "far", "true", tasks=1)
    os.chown(run.root, 54321, -1)
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = rdtl("runs", "list", cwd=tmp_path, env=path)
    assert done.returncode == 0, done.stderr
    assert "a-far" in done.stdout
    assert "--user=54321" in (tmp_path / "asked").read_text()


def test_fetch_copies_whole_or_not_at_all(tmp_path: Path) -> None:
    run = make(tmp_path / "runs" / "a-local", "local", "true", tasks=1)
    none = rdtl("runs", "fetch", "a-local", "out", cwd=tmp_path)
    assert none.returncode == 2
    assert not (tmp_path / "out").exists()
    for name in ("report", "records", "policy"):
        (run.root / name).mkdir()
        (run.root / name / "file").write_text(name)
    (run.root / "records" / ".half.part").write_text("x")
    done = rdtl("runs", "fetch", "a-local", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = sorted(str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*"))
    assert [name for name in found if "/" in name] == ["policy/file", "records/file", "report/file"]
    assert {"lock.json", "plan.json", "run.yaml"} <= set(found)
    twice = rdtl("runs", "fetch", "a-local", "out", cwd=tmp_path)
    assert twice.returncode == 2
    (run.root / "policy" / "file").unlink()
    (run.root / "policy" / "file").symlink_to("nowhere")  # as if it vanished while we copy
    failed = rdtl("runs", "fetch", "a-local", "other", cwd=tmp_path)
    assert failed.returncode != 0
    assert not (tmp_path / "other").exists()
    assert not list(tmp_path.glob(".other*"))


def test_clean_lists_first_and_spares_what_is_needed(tmp_path: Path) -> None:
    done_run = make(tmp_path / "runs" / "done-local", "local", "true", tasks=1)
    rdtl("runs", "resume", "done-local", cwd=tmp_path)
    done_run.policy.mkdir()
    (done_run.policy / "card.json").write_text("{}\n")
    failed = make(tmp_path / "runs" / "failed-local", "local", "exit 1", tasks=1)
    rdtl("runs", "resume", "failed-local", cwd=tmp_path)
    live = make(tmp_path / "runs" / "live-local", "local", COUNT + "sleep 60", tasks=1)
    for run in (done_run, failed, live):
        for step in ("step_000010", "step_000020"):
            (run.checkpoints / step).mkdir(parents=True)
            (run.checkpoints / step / "state").write_bytes(b"x" * 1000)
        (run.checkpoints / "metrics.jsonl").write_text("{}\n")
        (run.root / ".half.part").write_text("x")
    with start("runs", "resume", "live-local", cwd=tmp_path) as launcher:
        wait_until(lambda: ran(live) == ["0"])
        dry = rdtl("runs", "clean", "--dry-run", "--json", cwd=tmp_path)
        listed = {item["path"] for item in json.loads(dry.stdout)["removed"]}
        assert all(Path(path).exists() for path in listed), "a dry run removed something"
        done = rdtl("runs", "clean", cwd=tmp_path)
        assert "live-local: it is alive" in done.stderr
        launcher.kill()
    assert str(done_run.checkpoints / "step_000020") in listed
    assert sorted(p.name for p in done_run.checkpoints.iterdir()) == ["metrics.jsonl"]
    assert len(list(failed.checkpoints.glob("step_*"))) == 2, "it continues from these"
    assert len(list(live.checkpoints.glob("step_*"))) == 2
    assert (live.root / ".half.part").exists()
    assert not (failed.root / ".half.part").exists()
    assert counts(done_run, tmp_path) == {"done": 1}


@pytest.mark.slow
def test_clean_spares_the_checkpoints_of_a_program_of_one_s_own(tmp_path: Path) -> None:
    """It ended with 0, so its run is done; but what it saved is all that there is."""
    script = 'mkdir -p "$RDTL_RUN_DIR/checkpoints/step_000010"'
    run = make(tmp_path / "runs" / "own-local", "local", script, tasks=1)
    rdtl("runs", "resume", "own-local", cwd=tmp_path)
    (run.checkpoints / "damaged_step_000005").mkdir()
    run.policy.mkdir()  # of a program of one's own too, without a card
    done = rdtl("runs", "clean", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert show(run, tmp_path)["state"] == "done"
    left = sorted(path.name for path in run.checkpoints.iterdir())
    assert left == ["damaged_step_000005", "step_000010"]
    assert "checkpoints" not in done.stdout


def test_diff_says_what_is_not_as_it_was(tmp_path: Path) -> None:
    run = make(tmp_path / "runs" / "a-local", "local", "true", tasks=1)
    same = rdtl("runs", "show", "a-local", "--diff", cwd=tmp_path)
    assert "RDT Launcher's code that ran is that of now" in same.stdout
    file = run.code / "launcher" / "core" / "errors.py"
    file.write_text(file.read_text().replace("EXIT_USAGE = 2", "EXIT_USAGE = 22"))
    (run.code / "jobs" / "old_job.py").write_text("print('gone since')\n")
    changed = rdtl("runs", "show", "a-local", "--diff", "--json", cwd=tmp_path)
    found = json.loads(changed.stdout)["diff"]
    assert found["files"] == ["jobs/old_job.py", "launcher/core/errors.py"]
    assert "-EXIT_USAGE = 22" in found["diff"]
    assert "+EXIT_USAGE = 2" in found["diff"]
    assert found["facts"]["snapshot"]["now"] == "changed!"


def test_the_identical_run_again_as_a_child(tmp_path: Path) -> None:
    script = (
        'echo "$PWD" > "$RDTL_RUN_DIR/where"; cp "$RDTL_RUN_DIR/plan.json" "$RDTL_RUN_DIR/seen"'
    )
    parent = make(tmp_path / "runs" / "a-local", "local", script, tasks=1)
    rdtl("runs", "resume", "a-local", cwd=tmp_path)
    done = rdtl("runs", "resubmit", "a-local", "--as-new", "b", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    child = RunDir(tmp_path / "runs" / "b-local")
    assert (child.root / "where").read_text().strip() == str(child.root)
    assert str(parent.root) not in (child.root / "seen").read_text()
    locks = [json.loads(run.lock.read_text()) for run in (parent, child)]
    assert locks[1]["code_sha256"] == locks[0]["code_sha256"]
    assert locks[1]["parent"]["run"] == str(parent.root)
    again = rdtl("runs", "resubmit", "a-local", "--as-new", "b", cwd=tmp_path)
    assert again.returncode == 0, "the child is continued, not made twice"
    other = rdtl("runs", "resubmit", "b-local", "--as-new", "a", cwd=tmp_path)
    assert other.returncode == 3
    assert "RDTL-S040" in other.stderr
    (parent.code / "launcher" / "core" / "errors.py").write_text("")
    refused = rdtl("runs", "resubmit", "a-local", "--as-new", "c", cwd=tmp_path)
    assert refused.returncode == 3
    assert "the code is not what ran" in refused.stderr
    assert not (tmp_path / "runs" / "c-local").exists()


@pytest.mark.slow
def test_a_child_whose_making_is_killed_is_made_whole(tmp_path: Path) -> None:
    make(tmp_path / "runs" / "a-local", "local", COUNT + "true", tasks=1)
    rdtl("runs", "resume", "a-local", cwd=tmp_path)
    made = tmp_path / "runs" / "b-local"
    words = ("runs", "resubmit", "a-local", "--as-new", "b")
    for left in ("", "code", "lock.json"):  # as soon as this is there
        with start(*words, cwd=tmp_path) as maker:
            wait_until(lambda left=left: (made / left).exists())  # type: ignore[misc]
            maker.kill()
    done = rdtl(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    again, parent = RunDir(made), RunDir(tmp_path / "runs" / "a-local")
    assert "0" in ran(again)
    assert show(again, tmp_path)["state"] == "done"
    assert {p.name for p in made.iterdir()} >= {p.name for p in parent.root.iterdir()}


def test_a_child_has_its_parents_code_whatever_lay_there(tmp_path: Path) -> None:
    parent, new = make(tmp_path / "a", "local", "true"), RunDir(tmp_path / "b")
    (new.code / "jobs").mkdir(parents=True)  # by a killed `rdtl run --name b`
    (new.code / "jobs/old.py").write_text("")
    with ThreadPoolExecutor(1) as pool:
        with held(new.creating, print):  # by another that makes it
            making = pool.submit(child.make, parent, new)
            time.sleep(0.5)
            assert not new.lock.exists()
        making.result(timeout=60)
    assert snapshot.code_digest(new.code) == files.read_json(new.lock)["code_sha256"]


@pytest.mark.slow
def test_watch_prints_one_plain_frame_into_a_pipe(tmp_path: Path) -> None:
    script = COUNT + "test $RDTL_INDEX = 0 || sleep 60"
    run = make(tmp_path / "runs" / "a-local", "local", script, tasks=3)
    with start("runs", "resume", "a-local", "--jobs", "2", cwd=tmp_path) as launcher:
        wait_until(lambda: len(ran(run)) >= 3)
        for width in (80, 120):
            done = rdtl("runs", "watch", cwd=tmp_path, env={"COLUMNS": str(width)})
            assert done.returncode == 0, done.stderr
            assert "\x1b" not in done.stdout
            assert max(map(len, done.stdout.splitlines())) <= width
            assert "■▶▶" in done.stdout
        launcher.kill()
    silent = rdtl("runs", "watch", cwd=tmp_path)
    assert "nothing is alive" in silent.stderr


@pytest.fixture
def nobody(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs ``rdtl`` as the user nobody, with a Python that is open to everybody, in ``theirs``."""
    if os.geteuid() != 0:
        pytest.skip("becomes another user: needs root")
    for parent in (tmp_path, *tmp_path.parents):  # pytest's directories are private
        if parent.is_relative_to(tempfile.gettempdir()) and parent != Path(tempfile.gettempdir()):
            parent.chmod(0o755)
    subprocess.run(
        ["/usr/bin/python3", "-m", "venv", "--without-pip", tmp_path / "venv"], check=True
    )
    packages = next(path for path in sys.path if path.endswith("site-packages"))
    (target,) = (tmp_path / "venv" / "lib").glob("python3*/site-packages")
    (target / "host.pth").write_text(f"{packages}\n{ROOT}\n")
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    shutil.chown(theirs, "nobody", "nogroup")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        user = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
        return subprocess.run(
            [*user, str(tmp_path / "venv" / "bin" / "python"), "-P", "-m", "launcher", *arguments],
            cwd=theirs,
            env={"PATH": os.environ["PATH"], "HOME": str(theirs)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


@pytest.mark.slow
def test_another_user_works_on_a_child_run(
    tmp_path: Path, nobody: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    run = make(tmp_path / "runs" / "a-local", "local", COUNT + "exit 1", tasks=2)
    rdtl("runs", "resume", "a-local", cwd=tmp_path)
    before = {path: path.stat().st_mtime_ns for path in run.root.rglob("*")}
    for verb in ("resume", "resubmit", "cancel"):
        refused = nobody("runs", verb, str(run.root))
        assert refused.returncode == 3, refused.stderr
        assert "RDTL-S035" in refused.stderr
        assert "--as-new" in refused.stderr
    shown = nobody("runs", "show", str(run.root))
    assert shown.returncode == 0, shown.stderr
    assert "left alone" in nobody("runs", "clean", str(run.root)).stderr
    child = nobody("runs", "resubmit", str(run.root), "--as-new", "mine")
    assert child.returncode == 1, "its tasks fail as the parent's did"
    assert "exit code 1" in child.stderr
    made = tmp_path / "theirs" / "runs" / "mine-local"
    assert made.stat().st_uid != 0
    assert ran(RunDir(made)) == ["0", "1"]
    after = {path: path.stat().st_mtime_ns for path in run.root.rglob("*")}
    assert after == before, "another user's run was written to"
