"""CPU seconds of ``rdtl --help`` with 42 further commands, against a bare Typer app of 42.

The bar is 0.15 CPU seconds. The baseline is what Typer itself costs; the anchor
for it is 0.10 CPU seconds.
"""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
import time

from benchmarks import harness

LIMIT = 0.15
ANCHOR = 0.10
COMMANDS = 42
DUMMIES = f"""
def dummy() -> None:
    "Do nothing, at some length, so that the help text has something to lay out."
for i in range({COMMANDS}):
    app.command(f"dummy-{{i}}")(dummy)
"""
OURS = f"from launcher.cli.app import app, main{DUMMIES}main()"
BASELINE = f"import typer; app = typer.Typer(pretty_exceptions_enable=False){DUMMIES}app()"


def command(code: str) -> list[str]:
    """A side's program, asked for its help."""
    return [sys.executable, "-c", code, "--help"]


def listed(code: str) -> int:
    """How many of the dummy commands a side's help really shows."""
    printed = subprocess.run(command(code), capture_output=True, text=True, check=True).stdout
    return len(set(re.findall(r"dummy-\d+", printed)))


def main() -> None:
    """Measure both; tests/test_layers.py checks that help imports nothing heavy."""
    started = time.monotonic()

    def side(code: str) -> float:
        return harness.child_cpu_seconds(command(code))

    side(OURS)
    side(BASELINE)
    ours, baseline = harness.alternate(lambda: side(OURS), lambda: side(BASELINE), 15)
    a, b = harness.spread(ours, "CPU s"), harness.spread(baseline, "CPU s")
    harness.finish(
        {
            "benchmark": "cli",
            "ours": a,
            "baseline": {**b, "what": "Typer app with 42 dummy commands, --help"},
            "ratio": round(a["median"] / b["median"], 3),
            "limit": LIMIT,
            "of_limit": round(a["median"] / LIMIT, 3),
            "calibration": {"interpreter_start_cpu_s": harness.interpreter_start()},
            "baseline_of_anchor": round(statistics.median(baseline) / ANCHOR, 2),
            "equal": listed(OURS) == listed(BASELINE) == COMMANDS,
        },
        ["typer"],
        started,
    )


if __name__ == "__main__":
    main()
