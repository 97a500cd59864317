"""What needs h5py, torch or the simulator runs in the jobs' environment, not here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from launcher.core.checks import Finding
from launcher.core.errors import EXIT_REFUSED, RdtlError, from_dict
from launcher.output import Output
from launcher.presets import JOB_ENVIRONMENT


def run_check(name: str, *arguments: str) -> list[Finding]:
    """Run ``python -m jobs.check NAME ARGUMENTS`` and read its findings; raises as :func:`call`."""
    answer = call("jobs.check", name, *arguments, environment=JOB_ENVIRONMENT)
    return [Finding(**finding) for finding in answer["findings"]]


def call(module: str, *arguments: str, environment: Mapping[str, str]) -> dict[str, Any]:
    """Run ``python -m MODULE ARGUMENTS`` and read the JSON of its last line.

    Raises the error that the program raised, or RDTL-U098 when it left no answer.
    """
    done = subprocess.run(
        [sys.executable, "-P", "-m", module, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        check=False,
    )
    try:
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, json.JSONDecodeError):
        raise RdtlError(
            "RDTL-U098",
            f"{module} {arguments[0]} gave no answer (exit code {done.returncode})",
            where=" ".join(done.stderr.split())[-300:],
            fix="pip install 'rdt-launcher[all]' into this environment, or read the message above",
        ) from None
    if "error" in answer:
        raise from_dict(answer["error"])
    return answer


def show(output: Output, findings: list[Finding], result: Any = None) -> None:
    """Print findings and end with exit status 3 when one of them is an error.

    For programs: ``result``, or the findings themselves.
    """
    for finding in findings:
        output.finding(finding)
    output.result(result or [finding.to_dict() for finding in findings])
    bad = sum(finding.severity == "error" for finding in findings)
    warnings = sum(finding.severity == "warning" for finding in findings)
    output.say(f"{len(findings)} findings: {bad} errors, {warnings} warnings")
    if bad:
        raise SystemExit(EXIT_REFUSED)
