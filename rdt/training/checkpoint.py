"""Checkpoints that are complete because they exist, written while training goes on.

Every rank copies its state to memory and writes it in a thread, into a directory with a
temporary name. When all ranks have written, rank 0 lists every file with size and digest
and renames the directory to ``step_NNNNNN``. A kill at any moment leaves the checkpoints
that were there. The loop waits only if the one before is not done yet.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch import Tensor

from launcher.core import files, retention
from launcher.core.errors import RdtlError, RefusedError
from launcher.core.job import Job
from rdt import lora_files, lora_weights
from rdt.checkpoint.places import WEIGHTS
from rdt.training import checkpoint_budget as budget
from rdt.training import checkpoint_files as folders
from rdt.training import checkpoint_snapshot, checkpoint_universal, fragments
from rdt.training import engine as distributed
from rdt.training.checkpoint_files import ADAPTER, POLICY, STATE, TAG
from rdt.training.checkpoint_writing import Fill, Writing
from rdt.training.ema import Ema
from rdt.training.engine import Engine


class Checkpoints:
    """All checkpoints of a run; every rank has one, and every method is for all ranks together.

    ``identity`` is what a checkpoint must share with this run to be continued.
    ``after_publish`` is called with the path of each new checkpoint, on rank 0 and in the
    writing thread; the checkpoint is not removed meanwhile.
    """

    def __init__(
        self, job: Job, engine: Engine, ema: Ema, identity: dict[str, Any], fill: Fill
    ) -> None:
        self.folder = job.run.checkpoints
        self.after_publish: list[Callable[[Path], None]] = []
        self._job, self._engine, self._ema = job, engine, ema
        self._identity, self._fill = identity, fill
        self._train: dict[str, Any] = job.config["train"]
        self._layout = {"ranks": dist.get_world_size(), "zero_stage": engine.stage}
        self._group = (
            distributed.second_group()
        )  # files take longer, and a thread must not mix with the loop
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._pending: Future[None] | None = None

    def save(self, step: int) -> None:
        """Begin to save the state after ``step`` optimizer steps.

        Raises what writing the one before has raised (see :meth:`wait`).
        """
        self.wait()
        state = {**self._identity, "layout": self._layout, "step": step, "ema": self._ema.calls}
        snapshot = checkpoint_snapshot.take(self._engine.deepspeed)
        writing = Writing(self._job, state, snapshot, self.averaged(), self._fill)
        self._pending = self._thread.submit(writing.run, self._group, self.after_publish)

    def averaged(self) -> dict[str, Tensor] | None:
        """The averaged weights, whole, in float32; None but on rank 0."""
        return fragments.joined(self._engine.module, self._ema.fragments, self._engine.device)

    def wait(self) -> None:
        """Wait until everything begun is published.

        Raises RdtlError RDTL-S034 when a newer attempt of this stage exists, RDTL-G009 for
        a full disk; then nothing was published.
        """
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def check(self) -> None:
        """Raise what has failed meanwhile, without waiting."""
        if self._pending is not None and self._pending.done():
            self.wait()

    def require_room(self, total: int | None) -> str:
        """What the checkpoints of ``total`` steps take and what is free, in words.

        Raises RefusedError RDTL-G001 when they do not fit.
        """
        each = budget.expected_bytes(self._engine.module, self._train)
        return distributed.by_first(
            lambda: budget.require_room(self.folder, each, self._train, total)
        )

    def resume(self) -> int:
        """Load the newest complete checkpoint, if there is any; returns the steps already done.

        A damaged one is set aside and said to be (RDTL-T011), and the one before is taken.
        Raises RdtlError RDTL-T013 when all are damaged or one that is whole does not load,
        RefusedError RDTL-T012 when it belongs to another run.
        """
        damaged: dict[Path, list[str]] = {}
        for step in reversed(distributed.by_first(self._found)):
            path = retention.place(self.folder, step)
            problems = self._damage(path)
            if not problems:
                distributed.by_first(partial(self._pass_over, damaged, step))
                self._load(path)
                return int(step)
            damaged[path] = problems
        if damaged:
            raise _unreadable(self.folder, "; ".join(min(p) for p in damaged.values()))
        return 0

    def _found(self) -> list[int]:
        self.folder.mkdir(exist_ok=True)
        folders.clean(self.folder)
        return retention.steps(self.folder)

    def _damage(self, path: Path) -> list[str]:
        mine = folders.damage(path, dist.get_rank(), dist.get_world_size())
        return sorted(
            {problem for part in distributed.gather(mine, self._group) for problem in part}
        )

    def _pass_over(self, damaged: dict[Path, list[str]], step: int) -> None:
        """Continuing from the one before costs steps, stopping may cost a night: so it is said."""
        for path, problems in damaged.items():
            aside = folders.set_aside(path, self._job.round)
            print(
                f"warning RDTL-T011: a damaged checkpoint is passed over ({problems[0]}); it is "
                f"now {aside}, and training goes on from step {step}",
                file=sys.stderr,
                flush=True,
            )
            name = f"passed_over.{self._job.stage}.{path.name}.{self._job.round}"
            self._job.run.ledger.publish(
                name, problems=problems, kept_as=str(aside), continued_from=step
            )

    def _load(self, path: Path) -> None:
        state = files.read_json(path / STATE)
        require_identity(path, state, self._identity)
        engine = self._engine.deepspeed
        same = require_reachable(path, state["layout"], self._layout)
        try:
            # Inside, DeepSpeed unpickles its own files; the digests are of what this run wrote.
            if same:
                loaded, _ = engine.load_checkpoint(str(path), tag=TAG)
            else:
                loaded = checkpoint_universal.load(engine, path, self._group)
            if self._train["lora"] is None:
                self._ema.load(path / POLICY / WEIGHTS, state["ema"])
            else:  # the policy's weights hold the sum of base and factors
                factors = path / POLICY / ADAPTER / lora_files.WEIGHTS
                self._ema.load(factors, state["ema"], lora_weights.peft_name)
        except RdtlError:
            raise
        except Exception as error:
            raise _unreadable(path, repr(error)) from error
        if loaded is None:
            raise _unreadable(path, "DeepSpeed found no state in it")


def require_reachable(path: Path, then: dict[str, int], now: dict[str, int]) -> bool:
    """Whether a checkpoint loads as it is (True) or has to be converted (False).

    Raises RefusedError RDTL-T054 where neither is possible.
    """
    if then == now or then["zero_stage"] == now["zero_stage"] == 0:
        return True
    if then["zero_stage"] and now["zero_stage"]:
        return False
    raise RefusedError(
        "RDTL-T054",
        "a checkpoint without ZeRO cannot be continued with it, nor the other way round",
        where=f"{path / STATE}: zero_stage = {then['zero_stage']}, now {now['zero_stage']}",
        why="DeepSpeed converts only states that are divided among the ranks",
        fix=f"set train.zero_stage to {then['zero_stage']}, or start a new run",
    )


def require_identity(path: Path, state: dict[str, Any], identity: dict[str, Any]) -> None:
    """Refuse to continue a checkpoint that was made under other settings (RefusedError RDTL-T012).

    What an older version did not write down is not compared.
    """
    for key, expected in identity.items():
        if state.get(key, expected) == expected:
            continue
        raise RefusedError(
            "RDTL-T012",
            f"the checkpoint was made with another {key}",
            where=f"{path / STATE}: {key} = {state.get(key)!r}, now {expected!r}",
            why="the run would go on as another experiment",
            fix="restore the configuration and data, or start a new run",
        )


def _unreadable(path: Path, why: str) -> RdtlError:
    return RdtlError(
        "RDTL-T013",
        "the checkpoints do not load",
        where=f"{path}: {why}",
        why="starting afresh without saying so would throw the training away",
        fix="look for what damaged it; to begin again from step 0 all the same, start a new run",
    )
