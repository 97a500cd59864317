"""From what the dataset stage found to the batches of one rank: learned from, and held out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from launcher.core.errors import RdtlError
from launcher.core.runs import RunDir
from rdt.data import measuring
from rdt.data.buffered import BufferedSource
from rdt.data.order import Order
from rdt.data.sample_source import ANY, SampleSource
from rdt.data.statistics import Statistics
from rdt.model.policy_network import PICTURE_HISTORY
from rdt.spec.contract import CONTRACTS
from rdt.training import held_out
from rdt.training.batches import CPU, Batches
from rdt.training.shown import Shown

PLAIN = {
    "image_shift_px": 0,
    "augmentation": 0.0,
    "condition_dropout": 0.0,
    "external_camera_dropout": None,
    "state_noise_db": None,
}
"""Settings of samples that are shown as they are."""


class Data:
    """The data sets of a run on one rank's ``device``; ``held_out``: whether any is; ``shown``:
    to which network, unset: to one of `train.model`.

    Raises RdtlError RDTL-D028 when the data were changed since the dataset stage, D044 when the
    configuration names a buffer of something else, RefusedError RDTL-T064 when not so many
    demonstrations can be held out.
    """

    def __init__(
        self,
        run: RunDir,
        config: dict[str, Any],
        described: Statistics,
        rank: int,
        ranks: int,
        device: torch.device = CPU,
        shown: Shown | None = None,
    ) -> None:
        self._config, self._described = config, described
        self._place = (rank, ranks)
        self._device, self._shown = device, shown
        self._contract = CONTRACTS[described.contract["name"]]
        self._entries = described.sources(run.root)
        self._stores = [entry.kept(run.data / "index") for entry in self._entries]
        self._require_measured()
        share = config["dataset"]["held_out"]
        episodes = [store.episodes for store in self._stores]
        self._held = held_out.choose(episodes, share, config["seed"]) if share else []
        self.held_out = bool(self._held)

    def training(self, plain: bool = False) -> Batches:
        """What is learned from; ``plain``: as it is, without augmentation and dropout."""
        folder, train = self._config["dataset"]["buffer"], self._config["train"]
        buffered = None
        if folder and not plain:
            buffered = BufferedSource(Path(folder), self._contract, *self._place)
        lengths = buffered.lengths if buffered else ANY
        source = SampleSource(self._stores, self._contract, *self._shape(), lengths, self._held)
        weights = tuple(entry.weight for entry in self._entries)
        kind = self._config["dataset"]["order"]
        order = Order(source.index.sizes, self._config["seed"], weights, kind)
        if buffered:
            buffered.require_stands_for(source, order)
        settings = train | PLAIN if plain else train
        return Batches(
            source,
            order,
            self._described,
            settings,
            *self._place,
            buffered,
            self._device,
            self._shown,
        )

    def validation(self) -> Batches:
        """What is held out, as it is."""
        pairs = zip(self._stores, self._held, strict=True)
        chosen = [(store, ~held) for store, held in pairs if held.any()]
        stores, left_out = [store for store, _ in chosen], [out for _, out in chosen]
        source = SampleSource(stores, self._contract, *self._shape(), ANY, left_out)
        order = Order(source.index.sizes, self._config["seed"])
        settings = self._config["train"] | PLAIN
        return Batches(
            source,
            order,
            self._described,
            settings,
            *self._place,
            device=self._device,
            shown=self._shown,
        )

    def _require_measured(self) -> None:
        """The index may be gone, and then the sets have been walked anew."""
        said, here = self._described.dataset_digest, measuring.digest_of(self._stores)
        if here == said:
            return
        raise RdtlError(
            "RDTL-D028",
            "the data sets are not those that were measured",
            where=f"{', '.join(str(entry.path) for entry in self._entries)}: digest {here[:12]}; "
            f"data/statistics.json is of {said[:12]}",
            why="they would be normalised with the statistics of others",
            fix="let nothing write to the data of a run, and start a new run",
        )

    def _shape(self) -> tuple[int, int]:
        if self._shown:
            return self._shown.moments, self._shown.horizon
        return PICTURE_HISTORY, self._config["train"]["model"]["horizon"]
