"""From YAML and ``--set`` to a validated configuration, and from mistakes to helpful errors."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from launcher import unique_keys
from launcher.core.errors import UsageError
from launcher.core.redaction import Redaction
from launcher.staging.uri import is_uri

if TYPE_CHECKING:
    from launcher.schema import RunConfig

Model = TypeVar("Model", bound=BaseModel)
SHIPPED = Path(__file__).parent / "_configs"
CHECKOUT = Path(__file__).parent.parent / "configs"
SHOWN = 200
"""Characters of a wrong value that an error repeats."""
MOST_VALUES = 100_000
"""Keys and values of one file, with what aliases stand for."""


def config_roots() -> list[Path]:
    """Where configurations are looked up: here, the user's directory, the shipped ones."""
    home = Path(os.environ.get("XDG_CONFIG_HOME", "~/.config")).expanduser()
    shipped = SHIPPED if SHIPPED.is_dir() else CHECKOUT
    return [Path("configs").resolve(), home / "rdtl", shipped]


def find(kind: str, name: str) -> Path:
    """The file of ``name``: a path as given, or KIND/NAME.yaml in the configuration roots.

    ``name`` may say its kind, as ``rdtl doctor`` wants it. Raises UsageError RDTL-U002.
    """
    path = Path(name)
    if path.suffix in (".yaml", ".yml") and path.exists():
        return path
    relative = Path(kind, f"{name.removeprefix(f'{kind}/')}.yaml")
    if path.parts[:1] == ("configs",):
        relative = path.relative_to("configs")
    for root in config_roots():
        if (candidate := root / relative).exists():
            return candidate
    looked = dict.fromkeys(str((root / kind).resolve()) for root in config_roots())
    is_path = path.suffix in (".yaml", ".yml")
    raise UsageError(
        "RDTL-U002",
        f"there is no file {name}" if is_path else f"no {kind} configuration called {name}",
        where=str(path.absolute()) if is_path else ", ".join(looked),
        fix=f"choose one of: {', '.join(names(kind)) or 'none found'}",
    )


def names(kind: str) -> list[str]:
    """Names of the configurations of ``kind`` in all roots."""
    return sorted({path.stem for root in config_roots() for path in (root / kind).glob("*.yaml")})


def read_yaml(path: Path) -> dict[str, Any]:
    """Parse a YAML mapping; UsageError with line and column otherwise."""
    try:
        data = parse_yaml(path.read_text(encoding="utf-8"), str(path))
    except UnicodeDecodeError as error:
        raise _no_yaml(str(path), error) from error
    if not isinstance(data, dict):
        raise UsageError(
            "RDTL-U003",
            "the file holds no mapping of keys",
            where=str(path),
            fix="begin with `name: mine` and a section, as the shipped files of configs/ do",
        )
    return data


def parse_yaml(text: str, where: str) -> Any:
    """The value that ``text`` is; UsageError RDTL-U003 for anything else.

    A key that stands twice in its mapping is refused (:mod:`launcher.unique_keys`). PyYAML lets
    some errors of Python through (a month 13, endless nesting), and aliases of aliases are small
    in memory but endless once they are written out.
    """
    try:
        # As safe as safe_load, which takes no Loader: this one is a SafeLoader, too.
        data = yaml.load(text, Loader=unique_keys.Loader)
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, RecursionError) as error:
        raise _no_yaml(where, error) from error
    below, seen = [data], 0
    while below and seen < MOST_VALUES:
        value, seen = below.pop(), seen + 1
        below += [*value, *value.values()] if isinstance(value, dict) else []
        below += value if isinstance(value, list | set | tuple) else []
    if below:
        raise _no_yaml(where, f"its aliases stand for more than {MOST_VALUES} values")
    return data


