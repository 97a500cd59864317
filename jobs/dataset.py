"""Make the run's data set ready: merge, verify, count and describe it.

``data/parts/demo_NNN.hdf5`` become ``data/<suite>/<task>_demo.hdf5``, which is
published whole before the parts go, so that a kill at any moment loses nothing.
Then every check runs; an error refuses (exit 3). ``statistics.json`` and
``windows.json`` are written last: their presence means that the data are good.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from launcher.core import files
from launcher.core.checks import Finding
from launcher.core.errors import RdtlError, RefusedError
from launcher.core.job import Job, run_job
from rdt.data import checks, hdf5, statistics
from rdt.data.demonstrations import Demonstrations
from rdt.data.libero import task_name
from rdt.data.merging import merge
from rdt.spec.contract import CONTRACTS


def body(job: Job) -> None:
    """Merge if needed, check, and write ``data/statistics.json`` and ``data/windows.json``."""
    path = find_or_merge(job)
    data = Demonstrations(path, CONTRACTS[job.config["dataset"]["contract"]])
    inside = path.is_relative_to(job.run.root)
    name = str(path.relative_to(job.run.root)) if inside else str(path)
    described = statistics.compute(data, job.config["task"]["suite"], name)
    findings = checks.verify(data.store)
    findings += checks.statistics_sane(
        str(data.path), data.contract, described.state, described.action
    )
    findings += _camera_size(job, data)
    _print(findings)
    _refuse_errors(findings)
    files.write_json(job.run.data / "windows.json", _windows(data, job.config, findings))
    described.write(job.run.data / "statistics.json")
    job.progress(described.episodes, described.episodes, "demonstrations", "data set verified")
    print(f"{path}: {described.episodes} demonstrations, {described.windows} samples", flush=True)


def find_or_merge(job: Job) -> Path:
    """The file named in the configuration, the merged file, or the parts merged now."""
    named = job.config["dataset"]["path"]
    if named is not None:
        return Path(named)
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
            fix="run the collection again (it keeps what is there), or set dataset.path",
        )
    with hdf5.open_file(parts[0]) as first:
        name = task_name(first["data"], parts[0])
    target = job.run.data / _suite(job) / f"{name}_demo.hdf5"
    total = len(parts)
    merge(target, parts, lambda done: job.progress(done, total, "demonstrations", "merging"))
    return target


def _camera_size(job: Job, data: Demonstrations) -> list[Finding]:
    wanted = job.config["task"]["camera_size"]
    if data.camera_size == wanted:
        return [Finding("RDTL-D014", "ok", f"pictures have {wanted} x {wanted} pixels")]
    return [
        Finding(
            "RDTL-D014",
            "error",
            f"pictures have {data.camera_size} pixels, the evaluation would render {wanted}",
            where=f"{data.path}; task.camera_size = {wanted}",
            why="the policy would see other pictures than it was trained on",
            fix=f"set task.camera_size to {data.camera_size}, or use other data",
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


def _windows(
    data: Demonstrations, config: dict[str, Any], findings: list[Finding]
) -> dict[str, Any]:
    horizon = config["train"]["model"]["horizon"] if config["train"] else 1
    learned = 0
    for episode in data.episodes:
        targets = {int(t) + k for t in episode.sampled for k in range(horizon)}
        learned += len([step for step in targets if step < len(episode)])
    steps = sum(len(episode) for episode in data.episodes)
    return {
        "windows": len(data.windows),
        "horizon": horizon,
        "control_steps": steps,
        "control_steps_learned": learned,
        "coverage": learned / steps,
        "episodes": [
            {"name": e.name, "steps": len(e), "windows": len(e.sampled)} for e in data.episodes
        ],
        "findings": [finding.to_dict() for finding in findings],
    }


if __name__ == "__main__":
    run_job(body)
