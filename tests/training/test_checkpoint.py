"""Every engine against a plain loop, and what happens to its checkpoints: two real ranks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from rdt.training import checkpoint_files
from rdt.training.ema import decay
from tests.training import disks, ranks, tiny
from tests.training.scenarios import CASES

pytestmark = pytest.mark.train

STEPS = 11
NAMES = ["-".join(map(str, case)) for case in CASES]


@pytest.fixture(scope="session")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What rank 0 saw in each case of tests.training.scenarios, and that rank 1 saw the same."""
    folder = tmp_path_factory.mktemp("scenarios")
    ranks.run(2, "tests.training.scenarios", folder)
    found = {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}
    for name in ("another_stage", "damaged", "fenced", "overtaken", "alone"):
        assert found[name][0] == found[name][1], f"the ranks disagree in {name}"
    return {name: both[0] for name, both in found.items()} | {"folder": folder}


def plain(clip: float | None) -> tuple[list[float], dict[str, Any], dict[str, Any]]:
    """Losses, weights and averages of a plain loop over whole effective batches."""
    net = tiny.network()
    trained = [p for p in net.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-2, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01)
    averages = {name: p.detach().clone() for name, p in net.named_parameters()}
    losses = []
    for step in range(STEPS):
        optimizer.zero_grad()
        loss = net(tiny.samples(step))
        loss.backward()
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(trained, clip)
        optimizer.step()
        losses.append(loss.item())
        for name, p in net.named_parameters():
            averages[name].lerp_(p.detach(), 1 - decay(step, 0.75))
    return losses, {name: p.detach() for name, p in net.named_parameters()}, averages


def distance(numbers: dict[str, list[float]], tensors: dict[str, torch.Tensor]) -> float:
    assert numbers.keys() == tensors.keys()
    return max(
        float((torch.tensor(numbers[name]) - tensor.flatten()).abs().max())
        for name, tensor in tensors.items()
    )


@pytest.mark.parametrize("name", NAMES)
def test_every_engine_is_the_plain_loop(name: str, seen: dict[str, Any]) -> None:
    """Clipping among it: without it the plain loop is elsewhere."""
    case, exact = seen["engines"][name], "fp32" in name
    losses, weights, averages = plain(tiny.SETTINGS["gradient_clipping"])
    assert case["losses"] == pytest.approx(losses, rel=1e-5 if exact else 2e-2)
    assert distance(case["numbers"]["weights"], weights) < (1e-4 if exact else 2e-2)
    assert distance(case["numbers"]["averages"], averages) < (1e-4 if exact else 2e-2)
    assert case["norm"] > 10 * tiny.SETTINGS["gradient_clipping"]
    unclipped = plain(None)[1]
    assert distance(case["numbers"]["weights"], unclipped) > (5e-3 if exact else 0)


@pytest.mark.parametrize("name", NAMES)
def test_a_resumed_engine_goes_on_bit_for_bit(name: str, seen: dict[str, Any]) -> None:
    case = seen["engines"][name]
    assert case["resumed_at"] == 8
    assert case["again"] == case["losses"][8:]
    assert case["numbers_again"] == case["numbers"]


def test_bf16_keeps_exact_masters_and_constants(seen: dict[str, Any]) -> None:
    case = seen["engines"]["2-bf16-False"]
    assert case["type"] == "torch.bfloat16"
    assert case["constant"] == pytest.approx(0.12345678, abs=1e-8)
    for kind in ("weights", "averages"):
        numbers = torch.tensor(case["numbers"][kind]["first.weight"])
        rounded = numbers.bfloat16().float()
        assert (numbers != rounded).float().mean() > 0.9, f"{kind} are bf16 numbers"


def test_bf16_computes_in_bf16_where_deepspeed_looks_for_a_gpu(seen: dict[str, Any]) -> None:
    """It switches off what is on around its engine, and bf16 weights then meet fp32 samples."""
    assert seen["as_on_a_gpu"]["losses"] == seen["engines"]["2-bf16-False"]["losses"][:3]


