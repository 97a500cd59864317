"""One checkpoint on its way from memory to its name, in a thread of every rank."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from launcher.core import retention
from launcher.core.errors import RdtlError, full_disk
from launcher.core.job import Job
from rdt.training import checkpoint_budget as budget
from rdt.training import checkpoint_files as folders
from rdt.training import engine as distributed
from rdt.training.checkpoint_files import POLICY
from rdt.training.checkpoint_snapshot import Snapshot

FENCED, FULL = "fenced", "full"

Fill = Callable[[Path, dict[str, Tensor], int], object]
"""Writes a policy folder: the folder, the averaged weights by name, the steps done."""


@dataclass(frozen=True)
class Writing:
    """What a checkpoint consists of; ``weights`` are the averaged ones, on rank 0 only."""

    job: Job
    state: dict[str, Any]
    snapshot: Snapshot
    weights: dict[str, Tensor] | None
    fill: Fill

    @property
    def temporary(self) -> Path:
        """The directory before it has its name."""
        return self.final.with_name(f".tmp-{self.final.name}-{self.job.round}")

    @property
    def final(self) -> Path:
        """The directory of the complete checkpoint."""
        return retention.place(self.job.run.checkpoints, self.state["step"])

    def run(self, group: Any, hooks: Sequence[Callable[[Path], None]]) -> None:
        """This rank's files, and when all ranks have written theirs, the publication.

        Raises RdtlError RDTL-G009 on every rank when the disk of one was full, RDTL-S034
        when a newer attempt exists; nothing is published then.
        """
        size = self.snapshot.bytes() + sum(t.nbytes for t in (self.weights or {}).values())
        listed: dict[str, Any] = {}
        failure = None
        try:
            listed = self._files()
        except OSError as error:
            failure = self._cause(error)
        parts = distributed.gather((size, listed, failure), group)
        distributed.by_first(lambda: self._publish(parts, hooks), group)

    def _files(self) -> dict[str, Any]:
        listed = folders.fingerprints(self.temporary, self.snapshot.write(self.temporary))
        if self.weights is not None:
            policy = self.temporary / POLICY
            policy.mkdir(parents=True)
            self.fill(policy, self.weights, self.state["step"])
            listed |= folders.fingerprints(self.temporary, filter(Path.is_file, policy.rglob("*")))
        return listed

    def _cause(self, error: OSError) -> str:
        """A newer attempt that has removed our files, or a full disk; else ``error`` is raised."""
        if self.job.fenced():
            return FENCED
        if full_disk(error, "") is None:
            raise error
        return FULL

    def _publish(
        self,
        parts: Sequence[tuple[int, dict[str, Any], str | None]],
        hooks: Sequence[Callable[[Path], None]],
    ) -> None:
        sizes, lists, failures = zip(*parts, strict=True)
        failed = {*failures, FENCED if self.job.fenced() else None} - {None}
        if not failed:
            listed = {name: found for part in lists for name, found in part.items()}
            try:
                folders.publish(self.temporary, self.final, self.state, listed)
            except OSError as error:
                failed.add(self._cause(error))
        if failed:
            shutil.rmtree(self.temporary, ignore_errors=True)  # its space is free again
            if FENCED in failed:
                raise _fenced(self.job, self.state["step"])
            raise budget.full_disk(self.job.run.checkpoints, sum(sizes))
        for hook in hooks:
            hook(self.final)
        folders.prune(self.job.run.checkpoints, self.job.config["train"])


def _fenced(job: Job, step: int) -> RdtlError:
    return RdtlError(
        "RDTL-S034",
        f"a newer attempt of {job.stage} has taken over; this one stops",
        where=f"attempt {job.round}, step {step}",
        why="two attempts must not publish into one run",
        fix="nothing: follow the newer attempt",
    )
