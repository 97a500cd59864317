"""What a training really leaves is evaluated: checkpoints one by one, a fine-tuned public shape."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from jobs import evaluate
from launcher.core import files
from launcher.core.plan import Plan, Stage
from launcher.core.runs import RunDir
from launcher.report import sweep as reports
from rdt.spec import card as cards
from rdt.spec import record as records
from tests.cli.run_rdtl import rdtl
from tests.evaluation.test_weights import job_of
from tests.rdt import small_policy
from tests.training import ranks
from tests.training.test_beginning import LORA, prepared, public_folders

pytestmark = [pytest.mark.sim, pytest.mark.train, pytest.mark.slow]


def test_the_checkpoints_of_a_training_are_followed(tmp_path: Path) -> None:
    root = tmp_path / "run"
    config = prepared(root, steps=8)
    stage = Stage("train", ("true",), own_code=False, memory_mb=50, minutes=1)
    files.write_json(RunDir(root).plan, Plan("t", "local", (stage,), config).to_dict())
    ranks.run(2, "jobs.train", root)
    asked = ["evaluate.init_states=[0,1]", "evaluate.suites={libero_object: [0]}"]
    asked += ["task.max_steps=6", "task.camera_size=64", "evaluate.shards=1"]
    done = rdtl(
        *("sweep", "smoke", "--follow", str(root), "--horizons", "4", "--name", "s"),
        *(word for setting in asked for word in ("--set", setting)),
        *("--runtime", "none", "--jobs", "1"),
        cwd=tmp_path,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    kept = {"step_000004": root / "followed/step_000004", "policy": root / "policy"}
    found = set()
    for name, weights in kept.items():
        [(_, report)] = reports.load(RunDir(tmp_path / "runs" / f"s-{name}-local")).cells
        [record] = report.records()
        assert (record.status, record.steps, record.queries) == ("fail", 6, 2)
        assert record.checkpoint == cards.read(weights).weights_sha256[:12]
        found.add(record.checkpoint)
    assert len(found) == 2
    assert "Checkpoints so far" in done.stdout


def test_a_fine_tuned_checkpoint_of_public_shape_is_evaluated(tmp_path: Path) -> None:
    """LoRA beside frozen SigLIP and sentences; the evaluation is told where both lie."""
    (tmp_path / "public").mkdir()
    places = public_folders(tmp_path / "public")
    prepared(tmp_path / "run", lora=LORA, **places)
    ranks.run(2, "jobs.train", tmp_path / "run")
    name = "pick_up_the_alphabet_soup_and_place_it_in_the_basket"
    words = torch.randn(7, small_policy.LANG)
    small_policy.save_sentence(Path(places["language"]), name, words)
    job = job_of(
        tmp_path / "evaluation",
        {"max_steps": 6, "camera_size": 64},
        **{**places, "checkpoint": str(tmp_path / "run")},
        init_states=(0, 1),
    )
    evaluate.body(job)
    (found,) = records.read_folder(job.run.records)
    assert (found.status, found.steps, found.queries) == ("fail", 6, 2)
    assert found.checkpoint == cards.read(tmp_path / "run" / "policy").weights_sha256[:12]
