"""CPU seconds for the statistics of an RLDS set with JPEG pictures, against TensorFlow.

66,984 steps in 32 shards, written here (2.7 GB, in a temporary folder). Each side is a
whole process: ours what `rdtl data stats` runs, the baseline the nested loop of openpi's
runbook in an environment of its own, `.venv-bench/tensorflow`, which is made when missing.
The bars: 60 times less CPU than that loop (anchor 48.5 s), 20 times less than with decoding
skipped (anchor 13.3 s), the same vectors, memory independent of the size.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import harness, rlds_set

ROOT = Path(__file__).parent.parent
VENV = ROOT / ".venv-bench" / "tensorflow"
PACKAGES = ("tensorflow-cpu==2.21.0", "tensorflow-datasets==4.9.10")
LIMIT, SKIP_LIMIT = 1 / 60, 1 / 20
ANCHOR, SKIP_ANCHOR = 48.5, 13.3
ROUNDS, OURS_EACH = 3, 3
MEMORY_LIMIT_MB = 8  # kept rows of the larger set are 3 MB more


OURS = """
import sys
from pathlib import Path
from jobs import statistics
status = statistics.main(sys.argv[1:])
sys.stderr.write(Path("/proc/self/status").read_text())
sys.exit(status)
"""
PEAK = re.compile(rb"^VmHWM:\s*(\d+) kB", re.MULTILINE)


class Side(NamedTuple):
    """What one process cost and answered."""

    cpu: float
    peak_mb: float
    answer: dict[str, Any]


def side(argv: list[str]) -> Side:
    """Run to the end: CPU seconds, peak memory, the last line's JSON.

    Each side says its own peak: a child's `ru_maxrss` counts the parent that it was forked from.
    """
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as log:
        process = subprocess.Popen(argv, stdout=out, stderr=log, env={**os.environ, **quiet})
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        for file in (out, log):
            file.seek(0)
        said = log.read()
        if process.returncode:
            sys.exit(f"{' '.join(argv)[:200]} failed: {said[-2000:].decode()}")
        answer = json.loads(out.read().splitlines()[-1])
    peak = int(PEAK.findall(said)[-1]) / 1024
    return Side(usage.ru_utime + usage.ru_stime, peak, answer)


def ours(folder: Path) -> Side:
    """What `rdtl data stats FOLDER --format openpi-flat` runs."""
    request = {
        "paths": [str(folder)],
        "format": "openpi-flat",
        "out": str(folder.parent / "statistics.json"),
        "contract": "libero-velocity",
        "name": rlds_set.NAME,
        "tasks": [],
        "demos": [],
        "gripper_open": -1,
        "alignment": None,
        "processes": None,
    }
    return side([sys.executable, "-c", OURS, json.dumps(request)])


def tensorflow(way: str, folder: Path) -> list[str]:
    """The program of the baseline."""
    return [str(VENV / "bin/python"), "benchmarks/tensorflow_statistics.py", way, str(folder)]


def quarter(folder: Path) -> Path:
    """The first eight shards as a set of their own, by links."""
    part = folder.parent / "quarter"
    part.mkdir()
    count = rlds_set.SHARDS // 4
    lengths = json.loads((folder / "dataset_info.json").read_text())["splits"][0]["shardLengths"]
    for shard in range(count):
        (part / rlds_set.shard_name(shard, count)).hardlink_to(
            folder / rlds_set.shard_name(shard, rlds_set.SHARDS)
        )
    rlds_set.describe(part, [int(n) for n in lengths[:count]], 0)
    return part


def equal(mine: Side, theirs: Side) -> bool:
    """Minimum, maximum and quantiles to the last bit, mean and spread to 1e-12."""
    (measured,) = mine.answer["result"]["sets"].values()
    for part, key in (("action", "action"), ("state", "proprio")):
        for number, values in theirs.answer[key].items():
            found = measured[part][number]
            exact = number in ("min", "max", "q01", "q99")
            close = [
                abs(a - b) <= (0 if exact else 1e-12) for a, b in zip(found, values, strict=True)
            ]
            if not all(close):
                print(f"{key}.{number} differs: {found} {values}", file=sys.stderr)
                return False
    return measured["steps"] == rlds_set.STEPS


def main() -> None:
    """Alternate the three ways over one set."""
    started = time.monotonic()
    os.chdir(ROOT)
    harness.environment(VENV, PACKAGES)
    sides: dict[str, list[Side]] = {"ours": [], "decode": [], "skip": []}
    with tempfile.TemporaryDirectory(prefix="rdtl-bench-") as temporary:
        folder = Path(temporary) / "set"
        size = rlds_set.write(folder)
        subprocess.run(tensorflow("features", folder), check=True, capture_output=True)
        ours(folder)  # from here on everything is in the page cache
        for number in range(ROUNDS):
            for way in ("decode", "skip"):
                sides["ours"] += [ours(folder) for _ in range(OURS_EACH)]
                sides[way].append(side(tensorflow(way, folder)))
            shown = {way: round(found[-1].cpu, 3) for way, found in sides.items()}
            print(f"round {number + 1}: {shown}", file=sys.stderr)
        part = ours(quarter(folder))
    harness.finish(result(sides, part, size), ["numpy", "google-crc32c"], started)


def result(sides: dict[str, list[Side]], part: Side, size: int) -> dict[str, Any]:
    """Figures of all rounds."""
    cpu = {way: harness.spread([s.cpu for s in found], "CPU s") for way, found in sides.items()}
    peak = {way: round(max(s.peak_mb for s in found)) for way, found in sides.items()}
    mine = cpu["ours"]["median"]
    ratio, skip_ratio = mine / cpu["decode"]["median"], mine / cpu["skip"]["median"]
    growth = statistics.median(s.peak_mb for s in sides["ours"]) - part.peak_mb
    return {
        "benchmark": "rlds_statistics",
        "steps": rlds_set.STEPS,
        "bytes": size,
        "ours": cpu["ours"],
        "baseline": {**cpu["decode"], "what": "TensorFlow, openpi's nested loop"},
        "ratio": round(ratio, 5),
        "times_less": round(1 / ratio, 1),
        "limit": round(LIMIT, 5),
        "of_limit": round(ratio / LIMIT, 3),
        "skipping": {
            "what": "TensorFlow, pictures not decoded, batches of 4,096",
            **cpu["skip"],
            "times_less": round(1 / skip_ratio, 1),
            "of_limit": round(skip_ratio / SKIP_LIMIT, 3),
            "of_anchor": round(cpu["skip"]["median"] / SKIP_ANCHOR, 2),
        },
        "peak_mb": peak,
        "memory": {
            "quarter_of_the_set_mb": round(part.peak_mb, 1),
            "growth_mb": round(growth, 1),
            "independent_of_size": growth < MEMORY_LIMIT_MB,
        },
        "calibration": {"interpreter_start_cpu_s": harness.interpreter_start()},
        "baseline_of_anchor": round(cpu["decode"]["median"] / ANCHOR, 2),
        "equal": all(equal(sides["ours"][-1], sides[way][-1]) for way in ("decode", "skip")),
    }


if __name__ == "__main__":
    main()
