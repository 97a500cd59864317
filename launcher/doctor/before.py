"""The quick part of ``rdtl doctor``, before every run: what would surely be lost time.

No torch, no network, no other process but git and nvidia-smi. What a site itself refuses is looked
at where runs are submitted to it, and not twice.
"""

from __future__ import annotations

from launcher import registry
from launcher.core.checks import Finding, NothingToLookAtError
from launcher.core.errors import RdtlError, RefusedError
from launcher.doctor.subject import Subject
from launcher.output import Output


def require(output: Output, subject: Subject) -> None:
    """Say what is doubtful, once; RefusedError with the first thing that is wrong."""
    refuse(output, findings(subject), "rdtl doctor CONFIG lists all")


def refuse(output: Output, found: list[Finding], all_of_them: str) -> None:
    """Say the warnings of ``found``; RefusedError with its first error and how many more."""
    wrong = [finding for finding in found if finding.severity == "error"]
    for finding in found:
        if finding.severity == "warning":
            output.hint(finding)
    if not wrong:
        return
    more = f" (and {len(wrong) - 1} more: {all_of_them})" if wrong[1:] else ""
    first = wrong[0]
    raise RefusedError(
        first.code, first.what + more, where=first.where, why=first.why, fix=first.fix
    )


def findings(subject: Subject) -> list[Finding]:
    """What the quick checks find. One that breaks is a warning: it must not end a run."""
    found: list[Finding] = []
    for check in registry.CHECKS:
        if check.quick and not subject.lacks(check.needs):
            places = (subject.site, subject.runs_dir)
            try:
                look = check.load()
                found += look(*places) if check.area in ("machine", "site") else look(subject)
            except NothingToLookAtError:
                continue
            except RdtlError as error:
                found.append(Finding.of(error))
            except Exception as error:  # of whatever kind: it says nothing of the run
                found.append(check.broke(f"{type(error).__name__}: {error}"))
    return found
