"""From the records of a run to counts: which episodes count, and what they add up to.

Only episodes that the plan names count; whatever is missing is listed, never
averaged away. Records of two protocols, or of two checkpoints under one policy's
name, have no common rate and are refused. Nothing here writes.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from launcher.core import files
from launcher.core.errors import RdtlError, RefusedError, UsageError
from launcher.core.runs import RunDir
from launcher.report.intervals import Interval, wilson
from rdt.spec import protocol as protocols
from rdt.spec import record as records
from rdt.spec.protocol import Protocol
from rdt.spec.record import ERRORS, EpisodeKey, Record

CONTINUE = "repeat the command that started the run; it continues where it stopped"


@dataclass(frozen=True)
class Row:
    """One policy on the task. ``episodes`` ended as success or failure; ``errors`` did not.

    Means are over ``episodes``: ``mean_steps`` in control steps, ``mean_wall_s`` and
    ``mean_policy_s`` in seconds; ``mean_success_steps`` is over the successes alone.
    """

    policy: str
    episodes: int
    successes: int
    errors: int
    missing: int
    mean_steps: float | None
    mean_success_steps: float | None
    mean_wall_s: float | None
    mean_policy_s: float | None
    checkpoint: str

    @property
    def rate(self) -> float | None:
        """Successes over episodes in [0, 1]; None without episodes."""
        return self.successes / self.episodes if self.episodes else None

    @property
    def interval(self) -> Interval | None:
        """Wilson 95 % interval of :attr:`rate`; None without episodes."""
        return wilson(self.successes, self.episodes) if self.episodes else None

    @property
    def rate_errors_as_failures(self) -> float | None:
        """Successes over episodes and errors in [0, 1]; None when there are neither."""
        tried = self.episodes + self.errors
        return self.successes / tried if tried else None


@dataclass(frozen=True)
class Report:
    """Everything that the tables and the page say about the episodes of one run.

    ``records`` are the planned ones, one per key, in key order, their text made
    printable; ``unplanned`` counts those that were left out.
    """

    run: RunDir
    name: str
    site: str
    config: dict[str, Any]
    protocol: Protocol
    task_name: str
    records: tuple[Record, ...]
    rows: tuple[Row, ...]
    missing: tuple[EpisodeKey, ...]
    unplanned: int
    duplicates: int
    torn_files: tuple[str, ...]

    def row(self, policy: str) -> Row | None:
        """The row of ``policy``, or None when it was not evaluated."""
        return next((row for row in self.rows if row.policy == policy), None)

    def statuses(self, policy: str) -> dict[tuple[int, int], str]:
        """Status by (init state, trial) of the recorded episodes of ``policy``."""
        return {(r.init_state, r.trial): r.status for r in self.records if r.policy == policy}


def load(run: RunDir) -> Report:
    """Read and count the records of ``run``.

    Raises UsageError RDTL-U014 when it is no run, RdtlError RDTL-E037 when it has no
    record, RDTL-E030 for an unreadable one, RefusedError RDTL-E021 or RDTL-E038 when
    records of two protocols or two checkpoints lie together.
    """
    plan = _read_plan(run)
    found = _read_records(run)
    planned = planned_keys(plan["config"])
    wanted = set(planned)
    kept = tuple(_printable_record(r) for r in found.records if r.key in wanted)
    if not kept:
        raise _nothing_recorded(run, len(planned), len(found.records))
    protocol = _one_protocol(kept, run)
    recorded = {r.key for r in kept}
    missing = tuple(key for key in planned if key not in recorded)
    return Report(
        run=run,
        name=plan["name"],
        site=plan["site"],
        config=plan["config"],
        protocol=protocol,
        task_name=kept[0].task_name,
        records=kept,
        rows=tuple(
            _row(policy, [r for r in kept if r.policy == policy], missing)
            for policy in dict.fromkeys(key.policy for key in planned)
        ),
        missing=missing,
        unplanned=len(found.records) - len(kept),
        duplicates=found.duplicates,
        torn_files=found.torn_files,
    )


def planned_keys(config: dict[str, Any]) -> list[EpisodeKey]:
    """Every episode that the configuration asks for, policies in their given order."""
    task, evaluate = config.get("task"), config.get("evaluate")
    if not task or not evaluate:
        return []
    return [
        EpisodeKey(policy, task["suite"], task["task_id"], init_state, trial)
        for policy in dict.fromkeys(evaluate["policies"])
        for init_state in range(*evaluate["init_states"])
        for trial in range(evaluate["trials"])
    ]


def printable(text: str) -> str:
    """``text`` on one line, safe for a terminal and for UTF-8: controls become U+FFFD."""
    return "".join(c if c.isprintable() else " " if c in "\n\r\t" else "\ufffd" for c in text)


def _printable_record(record: Record) -> Record:
    return replace(
        record,
        **{
            name: printable(value) for name, value in vars(record).items() if isinstance(value, str)
        },
    )


def _row(policy: str, own: Sequence[Record], missing: Sequence[EpisodeKey]) -> Row:
    finished = [r for r in own if r.status not in ERRORS]
    successes = [r for r in finished if r.status == "success"]
    return Row(
        policy=policy,
        episodes=len(finished),
        successes=len(successes),
        errors=len(own) - len(finished),
        missing=sum(key.policy == policy for key in missing),
        mean_steps=_mean(r.steps for r in finished),
        mean_success_steps=_mean(r.steps for r in successes),
        mean_wall_s=_mean(r.wall_s for r in finished),
        mean_policy_s=_mean(r.policy_s for r in finished),
        checkpoint=own[0].checkpoint if own else "",
    )


def _mean(values: Iterable[float]) -> float | None:
    numbers = list(values)
    return sum(numbers) / len(numbers) if numbers else None


def _read_plan(run: RunDir) -> dict[str, Any]:
    try:
        plan: dict[str, Any] = files.read_json(run.plan)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UsageError(
            "RDTL-U014",
            "this directory is no run",
            where=f"{run.plan} does not exist",
            why="the plan says which episodes should be there",
            fix="name a directory that rdtl demo, train or evaluate made, such as runs/demo-local",
        ) from error
    return plan


def _read_records(run: RunDir) -> records.Records:
    try:
        return records.read_folder(run.records)
    except (ValueError, TypeError) as error:
        raise RdtlError(
            "RDTL-E030",
            "a line of the records cannot be read",
            where=_first_unreadable(run.records),
            why="a rate over the lines that happen to parse would hide episodes",
            fix="delete that line with an editor, then " + CONTINUE,
        ) from error


def _first_unreadable(folder: Path) -> str:
    for path in sorted(folder.glob("part-*.jsonl")):
        for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
            try:
                if line:
                    records.parse(line.decode("utf-8"))
            except (ValueError, TypeError) as error:
                kind = "no JSON" if isinstance(error, json.JSONDecodeError) else "no record"
                return f"{path}:{number}: {kind}: {printable(str(error))}"
    return str(folder)


def _nothing_recorded(run: RunDir, planned: int, recorded: int) -> RdtlError:
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


def _one_protocol(kept: Sequence[Record], run: RunDir) -> Protocol:
    protocol = protocols.read(run.records)
    if {r.protocol for r in kept} != {protocol.fingerprint()}:
        raise RefusedError(
            "RDTL-E021",
            "the records of this run follow more than one protocol",
            where=f"{run.records}: {_protocols_found(kept, protocol)}",
            why="episodes of two protocols measure two things and have no common rate",
            fix="move the foreign part-*.jsonl files out of records/, then rdtl report again",
        )
    by_policy: dict[str, set[str]] = {}
    for r in kept:
        by_policy.setdefault(r.policy, set()).add(r.checkpoint)
    for policy, checkpoints in by_policy.items():
        if len(checkpoints) > 1:
            raise RefusedError(
                "RDTL-E038",
                f"policy {policy} was evaluated with {len(checkpoints)} checkpoints in one run",
                where=f"{run.records}: checkpoint = {', '.join(sorted(checkpoints))}",
                why="their average belongs to neither of them",
                fix="evaluate each checkpoint under its own name (--name OTHER)",
            )
    return protocol


def _protocols_found(kept: Sequence[Record], protocol: Protocol) -> str:
    """What is known of each protocol: counts, who ran it, and the fields of the published one."""
    parts = []
    for fingerprint, episodes in sorted(Counter(r.protocol for r in kept).items()):
        own = [r for r in kept if r.protocol == fingerprint]
        hosts = ", ".join(sorted({r.host for r in own}))
        attempts = ", ".join(str(a) for a in sorted({r.attempt for r in own}))
        parts.append(f"{fingerprint}: {episodes} episodes (attempt {attempts}, host {hosts})")
    fields = ", ".join(f"{name} {value}" for name, value in vars(protocol).items())
    return f"{'; '.join(parts)}; {protocols.FILE} is {protocol.fingerprint()}: {fields}"
