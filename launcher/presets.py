"""Fills a plan: which stages a configuration means and what each needs.

Pure functions: configuration and site in, :class:`~launcher.core.plan.Plan` out.
Memory and time are what the stages were measured to need, with room to spare.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from launcher import assets, sizing
from launcher.core.errors import UsageError
from launcher.core.plan import Plan, Stage
from launcher.core.runs import RunDir
from launcher.core.runtimes import Container
from launcher.placement import PYTHON, named_files, place, require_fit, written_folders
from launcher.schema import Evaluate, RunConfig
from launcher.sites import Site, assets_root
from launcher.staging import uri
from rdt.spec import planned, suites

COLLECT_MB = 3400  # a blind and a seeing simulator of one task: 3.0

UPLOADING = ("train", "evaluate", "videos", "report")
UPLOADER_MB = 700  # rclone's own bound is 512; four large files at once: 0.2 GB with Python

JOB_ENVIRONMENT = {
    # OSMesa works on every node; robosuite would silently take EGL if this were unset.
    "MUJOCO_GL": "osmesa",
    "PYOPENGL_PLATFORM": "osmesa",
    "LP_NUM_THREADS": "0",  # one core per simulator: llvmpipe's threads gain 1.2x and cost a core
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "DS_ACCELERATOR": "cpu",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONUNBUFFERED": "1",
}

ACCELERATORS = {"cpu": "cpu", "gpu": "cuda"}
"""DeepSpeed's words for `train.device`."""


def job_argv(module: str, run: RunDir) -> tuple[str, ...]:
    """``python -P -m MODULE RUN_DIR``; :func:`place` says which Python."""
    return (PYTHON, "-P", "-m", module, str(run.root))


def pipeline(
    config: RunConfig, site_name: str, site: Site, run: RunDir, container: Container | None
) -> Plan:
    """The stages that the sections of ``config`` ask for, in the order of the road."""
    config, staged = assets.split(config, run)
    stages = [_asset_stage(run, staged)] if staged else []
    if planned.reads_demonstrations(config.model_dump(mode="json")):
        stages += _data_stages(config, run, [stage.name for stage in stages])
    if config.train:
        stages.append(_train_stage(config, run))
    if config.evaluate:
        stages += _evaluate_stages(config, site, run, [stage.name for stage in stages])
    if config.upload:
        uri.parse(config.upload.uri, "upload.uri")
        stages = [_uploading(stage, run) for stage in stages]
    cache = assets_root(site)
    seen, written = named_files(config), written_folders(config)
    seen += [cache / "assets"] if staged else []
    stages = [place(stage, site, run, container, seen, written) for stage in stages]
    for stage in stages:
        require_fit(stage, site_name, site, _less_memory(config, stage))
    data = config.model_dump(mode="json")
    if staged:
        data["assets"] = assets.to_config(staged)
        data["asset_cache"] = str(cache)
        data["node_local"] = site.node_local
    return Plan(config.name, site_name, tuple(stages), data)


def _less_memory(config: RunConfig, stage: Stage) -> str:
    """What to do about a stage that wants more memory than a site has."""
    if stage.name == "evaluate" and config.evaluate and config.evaluate.workers > 1:
        return f"lower evaluate.workers (each takes {sizing.SIMULATOR_MB} MB)"
    return "ask for less"


def _asset_stage(run: RunDir, staged: list[assets.Asset]) -> Stage:
    return Stage(
        name="stage",
        argv=job_argv("launcher.staging.job", run),
        memory_mb=500,
        minutes=4 * 60,
        about=f"fetch and prove {', '.join(asset.key for asset in staged)}",
    )


def _uploading(stage: Stage, run: RunDir) -> Stage:
    """Stages that make results bring them out while they run, within the memory of their job."""
    if stage.name not in UPLOADING:
        return stage
    beside = ("launcher.staging.outgoing", str(run.root))
    return replace(stage, beside=beside, memory_mb=stage.memory_mb + UPLOADER_MB)


def _data_stages(config: RunConfig, run: RunDir, earlier: list[str]) -> list[Stage]:
    if not config.dataset.sets and config.collect is None:
        raise UsageError(
            "RDTL-U005",
            "there are no demonstrations to learn from",
            where="dataset.sets is empty and there is no section collect",
            fix="name a data set (dataset: {sets: [{path: …}]}) or add a section `collect: {}`",
        )
    dataset = Stage(
        name="dataset",
        argv=job_argv("jobs.dataset", run),
        needs=tuple(earlier) if config.dataset.sets else ("collect", *earlier),
        memory_mb=2000,
        minutes=30,
        environment=JOB_ENVIRONMENT,
        about="merge, verify, statistics of the 128-d unified vector",
    )
    if config.dataset.sets or config.collect is None:
        return [dataset]
    collect = Stage(
        name="collect",
        argv=job_argv("jobs.collect", run),
        array=config.collect.shards,
        memory_mb=COLLECT_MB,
        minutes=60,
        environment=JOB_ENVIRONMENT,
        about=f"{config.collect.demos} demonstrations by the scripted expert",
    )
    return [collect, dataset]


