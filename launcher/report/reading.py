"""Reads plan and records of a run and refuses what has no common rate.

Every message names the file; for an unreadable record also the line.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any, NamedTuple

from launcher.core import files
from launcher.core.errors import RdtlError, RefusedError, UsageError
from launcher.core.runs import RunDir
from launcher.report import shards
from launcher.report.episodes import Episodes
from rdt.spec import protocol as protocols
from rdt.spec import record as records
from rdt.spec.planned import Planned
from rdt.spec.protocol import Protocol
from rdt.spec.record import Record

CONTINUE = "repeat the command that started the run; it continues where it stopped"


def plan(run: RunDir) -> dict[str, Any]:
    """``plan.json``; raises UsageError RDTL-U014 when ``run`` has none."""
    try:
        data: dict[str, Any] = files.read_json(run.plan)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UsageError(
            "RDTL-U014",
            "this directory is no run",
            where=f"{run.plan} does not exist",
            why="the plan says which episodes should be there",
            fix="name one that rdtl demo, train or evaluate made; rdtl runs list shows them",
        ) from error
    return data


def weights(run: RunDir) -> dict[str, Any] | None:
    """What the jobs noted of the weights that they evaluated; None for none of ours."""
    path = run.records / protocols.WEIGHTS
    return files.read_json(path) if path.is_file() else None


def findings(run: RunDir) -> list[dict[str, Any]]:
    """What the jobs warned of in the weights, or in the answers of a policy server."""
    paths = [run.records / name for name in (protocols.WEIGHTS, protocols.SERVER)]
    return [one for path in paths if path.is_file() for one in files.read_json(path)["findings"]]


class Agreement(NamedTuple):
    """Of ``looked`` answers of free batches, ``equal`` were bit for bit those of the request
    alone; ``largest`` is the largest difference of an action."""

    looked: int
    equal: int
    largest: float


def agreement(run: RunDir) -> Agreement | None:
    """What all policy servers of the run found; None where none computed free batches."""
    paths = sorted((run.records / protocols.AGREEMENT).glob("*.json"))
    told = [files.read_json(path) for path in paths]
    if not told:
        return None
    largest = max(one["largest"] for one in told)
    return Agreement(sum(o["looked"] for o in told), sum(o["equal"] for o in told), largest)


def episodes(run: RunDir, planned: Planned) -> Episodes:
    """The shard files of ``run`` counted; RdtlError RDTL-E075 names an unreadable line."""
    try:
        return shards.scan(run.records, planned)
    except shards.UnreadableError as error:
        raise records.unreadable(*error.args) from error


def nothing_recorded(run: RunDir, planned: int, recorded: int) -> RdtlError:
    """RDTL-E037: ``recorded`` records, but none of the ``planned`` episodes."""
    if planned == 0:
        return RdtlError(
            "RDTL-E037",
            "this run evaluates nothing, so there is nothing to report",
            where=f"{run.plan}: config.evaluate is unset",
            fix="rdtl evaluate with its policy: --checkpoint " + str(run.policy),
        )
    return RdtlError(
        "RDTL-E037",
        "no planned episode is recorded yet",
        where=f"{run.records}: 0 of {planned} planned episodes"
        + (f", {recorded} others" if recorded else ""),
        why="a success rate over no episode is no number",
        fix=CONTINUE,
    )


def one_protocol(run: RunDir, found: Episodes) -> Protocol:
    """The protocol of all records; RefusedError RDTL-E021 when there are several."""
    protocol = protocols.read(run.records)
    kept = {found.protocols[o >> 16] for o in found.origins(range(len(found.planned)))}
    if kept != {protocol.fingerprint()}:
        raise RefusedError(
            "RDTL-E021",
            "the records of this run follow more than one protocol",
            where=f"{run.records}: {_protocols_found(found, protocol)}",
            why="episodes of two protocols measure two things and have no common rate",
            fix=f"move those files out of records/, then rdtl report {run.root}; with a plan of "
            "their own they can be set side by side: rdtl report A B --compare",
        )
    return protocol


def one_checkpoint_each(run: RunDir, found: Episodes) -> None:
    """Raise RefusedError RDTL-E038 when records of one policy name several checkpoints."""
    by_policy: dict[str, set[str]] = {}
    for policy, _, own in found.planned.blocks():
        names = {found.checkpoints[origin & 0xFFFF] for origin in found.origins(own)}
        by_policy.setdefault(policy, set()).update(names)
    for policy, checkpoints in by_policy.items():
        if len(checkpoints) > 1:
            raise RefusedError(
                "RDTL-E038",
                f"policy {policy} was evaluated with {len(checkpoints)} checkpoints in one run",
                where=f"{run.records}: checkpoint = {', '.join(sorted(checkpoints))}",
                why="their average belongs to neither of them",
                fix="evaluate each checkpoint under its own name (--name OTHER)",
            )


def _protocols_found(found: Episodes, protocol: Protocol) -> str:
    """How many episodes follow each protocol, and the files of those that are foreign."""
    counts, names = Counter[str](), dict[str, set[str]]()
    for number in found.recorded():
        fingerprint = found.protocols[found.origin[number] >> 16]
        counts[fingerprint] += 1
        path, _ = found.files[found.place[number] >> 32]
        names.setdefault(fingerprint, set()).add(path.name)
    own = protocol.fingerprint()
    foreign = [
        f"{count} of {name}, in {_some(sorted(names[name]))}"
        for name, count in counts.most_common()
        if name != own
    ]
    return f"{counts[own]} episodes of {own} ({protocols.FILE}); {'; '.join(foreign)}"


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def printable(text: str) -> str:
    """``text`` on one line, safe for a terminal and for UTF-8: controls become U+FFFD."""
    return "".join(c if c.isprintable() else " " if c in "\n\r\t" else "\ufffd" for c in text)


def printable_record(record: Record) -> Record:
    """``record`` with every text printable."""
    texts: dict[str, Any] = {
        name: printable(value) for name, value in vars(record).items() if isinstance(value, str)
    }
    return replace(record, **texts)
