"""From the records of runs to tables, exports, pages and plain sentences."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from launcher.core import files
from launcher.core.runs import RunDir
from launcher.report.aggregate import Report, load
from launcher.report.compare import Pair

__all__ = ["Report", "build", "build_comparison", "load"]


def build(run_root: Path) -> Report:
    """Write the tables, exports and page of RUN/report, each whole; returns the counts.

    The tables come first: they need nothing but the standard library. Raises what
    :func:`~launcher.report.aggregate.load` and :func:`~launcher.report.page.render` raise.
    """
    from launcher.report import csv_files, evidence, exports, page

    report = load(RunDir(run_root.resolve()))
    files.write_text(report.run.report / "episodes.csv", csv_files.episodes(report))
    files.write_text(report.run.report / "summary.csv", csv_files.summary(report))
    files.write_text(report.run.report / "tasks.csv", csv_files.tasks(report))
    policy = evidence.main_row(report).policy
    files.write_json(report.run.report / "eval_info.json", exports.lerobot(report, policy))
    files.write_json(report.run.report / "vla_eval.json", exports.vla_eval(report, policy))
    files.write_text(report.run.report / "index.html", page.render(report))
    return report


def build_comparison(pairs: Sequence[Pair]) -> Path:
    """Write FIRST/report/comparison.html; raises UsageError RDTL-U015 without jinja2."""
    from launcher.report import comparison_page

    path = pairs[0].first.run.report / "comparison.html"
    files.write_text(path, comparison_page.render(pairs))
    return path
