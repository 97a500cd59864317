"""Runs every benchmark and rewrites the table of docs/benchmarks.md."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from benchmarks.harness import MISSED, RESULTS

NAMES = (
    "cli",
    "array_runner",
    "submission",
    "runs_show",
    "sif_exec",
    "sampler",
    "policy_call",
    "loader",
    "data_index",
    "rlds_statistics",
    "training",
    "aggregation",
    "evaluation",
    "vla_eval_ratio",
    "serving",
    "staging",
    "recipes",
)
PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"
HEAD = """# Benchmarks

`make bench` runs them all; each command is below. A ratio is ours over the baseline of the same
run and must not exceed its limit (`staging` compares speeds: not fall below it). It counts only
when both sides gave equal results and the baseline lies within 0.7–1.4 of its anchor, the figure
measured for it elsewhere; "outside" marks one that does not, on a slower or busier machine.
Figures are median (minimum–maximum); the machine's load is that of the end.

| benchmark | ours | baseline | ratio | limit | of anchor | equal | machine, load | command |
|---|---|---|---|---|---|---|---|---|
"""


def row(data: dict) -> str:
    """One line of the table."""

    def side(part: dict) -> str:
        return f"{part['median']:.3g} ({part['min']:.3g}–{part['max']:.3g}) {part['unit']}"

    anchored = data["baseline_of_anchor"]
    near = " outside" if anchored and not 0.7 <= anchored <= 1.4 else ""
    where = data["machine"]
    bar = f"{'≥ ' if data.get('at_least') else ''}{data['limit']}"
    bar += " missed" if data.get("of_limit", 0) > 1 else ""
    return (
        f"| {data['benchmark']} | {side(data['ours'])} | {data['baseline']['what']}: "
        f"{side(data['baseline'])} | {data['ratio']} | {bar} | "
        f"{anchored or '–'}{near} | {'yes' if data['equal'] else 'NO'} | "
        f"{where['cpu'].removesuffix(' Processor')}, {where['load']} | `{data['command']}` |"
    )


def main() -> None:
    """Run, then write the page; exit 1 when one has missed its bar, or failed.

    One that fails keeps its earlier result, and keeps none of the others from running.
    """
    if sys.argv[1:]:
        raise SystemExit("it runs all of them; one alone: python -m benchmarks.NAME --json")
    status = {}
    for name in NAMES:
        argv = [sys.executable, "-m", f"benchmarks.{name}", "--json"]
        status[name] = subprocess.run(argv, check=False).returncode
    write_page()
    missed = [name for name, code in status.items() if code == MISSED]
    failed = [name for name, code in status.items() if code not in (0, MISSED)]
    said = [f"beyond their bars: {', '.join(missed)}"] if missed else []
    said += [f"failed: {', '.join(failed)}"] if failed else []
    if said:
        raise SystemExit("; ".join(said))


def write_page() -> None:
    """The table of the stored results."""
    results = [json.loads((RESULTS / f"{name}.json").read_text()) for name in NAMES]
    where = results[-1]["machine"]
    foot = (
        "\nThe bars of `cli` (0.15 CPU s), `runs_show` (0.5 CPU s), `sif_exec` (0.6 s) and "
        "`data_index` (5 CPU s) are absolute, set where the baseline of `cli` takes 0.1 CPU s; "
        "their ratios are for orientation.\n"
    )
    sampler = json.loads((RESULTS / "sampler.json").read_text())
    foot += (
        f"\n`sampler` is {sampler['times_as_fast']} times as fast in float32 (the matrix products "
        f"alone take {sampler['floor_s']} s here) and {sampler['bf16']['times_as_fast']} times in "
        f"bfloat16 (bar 2.4, {sampler['bf16']['ours']['median']:.3g} CPU s, floor "
        f"{sampler['bf16']['floor_s']} s).\n"
    )
    foot += _data(
        *(json.loads((RESULTS / f"{n}.json").read_text()) for n in ("loader", "data_index"))
    )
    foot += _training(json.loads((RESULTS / "training.json").read_text()))
    aggregation = json.loads((RESULTS / "aggregation.json").read_text())
    foot += (
        f"\n`aggregation` takes at most {aggregation['memory']['mb']:.0f} MB (bar 100; duckdb "
        f"{aggregation['baseline_peak_mb']:.0f} MB); from CSV shards it takes "
        f"{aggregation['csv']['ours_cpu_s']} CPU s against {aggregation['csv']['baseline_cpu_s']}. "
        "Both sides finished equal; only ours names the files with a torn line.\n"
    )
    foot += _evaluation(
        *(json.loads((RESULTS / f"{n}.json").read_text()) for n in ("evaluation", "vla_eval_ratio"))
    )
    foot += _staging(json.loads((RESULTS / "staging.json").read_text()))
    foot += _recipes(json.loads((RESULTS / "recipes.json").read_text()))
    foot += f"\nAll of them on {where['cores']} cores with {where['memory_gb']} GB.\n"
    PAGE.write_text(HEAD + "\n".join(row(data) for data in results) + "\n" + foot)


def _evaluation(episodes: dict, peer: dict) -> str:
    """What a row of the table does not hold of whole episodes."""
    workers, shares = episodes["workers"], episodes["shares"]
    names = ("rendering", "physics", "reset", "policy", "outside")
    parts = ", ".join(f"{name} {100 * shares[name]:.1f} %" for name in names)
    return (
        f"\n`evaluation` is {episodes['lazy_ratio']} times as fast as rendering every step (bar "
        f"{episodes['bar']}). Two workers do {workers['wall_s']} times the work of one by the "
        f"clock, {workers['cpu_s']} times by CPU time (bar {workers['bar']}; the clock needs two "
        f"idle cores). An episode's CPU time: {parts} (bar of the last "
        f"{100 * shares['bar']:.0f} %).\n"
        f"\n`vla_eval_ratio` is {peer['vla_eval_ratio']} (bar {peer['bar']:.0f}): same task, "
        "actions, simulator and number of processes; both solve every episode in the same number "
        "of steps.\n"
    )


def _recipes(found: dict) -> str:
    """What a row of the table does not hold of the runner."""
    own, bound = found["own"], found["of_bound"]
    return (
        f"\n`recipes` takes {bound['ratio']} times the least that any order of the waypoint "
        f"recipe's steps can take (bar {bound['limit']}) and is {found['times_as_fast']} "
        f"times as fast as one by one (bar 1.3). The runner's own part of a step, starting the "
        f"program included, is {own['first_ms']} ms (bar {own['limit_ms']:.0f}; "
        f"{own['first_cpu_ms']} ms of CPU time); a step that is skipped takes "
        f"{own['nothing_to_do_ms']} ms.\n"
    )


def _data(loader: dict, index: dict) -> str:
    """What a row of the table does not hold of the loader and the index."""
    warm, cold, *ends = (
        f"{side['median']:,.0f}"
        for side in (
            loader["warm_ours"],
            loader["cold_ours"],
            *(loader["with_transforms"][how] for how in ("conditions", "resized", "augmented")),
        )
    )
    first = index["first_sample"]
    return (
        f"\n`loader` is {loader['speed_up']} times as fast warm (bar {loader['bar']}) and "
        f"{loader['cold']['speed_up']} times cold (bar {loader['cold']['bar']}): {warm} and {cold} "
        f"samples/s. To the end of the transforms, on one core: {ends[0]} samples/s with noise of "
        f"the state and dropped conditions, {ends[1]} with four pictures resized to 384 pixels as "
        f"well, {ends[2]} with half of them augmented as well.\n"
        f"\n`data_index` takes {index['memory']['mb']} MB (bar {index['memory']['bar']}); a "
        f"resumed run on {first['files']} files with {first['steps']:,} steps has its first "
        f"batch after {first['median']:.2f} s (bar {first['bar']:.0f} s), one that reads all "
        f"headers after {first['walking_s']} s.\n"
    )


def _staging(small: dict) -> str:
    """What a row of the table does not hold of staging."""
    large = small["large"]
    pairs = {
        name: ", ".join(str(pair) for pair in side["pairs"])
        for name, side in (("large", large), ("small", small))
    }
    return (
        f"\n`staging`, by the clock, verification included: {small['ratio']} of the speed of "
        f"`rclone copy` for 10,000 small files (bar {small['limit']}; pairs {pairs['small']}), "
        f"{large['ratio']} for large ones (bar {large['limit']}; pairs {pairs['large']}). The "
        f"load of the machine was {small['machine']['load']}; the "
        f"baselines reached {small['baseline_of_anchor']} (small) and "
        f"{large['baseline_of_anchor']} (large) of their anchors, and below 0.7 a figure does not "
        "count. CPU "
        f"seconds of the client: {small['cpu_s']['ours']} against {small['cpu_s']['bare']} and "
        f"{large['cpu_s']['ours']} against {large['cpu_s']['bare']}; what is more is SHA-256 for "
        "the manifest, one more reading, and the start of Python. Both sides check MD5.\n"
    )


def _training(found: dict) -> str:
    """What a row of the table does not hold of training."""
    saved, start, lora = found["checkpoint"], found["start"], found["lora"]
    two, four = (
        next(case for case in found["network"] if (case["nodes"], case["zero_stage"]) == kind)
        for kind in ((2, 0), (4, 0))
    )
    full, adapted = lora["full"], lora["lora"]
    return (
        f"\n`training`: a network as wide as the 170M one with two blocks, 4 samples a step; every "
        f"step has its line in the record. Pair by pair the ratio is "
        f"{', '.join(str(pair) for pair in found['pairs'])}. A checkpoint costs the loop "
        f"{saved['loop']['median']:.2f} CPU s and its thread {saved['writing']['median']:.2f}; "
        f"one in {saved['every']} steps is in the figure ({saved['per_step_s']} CPU s a step), a "
        f"round of validation is not. Waiting for data takes "
        f"{found['data_wait']['median']:.2%} of the time (bar {found['data_wait']['limit']:.0%}). "
        f"From the start of the process to the end of the first step it takes "
        f"{start['first_step_cpu']['ratio']} times the CPU time of the bare loop, "
        f"{start['first_step_wall']['ratio']} times the time (bar {start['limit']}).\n"
        f"\nLoRA (rank 32) beside all weights, 170M sizes with four blocks, bf16, one sample, "
        f"on a CPU: {adapted['step']['median']:.2f} and {full['step']['median']:.2f} CPU s a step, "
        f"{adapted['peak']['median']:,.0f} and {full['peak']['median']:,.0f} MiB at most (ratio "
        f"{lora['memory_ratio']}, bar {lora['memory_limit']}), {adapted['file_mb']} and "
        f"{full['file_mb']} MB kept. An adapter of the whole 170M network has "
        f"{lora['adapters_mb']['170m']['adapter']} MB, one of the 1B network "
        f"{lora['adapters_mb']['1b']['adapter']} MB. No figure here is of a GPU.\n"
        f"\nOn the wire, a step without ZeRO sends {two['of_ring']} (2 nodes) and "
        f"{four['of_ring']} (4 nodes) times what a ring moves; see [Training](training.md).\n"
    )


if __name__ == "__main__":
    main()