def _train_stage(config: RunConfig, run: RunDir) -> Stage:
    train = config.train
    assert train is not None
    ranks = str(train.ranks_per_node)
    return Stage(
        name="train",
        argv=(PYTHON, "-P", "-m", "jobs.ranks", ranks, "jobs.train", str(run.root)),
        needs=("dataset",),
        nodes=train.nodes,
        ranks_per_node=train.ranks_per_node,
        gpus_per_node=train.ranks_per_node if train.device == "gpu" else 0,
        cpus=train.ranks_per_node,
        memory_mb=round(1000 * train.memory_gb) * (train.ranks_per_node + 1),
        minutes=24 * 60,
        environment={**JOB_ENVIRONMENT, "DS_ACCELERATOR": ACCELERATORS[train.device]},
        about=f"RDT with DeepSpeed on {train.nodes * train.ranks_per_node} ranks",
    )


def _evaluate_stages(config: RunConfig, site: Site, run: RunDir, earlier: list[str]) -> list[Stage]:
    evaluate = config.evaluate
    assert evaluate is not None
    for suite, _ in planned.tasks(config.model_dump(mode="json")):  # refuses unknown tasks
        suites.require_init_states(suite, *evaluate.init_states)
    _require_policy(config, evaluate)
    data = config.model_dump(mode="json")
    count = sizing.tasks(data, site)
    array = Stage(
        name="evaluate",
        argv=job_argv(sizing.program(data), run),
        needs=tuple(earlier[-1:]),
        array=count,
        gpus_per_node=evaluate.gpus,
        cpus=sizing.cpus(data),
        memory_mb=sizing.memory_mb(data),
        minutes=4 * 60,
        environment=JOB_ENVIRONMENT,
        about=sizing.words(data),
    )
    videos = Stage(
        name="videos",
        argv=job_argv("jobs.videos", run),
        needs=("evaluate",),
        needs_ended=True,
        array=max(1, min(count, evaluate.videos * len(evaluate.video_outcomes))),
        memory_mb=sizing.SIMULATOR_MB,
        minutes=60,
        environment=JOB_ENVIRONMENT,
        about=f"film {planned.main_policy(evaluate.policies)}, {evaluate.videos} for each of: "
        + ", ".join(evaluate.video_outcomes),
    )
    report = Stage(
        name="report",
        argv=(PYTHON, "-P", "-m", "launcher", "report", str(run.root)),
        needs=("evaluate", "videos") if evaluate.videos else ("evaluate",),
        needs_ended=True,  # it reads records: an interrupted evaluation is reported as incomplete
        memory_mb=1000,
        minutes=30,
        about="episodes.csv, summary.csv, index.html",
    )
    return [array, *([videos] if evaluate.videos else []), report]


def _require_policy(config: RunConfig, evaluate: Evaluate) -> None:
    """Raise UsageError RDTL-U005 without a policy, or for policy rdt without weights."""
    if not evaluate.policies:
        raise UsageError(
            "RDTL-U005",
            "no policy is evaluated",
            where="evaluate.policies is empty",
            fix="--checkpoint DIRECTORY, or name a reference: --set 'evaluate.policies=[expert]'",
        )
    swept = config.sweep.checkpoints if config.sweep else []
    weights = config.train or evaluate.checkpoint or swept
    if "rdt" in evaluate.policies and not weights:
        raise UsageError(
            "RDTL-U005",
            "policy rdt has no checkpoint",
            where="evaluate.checkpoint is unset and there is no section `train`",
            fix="--checkpoint DIRECTORY, or leave rdt out of evaluate.policies",
        )


def command(
    argv: list[str],
    site_name: str,
    site: Site,
    run: RunDir,
    container: Container | None,
    *,
    nodes: int,
    gpus: int,
    per_gpu: bool,
    working_directory: Path,
    minutes: int,
    memory_gb: float,
) -> Plan:
    """A plan of one stage that runs any command: ``rdtl run``."""
    if per_gpu and gpus == 0:
        raise UsageError(
            "RDTL-U006", "--per gpu needs --gpus", fix="--gpus G --per gpu, or leave --per out"
        )
    stage = Stage(
        name="run",
        argv=tuple(argv),
        nodes=nodes,
        ranks_per_node=gpus if per_gpu else max(1, gpus),
        per="gpu" if per_gpu else "node",
        gpus_per_node=gpus,
        memory_mb=int(memory_gb * 1000),
        minutes=minutes,
        environment={} if container else {"PATH": os.environ.get("PATH", os.defpath)},
        working_directory=str(working_directory),
        own_code=False,
        about=" ".join(argv),
    )
    stage = place(stage, site, run, container, [working_directory])
    require_fit(stage, site_name, site)
    config: dict[str, Any] = {"command": argv}
    return Plan("run", site_name, (stage,), config)
