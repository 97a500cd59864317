"""How long a training takes on a site, before it starts: measured there, or assumed and said so."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any, NamedTuple

from launcher.core import files
from launcher.core.plan import Plan
from launcher.core.runs import RunDir
from launcher.sites import Site
from rdt.spec import cost

PEAK_TFLOPS = {
    "a100": 312, "a6000": 155, "a40": 150, "h100": 989, "h200": 989, "l40s": 362, "rtx4090": 165,
}  # fmt: skip
"""Dense bf16 operations per second of a GPU as its maker gives them, by `gpu_type`, times 1e12."""
UTILISATION = (0.2, 0.4)
"""Share of the peak that is assumed to be reached where nothing was measured."""
SAME = (
    *("checkpoint", "model", "lora", "dtype", "device", "gradient_checkpointing", "noise_draws"),
)
"""Settings that must agree for one run's speed to foretell another's."""
HUB = "hf://models/"
SPEED = "train/samples_per_second"
WARMED_UP = 2
"""So many first lines of a record hold the start."""


class Speed(NamedTuple):
    """Samples per second of one rank, the least and the most that is likely, and why."""

    low: float
    high: float
    source: str


def lines(run: RunDir, plan: Plan, site: Site) -> list[str]:
    """What to say about the training of ``plan`` on ``site``; nothing when it has none.

    ``run`` is where it would live: its data tell the length of an epoch, and runs beside it
    the speed.
    """
    train = _as_named(plan.config)
    if not train:
        return []
    ranks = train["nodes"] * train["ranks_per_node"]
    known = _measured(run.root.parent, plan.site, train) or _assumed(train, site)
    if train["minutes"] is not None:
        said = f"{train['minutes']:g} minutes, measured and turned into steps at the start"
        return [said, _cost(train["minutes"] / 60, train["minutes"] / 60, ranks, train)]
    samples = _samples(run, train)
    said = _length(train, samples)
    if known is None:
        why = "no run of this network at this site has been measured, and no GPU is named whose"
        return [said, f"hours unknown: {why} speed is known (site file: gpu_type)"]
    low, high = (speed * ranks for speed in known[:2])
    speed = _span(low, high)
    told = [said, f"{speed} samples/s on {ranks} {_ranks(ranks, train)}: {known.source}"]
    if samples is None:
        thousands = _cost(1e5 / high / 3600, 1e5 / low / 3600, ranks, train)
        return [*told, f"each 100,000 samples {thousands}"]
    return [*told, _cost(samples / high / 3600, samples / low / 3600, ranks, train)]


def _samples(run: RunDir, train: dict[str, Any]) -> float | None:
    if train["epochs"] is None:
        return float(train["steps"] * train["effective_batch"])
    windows = run.data / "windows.json"
    if not windows.exists():
        return None
    counted = files.read_json(windows)
    # runs of before it was written have the samples alone
    return float(train["epochs"] * counted.get("epoch_samples", counted["windows"]))


def _length(train: dict[str, Any], samples: float | None) -> str:
    batch = f"{train['effective_batch']} samples"
    if train["epochs"] is None:
        return f"{train['steps']:,} steps of {batch}, {samples:,.0f} samples"
    if samples is None:
        return f"{train['epochs']:g} epochs; the stage dataset counts what an epoch has"
    return f"{train['epochs']:g} epochs, {samples:,.0f} samples, in steps of {batch}"


def _measured(runs: Path, site: str, train: dict[str, Any]) -> Speed | None:
    """That of the newest run of such a network on this site, by rank."""
    records = runs.glob("*/checkpoints/metrics.jsonl")
    for path in sorted(records, key=lambda path: path.stat().st_mtime, reverse=True):
        beside = RunDir(path.parents[1])
        before = _trained(beside, site)
        if before is None or any(_speed_of(before, key) != _speed_of(train, key) for key in SAME):
            continue
        found = [json.loads(line) for line in files.read_whole_lines(path)[0]]
        speeds = [line[SPEED] for line in found if SPEED in line][WARMED_UP:]
        if speeds:
            ranks = before["nodes"] * before["ranks_per_node"]
            each = statistics.median(speeds) / ranks
            source = f"measured in {beside.root.name} on {ranks} {_ranks(ranks, train)}"
            return Speed(each, each, source)
    return None


def _speed_of(train: dict[str, Any], key: str) -> Any:
    value = train.get(key)
    return value is not None if key == "lora" else value


def _trained(run: RunDir, site: str) -> dict[str, Any] | None:
    """The training of a run at ``site``."""
    try:
        plan = files.read_json(run.plan)
    except (OSError, ValueError):
        return None
    return _as_named(plan["config"]) if plan["site"] == site else None


def _as_named(config: dict[str, Any]) -> dict[str, Any] | None:
    """The section `train`; a staged checkpoint is named by its URI, not by its place in a run."""
    train: dict[str, Any] | None = config.get("train")
    staged = {asset["target"]: asset["uri"] for asset in config.get("assets", [])}
    if train and train["checkpoint"] in staged:
        return {**train, "checkpoint": staged[train["checkpoint"]]}
    return train


def _assumed(train: dict[str, Any], site: Site) -> Speed | None:
    net = _network(train["checkpoint"])
    peak = PEAK_TFLOPS.get((site.gpu_type or "").lower())
    if net is None or peak is None or train["device"] != "gpu" or train["dtype"] != "bf16":
        return None
    adapter, recomputed = train["lora"] is not None, train["gradient_checkpointing"]
    each = cost.training(net, train["noise_draws"], adapter=adapter, recomputed=recomputed)
    low, high = (share * peak * 1e12 / each for share in UTILISATION)
    return Speed(
        low,
        high,
        f"assumed, {each / 1e12:.1f} TFLOP a sample at {UTILISATION[0]:.0%} to "
        f"{UTILISATION[1]:.0%} of the {peak} TFLOP/s of {site.gpu_type}",
    )


def _network(checkpoint: str | None) -> cost.Network | None:
    """Sizes of a published checkpoint, or of one that lies here with its config.json."""
    if checkpoint is None:
        return None
    if published := cost.PUBLISHED.get(checkpoint.removeprefix(HUB).partition("@")[0]):
        return published
    try:
        sizes = files.read_json(Path(checkpoint) / "config.json")
        return cost.Network(sizes["rdt"]["hidden_size"], sizes["rdt"]["depth"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _cost(low: float, high: float, ranks: int, train: dict[str, Any]) -> str:
    name = "GPU-hours" if train["device"] == "gpu" else "rank-hours"
    return f"{_span(low, high)} hours, {_span(low * ranks, high * ranks)} {name}"


def _ranks(ranks: int, train: dict[str, Any]) -> str:
    return ("GPU" if train["device"] == "gpu" else "rank") + ("s" if ranks > 1 else "")


def _span(low: float, high: float) -> str:
    """Two digits are all that such a number has."""
    ends = [f"{float(f'{value:.2g}'):,g}" for value in (low, high)]
    return ends[0] if ends[0] == ends[1] else f"{ends[0]} to {ends[1]}"