def _no_yaml(where: str, error: object) -> UsageError:
    mark = getattr(error, "problem_mark", None)
    if isinstance(error, yaml.MarkedYAMLError) and mark:
        said = f"line {mark.line + 1}, column {mark.column + 1}: {error.problem}"
    else:
        said = " ".join(str(error).split())[:500]
    fix = "correct the text there: a colon, an indentation, a bracket, or a key that stands twice"
    return UsageError("RDTL-U003", "this is not YAML", where=f"{where}: {said}", fix=fix)


def apply_settings(data: dict[str, Any], settings: list[str]) -> dict[str, Any]:
    """Apply ``--set a.b=value`` in order; values are read as YAML. Returns a new mapping."""
    for setting in settings:
        key, text = key_value(setting)
        data = _with_value(data, key.split("."), parse_yaml(text, f"--set {setting}"), key)
    return data


def key_value(setting: str) -> tuple[str, str]:
    """The two sides of ``--set KEY=VALUE``; UsageError RDTL-U004 for anything else."""
    key, equals, value = setting.partition("=")
    if not equals or not key:
        raise UsageError(
            "RDTL-U004",
            f"--set needs KEY=VALUE, not {setting!r}",
            fix=f"--set {key or 'KEY'}=VALUE, in one word",
        )
    return key, value


def _with_value(data: dict[str, Any], keys: list[str], value: Any, whole: str) -> dict[str, Any]:
    head, *rest = keys
    if not rest:
        return {**data, head: value}
    below = data.get(head) or {}
    if not isinstance(below, dict):
        at = whole.removesuffix("." + ".".join(rest))
        entry = "…" if rest[-1].isdigit() else f"{{{rest[-1]}: …}}"
        kind, example = ("list", f"[{entry}]") if isinstance(below, list) else ("value", "…")
        raise UsageError(
            "RDTL-U004",
            f"{at} is a {kind}, so {whole} cannot be set below it",
            fix=f"set the whole {kind}: --set '{at}={example}'",
        )
    return {**data, head: _with_value(below, rest, value, whole)}


