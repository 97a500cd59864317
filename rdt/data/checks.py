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
from rdt.data import detect, orientation, statistics_checks
from rdt.data.declared import DeclaredSet
from rdt.data.measuring import measure
from rdt.data.store import EpisodeStore
from rdt.spec.contract import Contract

WHY = "a policy trained on these numbers could not succeed in the simulator"
FIX = "use other data, or collect the demonstrations again"
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
                found.append(Finding.of(error))
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
        findings += statistics_checks.sane(where, contract, measured.state, measured.action)
        if statistics is not None:
            findings += statistics_checks.belong(statistics, source, measured, name)
    except RdtlError as error:
        findings.append(Finding.of(error))
    return findings


def checksums(store: EpisodeStore) -> list[Finding]:
    """Every byte of an RLDS set against its checksums; other layouts have none."""
    if store.kind != "rlds":
        return []
    from rdt.data.rlds import verify_checksums

    try:
        return [_ok("RDTL-D030", f"checksums of {verify_checksums(store.path)} records agree")]
    except RdtlError as error:
        return [Finding.of(error)]


def _ok(code: str, what: str) -> Finding:
    return Finding(code, "ok", what)


def _error(code: str, what: str, where: str) -> Finding:
    return Finding(code, "error", what, where, WHY, FIX)
