"""Lines of logs against what is known of them: failures, and the marks of a healthy run.

One home for the live watch of a step (:class:`Watch`) and for finished logs
(:func:`matches`, used by ``rdtl diagnose``).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from launcher.core.dag import Limit, Marker, Signature, Step

TOLD_EVERY_S = 1.0
"""Markers with changing values (steps of a training) are told at most this often."""
LONGEST = 2000
"""Characters of a line that an event keeps."""
LOOKED_AT = 1024
"""Half of the characters of a line that are searched together: patterns with `.*` need time with
the square of a line that was made for it, and a log may come from anybody."""


@dataclass(frozen=True)
class Failure:
    """Why a step failed; ``remedy`` is what its signature offers.

    ``at_once``: it has nothing more to say and is ended now.
    """

    code: str
    reason: str
    cause: str = ""
    fix: str = ""
    remedy: str | None = None
    at_once: bool = False


def search(pattern: re.Pattern[str], line: str) -> re.Match[str] | None:
    """The first place where a line shows a pattern; a long line is searched piece by piece.

    Pieces overlap by half. ``^`` is the beginning of the line only.
    """
    for at in range(0, max(1, len(line) - LOOKED_AT), LOOKED_AT):
        if found := pattern.search(line, at, at + 2 * LOOKED_AT):
            return found
    return None


class Patterns:
    """Signatures, compiled once."""

    def __init__(self, signatures: Iterable[Signature]) -> None:
        self.compiled = [
            (each, re.compile(each.pattern, re.IGNORECASE if each.ignore_case else 0))
            for each in signatures
        ]

    def of(self, line: str) -> Iterator[Signature]:
        """Signatures that this line shows."""
        for signature, pattern in self.compiled:
            found = search(pattern, line)
            if found and (signature.limit is None or outside(signature.limit, found.groupdict())):
                yield signature


def matches(signatures: Iterable[Signature], lines: Iterable[str]) -> Iterator[tuple[int, Any]]:
    """(line number from 1, signature) for every line of a log that shows one."""
    patterns = Patterns(signatures)
    for number, line in enumerate(lines, 1):
        for signature in patterns.of(line):
            yield number, signature


def outside(limit: Limit, groups: Mapping[str, str | None]) -> bool:
    """Whether a line's number has left its range; a line without the number has not."""
    value = number(groups.get(limit.group))
    step = number(groups.get("step"))
    if value is None or (limit.from_step is not None and (step or 0) < limit.from_step):
        return False
    if not math.isfinite(value):
        return True
    above = limit.above is not None and value > limit.above
    return above or (limit.below is not None and value < limit.below)


def number(text: str | None) -> float | None:
    """The number of a group (also nan and inf), or None."""
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


def unexpected(marker: Marker, groups: Mapping[str, str | None]) -> dict[str, Any]:
    """The groups whose values are not what the marker expects: ``{group: [is, wanted]}``."""
    return {
        group: [groups[group], wanted]
        for group, wanted in marker.expect.items()
        if groups.get(group) is not None and not _as_wanted(str(groups[group]), wanted)
    }


def _as_wanted(text: str, wanted: Any) -> bool:
    value = number(text)
    if isinstance(wanted, Sequence) and not isinstance(wanted, str):
        return value is not None and wanted[0] <= value <= wanted[1]
    return text == str(wanted) or (value is not None and value == number(str(wanted)))


