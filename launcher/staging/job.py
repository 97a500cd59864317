"""Stage the assets of a plan: ``python -m launcher.staging.job RUN``, outside the container.

Each asset lies in the site's cache once, for all runs; the run gets a link to it and a
copy of its manifest, and the cache a reference, so that nobody removes it under the run.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from launcher.core import files
from launcher.core.job import Job, run_job
from launcher.staging import fetch, uri
from launcher.staging.cache import Cache
from launcher.staging.progress import Progress
from launcher.staging.transfer import Order


def body(job: Job) -> None:
    """Fetch what is not there yet and link it; a signal ends it where it is, nothing is lost."""
    cache = Cache(Path(job.config["asset_cache"]))
    for asset in job.config["assets"]:
        # What another stage of this run brought stays as it is, whatever the store has now.
        if not Path(asset["target"]).exists():
            bring(job, cache, asset)
        job.may_stop_here()


def bring(job: Job, cache: Cache, asset: dict[str, str]) -> None:
    """One asset: fetched, referenced, linked, its manifest beside the link."""

    def show(progress: Progress) -> None:
        job.progress(progress.bytes, max(1, progress.total_bytes), "bytes", f"{asset['key']}")
        job.may_stop_here()

    order = Order(uri.parse(asset["uri"], asset["key"]), run=job.run.root, say=say, show=show)
    staged = fetch.bring(cache, order)
    target = Path(asset["target"])
    manifest = staged.asset.manifest
    files.write_text(target.parent / "manifest.json", manifest.text)
    facts: dict[str, Any] = {
        "uri": asset["uri"],
        "digest": manifest.digest,
        "files": len(manifest.files),
        "bytes": manifest.size,
    }
    files.write_json(target.parent / "asset.json", facts)
    link(staged.path, target)  # at last: whoever finds it finds all of it
    say(f"{asset['uri']}: {facts['files']} files, {facts['bytes']} bytes, digest {manifest.digest}")


def link(source: Path, target: Path) -> None:
    """Let ``target`` lead to ``source``, in one step, also when it led elsewhere."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.part")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(source)
    temporary.replace(target)


def say(text: str) -> None:
    """A line of the stage's log."""
    print(text, flush=True)


if __name__ == "__main__":
    run_job(body)
