"""Checks of a data set of any layout: what goes wrong silently when data are read.

Each returns findings; an `error` means that training on these data would waste
the time. Codes are those of the catalogue of known failures.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from launcher.core.checks import Finding
from launcher.core.errors import RdtlError
from rdt.data import detect, orientation, statistics_files
from rdt.data.declared import DeclaredSet
from rdt.data.measuring import Measured, measure
from rdt.data.statistics import Summary
from rdt.data.store import EpisodeStore
from rdt.spec.contract import Contract

WHY = "a policy trained on these numbers could not succeed in the simulator"
FIX = "use other data, or collect the demonstrations again"
TOLERANCE = 0.01  # sums in float32 over millions of rows are off by a tenth of this
CODES = {
    "unit of the actions": "RDTL-D001",
    "alignment": "RDTL-D027",
    "gripper": "RDTL-D016",
    "range of the gripper": "RDTL-D016",
    "rotation": "RDTL-D015",
    orientation.WHAT: "RDTL-E007",
}
REMEDIES = {
    ("alignment", "before"): "declare it: --alignment before, or alignment: before beside the "
    "set's path; a replay decides",
    ("alignment", "after"): "declare it: --alignment after, or alignment: after beside the set's "
    "path; a replay decides",
    ("gripper", "+1 opens"): "declare it: --gripper-open 1, or gripper_open: 1 beside the set's "
    "path in `dataset.sets`",
    ("gripper", "-1 opens"): "declare it: --gripper-open -1, or gripper_open: -1 beside the set's "
    "path in `dataset.sets`",
}
TURN_BACK = (
    "turn them back in a copy (LIBERO's HDF5 holds them as rendered, bottom row "
    "first, RLDS and LeRobot turned by 180 degrees), or use another copy"
)


def values_finite(store: EpisodeStore) -> list[Finding]:
    """States and actions hold no NaN or infinity."""
    found = [
        _error("RDTL-D006", "numbers are NaN or infinite", where) for where in store.unfinite()
    ]
    return found or [_ok("RDTL-D006", "all states and actions are finite")]


def pictures_readable(store: EpisodeStore) -> list[Finding]:
    """First and last picture of every episode can be read and are not one colour."""
    found, S = [], store.picture_size
    out = np.empty((2, S, S, 3), np.uint8)
    for episode, start, end in zip(store.episodes, store.starts, store.ends, strict=True):
        first, beyond = np.searchsorted(store.sampled, [start, end])
        if first == beyond:
            continue  # every_step_used reports it
        for camera in store.cameras:
            where = f"{episode.file}: {episode.name}, {camera}"
            try:
                store.frames(camera, store.sampled[[first, beyond - 1]], out)
            except RdtlError as error:
                found.append(of_error(error))
                continue
            if (out.reshape(2, -1).std(axis=-1) == 0).any():
                found.append(_error("RDTL-D013", "a picture is one single colour", where))
    cameras = " and ".join(store.cameras) or "no camera"
    text = f"first and last picture of {len(store.episodes)} episodes read ({cameras})"
    return found or [_ok("RDTL-D013", text)]


def conventions(store: EpisodeStore) -> list[Finding]:
    """Unit, alignment, gripper and rotation as declared, as far as the data tell."""
    if store.unfinite():
        return []  # values_finite reports it, and nothing can be told from NaN
    return [_of_verdict(verdict, store) for verdict in detect.detect(store)]


def _of_verdict(verdict: detect.Verdict, store: EpisodeStore) -> Finding:
    code = CODES[verdict.what]
    if verdict.contradicts:
        what = f"{verdict.what}: declared {verdict.declared}, the data say {verdict.found}"
        where = f"{store.path}: {verdict.evidence}"
        other = TURN_BACK if verdict.what == orientation.WHAT else FIX
        fix = REMEDIES.get((verdict.what, verdict.found), other)
        return Finding(code, "error", what, where, WHY, fix)
    if verdict.found == "unclear":
        what = f"{verdict.what}: declared {verdict.declared}, which the data do not tell"
        return Finding(code, "info", what, f"{store.path}: {verdict.evidence}")
    return _ok(code, f"{verdict.what}: {verdict.found} ({verdict.evidence})")


def every_step_used(store: EpisodeStore) -> list[Finding]:
    """Every episode has steps with pictures, to its end; how many, and how short the shortest."""
    counts = np.diff(np.searchsorted(store.sampled, [*store.starts, store.ends[-1]]))
    found = [
        _error("RDTL-D046", "an episode has no picture of its own", f"{e.file}: {e.name}")
        for e, count in zip(store.episodes, counts.tolist(), strict=True)
        if count == 0
    ]
    lengths = store.ends - store.starts
    text = (
        f"{len(store.sampled)} samples, one for each picture row; episodes of {lengths.min()} "
        f"to {lengths.max()} steps, tails and short ones are padded"
    )
    return found + _dropped_tails(store) or [_ok("RDTL-D008", text)]


def _dropped_tails(store: EpisodeStore) -> list[Finding]:
    """Episodes whose last steps are never a sample, although those before are."""
    cut = []
    for episode, start, end in zip(store.episodes, store.starts, store.ends, strict=True):
        own = store.sampled[slice(*np.searchsorted(store.sampled, [start, end]))]
        if len(own) > 1 and end - 1 - own[-1] > np.diff(own).max():
            cut.append((int(end - 1 - own[-1]), episode))
    if not cut:
        return []
    most, episode = max(cut, key=lambda pair: pair[0])
    what = f"the last steps of {len(cut)} of {len(store.episodes)} episodes are never a sample"
    where = f"{episode.file}: {episode.name}, its last {most} of {episode.length} steps"
    return [_error("RDTL-D008", what, where)]


def lie_as_declared(store: EpisodeStore) -> list[Finding]:
    """Pictures are neither turned nor mirrored other than the layout says."""
    try:
        return [_of_verdict(orientation.verdict(store), store)]
    except RdtlError:
        return []  # pictures_readable reports it


CHECKS: tuple[Callable[[EpisodeStore], list[Finding]], ...] = (
    values_finite,
    pictures_readable,
    lie_as_declared,
    conventions,
    every_step_used,
    EpisodeStore.findings,
)


def verify(store: EpisodeStore) -> list[Finding]:
    """All findings about a data set."""
    return [finding for check in CHECKS for finding in check(store)]


def statistics_sane(
    where: str, contract: Contract, state: Summary, action: Summary
) -> list[Finding]:
    """Finite, and no used slot without any spread; in the contract's 128 slots."""
    found = []
    for name, summary, slots in (
        ("state", state, contract.state_slots),
        ("action", action, contract.action_slots),
    ):
        if not np.isfinite([summary.mean, summary.std, summary.q01, summary.q99]).all():
            found.append(_error("RDTL-D006", f"{name} statistics are not finite", where))
        still = [slot for slot in slots if summary.std[slot] == 0]
        if still:
            what = f"{name} never changes in slots {still}"
            found.append(_error("RDTL-D006", what, f"{where}: spread 0 in a slot that is used"))
    return found or [_ok("RDTL-D006", "statistics are finite, every used slot has spread")]


