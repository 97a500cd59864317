"""What a run configuration says of itself. Each takes the subject; pure but for names of files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from launcher import weights
from launcher.core import files
from launcher.core.checks import Finding, NothingToLookAtError
from launcher.doctor import hub
from launcher.doctor.subject import Subject
from launcher.staging.uri import is_uri
from rdt.spec import card as cards
from rdt.spec import chunks, planned, recipe, suites


def training(subject: Subject) -> list[Finding]:
    """What is allowed and unusual in the recipe: warm-up, batch, periods, order of samples."""
    train, dataset = subject.section("train"), subject.section("dataset")
    if train is None or dataset is None:
        raise NothingToLookAtError("this configuration trains nothing")
    found = [*recipe.findings(train, train["steps"]), *recipe.order_findings(dataset)]
    ok = f"warm-up and an effective batch of {train['effective_batch']} as recipes have them"
    return found or [Finding("RDTL-T005", "ok", ok)]


def limits(subject: Subject) -> list[Finding]:
    """A warning RDTL-E032 for each suite whose limit is below its longest demonstration."""
    config = subject.config
    if config is None or subject.section("evaluate") is None:
        raise NothingToLookAtError("this configuration evaluates nothing")
    found = []
    for name in dict.fromkeys(suite for suite, _ in planned.tasks(config)):
        suite, limit = suites.find(name), suites.max_steps(name, config["task"]["max_steps"])
        if suite and limit < suite.longest_demonstration:
            found.append(
                Finding(
                    "RDTL-E032",
                    "warning",
                    f"episodes of {name} end after {limit} steps",
                    where="task.max_steps",
                    why=f"people took up to {suite.longest_demonstration}: such tasks fail "
                    "whatever the policy does",
                    fix=f"leave task.max_steps unset ({suite.max_steps})",
                )
            )
    return found or [Finding("RDTL-E032", "ok", "episodes are as long as demonstrations are")]


def horizon(subject: Subject) -> list[Finding]:
    """How much of a chunk is executed, where the configuration says how long one is."""
    train, evaluate = subject.section("train"), subject.section("evaluate")
    if not train or not evaluate or "rdt" not in evaluate["policies"] or train["checkpoint"]:
        raise NothingToLookAtError("it does not train the policy that it evaluates from scratch")
    executed, chunk = evaluate["execution_horizon"], train["model"]["horizon"]
    found = chunks.replanning(executed, chunk, f"train.model.horizon = {chunk}")
    return found or [Finding("RDTL-E022", "ok", f"{executed} of {chunk} actions are executed")]


def policy_memory(subject: Subject) -> list[Finding]:
    """A warning RDTL-E025 where a large policy is planned with the memory of a small one."""
    train, evaluate = subject.section("train"), subject.section("evaluate")
    if not evaluate or "rdt" not in evaluate["policies"] or evaluate["policy_memory_mb"]:
        raise NothingToLookAtError(
            "no policy is evaluated, or the configuration says what it takes"
        )
    place = subject.named or evaluate["checkpoint"]
    # Its own training from public weights, or weights that the jobs alone will see.
    unknown = not Path(place).exists() if place else train and train["checkpoint"]
    told = weights.card(place) if place else None
    spoken = told and told["encoders"].get("language") == cards.T5
    if not unknown and spoken and evaluate["language"] is None:
        return [_memory("T5 is not counted in it", "T5-XXL in float32 takes 19,100 MB more")]
    if not unknown:
        return [Finding("RDTL-E025", "ok", "the checkpoint lies here: its size is counted")]
    why = "rdt-1b with SigLIP takes 7,100 MB, a small policy 400"
    return [_memory("its weights are not here yet and count as a small policy's", why)]


def _memory(what: str, why: str) -> Finding:
    return Finding(
        "RDTL-E025",
        "warning",
        f"what the policy takes in memory is not known: {what}",
        where="evaluate.policy_memory_mb is unset",
        why=f"{why}; Slurm ends what takes more than was asked for",
        fix="set evaluate.policy_memory_mb: 4 bytes a weight, encoders included; and name "
        "instructions that were encoded beforehand (evaluate.language)",
    )


def places(subject: Subject) -> list[Finding]:
    """Every file that is named by its path is there, and weights that only the hub has are seen."""
    config = subject.config
    assert config is not None, "the registry says that it needs one"
    staged = {asset["target"] for asset in config.get("assets", [])}
    named = list(_named(config)) + [(key, place) for key, place in subject.checkpoints()]
    paths = [
        (key, code, Path(place))
        for key, place in named
        if not is_uri(place) and place not in staged and Path(place).is_absolute()
        for code in ["RDTL-D014" if key.startswith("dataset") else "RDTL-T034"]
    ]
    gone = [
        _missing(key, code, path, local=subject.site.kind == "local")
        for key, code, path in paths
        if not files.there(path)
    ]
    found = [*gone, *hub.findings(subject)]
    ok = f"{len(paths)} files and folders that it names are there"
    return found or [Finding("RDTL-D014", "ok", ok)]


def _named(config: dict[str, Any]) -> Iterator[tuple[str, str]]:
    sets = config["dataset"]["sets"] if planned.reads_demonstrations(config) else []
    for number, one in enumerate(sets):
        yield f"dataset.sets.{number}.path", one["path"]
    for section in ("train", "evaluate"):
        for key in ("vision", "language", "demonstrations"):
            if place := (config.get(section) or {}).get(key):
                yield f"{section}.{key}", place


def _missing(key: str, code: str, path: Path, *, local: bool) -> Finding:
    """Nodes of a cluster may see what this machine does not."""
    there = "on this machine" if not local else "there"
    return Finding(
        code,
        "error" if local else "warning",
        f"what {key} names is not {there}",
        where=str(path),
        why="the job would begin, perhaps after hours in a queue, and end at once",
        fix="correct the path, mount its storage, or name it by a URI that is staged",
    )
