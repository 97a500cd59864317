"""What a data set looks like, as plain data: counts, lengths, actions with their units, coverage.

Nothing is judged here (that is :mod:`rdt.data.checks`): the numbers are those that a person
wants to see before a network learns from them. All of it is JSON.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rdt.data import coverage, detect
from rdt.data.sample_source import HORIZON
from rdt.data.store import EpisodeStore

BINS = 41  # odd: 0 lies in the middle of a bin
LENGTH_BINS = 24
ENDING = 20
AROUND_GRASP = 10
SEED = 0
Bools = NDArray[np.bool_]


class Number(NamedTuple):
    """One number of an action: what it is called and what 1 of it means."""

    name: str
    unit: str


NUMBERS = (
    *(Number(f"translation {axis}", "0.05 m") for axis in "xyz"),
    *(Number(f"rotation {axis}", "0.5 rad") for axis in "xyz"),
    Number("gripper", "closes"),
)


def describe(store: EpisodeStore) -> dict[str, Any]:
    """Counts, tasks, lengths, conventions, actions and coverage of ``store``."""
    lengths = store.ends - store.starts
    finite = not store.unfinite()
    return {
        "path": str(store.path),
        "kind": store.kind,
        "files": len(store.contents.files),
        "bytes": sum(file["size"] for file in store.contents.files),
        "episodes": len(store.episodes),
        "steps": len(store),
        "samples": len(store.sampled),
        "joints": store.has_joints,
        "cameras": list(store.cameras),
        "picture_size": store.picture_size,
        "rotation": store.rotation,
        "conventions": [_verdict(verdict) for verdict in detect.detect(store)] if finite else [],
        "lengths": _spread(lengths) | {"histogram": _length_histogram(lengths)},
        "tasks": tasks(store),
        "actions": [
            _number(number, column.astype(np.float64))
            for number, column in zip(NUMBERS, store.actions.T, strict=True)
        ],
        "coverage": shown(store),
    }


def tasks(store: EpisodeStore) -> list[dict[str, Any]]:
    """Task, words, episodes and lengths of each task, in the set's order."""
    lengths: dict[tuple[str, str], list[int]] = {}
    for episode in store.episodes:
        lengths.setdefault((episode.task, episode.instruction), []).append(episode.length)
    return [
        {"task": task, "instruction": words, "episodes": len(own), "steps": sum(own)}
        | _spread(np.asarray(own))
        for (task, words), own in lengths.items()
    ]


def key_windows(store: EpisodeStore) -> dict[str, Bools]:
    """Parts of the episodes, (N,) bool each: all, how they end, and around each grasp.

    A grasp is the moment at which the command turns from opening to closing; a window that
    no episode has is left out.
    """
    lengths = store.ends - store.starts
    step = np.arange(len(store)) - np.repeat(store.starts, lengths)
    closes = store.actions[:, 6] > 0
    turned = np.flatnonzero(closes[1:] & ~closes[:-1] & (step[1:] > 0)) + 1
    episode = np.repeat(np.arange(len(lengths)), lengths)
    grasp = np.zeros(len(store), np.bool_)
    for apart in range(-AROUND_GRASP, AROUND_GRASP + 1):
        near = np.clip(turned + apart, 0, len(store) - 1)
        grasp[near[episode[near] == episode[turned]]] = True
    windows = {
        "all": np.ones(len(store), np.bool_),
        "ending": step >= np.repeat(lengths - ENDING, lengths),
        "grasp": grasp,
    }
    return {name: window for name, window in windows.items() if window.any()}


def shown(store: EpisodeStore) -> dict[str, Any]:
    """How much of each key window one epoch shows, by order, as if each step had a picture."""
    windows = key_windows(store)
    rows = coverage.table(store.ends - store.starts, HORIZON, SEED, windows=windows)
    return {
        "horizon": HORIZON,
        "ending": ENDING,
        "around_grasp": AROUND_GRASP,
        "windows": {name: int(window.sum()) for name, window in windows.items()},
        "rows": [row._asdict() for row in rows],
    }


def _verdict(verdict: detect.Verdict) -> dict[str, Any]:
    return {
        "what": verdict.what,
        "declared": verdict.declared,
        "found": verdict.found,
        "evidence": verdict.evidence,
        "contradicts": verdict.contradicts,
    }


def _spread(lengths: NDArray[np.int64]) -> dict[str, Any]:
    return {
        "min": int(lengths.min()),
        "median": float(np.median(lengths)),
        "max": int(lengths.max()),
    }


def _length_histogram(lengths: NDArray[np.int64]) -> dict[str, Any]:
    """Counts in equal whole-numbered bins from the shortest to the longest episode."""
    low, high = int(lengths.min()), int(lengths.max()) + 1
    width = -(-(high - low) // LENGTH_BINS)
    bins = -(-(high - low) // width)
    counts = np.bincount((lengths - low) // width, minlength=bins)
    return {"low": low, "width": width, "counts": counts.tolist()}


def _number(number: Number, values: NDArray[np.float64]) -> dict[str, Any]:
    """Histogram over [-1, 1], wider where the data are, of the finite among ``values`` (N,)."""
    finite = values[np.isfinite(values)]
    described = {**number._asdict(), "unfinite": len(values) - len(finite)}
    edge = float(max(1.0, np.abs(finite).max(initial=0.0)))
    counts, _ = np.histogram(finite, BINS, (-edge, edge))
    if not len(finite):
        return described | {"edge": edge, "counts": counts.tolist(), "quantiles": None}
    quantiles = np.quantile(finite, (0, 0.01, 0.5, 0.99, 1)).tolist()
    return described | {
        "edge": edge,
        "counts": counts.tolist(),
        "quantiles": quantiles,
        "zero": float((finite == 0).mean()),
        "full": float((np.abs(finite) >= 1).mean()),
    }
