"""From the records of a run to two CSV files, one page and plain sentences."""

from __future__ import annotations

from pathlib import Path

from launcher.core import files
from launcher.core.runs import RunDir
from launcher.report.aggregate import Report, load

__all__ = ["Report", "build", "load"]


def build(run_root: Path) -> Report:
    """Write RUN/report/{episodes.csv, summary.csv, index.html}, each whole; returns the counts.

    The tables come first: they need nothing but the standard library. Raises what
    :func:`~launcher.report.aggregate.load` and :func:`~launcher.report.page.render` raise.
    """
    from launcher.report import csv_files, page

    report = load(RunDir(run_root.resolve()))
    files.write_text(report.run.report / "episodes.csv", csv_files.episodes(report))
    files.write_text(report.run.report / "summary.csv", csv_files.summary(report))
    files.write_text(report.run.report / "index.html", page.render(report))
    return report
