"""``policy/``: what the evaluation needs and nothing else, published as a whole."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import Tensor

from launcher.core import files
from launcher.core.job import Job
from rdt import lora, lora_weights
from rdt.checkpoint.saving import write_policy
from rdt.data.sample_source import Learned
from rdt.data.statistics import Statistics
from rdt.spec.card import Card, Training, statistics_digest
from rdt.training.beginning import Beginning
from rdt.training.checkpoint_files import ADAPTER


def fill(
    job: Job,
    begun: Beginning,
    statistics: Statistics,
    learned: Learned,
    folder: Path,
    weights: Mapping[str, Tensor],
    steps: int,
) -> None:
    """Write config.json, model.safetensors and card.json into ``folder``; with LoRA the sum of
    base and factors, and the factors alone in ``adapter/``.

    ``weights`` are the averaged ones in float32 after ``steps`` optimizer steps.
    """
    if begun.adapted is not None:
        settings = job.config["train"]["lora"]
        (folder / ADAPTER).mkdir()
        lora.write(begun.adapted, folder / ADAPTER, lora_weights.factors(weights))
        weights = lora_weights.merged(weights, settings["alpha"] / settings["rank"])
    write_policy(folder, begun.config, weights, card(job.config, begun, statistics, learned, steps))


def publish_policy(
    job: Job,
    fill: Callable[[Path, dict[str, Tensor], int], object],
    weights: dict[str, Tensor],
    steps: int,
) -> None:
    """Let ``fill`` write ``policy/`` under a temporary name, then rename it.

    To be called by the current round only: what killed ones have left is removed first.
    """
    for left in job.run.root.glob(".policy-*"):
        shutil.rmtree(left, ignore_errors=True)
    temporary = job.run.root / f".policy-{job.round}"
    temporary.mkdir(parents=True)
    fill(temporary, weights, steps)
    files.rename_directory(temporary, job.run.policy)


def card(
    config: dict[str, Any], begun: Beginning, statistics: Statistics, learned: Learned, steps: int
) -> Card:
    """The card of the policy that a run's configuration and data give, but for the weights' file.

    `write_policy` fills in their type and digest. ``learned``: of all that ``statistics`` describe,
    what was not held out.
    """
    mean, std = tuple(statistics.state.mean), tuple(statistics.state.std)
    return Card(
        contract=statistics.contract,
        encoders=begun.encoders,
        weights="ema",
        dtype="",
        weights_sha256="",
        state_mean=mean,
        state_std=std,
        statistics_digest=statistics_digest(mean, std),
        horizon=begun.module.config.pred_horizon,
        camera_size=begun.camera_size,
        origin="trained",
        training=Training(
            steps=steps,
            seed=config["seed"],
            effective_batch=config["train"]["effective_batch"],
            dataset_digest=statistics.dataset_digest,
            suite=statistics.suite,
            task=", ".join(learned.tasks),
            demonstrations=learned.demonstrations,
            windows=learned.windows,
        ),
        versions={name: version(name) for name in ("torch", "deepspeed")},
    )
