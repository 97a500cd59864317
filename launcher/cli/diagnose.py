"""``rdtl diagnose``: what a log says went wrong, and what to do about it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from launcher.cli import common

MARKS = {"error": "FAIL", "warning": "WARN"}


def diagnose(
    place: Annotated[Path, typer.Argument(metavar="LOGFILE|RUN", help="A log, or a folder.")],
    as_json: common.JsonOption = False,
) -> None:
    """Look for known failures in logs: cause, fix and place, each told once."""
    from launcher import diagnose as diagnosis

    output = common.start_output(as_json)
    found = diagnosis.diagnose(place)
    for one in found:
        times = f" ({one.count} times)" if one.count > 1 else ""
        output.text(f"{MARKS[one.severity]}  {one.code}  {one.cause}{times}")
        output.text(f"      where  {one.file}:{one.line}: {one.text}")
        output.text(f"      fix    {one.fix}")
    if not found:
        logs = diagnosis.logs(place)
        output.text(f"nothing known in {len(logs)} logs; the end of {logs[-1]} may say more")
    output.result({"found": [one.to_dict() for one in found]})
