"""Batch arithmetic, length, warm-up and schedules."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.core.errors import UsageError
from launcher.schema import Dataset
from launcher.schema_train import Train
from rdt.spec import recipe
from rdt.training.schedule import learning_rate

SIZE = st.integers(1, 64)


@given(micro=SIZE, accumulation=SIZE, ranks=st.integers(1, 16))
def test_any_two_sizes_give_the_third(micro: int, accumulation: int, ranks: int) -> None:
    product = micro * accumulation * ranks
    whole = recipe.Sizes(micro, accumulation, product)
    assert recipe.sizes(micro, accumulation, None, ranks) == whole
    assert recipe.sizes(micro, None, product, ranks) == whole
    assert recipe.sizes(None, accumulation, product, ranks) == whole
    assert recipe.sizes(*whole, ranks) == whole


@given(effective=st.integers(1, 512), ranks=st.integers(1, 16))
def test_an_effective_batch_alone_is_kept_or_refused(effective: int, ranks: int) -> None:
    if effective % ranks:
        with pytest.raises(UsageError, match="RDTL-T060"):
            recipe.sizes(None, None, effective, ranks)
        return
    made = recipe.sizes(None, None, effective, ranks)
    assert made.micro * made.accumulation * ranks == made.effective == effective
    assert made.micro <= recipe.MICRO_BATCH


def test_more_nodes_change_the_accumulation_and_not_the_batch() -> None:
    recipe_of_paper: dict[str, Any] = {
        "micro_batch": 4,
        "effective_batch": 256,
        "ranks_per_node": 8,
    }
    seen = [Train(**recipe_of_paper, nodes=nodes) for nodes in (1, 2, 4)]
    assert [train.accumulation for train in seen] == [8, 4, 2]
    assert {train.effective_batch for train in seen} == {256}


def test_an_effective_batch_that_nobody_named_is_not_put_into_their_mouth() -> None:
    with pytest.raises(UsageError) as caught:
        Train(micro_batch=32)
    assert "train.effective_batch unset, which means 16" in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({"micro_batch": 8, "accumulation": 2, "effective_batch": 16}, "RDTL-T060"),
        ({"micro_batch": 3}, "RDTL-T060"),
        ({"micro_batch": 64, "effective_batch": 32}, "RDTL-T060"),
        ({"accumulation": 64, "effective_batch": 32}, "RDTL-T060"),
        ({"epochs": 2, "steps": 40}, "RDTL-T061"),
        ({"epochs": 2, "minutes": 1}, "RDTL-T061"),
        ({"steps": 40, "warmup_steps": 41}, "RDTL-T062"),
        ({"lora": {}}, "RDTL-T069"),
    ],
)
def test_contradictions_are_refused_by_the_configuration(
    settings: dict[str, Any], code: str
) -> None:
    with pytest.raises(UsageError, match=code):
        Train(**settings)


def test_epochs_become_whole_steps() -> None:
    train = Train(epochs=2.5, effective_batch=16).model_dump()
    assert train["steps"] is None
    assert recipe.steps_of(train, 100) == 16  # 250 samples
    assert recipe.steps_of(Train().model_dump(), 100) == recipe.STEPS


def test_unusual_recipes_are_named() -> None:
    def codes(**settings: Any) -> list[str]:
        train = Train(**settings).model_dump()
        return [finding.code for finding in recipe.findings(train, train["steps"])]

    assert codes() == []
    assert codes(steps=100_000, warmup_steps=100) == ["RDTL-T005"]
    assert codes(steps=1_000, warmup_steps=200) == ["RDTL-T005"]
    assert codes(steps=1_000, warmup_steps=0) == []
    assert codes(effective_batch=32, device="gpu") == ["RDTL-T006"]
    assert codes(effective_batch=128, device="gpu") == []
    assert codes(effective_batch=32, device="gpu", ranks_per_node=1) == []
    begun = {"checkpoint": "published", "ranks_per_node": 2}
    assert codes(effective_batch=32, **begun) == ["RDTL-T006"], "on CPUs it is as small"
    assert codes(effective_batch=32, lora={}, **begun) == []
    assert codes(validate_every=7, checkpoint_every=10) == ["RDTL-T023"]
    assert codes(validate_every=5, checkpoint_every=10) == []


def test_draws_with_replacement_are_told() -> None:
    """RDTL-D009; tests/data/test_coverage.py counts what such an epoch shows."""
    (found,) = recipe.order_findings(Dataset(order="random").model_dump())
    assert (found.code, found.severity) == ("RDTL-D009", "warning")
    assert recipe.order_findings(Dataset().model_dump()) == []


def test_a_schedule_of_that_name_elsewhere_ignores_its_warm_up() -> None:
    """RDTL-T004: full rate at the first step, whatever warm-up is asked for."""
    import torch
    from transformers import get_scheduler

    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1e-4)
    theirs = get_scheduler("constant", optimizer, num_warmup_steps=500)
    assert theirs.get_last_lr() == [1e-4]
    assert learning_rate(0, 1000, 1e-4, 500, "constant") == pytest.approx(1e-4 / 500)


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
def test_every_schedule_warms_up(schedule: str) -> None:
    rates = [learning_rate(step, 100, 1.0, 10, schedule) for step in range(100)]
    assert rates[:10] == pytest.approx([0.1 * step for step in range(1, 11)])
    assert rates[10] == 1.0
    middle = {"cosine": 0.5, "linear": 0.5, "constant": 1.0}[schedule]
    assert rates[55] == pytest.approx(middle)
    assert rates == sorted(rates[:10]) + sorted(rates[10:], reverse=True)
    assert rates[99] < 0.02 or schedule == "constant"
