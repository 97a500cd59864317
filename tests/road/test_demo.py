"""The whole road, here: what it makes, and that killing it changes nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from launcher.core.runs import RunDir
from launcher.report import aggregate, evidence
from tests.cli.run_rdtl import rdtl
from tests.road import small_demo

pytestmark = [pytest.mark.sim, pytest.mark.train]


def test_the_road_makes_every_promised_file(uninterrupted: Path) -> None:
    present = {
        str(path.relative_to(uninterrupted))
        for path in uninterrupted.rglob("*")
        if path.is_file() and "code" not in path.parts
    }
    for name in (
        "run.yaml", "plan.json", "lock.json", "data/statistics.json", "data/windows.json",
        "policy/model.safetensors", "policy/card.json", "checkpoints/metrics.jsonl",
        "report/episodes.csv", "report/summary.csv", "report/index.html",
    ):  # fmt: skip
        assert name in present
    assert not [name for name in present if name.endswith(".part")]
    outcomes = {(r.policy, r.init_state): r.status for r in small_demo.records(uninterrupted)}
    assert len(outcomes) == 8
    assert [outcomes["expert", i] for i in (30, 31)] == ["success", "success"]
    assert [outcomes["zero", i] for i in (30, 31)] == ["fail", "fail"]
    assert evidence.caveats(aggregate.load(RunDir(uninterrupted))) == [], "nothing went wrong"


def test_a_finished_run_is_shown_again_and_nothing_is_done_twice(uninterrupted: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in uninterrupted.rglob("*") if p.is_file()}
    done = small_demo.run(uninterrupted.parent.parent, "--runtime", "none")
    assert done.returncode == 0
    assert done.stderr.count("done earlier") == 5
    after = {p: p.stat().st_mtime_ns for p in uninterrupted.rglob("*") if p.is_file()}
    changed = {p.name for p in before.keys() | after.keys() if before.get(p) != after.get(p)}
    assert changed <= {"launcher.lock"}


@pytest.mark.slow
def test_killed_in_every_stage_it_ends_with_the_same_tables(
    uninterrupted: Path, tmp_path: Path
) -> None:
    """SIGKILL during collection, training (twice) and evaluation; then let it finish.

    In the image, and compared with a run outside it: both give the same bits.
    """
    run = tmp_path / "runs" / "demo-quick-local"

    def claimed(stage: str) -> bool:
        return bool(list((run / "events").glob(f"claim.{stage}.a*.json")))

    def lines(path: Path) -> int:
        return path.read_bytes().count(b"\n") if path.exists() else 0

    loss = run / "checkpoints" / "metrics.jsonl"
    small_demo.run_killed(tmp_path, lambda: bool(list((run / "data/parts").glob("demo_*.hdf5"))))
    small_demo.run_killed(tmp_path, lambda: claimed("train") and lines(loss) >= 3)
    small_demo.run_killed(tmp_path, lambda: (run / "checkpoints" / "step_000008").exists())
    small_demo.run_killed(tmp_path, lambda: bool(list((run / "records").glob("part-*"))))
    done = small_demo.run(tmp_path)
    assert done.returncode == 0, done.stderr

    model = "policy/model.safetensors"
    assert small_demo.digest(run / model) == small_demo.digest(uninterrupted / model)
    assert small_demo.table(run) == small_demo.table(uninterrupted)
    assert small_demo.all_lines(run) == 8, "an episode was recorded twice"
    attempts = json.loads(rdtl("runs", "show", str(run), "--json", cwd=tmp_path).stdout)["stages"]
    assert sum(stage["attempts"] for stage in attempts) >= 8, "the kills missed their stages"


def test_a_truncated_demonstration_file_is_named_and_left_alone(
    uninterrupted: Path, tmp_path: Path
) -> None:
    whole = next((uninterrupted / "data" / "libero_object").glob("*_demo.hdf5"))
    cut = tmp_path / "cut_demo.hdf5"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 6 // 10])
    before = small_demo.digest(cut)
    config = tmp_path / "cut.yaml"
    config.write_text(
        f"name: cut\ndataset: {{sets: [{{path: {cut}}}]}}\ntrain: {{steps: 4, warmup_steps: 1}}\n"
    )
    done = rdtl("train", str(config), cwd=tmp_path)
    assert done.returncode == 1
    assert "RDTL-D013" in done.stderr
    assert str(cut) in done.stderr
    assert "/data/demo_" in done.stderr, "no data set is named"
    assert "Traceback" not in done.stderr
    assert small_demo.digest(cut) == before
    verified = rdtl("data", "verify", str(cut), cwd=tmp_path)
    assert verified.returncode == 1
    assert "RDTL-D013" in verified.stderr


def test_good_demonstrations_verify(uninterrupted: Path, tmp_path: Path) -> None:
    whole = next((uninterrupted / "data" / "libero_object").glob("*_demo.hdf5"))
    done = rdtl("data", "verify", str(whole), "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {finding["severity"] for finding in json.loads(done.stdout)} <= {"ok", "info"}