def validate(model: type[Model], data: dict[str, Any], source: str) -> Model:
    """Build ``model``; every mistake becomes a line with file, key, value and nearest valid key."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        problems = list(_explain(model, error))
        unknown = any(item["type"] == "extra_forbidden" for item in error.errors())
        raise UsageError(
            "RDTL-U001",
            problems[0]
            if len(problems) == 1
            else f"{len(problems)} mistakes: " + "; ".join(problems),
            where=Redaction()(source),
            why="an unknown key would be a setting that silently does nothing" if unknown else "",
            fix="correct the file or the --set option; docs/configuration.md lists every key",
        ) from error


def _explain(model: type[BaseModel], error: ValidationError) -> Iterator[str]:
    for item in error.errors(include_url=False):
        key = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            *parents, last = (str(part) for part in item["loc"])
            near = _below(model, parents, last) or [
                ".".join([*parents, key])
                for key in difflib.get_close_matches(last, _fields_at(model, parents), 1, 0.5)
            ]
            hint = f"; the nearest valid key is {near[0]}" if near else ""
            yield f"unknown key {key}{hint}"
        else:
            shown = Redaction()(repr(item["input"]))[:SHOWN]
            value = f" (got {shown})" if not isinstance(item["input"], dict) else ""
            said = _shape(model, item) or item["msg"].removeprefix("Value error, ")
            yield f"{key or 'the configuration'}: {said}{value}"


def _shape(model: type[BaseModel], item: ErrorDetails) -> str:
    """What a value or keys should be written like where a list or keys are wanted; else nothing."""
    given, wanted = item["input"], {"list_type": "a list", "model_type": "keys"}.get(item["type"])
    if wanted is None or not isinstance(given, str | int | float | dict):
        return ""
    keys = list(_fields_at(model, [str(part) for part in item["loc"]]))
    of_entry, value = {}, given
    if isinstance(given, dict):
        of_entry, value = {key: given[key] for key in keys if key in given}, "…"
    of_entry = of_entry or dict.fromkeys(keys[:1], value)
    pairs = ", ".join(f"{key}: {one}" for key, one in of_entry.items())
    entry = f"{{{pairs}}}" if pairs else str(value)
    example = f"[{entry}]" if wanted == "a list" else entry
    return f"{wanted} must stand there, such as {Redaction()(example)[:SHOWN]}"


def _below(model: type[BaseModel], parents: list[str], last: str) -> list[str]:
    """Keys of this very name one section deeper: ``steps`` is meant as ``train.steps``."""
    found = []
    for section, field in _fields_at(model, parents).items():
        if last in _fields_at(model, [*parents, section]):
            is_list = get_origin(field.annotation) is list
            key = f"{section}=[{{{last}: …}}]" if is_list else f"{section}.{last}"
            found.append(".".join([*parents, key]))
    return found


def _fields_at(model: type[BaseModel], parents: list[str]) -> dict[str, FieldInfo]:
    for parent in parents:
        if parent.isdigit():  # a place in a list, whose kind is known already
            continue
        field = model.model_fields.get(parent)
        if field is None:
            return {}
        options = (field.annotation, *get_args(field.annotation))
        inner = [o for o in options if isinstance(o, type) and issubclass(o, BaseModel)]
        if not inner:
            return {}
        model = inner[0]
    return model.model_fields


def load_run_config(path: Path, settings: list[str], needs: list[str]) -> RunConfig:
    """Read a run configuration; ``needs`` are the sections that the command cannot do without."""
    from launcher.schema import RunConfig  # the largest model: looking at runs needs none of it

    data = apply_settings(read_yaml(path), settings)
    missing = [name for name in needs if data.get(name) is None]
    if missing:
        raise UsageError(
            "RDTL-U005",
            f"this command needs the section{'s' * (len(missing) > 1)} {', '.join(missing)}",
            where=str(path),
            fix="add it (an empty mapping `{}` takes all defaults) or choose another configuration",
        )
    source = str(path) + ("".join(f" --set {one}" for one in settings))
    return _absolute(validate(RunConfig, data, source))


def _absolute(config: RunConfig) -> RunConfig:
    """Paths as the user's shell reads them: jobs run in another directory."""
    evaluate = config.evaluate
    sets = [
        entry
        if is_uri(entry.path)
        else entry.model_copy(update={"path": str(Path(entry.path).absolute())})
        for entry in config.dataset.sets
    ]
    buffer = config.dataset.buffer
    buffer = buffer and str(Path(buffer).absolute())
    dataset = config.dataset.model_copy(update={"sets": sets, "buffer": buffer})
    if evaluate:
        paths = ("checkpoint", "demonstrations", "server_token", "vision", "language")
        evaluate = _places(evaluate, paths, ("checkpoint", "vision", "language"))
    train, sweep = config.train, config.sweep
    if train:
        train = _places(train, ("checkpoint", "vision", "language"), ("checkpoint", "vision"))
    if sweep:
        swept = [place(value, may_be_id=True) for value in sweep.checkpoints]
        sweep = sweep.model_copy(update={"checkpoints": swept})
    update = {"dataset": dataset, "train": train, "evaluate": evaluate, "sweep": sweep}
    return config.model_copy(update=update)


def _places(section: Model, keys: tuple[str, ...], ids: tuple[str, ...]) -> Model:
    """``section`` with the paths under ``keys`` made absolute; under ``ids`` may stand hub ids."""
    named = {key: getattr(section, key) for key in keys}
    update = {key: place(value, may_be_id=key in ids) for key, value in named.items() if value}
    return section.model_copy(update=update)


def place(value: str, *, may_be_id: bool) -> str:
    """A path made absolute; a URI, or the id of a hub (owner/name, no such path here), as it is."""
    is_id = may_be_id and not Path(value).exists() and re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", value)
    return value if is_uri(value) or is_id else str(Path(value).resolve())


def to_yaml(config: BaseModel) -> str:
    """The resolved configuration as a person would write it."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
