"""CPU seconds to count 10⁶ episodes in 2,000 shard files, against duckdb on the same files.

The files are what an evaluation leaves: JSON lines, every hundredth episode first an error of
the harness and done again in a later file, 20 files with a torn last line. Both sides answer
the same: per policy and task the counts, mean steps, seconds; the protocols; initial states at
which fixtures differ. duckdb (in an environment of its own, one thread, columns declared,
damaged lines ignored) cannot say which files were torn; ours does. The bars: no more CPU than
duckdb, and 100 MB. The same rows as CSV shards are measured once.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path
from typing import Any

from benchmarks import harness
from launcher.report import csv_files
from rdt.spec.record import Record

LIMIT = 1.0
MEGABYTES = 100
FILES, TORN, TRIALS = 2000, 20, 1000
DUCKDB = "2.0.0"
POLICIES, TASKS, STATES = ("rdt", "expert"), range(10), range(50)
SIDE = Path(__file__).with_name("aggregation_side.py")
OURS = f"""
import json, sys
from pathlib import Path
from launcher.report import aggregate, shards
from rdt.spec.planned import Planned
tasks = tuple(("libero_object", number) for number in {TASKS})
planned = Planned({POLICIES}, tasks, {STATES}, {TRIALS})
e = shards.scan(Path(sys.argv[1]), planned)
rows, _ = aggregate.count(e)
hwm = Path("/proc/self/status").read_text()  # getrusage would count the process that forked
print(json.dumps({{
    "rows": [[r.policy, r.task_id, r.episodes, r.successes, r.errors, r.missing, r.mean_steps,
              r.mean_success_steps, r.mean_wall_s, r.mean_policy_s, r.checkpoint] for r in rows],
    "protocols": e.protocols, "odd": len(e.odd), "torn": len(e.torn),
    "peak_mb": int(hwm.split("VmHWM:")[1].split()[0]) / 1024,
}}))
"""


def records() -> list[Record]:
    """A record of every planned episode, in the order of the plan; 1 % of them errors."""
    numbers = random.Random(0)
    found = []
    for policy in POLICIES:
        for task in TASKS:
            for state in STATES:
                for trial in range(TRIALS):
                    success = numbers.random() < 0.7
                    found.append(_record(numbers, policy, task, state, trial, success))
    return found


def _record(
    numbers: random.Random, policy: str, task: int, state: int, trial: int, success: bool
) -> Record:
    return Record(
        policy, "libero_object", task, f"pick_up_object_{task}_and_place_it_in_the_basket", state,
        trial, "success" if success else "fail", numbers.randrange(80, 280) if success else 280,
        35, 70, round(numbers.random() * 9, 3), round(numbers.random(), 3), "0123456789ab",
        "5eed5eed5eed" if policy == "rdt" else "", f"{numbers.getrandbits(256):064x}",
        f"{task * 50 + state:064x}", f"{numbers.getrandbits(256):064x}", 1, 0, f"node{trial % 16}",
    )  # fmt: skip


def write(folder: Path) -> tuple[Path, Path]:
    """The shard files as JSON lines and as CSV; torn lines repeat half of a good one."""
    jsonl, table = folder / "jsonl", folder / "csv"
    jsonl.mkdir()
    table.mkdir()
    own = records()
    for file in range(FILES):
        lines = []
        for number, record in enumerate(own[file::FILES]):
            if number % 100 == 0:  # the next file has the result; this one lost the simulator
                lost = {**vars(record), "status": "env_error", "error": 'said "lost", ended'}
                lines.append(Record(**lost))
            else:
                lines.append(record)
        lines += own[(file - 1) % FILES :: FILES][::100]
        name = f"part-a1.r0-s{file:04d}-node1"
        torn = lines[-1].line()[:200] if file % (FILES // TORN) == 0 else ""
        text = "".join(record.line() + "\n" for record in lines)
        (jsonl / f"{name}.jsonl").write_text(text + torn)
        rows = csv_files.table(Record.__dataclass_fields__, map(vars, lines))
        (table / f"{name}.csv").write_text(rows + (torn and "rdt,libero_object,3,pick"))
    return jsonl, table


def duckdb_python() -> str:
    """An interpreter with duckdb, in an environment of its own that is made once."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    home = cache / "rdtl" / "benchmarks" / f"duckdb-{DUCKDB}"
    python = home / "bin" / "python"
    if not (home / "complete").exists():
        venv.create(home, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "-q", f"duckdb=={DUCKDB}"], check=True)
        (home / "complete").touch()
    return str(python)


def answer(argv: list[str]) -> dict[str, Any]:
    """What one side prints."""
    printed = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
    found: dict[str, Any] = json.loads(printed)
    return found


def same(ours: dict[str, Any], theirs: dict[str, Any]) -> bool:
    """Whether all counts are equal and all means agree to a millionth."""
    if (ours["protocols"], ours["odd"]) != (theirs["protocols"], theirs["odd"]):
        return False
    pairs = [
        (a, b)
        for row, other in zip(ours["rows"], theirs["rows"], strict=True)
        for a, b in zip(row, other, strict=True)
    ]
    return all(a == b or (isinstance(a, float) and abs(a - b) < 1e-6) for a, b in pairs)


def main() -> None:
    """Measure JSON lines three times in turn, CSV once."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        jsonl, table = write(Path(temporary))
        ours = [sys.executable, "-c", OURS]
        theirs = [duckdb_python(), str(SIDE)]
        first, second = answer([*ours, str(jsonl)]), answer([*theirs, str(jsonl)])
        csv_first, csv_second = answer([*ours, str(table)]), answer([*theirs, str(table)])
        a, b = harness.alternate(
            lambda: harness.child_cpu_seconds([*ours, str(jsonl)]),
            lambda: harness.child_cpu_seconds([*theirs, str(jsonl)]),
            3,
        )
        csv = [harness.child_cpu_seconds([*side, str(table)]) for side in (ours, theirs)]
    peak = round(max(first["peak_mb"], csv_first["peak_mb"]), 1)
    mine, other = harness.spread(a, "CPU s"), harness.spread(b, "CPU s")
    harness.finish(
        {
            "benchmark": "aggregation",
            "ours": mine,
            "baseline": {**other, "what": f"duckdb {DUCKDB}, 10⁶ rows in 2,000 files"},
            "ratio": round(mine["median"] / other["median"], 3),
            "limit": LIMIT,
            "of_limit": round(mine["median"] / other["median"] / LIMIT, 3),
            "memory": {"mb": peak, "bar": MEGABYTES, "of_limit": round(peak / MEGABYTES, 3)},
            "baseline_peak_mb": round(second["peak_mb"], 1),
            "torn_files": [first["torn"], csv_first["torn"]],
            "csv": {"ours_cpu_s": round(csv[0], 2), "baseline_cpu_s": round(csv[1], 2)},
            "calibration": {"interpreter_start_cpu_s": harness.interpreter_start()},
            "baseline_of_anchor": None,  # nobody has published such a figure
            "equal": same(first, second)
            and same(csv_first, csv_second)
            and first["torn"] == csv_first["torn"] == TORN,
        },
        [],
        started,
    )


if __name__ == "__main__":
    main()
