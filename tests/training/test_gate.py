"""What is looked at before and after the first step."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from jobs import dataset
from launcher.core.errors import RdtlError
from launcher.core.job import Job
from launcher.core.runs import RunDir
from rdt.training.gate import all_reduce, require_alike
from tests.rdt import synthetic
from tests.training import ranks

CPU = {"host": "n1", "device": "cpu", "image": "a", "torch": "2.13"}


@pytest.mark.parametrize(
    ("other", "code"),
    [
        ({"host": "n2"}, ""),
        ({"torch": "2.12"}, "RDTL-T028"),
        ({"image": "b"}, "RDTL-T028"),
        ({"nccl": "2.29"}, "RDTL-T028"),
        ({"device": "H200 uuid-1"}, "RDTL-T028"),
    ],
)
def test_ranks_that_differ_are_refused(other: dict[str, str], code: str) -> None:
    found = [CPU, CPU, CPU | other]
    if not code:
        require_alike(found)
        return
    with pytest.raises(RdtlError, match=code) as caught:
        require_alike(found)
    assert "rank 2" in caught.value.problem.where


def test_two_ranks_on_one_gpu_are_refused() -> None:
    gpu = CPU | {"device": "H200 uuid-1"}
    require_alike([gpu, gpu | {"device": "H200 uuid-2"}, gpu | {"host": "n2"}])
    with pytest.raises(RdtlError, match="RDTL-T066"):
        require_alike([gpu, gpu | {"host": "n2"}, dict(gpu)])


@pytest.mark.parametrize("right", [True, False])
def test_an_exchange_that_gives_wrong_numbers_is_refused(
    right: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As over a cable that loses bits: the sum of a real group, with one number changed after."""
    exchange = dist.all_reduce

    def faulty(tensor: torch.Tensor) -> None:
        exchange(tensor)
        tensor[-1] += 1e-3 * (not right)

    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/rank", rank=0, world_size=1)
    try:
        monkeypatch.setattr(dist, "all_reduce", faulty)
        if right:
            assert "over 1 ranks in" in all_reduce(torch.device("cpu"))[1]
            return
        with pytest.raises(RdtlError, match="RDTL-T067"):
            all_reduce(torch.device("cpu"))
    finally:
        dist.destroy_process_group()


@pytest.mark.slow
def test_the_table_is_printed_and_kept_at_every_start(tmp_path: Path) -> None:
    train = {"steps": 8, "checkpoint_every": 100, "first_loss": [5, 6], "warmup_steps": 4}
    synthetic.write_plan(tmp_path, changes={"train": train})
    synthetic.write_parts(tmp_path / "data/parts", 3)
    dataset.body(Job.from_environment(str(tmp_path)))
    ranks.run(2, "jobs.train", tmp_path)
    event = RunDir(tmp_path).ledger.read("gate.train.a0")
    assert event is not None
    rows = dict(event["rows"])
    assert rows["rank 1"].endswith("cpu") and "torch" in rows["versions"]
    assert "over 2 ranks in" in rows["all-reduce"]
    assert rows["effective batch"] == "4 = 2 x 1 x 2 ranks"
    assert rows["length"] == "8 steps, 50.0% of them warm-up"
    assert rows["contract"].startswith("libero-velocity ")
    assert "24 samples" in rows["data"] and "are free" in rows["checkpoints"]
    assert rows["weights after it"].endswith("on all ranks")
    assert rows["warning RDTL-T019"] and rows["warning RDTL-T005"]
    assert "hours to the end" in rows["at this speed"]
    log = (tmp_path / "log").read_text()
    assert log.count("first step:\n") == 1, "one rank prints it"
    assert all(value in log for value in rows.values())