def test_offloaded_masters_are_followed_and_not_copied(seen: dict[str, Any]) -> None:
    assert seen["as_on_a_gpu"]["follows"]


def test_another_stage_goes_on_with_the_same_losses(seen: dict[str, Any]) -> None:
    case = seen["another_stage"]
    whole = seen["engines"]["2-fp32-False"]["losses"]
    assert case["at"] == 8
    assert case["losses"] == pytest.approx(whole[8:], rel=1e-3)
    assert case["losses"] == pytest.approx(whole[8:], rel=1e-6), "worse than it was"
    assert case["refused"] == "RDTL-T054"
    assert case["left"] == []


def test_a_damaged_checkpoint_is_passed_over_and_said(seen: dict[str, Any]) -> None:
    case = seen["damaged"]
    assert case["at"] == 4
    assert case["same"], "the steps that were done again gave other losses"
    assert case["names"] == ["damaged_step_000008_a1", "step_000004", "step_000008"]
    assert case["events"] == ["passed_over.train.step_000008.a1.json"]


def test_nothing_whole_is_an_error_again_and_again(seen: dict[str, Any]) -> None:
    assert seen["damaged"]["all_damaged"] == ["RDTL-T013", "RDTL-T013"]


def test_training_goes_on_while_a_checkpoint_is_written(seen: dict[str, Any]) -> None:
    case = seen["behind"]
    assert case["published"] == ["step_000002", "step_000004"]
    assert case["while"] == ["step_000002"]
    assert case["after"] == ["step_000004"], "keep_checkpoints is 1"


def test_a_checkpoint_is_the_state_when_it_was_begun(seen: dict[str, Any]) -> None:
    """Two steps were done while it was written: none of them is in it."""
    at_save, saved, later = seen["behind"]["averages"]
    assert saved == at_save
    assert later.keys() == saved.keys()
    assert later != saved


def test_an_older_attempt_publishes_nothing(seen: dict[str, Any]) -> None:
    assert seen["fenced"] == {"code": "RDTL-S034", "left": []}
    assert seen["overtaken"] == {"code": "RDTL-S034"}


def test_ranks_that_train_alone_are_refused(seen: dict[str, Any]) -> None:
    """RDTL-T016: what one published program does, and the same step through its wrapper."""
    assert seen["alone"]["through"] == {"code": ""}
    assert seen["alone"]["past"]["code"] == "RDTL-T016"
    digests = seen["alone"]["past"]["where"].partition(": ")[2].split(", ")
    assert len(digests) == len(set(digests)) == 2


@pytest.mark.parametrize("name", ["0-fp32", "1-fp32", "2-bf16", "3-bf16"])
def test_the_size_is_known_before(name: str, seen: dict[str, Any]) -> None:
    expected, found = seen["sizes"][name]
    assert found == pytest.approx(expected, rel=0.02)


@pytest.mark.slow
def test_a_full_disk_leaves_the_checkpoints_before(tmp_path: Path) -> None:
    """2.5 MB hold one checkpoint of 1.7 MB: not a second, and not the first one joined."""
    run = tiny.plan(tmp_path / "run", width=6000, keep_checkpoints=1)
    with disks.small(run / "checkpoints", 2500) as folder:
        assert ranks.start(2, "tests.training.tiny", run, "12").wait(timeout=120) == 1
        assert [path.name for path in folder.iterdir()] == ["step_000004"]
        error = json.loads((run / "error.json").read_text())
        assert error["code"] == "RDTL-G009"
        assert "MB missing for a checkpoint" in error["what"]
        assert "step 4" in error["why"]

        assert ranks.start(1, "tests.training.tiny", run, "12").wait(timeout=120) == 1
        assert [path.name for path in folder.iterdir()] == ["step_000004"]
        error = json.loads((run / "error.json").read_text())
        assert error["code"] == "RDTL-T053"
        assert checkpoint_files.damage(folder / "step_000004") == []
