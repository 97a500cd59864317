"""Uploads while a stage runs, by real processes, against a real S3 server that is killed."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.node import NodeTask, StageFailedError
from launcher.core import files, manifest, retention
from launcher.core.errors import RefusedError
from launcher.core.plan import Plan, Stage
from launcher.core.runs import RunDir
from launcher.staging import locks, outgoing, results, uri
from tests.cli.run_rdtl import rdtl
from tests.later import slow
from tests.staging import servers
from tests.staging.conftest import S3, SECRET

ROOT = Path(__file__).parents[2]


def make_run(folder: Path, argv: tuple[str, ...] = (), **upload: object) -> RunDir:
    """A run whose one stage is ``argv`` with uploads beside it."""
    run = RunDir(folder / "myrun")
    run.root.mkdir()
    asked = {"uri": "rclone:t:bkt/results", "every_seconds": 0.5, "delete": False, **upload}
    stage = Stage("train", argv, beside=("launcher.staging.outgoing", str(run.root)))
    files.write_json(run.plan, Plan("x", "local", (stage,), {"upload": asked}).to_dict())
    run.code.symlink_to(ROOT)
    return run


def checkpoint(run: RunDir, step: int, size: int = 5000) -> Path:
    """A checkpoint that gets its name when it is whole, as training's do."""
    temporary = run.checkpoints / f".tmp-{step}"
    (temporary / "policy").mkdir(parents=True)
    (temporary / "state.json").write_text(f'{{"step": {step}}}')
    (temporary / "policy" / "model.safetensors").write_bytes(bytes([step % 256]) * size)
    final = run.checkpoints / f"step_{step:06d}"
    temporary.rename(final)
    return final


def watch(run: RunDir) -> subprocess.Popen[bytes]:
    argv = [sys.executable, "-P", "-m", "launcher.staging.outgoing", str(run.root)]
    log = (run.root.parent / "watch.log").open("ab")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=log, stderr=log, env=environment)


