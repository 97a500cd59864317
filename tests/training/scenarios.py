"""``python -m tests.training.scenarios FOLDER``: cases on two ranks in one start, for the tests.

A start costs seconds and most cases need only the process group. What each case saw is
written as JSON for :mod:`tests.training.test_checkpoint`.
"""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from deepspeed.accelerator import get_accelerator
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from launcher.core import files
from launcher.core.errors import RdtlError
from rdt.training import checkpoint_budget, checkpoint_files, fragments
from rdt.training import engine as distributed
from tests.training import tiny
from tests.training.ranks import ROOT
from tests.training.tiny import Training

CASES = [(0, "fp32", False), (1, "fp32", False), (2, "fp32", False), (3, "fp32", False)]
CASES += [(1, "bf16", False), (2, "bf16", False), (3, "bf16", False), (2, "fp32", True)]


def numbers(training: Training) -> dict[str, Any]:
    """Master weights and averages, whole, as lists; empty but on rank 0."""
    weights = fragments.joined(training.engine.module, training.engine.owned(), torch.device("cpu"))
    averages = training.checkpoints.averaged()
    return {"weights": listed(weights), "averages": listed(averages)}


def engines(folder: Path) -> dict[str, Any]:
    """Every stage, type and place: eleven steps, and from the checkpoint at eight again."""
    seen = {}
    for stage, dtype, offload in CASES:
        name = f"{stage}-{dtype}-{offload}"
        settings = {"zero_stage": stage, "dtype": dtype, "offload": offload}
        whole = Training(folder / name, **settings).to(11)
        whole.engine.require_equal_weights(11)
        again = Training(folder / name, **settings).resumed()
        resumed_at = again.step
        again.to(11)
        seen[name] = {
            "losses": whole.losses,
            "again": again.losses,
            "resumed_at": resumed_at,
            "norm": whole.engine.gradient_norm(),
            "type": str(next(whole.engine.module.parameters()).dtype),
            "constant": float(whole.engine.module.constant),
            "numbers": numbers(whole),
            "numbers_again": numbers(again),
        }
    return seen


def as_on_a_gpu(folder: Path) -> dict[str, Any]:
    """DeepSpeed asks for the autocast of a GPU and for its name: it is told of another device.

    Without a GPU the first is never on, and the masters that are offloaded are not copied.
    """
    asked = torch.is_autocast_enabled
    torch.is_autocast_enabled = lambda device="cpu": asked(device)  # type: ignore[assignment]
    try:
        losses = Training(folder / "bf16", zero_stage=2, dtype="bf16").to(3).losses
    finally:
        torch.is_autocast_enabled = asked
    training = Training(folder / "offloaded", zero_stage=3, offload=True)
    accelerator = get_accelerator()
    accelerator.current_device_name = lambda: "meta"
    try:
        owned = training.engine.owned()
    finally:
        del accelerator.current_device_name
    before = [fragment.values.clone() for fragment in owned]
    training.to(1)
    moved = [not torch.equal(*pair) for pair in zip(before, (f.values for f in owned), strict=True)]
    return {"losses": losses, "follows": bool(owned) and all(moved)}


def another_stage(folder: Path) -> dict[str, Any]:
    """ZeRO 1 continued as ZeRO 2 with a user's JSON; ZeRO 1 continued without ZeRO."""
    Training(folder, zero_stage=1).to(8)
    own = files.read_json(ROOT / "configs/deepspeed/small-buckets.json")
    converted = Training(folder, zero_stage=2, deepspeed=own).resumed()
    at = converted.step
    converted.to(11)
    try:
        Training(folder, zero_stage=0).resumed()
        refused = ""
    except RdtlError as error:
        refused = error.problem.code
    left = [path.name for path in (folder / "checkpoints").glob(".tmp-*")]
    return {"at": at, "losses": converted.losses, "refused": refused, "left": left}


def damaged(folder: Path) -> dict[str, Any]:
    """The newest of two checkpoints is cut short, then the other one too."""
    first = Training(folder).to(8)
    cut(folder / "checkpoints/step_000008")
    again = Training(folder, round_=1).resumed()
    at = again.step
    again.to(8)
    names = sorted(path.name for path in (folder / "checkpoints").iterdir())
    cut(folder / "checkpoints/step_000004")
    cut(folder / "checkpoints/step_000008")
    events = sorted(path.name for path in (folder / "events").iterdir())
    same = first.losses[4:] == again.losses
    codes = []
    for attempt in (2, 3):
        try:
            Training(folder, round_=attempt).resumed()
        except RdtlError as error:
            codes.append(error.problem.code)
    return {"at": at, "same": same, "names": names, "all_damaged": codes, "events": events}


