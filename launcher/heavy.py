"""What needs h5py, torch or the simulator runs in the jobs' environment, not here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from typing import Any

from launcher.core.checks import Finding
from launcher.core.errors import EXIT_REFUSED, RdtlError, from_dict
from launcher.core.job import die_with_parent
from launcher.inspection.words import counted
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
        preexec_fn=die_with_parent,  # nobody would read what an orphan finds
        check=False,
    )
    try:
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, json.JSONDecodeError):
        raise _no_answer(f"{module} {arguments[0]}", done.returncode, done.stderr) from None
    if "error" in answer:
        raise from_dict(answer["error"])
    return answer


def stream(
    module: str, *arguments: str, environment: Mapping[str, str], limit_s: float | None = None
) -> Iterator[dict[str, Any]]:
    """The answers of a program that gives one a line, as they come; raises as :func:`call`.

    Whoever stops asking ends the program, and so do ``limit_s`` seconds, with TimeoutError.
    """
    with tempfile.TemporaryFile("w+", errors="replace") as log:
        argv = [sys.executable, "-P", "-m", module, *arguments]
        settings = {**os.environ, **environment}
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            env=settings,
            preexec_fn=die_with_parent,
        )
        late = threading.Event()

        def end() -> None:
            late.set()
            process.kill()

        limit = threading.Timer(limit_s or threading.TIMEOUT_MAX, end)
        limit.daemon = True
        limit.start()
        try:
            assert process.stdout is not None
            for line in process.stdout:
                answer = json.loads(line)
                if "error" in answer:
                    raise from_dict(answer["error"])
                yield answer
            if process.wait():
                if late.is_set():
                    raise TimeoutError(f"not done within {limit_s:g} s")
                log.seek(0)
                raise _no_answer(module, process.returncode, log.read())
        finally:
            limit.cancel()
            process.kill()
            process.communicate()


def _no_answer(program: str, status: int, said: str) -> RdtlError:
    return RdtlError(
        "RDTL-U098",
        f"{program} gave no answer (exit code {status})",
        where=" ".join(said.split())[-300:],
        fix="pip install 'rdt-launcher[all]' into this environment, or read the message above",
    )


def show(output: Output, findings: list[Finding], result: Any = None) -> None:
    """Print findings and end with exit status 3 when one of them is an error.

    For programs: ``result``, or the findings themselves.
    """
    for finding in findings:
        output.finding(finding)
    output.result(result or [finding.to_dict() for finding in findings])
    bad = sum(finding.severity == "error" for finding in findings)
    warnings = sum(finding.severity == "warning" for finding in findings)
    output.say(
        f"{counted(len(findings), 'finding')}: {counted(bad, 'error')}, "
        f"{counted(warnings, 'warning')}"
    )
    if bad:
        raise SystemExit(EXIT_REFUSED)
