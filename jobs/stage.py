"""Copy the assets of a plan into the run: ``python -m jobs.stage RUN``.

Each file is hashed while it is read, and what was written is read again and
hashed; a copy appears under its name only whole. ``assets/manifest.json`` keeps
size and digest of every file. Runs in the light environment of the node task.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

from launcher.core import files
from launcher.core.errors import RdtlError
from launcher.core.job import Job, run_job

CHUNK = 8 * 1024 * 1024


def body(job: Job) -> None:
    """Copy what is not there yet."""
    assets: list[dict[str, str]] = job.config["assets"]
    manifest = job.run.root / "assets" / "manifest.json"
    done: dict[str, Any] = files.read_json(manifest) if manifest.exists() else {}
    for number, asset in enumerate(assets):
        target = Path(asset["target"])
        if asset["key"] not in done or not target.exists():
            done[asset["key"]] = {"source": asset["source"], "files": copy(asset)}
            files.write_json(manifest, done)
        job.progress(number + 1, len(assets), "assets", asset["key"])
        job.may_stop_here()


def copy(asset: dict[str, str]) -> dict[str, Any]:
    """Copy a file or a directory; returns name → size and SHA-256 of its files."""
    source, target = Path(asset["source"]), Path(asset["target"])
    if not source.exists():
        raise RdtlError(
            "RDTL-G002",
            "an asset is not there",
            where=f"{asset['key']}: {source} (on {os.uname().nodename})",
            fix="correct the URI, or use a directory that the nodes see as well",
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_file():
        return {source.name: _copy_file(source, target)}
    temporary = target.with_name(f".{target.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    listed = {}
    for path in sorted(path for path in source.rglob("*") if path.is_file()):
        relative = path.relative_to(source)
        (temporary / relative).parent.mkdir(parents=True, exist_ok=True)
        listed[str(relative)] = _copy_file(path, temporary / relative)
    shutil.rmtree(target, ignore_errors=True)
    temporary.rename(target)
    files.sync_directory(target.parent)
    return listed


def _copy_file(source: Path, target: Path) -> dict[str, Any]:
    digest = hashlib.sha256()
    with files.whole_file(target) as temporary:
        with source.open("rb") as reader, temporary.open("wb") as writer:
            while block := reader.read(CHUNK):
                digest.update(block)
                writer.write(block)
        with temporary.open("rb") as handle:
            written = hashlib.file_digest(handle, "sha256").hexdigest()
        if written != digest.hexdigest():
            raise RdtlError(
                "RDTL-G003",
                "a copy differs from its source",
                where=f"{source} → {target}",
                why="the disk, the memory or the file system under it is faulty",
                fix="run the same command again; if it stays, use another file system",
            )
    return {"size": target.stat().st_size, "sha256": written}


if __name__ == "__main__":
    run_job(body)
