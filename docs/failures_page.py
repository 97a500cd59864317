"""The page of the catalogue of failures, and how many of them are proven."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from launcher import catalogue
from launcher.catalogue import Failure

CAUSED = ("really-caused",)
STRICT = (*CAUSED, "stand-in")
PROVEN = (*STRICT, "design")
"""What counts as proven; each step further away from the failure itself."""
SEVERITIES = {"E": "error", "W": "warning", "I": "information"}
ORDER = "DTESCGBWU"
ISSUE = re.compile(r"([\w.-]+/[\w.-]+)#(\d+)")

INTRO = """# Failures

Every code that a command, a check or a log can show, with its cause, its remedy, who catches it
and the test that shows that it is caught. `rdtl doctor --explain CODE` prints a row (`D003` is
enough), `rdtl diagnose LOG` finds codes in logs, and a failing command prints its own values with
the code.

**{met} of the {all} codes are failures that were met before**: in practice, measured for this
project, read in public sources, or reported in public issues (their row says where). The others
are messages about the use of our own programs.

## How many are proven

A row counts as **proven** when a test causes the failure and sees it caught (*really caused*), when
it does so with a program that stands in for hardware or a paid service (*stand-in*), or when a
test shows that it cannot happen the way it is done here (*design*). A log line that was only
recorded (*message*) proves nothing. Rows that no machine of the tests can show are not counted;
they are [listed apart](#not-shown-here).

| severity | met before | can be shown | really caused | with stand-ins | with design: proven |
|---|---|---|---|---|---|
{shares}

Of the {ours} messages of our own, {tested} ({share:.0%}) are caused by a test.

The command in a row makes the failure. `tests/test_catalogue.py` holds that every code of the
sources is here, that holders and tests exist, and that the shares above do not fall below 95 %
(errors) and 80 % (warnings).
"""


@dataclass(frozen=True)
class Share:
    """Of the rows of a severity: met before, showable here, and proven by each measure."""

    met: int
    counted: int
    caused: int
    strict: int
    proven: int


def shares(rows: Iterable[Failure]) -> dict[str, Share]:
    """The figures by severity."""
    rows = list(rows)
    found = {}
    for severity in SEVERITIES:
        met = [row for row in rows if row.severity == severity and row.seen]
        counted = [row for row in met if row.counted]
        numbers = [sum(row.proof in kinds for row in counted) for kinds in (CAUSED, STRICT, PROVEN)]
        found[severity] = Share(len(met), len(counted), *numbers)
    return found


def page() -> str:
    """The whole page."""
    rows = catalogue.failures()
    areas = sorted(catalogue.areas().items(), key=lambda each: ORDER.index(each[0]))
    ours = [row for row in rows.values() if not row.seen]
    tested = sum(row.proof in STRICT for row in ours)
    parts = [
        INTRO.format(
            met=len(rows) - len(ours),
            all=len(rows),
            shares="\n".join(_share(*each) for each in shares(rows.values()).items()),
            ours=len(ours),
            tested=tested,
            share=tested / len(ours),
        ),
        _apart(rows),
    ]
    for name, area in areas:
        parts += [f"\n## {name}: {area.about}\n", "| code | | what is wrong |", "|---|---|---|"]
        parts += [
            f"| {_link(code)} | {row.severity} | {row.title} |"
            for code, row in area.failures.items()
        ]
        parts += ["", *(_row(code, row) for code, row in area.failures.items())]
    return "\n".join(parts).rstrip() + "\n"


def _share(severity: str, share: Share) -> str:
    counts = (share.caused, share.strict, share.proven)
    told = (f"{count} ({count / share.counted:.1%})" for count in counts)
    return f"| {SEVERITIES[severity]} | {share.met} | {share.counted} | {' | '.join(told)} |"


def _apart(rows: dict[str, Failure]) -> str:
    lines = ["## Not shown here\n", "| code | needs |", "|---|---|"]
    lines += [f"| {_link(code)} {row.title} | {row.elsewhere} |" for code, row in rows.items()
              if row.elsewhere]  # fmt: skip
    if all(row.proof in PROVEN for row in rows.values() if row.counted):
        return "\n".join([*lines, "\nAll others are proven.\n"])
    lines += ["\nAmong the others these are not proven:\n", "| code | why |", "|---|---|"]
    lines += [f"| {_link(code)} {row.title} | {row.reason or row.proof} |"
              for code, row in rows.items() if row.counted and row.proof not in PROVEN]  # fmt: skip
    return "\n".join(lines) + "\n"


def _link(code: str) -> str:
    return f"[{code.removeprefix(catalogue.PREFIX)}](#{code.lower()})"


def _proof(row: Failure) -> str:
    return f"`python -m pytest {' '.join(row.test)}`" if row.test else row.reason


def _row(code: str, row: Failure) -> str:
    parts = {
        "cause": row.cause,
        "fix": row.fix,
        "caught": f"{row.held}: {', '.join(f'`{place}`' for place in row.by)}",
        "proof": f"{row.proof}: {_proof(row)}",
        "needs": row.elsewhere,
        "try": row.command and f"`{row.command}`",
        "met": ISSUE.sub(r"[\g<0>](https://github.com/\1/issues/\2)", row.seen),
    }
    lines = [f"### {code}\n", f"**{row.title}** ({SEVERITIES[row.severity]})\n"]
    return "\n".join([*lines, *(f"- {name}: {text}" for name, text in parts.items() if text), ""])
