"""Looking after the cache: what lies there, whether it is still right, what may go."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from launcher.core import manifest, plan
from launcher.core.errors import RdtlError, UsageError
from launcher.core.manifest import File, Manifest
from launcher.core.runs import RunDir
from launcher.markers import Markers
from launcher.staging import published
from launcher.staging.cache import Cache, key_in

HOUR = 3600.0
DAY = 24 * HOUR


@dataclass(frozen=True)
class Kept:
    """One asset of the cache."""

    digest: str
    uris: tuple[str, ...]
    """What led here the last time."""
    size: int
    files: int
    unused_days: float
    runs: tuple[Path, ...]
    """Runs that still want it."""
    whole: bool


def overview(cache: Cache) -> list[Kept]:
    """All assets, the ones used last first."""
    now, sources = cache.now(), cache.sources()
    found = []
    for folder in cache.assets():
        asset = cache.asset(folder.name)
        uris = tuple(source.uri for source in sources if source.digest == folder.name)
        try:
            size, count = _extent(folder)
        except FileNotFoundError:  # another one removes it
            continue
        runs = tuple(run for run in cache.references(folder.name) if is_wanted(run))
        age = (now - _used(folder)) / DAY
        found.append(Kept(folder.name, uris, size, count, age, runs, asset is not None))
    return sorted(found, key=lambda kept: kept.unused_days)


def is_wanted(run: Path) -> bool:
    """Whether a run may still read its assets: it exists and not all of it is done.

    A run that failed or was cancelled can be continued, so it counts until it is removed;
    one whose runs directory cannot be seen from here counts, too.
    """
    if not run.exists():
        return not run.parent.exists()
    try:
        stages = plan.read(RunDir(run).plan).stages
    except (OSError, ValueError, KeyError, TypeError, RdtlError):
        return True
    markers = Markers(RunDir(run))
    return not all(markers.done(stage, index) for stage in stages for index in range(stage.array))


def clean(cache: Cache, days: float, say: Callable[[str], None], *, remove: bool) -> list[Kept]:
    """What nobody wants and nobody has used for ``days``, removed if ``remove`` is set.

    Never what a run still references, even when it asks for it at this moment.
    """
    gone = []
    for kept in overview(cache):
        if kept.runs:
            say(f"kept: {kept.digest[:12]} is read by {kept.runs[0]}")
        elif kept.unused_days >= days and (not remove or cache.remove(kept.digest, is_wanted)):
            gone.append(kept)
    if remove:
        _clean_work(cache, days)
        cache.empty_trash(HOUR)
    return gone


def _clean_work(cache: Cache, days: float) -> None:
    """Half-fetched assets that nobody is fetching and nobody came back for."""
    for folder in cache.work_folders():
        with cache.locked(key_in(folder), lambda text: None, wait=False) as held:
            if held != "busy" and cache.idle(folder) >= max(days * DAY, HOUR):
                cache.discard(folder)


def verify(folder: Path, each: Callable[[File], None]) -> Manifest:
    """Read every byte of an asset of the cache, or of a folder with a manifest, again.

    Returns its manifest; RdtlError RDTL-G003 when anything differs, RDTL-G020 for a bad
    manifest, UsageError RDTL-G026 when there is none.
    """
    beside, inside = folder / "manifest.json", folder / published.NAME
    cached = beside.is_file() and (folder / "files").is_dir()
    if not cached and not inside.is_file():
        raise UsageError(
            "RDTL-G026",
            "there is no manifest to verify it by",
            where=str(folder),
            why="without one nobody can say what should be there",
            fix="stage it by its URI (rdtl stage in URI), which proves it and writes one",
        )
    promise = manifest.read(beside if cached else inside)
    wrong = manifest.differences(folder / "files" if cached else folder, promise, each)
    wrong = [text for text in wrong if not text.startswith(f"{published.NAME}: ")]
    if cached and promise.digest != folder.name:
        wrong.insert(0, "manifest.json: its contents have changed")
    if wrong:
        raise RdtlError(
            "RDTL-G003",
            f"{len(wrong)} file(s) are not what the manifest says",
            where=f"{folder}: {'; '.join(wrong[:5])}",
            why="somebody wrote there, or the disk or its file system is faulty",
            fix="rdtl stage in URI --fresh replaces it by what the store has",
        )
    return promise


def _extent(folder: Path) -> tuple[int, int]:
    sizes = [path.lstat().st_size for path in (folder / "files").rglob("*") if path.is_file()]
    return sum(sizes), len(sizes)


def _used(folder: Path) -> float:
    try:
        return (folder / "used").stat().st_mtime
    except FileNotFoundError:  # killed between its rename and its first use
        return folder.stat().st_mtime
