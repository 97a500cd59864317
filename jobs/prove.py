"""Look at a node's simulator for a run: ``python -m jobs.prove RUN_DIR``; jobs.workers starts it.

A process of its own, because what the look needs (two gigabytes) would otherwise stay while
workers and servers run.
"""

from __future__ import annotations

from jobs import evaluate
from launcher.core.job import run_job

if __name__ == "__main__":
    run_job(evaluate.prove)
