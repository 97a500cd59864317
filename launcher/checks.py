"""Light checks of this machine and of a site. Each takes (site, runs directory)."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from launcher import sites
from launcher.core import extension_locks as locks
from launcher.core import files, node_facts
from launcher.core.checks import Finding, NothingToLookAtError, Severity
from launcher.sites import Site
from launcher.sizing import SIMULATOR_MB
from launcher.submit.slurm import INHERITED, KEPT, clean_environment

RUN_GB, LEAST_GB = 2.0, 0.1
"""What a demo run takes, and what the ledger of any run cannot do without."""
SCHEDULER_S = 30.0


def disk(site: Site, runs_dir: Path) -> list[Finding]:
    """A run can be written where runs go, and there is room for it."""
    existing = next(p for p in [runs_dir, *runs_dir.parents] if files.there(p))
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        return [
            Finding(
                "RDTL-G005",
                "error",
                "the runs directory cannot be written",
                where=f"{existing}: {error.strerror}",
                fix="--runs-dir another directory",
            )
        ]
    free = shutil.disk_usage(existing).free / 1e9
    if free >= RUN_GB:
        return [Finding("RDTL-G009", "ok", f"{free:.0f} GB free in {existing}")]
    return [
        Finding(
            "RDTL-G009",
            "error" if free < LEAST_GB else "warning",
            f"{free:.1f} GB free, a demo run needs {RUN_GB:.0f}",
            where=str(existing),
            why="a run on a full disk stops, though nothing is lost",
            fix="free some space, or --runs-dir another directory",
        )
    ]


def gpus(site: Site, runs_dir: Path) -> list[Finding]:
    """This machine has the GPUs of its site, and nobody uses those that a run takes."""
    if site.kind != "local":
        raise NothingToLookAtError("schedulers and `hosts` look at the GPUs of their own nodes")
    if not site.gpus_per_node:
        raise NothingToLookAtError("this site has no GPUs")
    listed = node_facts.gpus()
    if listed is None:
        raise NothingToLookAtError("no nvidia-smi tells of the GPUs of this machine")
    if len(listed) < site.gpus_per_node:
        return [
            Finding(
                "RDTL-S055",
                "error",
                f"the site says {site.gpus_per_node} GPUs, this machine has {len(listed)}",
                where="gpus_per_node in the site file; nvidia-smi",
                why="a rank without its GPU fails, or takes the GPU of another",
                fix=f"gpus_per_node: {len(listed)} in the site file",
            )
        ]
    taken = _visible(listed)[: site.gpus_per_node]
    busy = [gpu for gpu in taken if gpu["used_mb"] > node_facts.BUSY_MB]
    return _busy(busy) if busy else [Finding("RDTL-T029", "ok", f"{len(taken)} GPUs, all free")]


def _visible(listed: list[dict[str, int]]) -> list[dict[str, int]]:
    """The GPUs that jobs see, in their order: they take the first ones."""
    words = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(str(g["index"]) for g in listed))
    if "-" in words:
        raise NothingToLookAtError("CUDA_VISIBLE_DEVICES has none, or names that are no numbers")
    known = {str(gpu["index"]): gpu for gpu in listed}
    return [known[word.strip()] for word in words.split(",") if word.strip() in known]


def _busy(busy: list[dict[str, int]]) -> list[Finding]:
    numbers = ", ".join(str(gpu["index"]) for gpu in busy)
    return [
        Finding(
            "RDTL-T029",
            "warning",
            f"GPU {numbers} of this machine is in use",
            ", ".join(
                f"GPU {g['index']}: {g['used_mb']} of {g['total_mb']} MiB in use" for g in busy
            ),
            "two jobs on one GPU slow each other down and run out of memory",
            "end what runs there (nvidia-smi), or take others: CUDA_VISIBLE_DEVICES",
        )
    ]


def extension_locks(site: Site, runs_dir: Path) -> list[Finding]:
    """A process killed while torch built an extension leaves a lock that blocks all later ones."""
    left = locks.unheld(locks.folder())
    dead = [path for path in left if locks.is_dead(path)]
    doubtful = [path for path in left if path not in dead]
    found = []
    if dead:
        what = f"{len(dead)} lock(s) of torch's builder whose process is dead"
        found += [_lock("error", what, dead, "rdtl doctor --fix removes them")]
    if doubtful:
        what = f"{len(doubtful)} lock(s) of torch's builder that nobody seen from here holds"
        fix = "remove them if no other node and no other user builds there now"
        found += [_lock("warning", what, doubtful, fix)]
    ok = "no lock of torch's builder without its process"
    return found or [Finding("RDTL-T026", "ok", ok)]


def _lock(severity: Severity, what: str, paths: list[Path], fix: str) -> Finding:
    where = ", ".join(map(str, paths[:3]))
    why = "every later process waits for such a file for ever, silently"
    return Finding("RDTL-T026", severity, what, where, why, fix)


def inherited_environment(site: Site, runs_dir: Path) -> list[Finding]:
    """Variables of an enclosing job; submission removes them, other tools may not."""
    names = sorted(n for n in os.environ if n.startswith(INHERITED) and n not in KEPT)
    if not names:
        return [Finding("RDTL-S001", "ok", "no scheduler variables inherited")]
    return [
        Finding(
            "RDTL-S001",
            "info",
            f"this shell runs inside a job ({', '.join(names[:3])}, …); rdtl submits without them",
        )
    ]


def memory(site: Site, runs_dir: Path) -> list[Finding]:
    """At least one simulator fits."""
    have = sites.memory_mb(site)
    if not have:
        raise NothingToLookAtError("this site does not say what memory its nodes have")
    if have >= SIMULATOR_MB:
        text = f"{have} MB: {have // SIMULATOR_MB} simulator(s) at once"
        return [Finding("RDTL-E025", "ok", text)]
    return [
        Finding(
            "RDTL-E025",
            "error" if site.max_memory_per_node_mb else "warning",  # here others may free some
            f"{have} MB of memory, one simulator needs {SIMULATOR_MB}",
            where="max_memory_per_node_mb" if site.max_memory_per_node_mb else "free now",
            why="the kernel kills the process in the middle of an episode",
            fix="choose a larger node, or end what takes the memory of this one",
        )
    ]


def scheduler(site: Site, runs_dir: Path) -> list[Finding]:
    """sinfo answers and the partition exists."""
    if site.kind != "slurm":
        raise NothingToLookAtError(f"a {site.kind} site has no scheduler")
    sites.require_scheduler("slurm")
    try:
        done = subprocess.run(
            ["sinfo", "--noheader", "--format=%R|%D|%t"],
            env=clean_environment(os.environ, site.environment),
            capture_output=True,
            text=True,
            check=False,
            timeout=SCHEDULER_S,
        )
    except subprocess.TimeoutExpired:
        return [_silent(f"no answer in {SCHEDULER_S:g} s")]
    partitions = {line.split("|")[0] for line in done.stdout.splitlines()}
    if done.returncode:
        return [_silent(done.stderr.strip()[:200])]
    known = ", ".join(sorted(partitions))
    missing = [name for name in site.partitions if name not in partitions]
    if missing:
        return [_silent(f"there are {known}", f"no partition {', '.join(missing)}")]
    return [Finding("RDTL-S032", "ok", f"scheduler answers, partitions {known}")]


def _silent(where: str, what: str = "sinfo does not answer") -> Finding:
    return Finding(
        "RDTL-S032", "error", what, where, fix="check the site file and the cluster (sinfo)"
    )