class Watch:
    """Looks at each line of a running step; ``failure`` is why it must end, ``told`` goes out.

    Times are seconds of one clock that the caller chooses.
    """

    def __init__(self, step: Step, began: float) -> None:
        self.step = step
        self.patterns = Patterns(step.signatures)
        self.markers = [(marker, re.compile(marker.pattern)) for marker in step.markers]
        self.steps_seen = any("step" in pattern.groupindex for _, pattern in self.markers)
        self.failure: Failure | None = None
        self.explanation: Failure | None = None
        """Of a step that failed by itself: the last line that explains it."""
        self.seen: dict[str, tuple[dict[str, str | None], float]] = {}
        self.held: dict[str, dict[str, Any]] = {}
        """The newest values of markers that came too soon to be told."""
        self.codes: set[str] = set()
        self.began, self.moved, self.at_step, self.lines = began, began, -1.0, 0
        self.started = False

    def line(self, text: str, at: float) -> list[tuple[str, dict[str, Any]]]:
        """Events (name, fields) that this line is worth."""
        self.lines += 1
        if not self.steps_seen:
            self.moved, self.started = at, True
        told = [
            event
            for marker, pattern in self.markers
            for event in self._mark(marker, pattern, text, at)
        ]
        for signature in self.patterns.of(text):
            told += self._sign(signature, text)
        return told

    def rest(self) -> list[tuple[str, dict[str, Any]]]:
        """Events that are still to be told when the process has ended."""
        return [("marker", fields) for fields in self.held.values()]

    def _sign(self, signature: Signature, text: str) -> list[tuple[str, dict[str, Any]]]:
        failure = Failure(
            signature.code, text[:LONGEST], signature.cause, signature.fix, signature.remedy
        )
        if signature.only_after_failure:
            self.explanation = failure
            return []
        if signature.severity == "error" and self.failure is None:
            self.failure = failure
        if signature.code in self.codes:
            return []
        self.codes.add(signature.code)
        fields = {
            "code": signature.code,
            "severity": signature.severity,
            "cause": signature.cause,
            "fix": signature.fix,
            "line": text[:LONGEST],
            "number": self.lines,
        }
        return [("signature", fields)]

    def _mark(
        self, marker: Marker, pattern: re.Pattern[str], text: str, at: float
    ) -> list[tuple[str, dict[str, Any]]]:
        found = search(pattern, text)
        if not found:
            return []
        values: dict[str, Any] = found.groupdict()
        known, told_at = self.seen.get(marker.name, (None, -math.inf))
        pace = self._pace(values, at)
        odd = unexpected(marker, values)
        missing = self._missing(marker) if known is None else []
        fields: dict[str, Any] = {"name": marker.name, "values": {**values, **pace}}
        if known == values:
            return []
        if at - told_at < TOLD_EVERY_S and not odd:
            self.held[marker.name] = fields
            return []
        self.seen[marker.name] = (values, at)
        self.held.pop(marker.name, None)
        fields |= {"unexpected": odd} if odd else {}
        fields |= {"missing": missing} if missing else {}
        if (odd or missing) and marker.severity == "error" and self.failure is None:
            self.failure = _not_healthy(marker, odd, missing)
        return [("marker", fields)]

    def _pace(self, values: Mapping[str, str | None], at: float) -> dict[str, float]:
        """Notes a step's line; seconds per step since the one before, by the time of arrival."""
        step = number(values.get("step")) if "step" in values else None
        if step is None or step == self.at_step:
            return {}
        pace = {}
        if self.started and step > self.at_step:
            pace = {"pace_s": round((at - self.moved) / (step - self.at_step), 4)}
        self.moved, self.at_step, self.started = at, step, True
        return pace

    def _missing(self, marker: Marker) -> list[str]:
        order = marker.order
        if order is None:
            return []
        earlier = [m for m, _ in self.markers if m.order is not None and m.order < order]
        return [each.name for each in earlier if each.name not in self.seen]

    def late(self, at: float) -> Failure | None:
        """Why it counts as hanging, if it does."""
        if not self.started:
            allowed, since, what = self.step.start_s, self.began, "did not come to its first step"
        else:
            allowed, since, what = self.step.stall_s, self.moved, "stands still"
        if allowed is None or at - since <= allowed:
            return None
        return Failure(
            "RDTL-B053",
            f"{what} within {allowed:g} s",
            "it hangs, waits for something that does not come, or is much slower than it was",
            "look at the end of its log, at nvidia-smi and at free memory, then run again",
            at_once=True,
        )


def _not_healthy(marker: Marker, odd: Mapping[str, Any], missing: Sequence[str]) -> Failure:
    said = [f"{group} is {is_}, not {wanted}" for group, (is_, wanted) in odd.items()]
    said += [f"{name!r} did not come before" for name in missing]
    return Failure(
        "RDTL-B056",
        f"marker {marker.name!r}: {', '.join(said)}",
        "the program does something else than the recipe knows: another version, data or weights",
        "compare the step's inputs with the recipe; `rdtl recipe plan` shows what it would do",
    )
