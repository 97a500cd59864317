"""From a recipe, a profile and values to the graph that runs: nothing is left open in it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import PurePosixPath

from launcher import config
from launcher.core import dag, dag_reading
from launcher.core.errors import UsageError
from launcher.dag import interpolate, load, schema
from launcher.dag.load import Loaded
from launcher.dag.schema import Recipe

SHELL_NAME = re.compile(r"\$\{?([a-z][a-z0-9_]*)")


def given(settings: Sequence[str]) -> dict[str, str]:
    """``--set NAME=VALUE`` as a mapping; UsageError RDTL-U004 for other forms."""
    pairs = [setting.partition("=") for setting in settings]
    for name, equals, _ in pairs:
        if not (name and equals):
            raise UsageError(
                "RDTL-U004", f"--set needs NAME=VALUE, not {name!r}", fix="--set gpus=2"
            )
    return {name: value for name, _, value in pairs}


def parameters(recipe: Recipe, profile: str | None, values: Mapping[str, str]) -> dict[str, str]:
    """Every parameter's value: given, else the profile's, else its default.

    Raises UsageError RDTL-U122 (unknown profile or parameter), U123 (no value), U124 (no choice).
    """
    chosen = profile or recipe.profile
    require_known("profile", [chosen] if chosen else [], recipe.profiles, recipe.name)
    own = recipe.profiles[chosen].parameters if chosen else {}
    require_known("parameter", [*own, *values], recipe.parameters, recipe.name)
    defaults = {name: p.default for name, p in recipe.parameters.items() if p.default is not None}
    found = {**defaults, **own, **values}
    missing = [name for name in recipe.parameters if name not in found]
    if missing:
        abouts = "; ".join(f"{name}: {recipe.parameters[name].about}" for name in missing)
        raise UsageError(
            "RDTL-U123",
            f"{recipe.name} needs a value for {', '.join(missing)}",
            where=abouts,
            fix=" ".join(f"--set {name}=…" for name in missing),
        )
    for name, value in found.items():
        _require_choice(name, value, recipe.parameters[name].choices)
    return found


def require_known(what: str, wanted: Iterable[str], known: Collection[str], where: str) -> None:
    """UsageError RDTL-U122, with what is near, unless all of ``wanted`` are ``known``."""
    for name in wanted:
        if name not in known:
            near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
            raise UsageError(
                "RDTL-U122",
                f"there is no {what} {name}" + (f"; did you mean {near[0]}?" if near else ""),
                where=where,
                fix=f"known: {', '.join(known) or 'none'}",
            )


def _require_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if choices and value not in choices:
        raise UsageError(
            "RDTL-U124",
            f"{name} cannot be {value!r}",
            where=f"--set {name}=…, or the profile",
            fix=f"one of: {', '.join(choices)}",
        )


def names(
    recipe: Recipe, run: str, profile: str | None, values: Mapping[str, str]
) -> dict[str, str]:
    """All that ``${name}`` may stand for: places on the machine, parameters, variables."""
    known = {
        "run": run,
        "runner": f"{run}/runner.pyz",
        "files": f"{run}/files",
        "code": f"{run}/code",
        "profile": profile or recipe.profile or "",
    }
    own = {**parameters(recipe, profile, values)}
    for name in (*own, *recipe.variables):
        if name in known or (name in own and name in recipe.variables):
            raise UsageError(
                "RDTL-U125", f"the name {name} is taken", where=recipe.name, fix="call it otherwise"
            )
    known |= own
    for name, text in recipe.variables.items():
        known[name] = interpolate.text(text, known, recipe.secrets, f"variables.{name}")
    return known


def resolve(
    loaded: Loaded, run: str, profile: str | None = None, values: Mapping[str, str] | None = None
) -> dag.Graph:
    """The graph of a recipe whose run directory on the machine is ``run`` (absolute).

    Raises UsageError: RDTL-U001 for keys, U120 … U125 for names, B051 for a graph that is none.
    """
    recipe = loaded.recipe
    known = names(recipe, run, profile, values or {})
    machine(loaded, profile, values)  # a mistake there is one before anything is sent or rented
    everywhere = _signatures(recipe.signatures)
    steps = tuple(_step(loaded, name, known, everywhere) for name in recipe.steps)
    where = interpolate.text(recipe.working_directory, known, recipe.secrets, "working_directory")
    return dag.Graph(recipe.name, steps, where, dict(recipe.tokens))


def machine(
    loaded: Loaded, profile: str | None = None, values: Mapping[str, str] | None = None
) -> schema.Machine:
    """What the recipe needs of the machine with these values of its parameters."""
    known = names(loaded.recipe, "", profile, values or {})
    raw = interpolate.tree(loaded.recipe.machine, known, loaded.recipe.secrets, "machine")
    return config.validate(schema.Machine, raw, f"{loaded.path}: machine")


def read_step(loaded: Loaded, name: str, known: Mapping[str, str]) -> schema.Step:
    """One step as its author meant it, with all names replaced."""
    raw = interpolate.tree(loaded.recipe.steps[name], known, loaded.recipe.secrets, f"steps.{name}")
    return config.validate(schema.Step, raw, f"{loaded.path}: steps.{name}")


def _step(
    loaded: Loaded, name: str, known: Mapping[str, str], everywhere: tuple[dag.Signature, ...]
) -> dag.Step:
    step = read_step(loaded, name, known)
    verify = step.verify
    return dag.Step(
        name=name,
        argv=tuple(step.argv),
        script=step.script,
        needs=tuple(step.needs),
        env={**_for_scripts(step, known), **step.env},
        secrets=tuple(step.secrets),
        inputs=tuple(step.inputs),
        outputs=tuple(step.outputs),
        verify=dag.Verify(_command(verify.cheap), _command(verify.deep), verify.timeout),
        timeout_s=step.timeout,
        retries=step.retries,
        retry_wait_s=step.retry_wait,
        resources=dict(step.resources),
        signatures=(*_signatures(step.signatures), *everywhere),
        markers=_markers(step.markers),
        start_s=step.start,
        stall_s=step.stall,
        remedies=tuple(step.remedies),
        always=step.always,
        after_failure=step.after_failure,
        expected_s=step.takes,
        about=step.about,
    )


def _command(command: list[str] | str | None) -> dag.Command | None:
    return tuple(command) if isinstance(command, list) else command


def _for_scripts(step: schema.Step, known: Mapping[str, str]) -> dict[str, str]:
    """Variables for the names that the scripts of a step use: their values are never pasted in."""
    commands = (step.script, step.verify.cheap, step.verify.deep)
    used = {n for c in commands if isinstance(c, str) for n in SHELL_NAME.findall(c)}
    return {name: known[name] for name in sorted(used) if name in known}


def _signatures(wanted: Sequence[str | schema.Signature]) -> tuple[dag.Signature, ...]:
    found: list[schema.Signature] = []
    for one in wanted:
        found += load.signature_file(one).signatures if isinstance(one, str) else [one]
    return tuple(dag_reading.signature(one.model_dump()) for one in found)


def _markers(wanted: Sequence[str | schema.Marker]) -> tuple[dag.Marker, ...]:
    found: list[schema.Marker] = []
    for one in wanted:
        found += load.signature_file(one).markers if isinstance(one, str) else [one]
    return tuple(dag.Marker(**one.model_dump()) for one in found)


def run_directory(recipe: Recipe, profile: str | None, root: str, name: str | None = None) -> str:
    """Where a run lies below ``root``: another profile, or another name, is another run."""
    words = [*PurePosixPath(recipe.name).parts, profile or recipe.profile or ""]
    return f"{root}/{name or '-'.join(word for word in words if word)}"
