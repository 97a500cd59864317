"""Runs the checks. None of them can hide another one: what breaks is said to be unknown."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from launcher import heavy
from launcher.core.checks import CheckSpec, Finding, NothingToLookAtError
from launcher.core.errors import RdtlError, from_dict
from launcher.doctor.fixing import Repair
from launcher.doctor.subject import Subject
from launcher.presets import JOB_ENVIRONMENT

Status = Literal["ok", "fail", "warn", "skipped", "unknown"]
Request = list[str]
"""A check of ``jobs.check`` and its arguments."""
STATUS: dict[str, Status] = {"ok": "ok", "info": "ok", "warning": "warn", "error": "fail"}
PATIENCE_S = 120.0
"""For all heavy checks together; a whole data set is for `rdtl data verify`."""
LONGER = {
    "data": "rdtl data verify PATH takes the time that it needs",
    "checkpoint": "rdtl checkpoint inspect CHECKPOINT takes the time that it needs",
    "simulator": "rdtl doctor alone, once this machine has less to do",
}
"""What to do about a heavy check that was not done in that time."""


@dataclass(frozen=True)
class Result:
    """What one check says of one thing; ``evidence`` is what was found, ``severity`` how bad it is
    (`info` for what is well)."""

    code: str
    name: str
    severity: Literal["error", "warning", "info"]
    status: Status
    evidence: str
    where: str = ""
    why: str = ""
    fix: str = ""

    def to_dict(self) -> dict[str, str]:
        """JSON form."""
        return asdict(self)


def examine(subject: Subject, checks: Sequence[CheckSpec]) -> list[Result]:
    """The results of all checks, in their order; the heavy ones share one process."""
    with ThreadPoolExecutor(1) as pool:
        asked = {check.name: _asked(check, subject) for check in checks if check.heavy}
        answers = pool.submit(_heavy, [one for _, requests in asked.values() for one in requests])
        light = {check.name: _light(check, subject) for check in checks if not check.heavy}
        waiting = iter(answers.result())
    results: list[Result] = []
    for check in checks:
        if not check.heavy:
            results += light[check.name]
            continue
        known, requests = asked[check.name]
        results += known
        for _ in requests:
            results += _answered(check, next(waiting))
    return results


def document(repairs: Sequence[Repair], results: Sequence[Result]) -> dict[str, Any]:
    """What ``--json`` prints."""
    return {
        "checks": [result.to_dict() for result in results],
        "fixed": [asdict(repair) for repair in repairs],
    }


def of_findings(check: CheckSpec, findings: Iterable[Finding]) -> list[Result]:
    """Findings as results."""
    return [
        Result(
            one.code,
            check.name,
            "info" if one.severity == "ok" else one.severity,
            STATUS[one.severity],
            one.what,
            one.where,
            one.why,
            one.fix,
        )
        for one in findings
    ]


def _light(check: CheckSpec, subject: Subject) -> list[Result]:
    found, failed = _called(check, subject)
    return failed or of_findings(check, found) or _skipped(check, "there is nothing of it here")


def _asked(check: CheckSpec, subject: Subject) -> tuple[list[Result], list[Request]]:
    requests, failed = _called(check, subject)
    return failed, requests


def _called(check: CheckSpec, subject: Subject) -> tuple[list[Any], list[Result]]:
    """What a check returns, or why it returned nothing."""
    if reason := subject.lacks(check.needs):
        return [], _skipped(check, reason)
    places = (subject.site, subject.runs_dir)
    try:
        found = check.load()
        return (found(*places) if check.area in ("machine", "site") else found(subject)), []
    except NothingToLookAtError as reason_:
        return [], _skipped(check, str(reason_))
    except RdtlError as error:
        return [], of_findings(check, [Finding.of(error)])
    except Exception as error:  # of whatever kind: the other checks are still worth something
        return [], _unknown(check, check.broke(f"{type(error).__name__}: {error}"))


def _heavy(requests: list[Request]) -> list[dict[str, Any]]:
    """An answer for each request; `unknown` for those that the process did not come to."""
    if not requests:
        return []
    answers: list[dict[str, Any]] = []
    words = ("each", json.dumps(requests))
    try:
        for line in heavy.stream(
            "jobs.check", *words, environment=JOB_ENVIRONMENT, limit_s=PATIENCE_S
        ):
            answers.append(line["answer"])
    except TimeoutError as error:
        answers += [{"late": str(error)}] * (len(requests) - len(answers))
    except Exception as error:  # the process died, or what it said is no answer
        said = f"{type(error).__name__}: {error}"
        answers += [{"unknown": said}] * (len(requests) - len(answers))
    return answers


def _answered(check: CheckSpec, answer: dict[str, Any]) -> list[Result]:
    if "late" in answer:
        return _unknown(check, check.undecided(answer["late"], "", LONGER[check.name]))
    if "unknown" in answer:
        return _unknown(check, check.broke(answer["unknown"]))
    if "skipped" in answer:
        return _skipped(check, answer["skipped"])
    if "error" in answer:
        return of_findings(check, [Finding.of(from_dict(answer["error"]))])
    return of_findings(check, [Finding(**finding) for finding in answer["findings"]])


def _skipped(check: CheckSpec, reason: str) -> list[Result]:
    return [Result(check.codes[0], check.name, "info", "skipped", reason)]


def _unknown(check: CheckSpec, said: Finding) -> list[Result]:
    return [replace(one, status="unknown") for one in of_findings(check, [said])]
