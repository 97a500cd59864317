"""A user's own DeepSpeed JSON: it adds, and what contradicts the recipe is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from launcher.core.errors import UsageError
from launcher.schema_train import Train
from rdt.spec import deepspeed
from tests.training import ranks, tiny

ROOT = Path(__file__).parents[2]


def config(**train: Any) -> dict[str, Any]:
    return deepspeed.config({**tiny.SETTINGS, "micro_batch": 4, "accumulation": 1, **train})


def test_ours_alone() -> None:
    made = config(zero_stage=3, offload=True, dtype="bf16")
    assert made["zero_optimization"] == {"stage": 3, "offload_optimizer": {"device": "cpu"}}
    assert made["bf16"] == {"enabled": True}
    assert made["data_types"] == {"grad_accum_dtype": "fp32"}
    assert made["gradient_clipping"] == 0.05
    assert made["optimizer"]["params"]["torch_adam"] is True


def test_a_json_adds_and_repeats() -> None:
    theirs = {
        "zero_optimization": {"stage": 1, "reduce_bucket_size": 5, "offload_optimizer": {}},
        "train_batch_size": "auto",
        "wall_clock_breakdown": True,
        "bf16": {"enabled": False},
    }
    made = config(deepspeed=theirs)
    assert made["zero_optimization"]["reduce_bucket_size"] == 5
    assert made["zero_optimization"]["stage"] == 1
    assert made["train_batch_size"] == 8
    assert made["wall_clock_breakdown"] is True
    assert config(deepspeed={}) == config()


@pytest.mark.parametrize(
    ("theirs", "name"),
    [
        ({"zero_optimization": {"stage": 3}}, "zero_optimization.stage = 3"),
        ({"gradient_clipping": 1.0}, "gradient_clipping = 1.0"),
        ({"train_batch_size": 64}, "train_batch_size = 64"),
        ({"optimizer": {"type": "Lion"}}, "optimizer.type = 'Lion'"),
        ({"optimizer": {"params": {"lr": 3e-4}}}, "optimizer.params.lr = 0.0003"),
        ({"optimizer": {"params": {"torch_adam": False}}}, "torch_adam = False"),
        ({"fp16": {"enabled": True}}, "fp16.enabled = True"),
        ({"optimizer": "Lion"}, "optimizer = 'Lion'"),
        ({"scheduler": {"type": "WarmupLR"}}, "scheduler = "),
    ],
)
def test_a_contradiction_is_refused_with_both_values(theirs: dict[str, Any], name: str) -> None:
    with pytest.raises(UsageError, match="contradicts") as caught:
        config(deepspeed=theirs)
    assert caught.value.problem.code == "RDTL-T051"
    assert name in caught.value.problem.where


@pytest.mark.parametrize("train", [{"offload": True}, {"dtype": "bf16"}])
def test_no_master_weights_without_zero(train: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="needs ZeRO") as caught:
        config(zero_stage=0, **train)
    assert caught.value.problem.code == "RDTL-T052"


def test_a_run_configuration_names_a_file(tmp_path: Path) -> None:
    """And what is wrong in it is said before anything is submitted."""
    named = ROOT / "configs/deepspeed/small-buckets.json"
    assert Train(deepspeed=str(named)).deepspeed == json.loads(named.read_text())
    other = tmp_path / "own.json"
    other.write_text('{"gradient_clipping": 5.0}')
    with pytest.raises(UsageError, match="contradicts"):
        Train(deepspeed=str(other))
    for text in ("{", "[1]"):
        other.write_text(text)
        with pytest.raises(ValidationError, match="deepspeed"):
            Train(deepspeed=str(other))
    with pytest.raises(ValidationError, match=r"none\.json"):
        Train(deepspeed=str(tmp_path / "none.json"))


@pytest.mark.slow
def test_nothing_is_compiled_when_training_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RDTL-T027: without a compiler ours trains, and DeepSpeed's own AdamW does not start."""
    monkeypatch.setenv("CXX", "/bin/false")
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "built"))
    ranks.run(1, "tests.training.compiling", tmp_path)
    seen = json.loads((tmp_path / "seen.json").read_text())
    assert seen["ours"] == []
    assert seen["theirs"] == ["cpu_adam"] and "failed to build" in seen["error"]