def until(what: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def there(s3: S3) -> dict[str, bytes]:
    place = s3.root / "bkt" / "results" / "myrun"
    return {str(p.relative_to(place)): p.read_bytes() for p in place.rglob("*") if p.is_file()}


@pytest.mark.slow
def test_what_is_made_leaves_while_the_job_runs(s3: S3, tmp_path: Path) -> None:
    """The server dies meanwhile; growing files arrive; nothing secret lies anywhere."""
    run = make_run(tmp_path)
    (run.root / "records").mkdir()
    (run.root / "records" / "part-1.jsonl").write_text("one\n")
    (run.root / "data").mkdir()
    (run.root / "data" / "big").write_text("not a result")
    watcher = watch(run)
    try:
        checkpoint(run, 10)
        until(lambda: (run.root / "uploads" / "checkpoints.step_000010.json").exists())
        s3.server.kill()
        checkpoint(run, 20)
        (run.root / "records" / "part-1.jsonl").write_text("one\ntwo\n")
        state = run.root / "uploads" / "state.json"
        until(lambda: state.exists() and files.read_json(state)["error"], 100)
        assert files.read_json(state)["behind"] == ["checkpoints/step_000020"]
        shown = rdtl("runs", "show", str(run.root), cwd=tmp_path).stdout
        assert "uploads: checkpoints/step_000020 not yet in rclone:t:bkt/results/myrun" in shown
        s3.server.start()
        until(lambda: (run.root / "uploads" / "checkpoints.step_000020.json").exists())
        checkpoint(run, 30)
        watcher.send_signal(signal.SIGTERM)  # the scheduler's, to the whole group: not for it
        assert watcher.stdin
        watcher.stdin.close()
        assert watcher.wait(60) == 0
    finally:
        watcher.kill()
    assert "uploads:" not in rdtl("runs", "show", str(run.root), cwd=tmp_path).stdout
    found = there(s3)
    assert found["records/part-1.jsonl"] == b"one\ntwo\n"
    assert found["plan.json"] == run.plan.read_bytes()
    left = {path for path in found if path.startswith(("data/", "uploads/", "code/"))}
    assert left == {outgoing.MARK}
    for step in (10, 20, 30):
        place = s3.root / "bkt" / "results" / "myrun" / "checkpoints" / f"step_{step:06d}"
        assert (
            manifest.differences(
                run.checkpoints / place.name, manifest.read(place / "rdtl-manifest.json")
            )
            == []
        )
    texts = [p.read_bytes() for p in run.root.rglob("*") if p.is_file() and "code" not in p.parts]
    assert not [text for text in [*texts, *found.values()] if SECRET.encode() in text]


@pytest.mark.slow
def test_a_stage_that_ends_while_the_store_is_away_still_brings_its_results_out(
    s3: S3, tmp_path: Path
) -> None:
    """The end comes in the pause after a round that failed; the store is back soon after it."""
    run = make_run(tmp_path, every_seconds=20)
    s3.server.kill()
    checkpoint(run, 10)
    watcher = watch(run)
    try:
        state = run.root / "uploads" / "state.json"
        until(state.exists)
        assert watcher.stdin
        watcher.stdin.close()
        time.sleep(2)
        s3.server.start()
        assert watcher.wait(60) == 0
    finally:
        watcher.kill()
    assert "checkpoints/step_000010/rdtl-manifest.json" in there(s3)
    assert files.read_json(state)["behind"] == []


@pytest.mark.slow
def test_a_killed_box_loses_at_most_what_came_last(s3: S3, tmp_path: Path) -> None:
    run = make_run(tmp_path)
    watcher = watch(run)
    for step in (10, 20):
        checkpoint(run, step)
        name = f"checkpoints.step_{step:06d}.json"
        until(lambda name=name: (run.root / "uploads" / name).exists())  # type: ignore[misc]
    checkpoint(run, 30, size=3_000_000)
    watcher.kill()
    watcher.wait()
    shutil.rmtree(run.root)
    for step in (10, 20):
        place = s3.root / "bkt" / "results" / "myrun" / "checkpoints" / f"step_{step:06d}"
        found = manifest.read(place / "rdtl-manifest.json")
        assert sorted(f.path for f in found.files) == ["policy/model.safetensors", "state.json"]
        for file in found.files:
            assert files.sha256(place / file.path) == file.sha256


def test_only_what_is_proven_is_deleted_and_the_newest_stays(s3: S3, tmp_path: Path) -> None:
    run = make_run(tmp_path)
    for step in (10, 20, 30):
        checkpoint(run, step)
    out = outgoing.Outgoing(run, uri.parse("rclone:t:bkt/results/myrun"), delete=True)
    s3.server.kill()
    with pytest.raises(Exception, match="RDTL-G0"):
        out.round()
    assert len(out.units()) == 3
    s3.server.start()
    out.round()
    assert [path.name for path in run.checkpoints.iterdir()] == ["step_000030"]
    assert {path.split("/")[1] for path in there(s3) if path.startswith("checkpoints/")} == {
        "step_000010", "step_000020", "step_000030"
    }  # fmt: skip


@pytest.mark.slow
def test_what_training_keeps_for_good_is_not_deleted(tmp_path: Path) -> None:
    """Multiples of keep_every, the best so far, and what may yet turn out to be the best."""
    run = make_run(tmp_path)
    plan = files.read_json(run.plan)
    plan["config"]["train"] = {"keep_every": 40, "keep_best": "validation_loss"}
    files.write_json(run.plan, plan)
    for step in (10, 20, 30, 40, 50, 60):
        checkpoint(run, step)
    for step, loss in ((10, 0.5), (20, 0.1), (30, 0.3), (40, 0.7)):
        retention.record_score(run.checkpoints, step, "validation_loss", loss)
    out = outgoing.Outgoing(run, uri.parse(f"file://{tmp_path}/out/myrun"), delete=True)
    out.round()
    assert retention.steps(run.checkpoints) == [20, 40, 50, 60]
    retention.record_score(run.checkpoints, 50, "validation_loss", 0.05)
    out.round()
    assert retention.steps(run.checkpoints) == [40, 50, 60]
    assert retention.steps(tmp_path / "out/myrun/checkpoints") == [10, 20, 30, 40, 50, 60]


def test_a_checkpoint_that_is_set_aside_does_not_leave(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    checkpoint(run, 10).rename(run.checkpoints / "damaged_step_000010_a1")
    outgoing.Outgoing(run, uri.parse(f"file://{tmp_path}/out/myrun")).round()
    assert not (tmp_path / "out/myrun/checkpoints").exists()


@pytest.mark.slow
def test_a_checkpoint_of_another_content_under_the_same_name_goes_again(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    out = outgoing.Outgoing(run, uri.parse(f"file://{tmp_path}/out/myrun"))
    old = checkpoint(run, 10)
    out.round()
    shutil.rmtree(old)
    checkpoint(run, 10, size=7777)
    assert len(out.waiting()) == 1
    out.round()
    sent = tmp_path / "out/myrun/checkpoints/step_000010/policy/model.safetensors"
    assert sent.stat().st_size == 7777


@pytest.mark.slow
def test_another_runs_place_is_refused(s3: S3, tmp_path: Path) -> None:
    run = make_run(tmp_path)
    place = uri.parse("rclone:t:bkt/results/myrun")
    outgoing.Outgoing(run, place).round()
    outgoing.Outgoing(run, place).round()  # its own again: fine
    (tmp_path / "other").mkdir()
    other = make_run(tmp_path / "other", every_seconds=1)
    checkpoint(other, 10)
    with pytest.raises(RefusedError, match="RDTL-G045"):
        outgoing.Outgoing(other, place).round()
    assert not [path for path in there(s3) if path.startswith("checkpoints")]


@pytest.mark.parametrize("base", [*slow(".", "myrun/uploads"), "link"])
def test_a_run_that_would_be_its_own_copy_keeps_its_checkpoints(tmp_path: Path, base: str) -> None:
    """Through the real uploader, which adds the run's name: `.` is where the runs lie."""
    (tmp_path / "link").symlink_to(tmp_path)
    run = make_run(tmp_path, uri=f"file://{tmp_path / base}", delete=True)
    for step in (10, 20):
        checkpoint(run, step)
    watcher = watch(run)
    try:
        until(run.upload_state.exists)
    finally:
        watcher.kill()
        watcher.wait()
    assert files.read_json(run.upload_state)["error"]["code"] == "RDTL-G046"
    assert retention.steps(run.checkpoints) == [10, 20]


def test_checkpoints_that_a_link_brings_back_are_kept(tmp_path: Path) -> None:
    """The place is another one, but what lies in it as checkpoints is the run's own."""
    run = make_run(tmp_path)
    for step in (10, 20):
        checkpoint(run, step)
    out = outgoing.Outgoing(run, uri.parse(f"file://{tmp_path}/out/myrun"), delete=True)
    out._claim()
    (tmp_path / "out/myrun/checkpoints").symlink_to(run.checkpoints)
    with pytest.raises(RefusedError, match="RDTL-G046"):
        out.round()
    assert retention.steps(run.checkpoints) == [10, 20]


@pytest.mark.slow
def test_a_run_on_the_machine_that_it_uploads_to_keeps_its_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over ssh nothing says whose disk it is, until the manifest appears in the checkpoint."""
    run = make_run(tmp_path)
    for step in (10, 20):
        checkpoint(run, step)
    with servers.sshd(tmp_path / "sshd") as (server, words):
        monkeypatch.setenv("RDTL_SSH", words)
        place = uri.parse(f"ssh://127.0.0.1:{server.port}{run.root}")
        out = outgoing.Outgoing(run, place, delete=True)
        for _ in range(2):
            with pytest.raises(RefusedError, match="RDTL-G046"):
                out.round()
    assert retention.steps(run.checkpoints) == [10, 20]


def test_a_run_whose_plan_has_changed_knows_its_place(s3: S3, tmp_path: Path) -> None:
    """As after an evaluation was added, cut anew, or a training regrouped."""
    run = make_run(tmp_path)
    place = uri.parse("rclone:t:bkt/results/myrun")
    outgoing.Outgoing(run, place).round()
    files.write_json(run.plan, {**files.read_json(run.plan), "name": "grown"})
    checkpoint(run, 10)
    outgoing.Outgoing(run, place).round()
    found = there(s3)
    assert found["plan.json"] == run.plan.read_bytes()
    assert "checkpoints/step_000010/state.json" in found


@pytest.mark.slow
def test_a_checkpoint_that_training_removes_meanwhile_is_whole_or_not_there(
    s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path)
    out = outgoing.Outgoing(run, uri.parse("rclone:t:bkt/results/myrun"))
    out.round()
    pruned = checkpoint(run, 10)
    real = outgoing.send.send

    def prunes(parcel):  # type: ignore[no-untyped-def]
        shutil.rmtree(pruned, ignore_errors=True)
        return real(parcel)

    monkeypatch.setattr(outgoing.send, "send", prunes)
    out.round()
    assert "checkpoints/step_000010/rdtl-manifest.json" in there(s3)
    assert not pruned.exists()


def test_a_checkpoint_that_cannot_be_linked_leaves_all_the_same(
    small_disk: Path, tmp_path: Path
) -> None:
    run = make_run(tmp_path)
    run.uploads.symlink_to(small_disk)
    unit = checkpoint(run, 10)
    with pytest.raises(OSError, match="cross-device"):
        os.link(unit / "state.json", run.uploads / "state")
    outgoing.Outgoing(run, uri.parse(f"file://{tmp_path}/out/myrun")).round()
    sent = tmp_path / "out/myrun/checkpoints/step_000010"
    assert manifest.differences(unit, manifest.read(sent / "rdtl-manifest.json")) == []


def test_a_stage_brings_its_results_out_also_when_it_fails(s3: S3, tmp_path: Path) -> None:
    """Through the node task: its last files leave before it ends."""
    program = (
        "import sys, pathlib as p; r = p.Path(sys.argv[1]) / 'checkpoints' / 'step_000001'\n"
        "r.mkdir(parents=True); (r / 'state.json').write_text('x'); sys.exit(3)"
    )
    run = make_run(tmp_path, (sys.executable, "-c", program, str(tmp_path / "myrun")))
    with pytest.raises(StageFailedError):
        NodeTask(str(run.root), "train", 0, 1)()
    assert there(s3)["checkpoints/step_000001/state.json"] == b"x"
    assert "logs/train/attempt_1/0.n0.log" in there(s3)


@pytest.mark.slow
def test_a_task_that_ends_leaves_its_results_to_the_one_that_uploads(
    s3: S3, tmp_path: Path
) -> None:
    """Two real uploaders of a run: the second one's task ends first, and waits for nobody."""
    run = make_run(tmp_path, every_seconds=3600)
    first = watch(run)
    until((run.uploads / "state.json").exists)
    second = watch(run)
    try:
        (run.root / "records").mkdir()
        (run.root / "records" / "part-2.jsonl").write_text("the second task's\n")
        assert first.stdin and second.stdin
        second.stdin.close()
        assert second.wait(20) == 0
        assert first.poll() is None
        first.stdin.close()
        assert first.wait(60) == 0
    finally:
        first.kill()
        second.kill()
    assert there(s3)["records/part-2.jsonl"] == b"the second task's\n"


def test_what_a_task_leaves_during_the_last_round_of_another_leaves_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second uploader really ends while the first has looked at all files already."""
    run = make_run(tmp_path)
    out = outgoing.Outgoing(run, uri.parse(f"file://{tmp_path}/out/myrun"))
    rounds = []

    def round_() -> None:
        outgoing.Outgoing.round(out)
        rounds.append(time.monotonic())
        if len(rounds) == 1:
            (run.root / "late.jsonl").write_text("late\n")
            second = watch(run)
            assert second.stdin
            second.stdin.close()
            assert second.wait(20) == 0

    monkeypatch.setattr(out, "round", round_)
    nothing = os.open(os.devnull, os.O_RDONLY)
    monkeypatch.setattr(outgoing, "_input_ends", lambda seconds: not os.read(nothing, 1))
    assert outgoing.attend(out, 3600) == 0
    os.close(nothing)
    assert (tmp_path / "out/myrun/late.jsonl").read_text() == "late\n"
    assert len(rounds) == 2


def test_what_did_not_leave_is_said_whatever_became_of_the_uploader(tmp_path: Path) -> None:
    """It never wrote a word, its last one is older than the stage's end, or it was killed."""
    run = make_run(tmp_path, (sys.executable, "-c", ""), uri=f"file://{tmp_path}/out")
    assert results.behind(run.root) == [], "nothing has ended yet"
    NodeTask(str(run.root), "train", 0, 1)()
    assert results.behind(run.root) == []
    os.utime(run.upload_state, (1e9, 1e9))
    assert "nothing was uploaded since a stage ended" in results.behind(run.root)[0]
    run.upload_state.unlink()
    assert "nothing was uploaded since a stage ended" in results.behind(run.root)[0]
    kills = ("sh", "-c", "pkill -KILL -P $PPID -f [l]auncher.staging.outgoing")
    killed = Stage("train", kills, beside=("launcher.staging.outgoing", str(run.root)))
    config = files.read_json(run.plan)["config"]
    files.write_json(run.plan, Plan("x", "local", (killed,), config).to_dict())
    NodeTask(str(run.root), "train", 0, 2)()
    assert "ended with exit status -9" in results.behind(run.root)[0]


def test_a_disk_that_was_full_for_a_while_ends_no_uploads(
    small_disk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not even its own state fits meanwhile; a run that may delete gets room by that."""
    run = make_run(small_disk)
    for step in (10, 20):
        checkpoint(run, step, size=100_000)
    out = outgoing.Outgoing(run, uri.parse(f"file://{tmp_path}/out/myrun"), delete=True)
    filler = small_disk / "filler"
    with pytest.raises(OSError, match="No space left"), filler.open("wb") as handle:
        while True:
            os.write(handle.fileno(), bytes(4096))
    assert not outgoing._tried(out)
    assert not run.upload_state.exists()
    filler.unlink()
    assert outgoing._tried(out)
    assert files.read_json(run.upload_state)["error"] is None
    assert retention.steps(tmp_path / "out/myrun/checkpoints") == [10, 20]
    assert retention.steps(run.checkpoints) == [20]


def test_results_leave_from_a_file_system_without_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path)
    checkpoint(run, 10)
    out = outgoing.Outgoing(run, uri.parse(f"file://{tmp_path}/out/myrun"))

    def flock(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(locks.fcntl, "flock", flock)
    monkeypatch.setattr(outgoing, "_input_ends", lambda seconds: True)
    assert outgoing.attend(out, 3600) == 0
    assert (tmp_path / "out/myrun/checkpoints/step_000010/rdtl-manifest.json").exists()
