"""``rdtl doctor``: what can silently go wrong, looked at before it costs a week."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from launcher.cli import common

if TYPE_CHECKING:
    from launcher.doctor.examination import Result
    from launcher.doctor.fixing import Repair
    from launcher.output import Output

MARKS = {"ok": "ok  ", "fail": "FAIL", "warn": "WARN", "unknown": "????"}


def doctor(
    config_file: Annotated[
        str | None,
        typer.Argument(metavar="[CONFIG]", help="A run's configuration: a file, or KIND/NAME."),
    ] = None,
    site: common.SiteOption = "local",
    checkpoint: Annotated[
        str | None,
        typer.Option("--checkpoint", metavar="PATH", help="Look at these weights, too."),
    ] = None,
    settings: common.SetOption = [],  # noqa: B006  typer copies it
    fix: Annotated[
        bool, typer.Option("--fix", help="Mend what is safe to mend, and say what it was.")
    ] = False,
    runs_dir: common.RunsOption = Path("runs"),
    listed: Annotated[
        bool, typer.Option("--list", help="List the checks instead of running them.")
    ] = False,
    explain: Annotated[
        str | None,
        typer.Option("--explain", metavar="CODE", help="Say what a code means: RDTL-D003 or D003."),
    ] = None,
    as_json: common.JsonOption = False,
) -> None:
    """Check machine, site and a run before it starts (exit 3 if something is wrong)."""
    from launcher import catalogue, registry
    from launcher.core.errors import EXIT_REFUSED
    from launcher.doctor import examination, fixing, subject

    output = common.start_output(as_json)
    if explain is not None:
        catalogue.show(output, explain)
        return
    if listed:
        _list(output)
        return
    asked = subject.of_command(site, runs_dir.resolve(), config_file, settings, checkpoint)
    repairs = fixing.repair(asked) if fix else []
    with output.working("looking"):
        results = examination.examine(asked, registry.CHECKS)
    _show(output, repairs, results)
    output.result(examination.document(repairs, results))
    if any(result.status == "fail" for result in results):
        raise SystemExit(EXIT_REFUSED)


def _list(output: Output) -> None:
    from launcher import registry

    rows = [[check.name, check.area, " ".join(check.codes)] for check in registry.CHECKS]
    output.table("checks", ["check", "area", "codes"], rows)
    output.result(
        [{"name": c.name, "area": c.area, "codes": c.codes, "about": c.about, "quick": c.quick}
         for c in registry.CHECKS]
    )  # fmt: skip


def _show(output: Output, repairs: Sequence[Repair], results: Sequence[Result]) -> None:
    from launcher import registry

    areas = {check.name: check.area for check in registry.CHECKS}
    for one in repairs:
        output.text(f"fixed {one.code}  {one.where}: was {one.before}, is {one.after}")
    heading = ""
    for result in results:
        if result.status == "skipped":
            continue
        if areas[result.name] != heading:
            heading = areas[result.name]
            output.text(f"{heading}:")
        _line(output, result)
    for reason, names in _skipped(results).items():
        output.fitted(f"--    {', '.join(names)}: {reason}", 6)
    counts = {status: sum(r.status == status for r in results) for status in
              ("ok", "fail", "warn", "unknown", "skipped")}  # fmt: skip
    output.say(", ".join(f"{count} {status}" for status, count in counts.items() if count))


def _line(output: Output, result: Result) -> None:
    told = {"where": result.where, "why": result.why, "fix": result.fix}
    details = {} if result.status == "ok" else told
    output.remark(MARKS[result.status], result.code, result.evidence, details)


def _skipped(results: Sequence[Result]) -> dict[str, list[str]]:
    """Checks that had nothing to look at, by the reason."""
    found: dict[str, list[str]] = {}
    for result in results:
        if result.status == "skipped":
            found.setdefault(result.evidence, []).append(result.name)
    return found
