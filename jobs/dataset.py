"""Make the run's data sets ready: merge what was collected, verify, measure, describe.

``data/parts/demo_NNN.hdf5`` become ``data/<suite>/<task>_demo.hdf5``, which is
published whole before the parts go, so that a kill at any moment loses nothing.
Sets from outside stay where they are. Then every check runs; an error refuses (exit 3).
``data/index`` keeps what was found of the sets, for training to start from and to notice
changes by. ``windows.json`` and ``statistics.json`` are written last: their presence
means that the data are good.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from launcher.core import files
from launcher.core.checks import Finding
from launcher.core.errors import RdtlError, RefusedError
from launcher.core.job import Job, run_job
from rdt.data import checks, hdf5, statistics_checks
from rdt.data.declared import DeclaredSet
from rdt.data.libero_attributes import task_name
from rdt.data.measuring import Totals, measure_all
from rdt.data.merging import merge
from rdt.data.statistics import Statistics
from rdt.data.store import EpisodeStore
from rdt.spec.contract import CONTRACTS
from rdt.training import windows


def body(job: Job) -> None:
    """Check every set and write ``data/windows.json`` and ``data/statistics.json``."""
    contract = CONTRACTS[job.config["dataset"]["contract"]]
    sources = data_sets(job)
    stores = _open(job, sources)
    findings = [finding for store in stores for finding in _verified(job, store)]
    _refuse_errors(findings)
    for store in stores:
        store.require(contract)
    measured = measure_all(sources, contract, slots=True)
    where = ", ".join(str(source.path) for source in sources)
    sane = statistics_checks.sane(where, contract, measured.state, measured.action)
    _print(sane)
    _refuse_errors(sane)
    described = _statistics(job, sources, stores, measured)
    learned = windows.describe(job.config, sources, stores, findings + sane)
    files.write_json(job.run.data / "windows.json", learned)
    described.write(job.run.data / "statistics.json")
    job.progress(described.episodes, described.episodes, "demonstrations", "data sets verified")
    print(f"{where}: {described.episodes} demonstrations, {described.windows} samples", flush=True)


def data_sets(job: Job) -> list[DeclaredSet]:
    """Those of the configuration, or the one that the run has collected."""
    listed = job.config["dataset"]["sets"]
    return [DeclaredSet.of(entry) for entry in listed] or [DeclaredSet(find_or_merge(job))]


def _open(job: Job, sources: Sequence[DeclaredSet]) -> list[EpisodeStore]:
    """The sets, as they were when they passed, if they did; then changes are refused."""
    kept = job.run.data / "index"
    if not (job.run.data / "statistics.json").exists():
        shutil.rmtree(kept, ignore_errors=True)  # data that did not pass may be repaired by now
    return [source.kept(kept) for source in sources]


def _verified(job: Job, store: EpisodeStore) -> list[Finding]:
    print(f"{store.path} ({store.kind})", flush=True)
    findings = checks.verify(store) + checks.checksums(store) + _camera_size(job, store)
    _print(findings)
    return findings


def find_or_merge(job: Job) -> Path:
    """The merged file of what was collected, or the parts merged now."""
    merged = sorted((job.run.data / _suite(job)).glob("*_demo.hdf5"))
    parts = _parts(job)
    if not merged:
        merged = [_merge(job, parts)]
    for part in parts:  # a kill between publishing and here leaves some of them behind
        part.unlink(missing_ok=True)
    return merged[0]


def _suite(job: Job) -> str:
    return str(job.config["task"]["suite"])


def _parts(job: Job) -> list[Path]:
    demos = job.config["collect"]["demos"] if job.config["collect"] else 0
    return [job.run.data / "parts" / f"demo_{number:03d}.hdf5" for number in range(demos)]


def _merge(job: Job, parts: list[Path]) -> Path:
    missing = [part.name for part in parts if not part.is_file()]
    if missing or not parts:
        raise RdtlError(
            "RDTL-D014",
            f"{len(missing)} of {len(parts)} demonstrations are missing",
            where=f"{job.run.data / 'parts'}: {', '.join(missing[:10])}",
            why="training on fewer than planned would be another experiment",
            fix="run the collection again (it keeps what is there), or name data in dataset.sets",
        )
    with hdf5.open_file(parts[0]) as first:
        name = task_name(first["data"], parts[0])
    target = job.run.data / _suite(job) / f"{name}_demo.hdf5"
    total = len(parts)
    merge(target, parts, lambda done: job.progress(done, total, "demonstrations", "merging"))
    return target


def _camera_size(job: Job, store: EpisodeStore) -> list[Finding]:
    wanted = job.config["task"]["camera_size"]
    if store.picture_size == wanted:
        return [Finding("RDTL-D047", "ok", f"pictures have {wanted} x {wanted} pixels")]
    return [
        Finding(
            "RDTL-D047",
            "error",
            f"pictures have {store.picture_size} pixels, the evaluation would render {wanted}",
            where=f"{store.path}; task.camera_size = {wanted}",
            why="the policy would see other pictures than it was trained on",
            fix=f"set task.camera_size to {store.picture_size}, or use other data",
        )
    ]


def _print(findings: list[Finding]) -> None:
    for finding in findings:
        print(f"{finding.severity:<7} {finding.code} {finding.what}", flush=True)


def _refuse_errors(findings: list[Finding]) -> None:
    errors = [finding for finding in findings if finding.severity == "error"]
    if errors:
        first = errors[0]
        more = f" ({len(errors)} errors in all)" if len(errors) > 1 else ""
        raise RefusedError(
            first.code, first.what + more, where=first.where, why=first.why, fix=first.fix
        )


def _statistics(
    job: Job, sources: Sequence[DeclaredSet], stores: Sequence[EpisodeStore], measured: Totals
) -> Statistics:
    root = job.run.root
    sets = []
    for source in sources:
        inside = source.path.is_relative_to(root)
        path = source.path.relative_to(root) if inside else source.path
        sets.append(source.to_dict() | {"path": str(path)})
    return Statistics(
        contract=CONTRACTS[job.config["dataset"]["contract"]].to_dict(),
        sets=sets,
        dataset_digest=measured.digest,
        suite=_suite(job),
        tasks=sorted({episode.task for store in stores for episode in store.episodes}),
        camera_size=job.config["task"]["camera_size"],
        episodes=measured.episodes,
        steps=measured.steps,
        windows=sum(len(store.sampled) for store in stores),
        state=measured.state,
        action=measured.action,
        quantile_error=measured.quantile_error,
    )


if __name__ == "__main__":
    run_job(body)