def cut(checkpoint: Path) -> None:
    """Shorten the file of one rank's optimizer."""
    distributed.barrier()
    if dist.get_rank() == 0:
        victim = next(checkpoint.rglob("*optim_states.pt"))
        victim.write_bytes(victim.read_bytes()[:-10])
    distributed.barrier()


def behind(folder: Path) -> dict[str, Any]:
    """Training goes on while a hook holds the writing thread; the next save waits for it."""
    training = Training(folder, keep_checkpoints=1, checkpoint_every=100)
    hold, published = threading.Event(), []
    training.checkpoints.after_publish.append(
        lambda path: (published.append(path.name), hold.wait(60))
    )
    training.checkpoints.resume()
    training.to(2)
    at_save = training.checkpoints.averaged()
    training.checkpoints.save(2)
    for step in (2, 3):
        training.engine.step(tiny.micro_batches(step, 1, 4), 1e-2)
        training.ema.update()
        training.checkpoints.check()
    later = training.checkpoints.averaged()
    while dist.get_rank() == 0 and not published:
        time.sleep(0.01)
    there = training.checkpoints.folder / "step_000002"
    names = [path.name for path in training.checkpoints.folder.glob("step_*")]
    saved = load_file(there / "policy/model.safetensors") if dist.get_rank() == 0 else {}
    hold.set()
    training.checkpoints.save(4)
    training.checkpoints.wait()
    return {
        "published": published,
        "while": names,
        "after": [path.name for path in training.checkpoints.folder.glob("step_*")],
        "averages": [listed(tensors) for tensors in (at_save, saved, later)],
    }


def listed(tensors: dict[str, Tensor] | None) -> dict[str, list[float]]:
    """Tensors as JSON holds them."""
    return {name: tensor.flatten().tolist() for name, tensor in (tensors or {}).items()}


def fenced(folder: Path) -> dict[str, Any]:
    """A newer attempt has claimed the stage."""
    training = Training(folder, round_=6)
    if dist.get_rank() == 0:
        files.publish_once(folder / "events/claim.train.a7.json", {"indices": [0]})
    distributed.barrier()
    try:
        training.to(4)
    except RdtlError as error:
        left = [path.name for path in (folder / "checkpoints").iterdir()]
        return {"code": error.problem.code, "left": left}
    return {"code": ""}


def overtaken(folder: Path) -> dict[str, Any]:
    """A newer attempt begins, and cleans up, while this one writes."""

    def begin_another(policy: Path, weights: Any, steps: int) -> None:
        files.publish_once(folder / "events/claim.train.a7.json", {"indices": [0]})
        checkpoint_files.clean(folder / "checkpoints")
        tiny.fill(policy, weights, steps)

    try:
        Training(folder, round_=6, fill=begin_another).to(4)
    except RdtlError as error:
        return {"code": error.problem.code}
    return {"code": ""}


def alone(folder: Path) -> dict[str, Any]:
    """A step whose loss goes through DDP, and one past it: then nothing exchanges the gradients."""
    seen = {}
    for name in ("through", "past"):
        engine = Training(folder / name, zero_stage=0).engine
        wrapped = DistributedDataParallel(engine.module)
        optimizer = torch.optim.SGD(engine.module.parameters(), lr=1e-2)
        called = wrapped if name == "through" else engine.module
        called(tiny.micro_batches(0, 4, 1)[0]).backward()
        optimizer.step()
        try:
            engine.require_equal_weights(1)
            seen[name] = {"code": ""}
        except RdtlError as error:
            seen[name] = {"code": error.problem.code, "where": error.problem.where}
    return seen


def sizes(folder: Path) -> dict[str, Any]:
    """What checkpoints were expected to take and what they take, in bytes."""
    found = {}
    for stage, dtype in ((0, "fp32"), (1, "fp32"), (2, "bf16"), (3, "bf16")):
        name = f"{stage}-{dtype}"
        training = Training(folder / name, width=20_000, zero_stage=stage, dtype=dtype).to(4)
        expected = checkpoint_budget.expected_bytes(training.engine.module, training.train)
        there = training.checkpoints.folder / "step_000004"
        found[name] = expected, sum(p.stat().st_size for p in there.rglob("*") if p.is_file())
    return found


def main(folder: Path) -> None:
    """Run all cases; rank 0 writes what they saw."""
    distributed.start()
    for case in (
        engines,
        as_on_a_gpu,
        another_stage,
        damaged,
        behind,
        fenced,
        overtaken,
        alone,
        sizes,
    ):
        seen = distributed.gather(case(folder / case.__name__))
        if dist.get_rank() == 0:
            files.write_json(folder / f"{case.__name__}.json", seen)
    distributed.barrier()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