def verify_set(
    source: DeclaredSet, contract: Contract, statistics: Path | None, name: str = ""
) -> list[Finding]:
    """All findings about a data set, and about a file of statistics for it.

    ``name``: the set's in the file, if that has several. Raises RdtlError when the set cannot
    be opened at all.
    """
    return verify_opened(source.open(), source, contract, statistics, name)


def verify_opened(
    store: EpisodeStore,
    source: DeclaredSet,
    contract: Contract,
    statistics: Path | None = None,
    name: str = "",
) -> list[Finding]:
    """:func:`verify_set` of a set that is open already."""
    findings = verify(store) + ([] if source.at_most else checksums(store))
    try:
        store.require(contract)
        measured = measure(source, contract, slots=True)
        where = str(source.path)
        findings += statistics_sane(where, contract, measured.state, measured.action)
        if statistics is not None:
            findings += statistics_belong(statistics, source, measured, name)
    except RdtlError as error:
        findings.append(of_error(error))
    return findings


def checksums(store: EpisodeStore) -> list[Finding]:
    """Every byte of an RLDS set against its checksums; other layouts have none."""
    if store.kind != "rlds":
        return []
    from rdt.data.rlds import verify_checksums

    try:
        return [_ok("RDTL-D030", f"checksums of {verify_checksums(store.path)} records agree")]
    except RdtlError as error:
        return [of_error(error)]


def statistics_belong(
    path: Path, source: DeclaredSet, measured: Measured, name: str = ""
) -> list[Finding]:
    """A file of statistics is of these data: same digest, or at least the same numbers."""
    found = statistics_files.read(path, measured.contract, name)
    if not found.slots:
        measured = measure(source, measured.contract, slots=False)
    if found.source is not None and found.source["dataset_digest"] != measured.digest:
        said, here = found.source["dataset_digest"][:12], measured.digest[:12]
        where = f"{found.path}: digest {said}, the data have {here}"
        return [_error("RDTL-D002", "the statistics are of other data", where)]
    lines = differences(found, measured)
    if lines:
        more = f" ({len(lines)} in all)" if len(lines) > 1 else ""
        where = f"{found.path}: {'; '.join(lines[:3])}{more}"
        return [_error("RDTL-D002", "the statistics are of other data, or in another unit", where)]
    return [_ok("RDTL-D002", f"{found.path.name} holds the statistics of these data")]


def differences(found: statistics_files.Found, measured: Measured) -> list[str]:
    """Where mean or spread differ from the data's by more than float32 sums explain."""
    lines = []
    for part, numbers in (("action", found.action), ("state", found.state)):
        if numbers is None:
            continue
        right: Summary = getattr(measured, part)
        for place, spread in enumerate(right.std):
            mean, std = numbers["mean"][place], numbers["std"][place]
            if abs(mean - right.mean[place]) > TOLERANCE * spread + 1e-6:
                lines.append(
                    f"{part}.mean[{place}] = {mean:.4g}, of the data {right.mean[place]:.4g}"
                )
            if abs(std - spread) > TOLERANCE * spread + 1e-6:
                times = f", {std / spread:.3g} times" if spread else ""
                lines.append(f"{part}.std[{place}] = {std:.4g}, of the data {spread:.4g}{times}")
    return lines


def of_error(error: RdtlError) -> Finding:
    """The finding that says what an error says."""
    p = error.problem
    return Finding(p.code, "error", p.what, p.where, p.why, p.fix)


def _ok(code: str, what: str) -> Finding:
    return Finding(code, "ok", what)


def _error(code: str, what: str, where: str) -> Finding:
    return Finding(code, "error", what, where, WHY, FIX)
