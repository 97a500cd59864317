"""``rdtl report``: aggregate the records of runs, together or against each other."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from launcher.cli import common, complete

if TYPE_CHECKING:
    from launcher.output import Output
    from launcher.report.aggregate import Report
    from launcher.report.tables import Table


def report(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN…",
            help="Run directories, or runs' names in --runs-dir.",
            autocompletion=complete.runs,
        ),
    ],
    compare: Annotated[
        bool, typer.Option("--compare", help="Each further run against the first, in pairs.")
    ] = False,
    html: Annotated[
        bool, typer.Option("--html", help="With --compare: write FIRST/report/comparison.html too.")
    ] = False,
    across: Annotated[
        list[str],
        typer.Option("--across", help="A field of the protocol that may differ, e.g. mujoco."),
    ] = [],  # noqa: B006 (typer copies it)
    runs_dir: common.RunsOption = Path("runs"),
    as_json: common.JsonOption = False,
) -> None:
    """Write RUN/report/ (tables, exports, page) of each run and print the table.

    Several runs are one result, a line per task with averages, unless --compare is given.
    """
    import launcher.report
    from launcher import summary
    from launcher.cli.runs import named_run
    from launcher.report import sweep

    output = common.start_output(as_json)
    roots = list(dict.fromkeys(named_run(run, runs_dir, None).root for run in runs))
    _check_options(len(roots), compare, html, across)
    if len(roots) == 1 and sweep.is_sweep(roots[0]):
        summary.show(output, sweep.build(roots[0]).run)
        return
    with output.working("aggregating records and writing pages"):
        reports = [launcher.report.build(root) for root in roots]
    if compare:
        _show_comparison(output, reports, across, html)
    elif len(reports) > 1:
        _show_merged(output, reports)
    else:
        summary.show(output, reports[0].run)


def _check_options(runs: int, compare: bool, html: bool, across: list[str]) -> None:
    from launcher.core.errors import UsageError

    if compare and runs < 2:
        raise UsageError(
            "RDTL-E065",
            "a comparison needs two runs",
            where=f"--compare with {runs} different run directory",
            fix="rdtl report RUN_A RUN_B --compare",
        )
    if not compare and (html or across):
        raise UsageError(
            "RDTL-E065",
            "--html and --across belong to --compare",
            where="--html" if html else f"--across {across[0]}",
            why="the page of a single run is always written",
            fix="add --compare and a second run, or leave the option out",
        )


def _show_comparison(output: Output, reports: list[Report], across: list[str], html: bool) -> None:
    import launcher.report
    from launcher.report import compare, tables

    pairs = compare.compare(reports, across)
    path = launcher.report.build_comparison(pairs) if html else None
    _print(output, tables.comparison(pairs))
    if path:
        output.say(f"\ncomparison: {path}")
    found: dict[str, Any] = {"comparisons": tables.comparison_document(pairs)}
    output.result({**found, "page": path and str(path)})


def _show_merged(output: Output, reports: list[Report]) -> None:
    from launcher.report import averages, merge, tables

    rows = merge.merge(reports)
    _print(output, tables.merged(rows))
    output.result(
        {
            "tasks": [{**vars(row), "rate": row.rate, "interval": row.interval} for row in rows],
            "averages": [vars(average) for average in averages.of(rows)],
        }
    )


def _print(output: Output, table: Table) -> None:
    output.table(table.title, table.columns, table.rows)
    output.text()
    for sentence in table.sentences:
        output.text(textwrap.fill(sentence, 78, initial_indent="  ", subsequent_indent="  "))
