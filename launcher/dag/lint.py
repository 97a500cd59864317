"""What would go wrong with a graph, found before anything of it runs."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import PurePosixPath

from launcher.core import dag, dag_reading, redaction
from launcher.core.checks import Finding
from launcher.core.errors import UsageError
from launcher.dag import shell_text
from launcher.dag.load import Loaded
from launcher.dag.schema import Recipe

PRIVATE_KEY = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY")
HABITS = (
    ("RDTL-B009", re.compile(r"\btmux\b.*\bsend-keys\b"), "keystrokes into tmux arrive garbled"),
    (
        "RDTL-B011",
        re.compile(r"\b(?:ba|da)?sh -\w*c\b(?!.*pipefail).*\|"),
        "a pipe has its last program's exit code; scripts of steps know pipefail",
    ),
    ("RDTL-B014", re.compile(r"\bsystemctl\b|\bsystemd-run\b"), "rented boxes have no systemd"),
    ("RDTL-B017", re.compile(r"\bpgrep\b|\bpkill\b|\bkillall\b"), "names match other programs too"),
)
"""What goes well by hand and not in a recipe."""
TRAINERS = re.compile(r"\b(?:torchrun|deepspeed|accelerate launch)\b")


def findings(loaded: Loaded, graph: dag.Graph) -> list[Finding]:
    """All that is wrong or doubtful, errors first; nothing else of the graph is assumed."""
    found = [*_structure(graph), *_files(loaded), *_outputs(graph)]
    for step in graph.steps:
        found += [*_proof(step), *_secrets(loaded, step), *_scripts(loaded, step)]
    if not any(one.severity == "error" for one in found):
        found += _upstream(graph)
    found += _unused(loaded)
    return sorted(found, key=lambda one: one.severity != "error")


def flaws(recipe: Recipe, profile: str | None) -> list[Finding]:
    """What is known to be wrong with the result of a profile: a warning for each."""
    chosen = profile or recipe.profile
    known = recipe.profiles[chosen].flaws if chosen else {}
    without = {
        code: [name for name, one in recipe.profiles.items() if code not in one.flaws]
        for code in known
    }
    return [
        Finding(
            code, "warning", text, where=f"{recipe.name}, profile {chosen}",
            why="the profile is there to repeat what others did, not to be better",
            fix=f"--profile {better[0]}" if (better := without[code])
            else "expect it, and say so with the result",
        )
        for code, text in known.items()
    ]  # fmt: skip


def _structure(graph: dag.Graph) -> Iterator[Finding]:
    """Needs, tokens, patterns, cycles: what the runner would refuse."""
    names = [step.name for step in graph.steps]
    wrong = [(step.name, text) for step in graph.steps
             for text in dag_reading.problems(step, names, graph.tokens)]  # fmt: skip
    for name, text in wrong:
        yield Finding("RDTL-B051", "error", text, where=f"steps.{name}", fix="change the recipe")
    try:
        if not wrong:
            graph.order()
    except UsageError as error:
        problem = error.problem
        yield Finding(problem.code, "error", problem.why, problem.where, fix="cut the circle")


def _files(loaded: Loaded) -> Iterator[Finding]:
    for name in loaded.recipe.files:
        if not (loaded.path.parent / name).is_file():
            yield Finding(
                "RDTL-U127", "error", f"the file {name} of the recipe is not there",
                where=str(loaded.path.parent / name), fix="add it, or take it out of `files`",
            )  # fmt: skip


def _outputs(graph: dag.Graph) -> Iterator[Finding]:
    makers = Counter(_path(graph, out) for step in graph.steps for out in set(step.outputs))
    for path in (path for path, count in makers.items() if count > 1):
        who = [s.name for s in graph.steps if path in {_path(graph, out) for out in s.outputs}]
        yield Finding(
            "RDTL-U128", "error", f"{' and '.join(who)} write the same output", where=str(path),
            why="the later one makes the earlier one's result another, and both run for ever",
            fix="give each its own path, or make one step of them",
        )  # fmt: skip


def _path(graph: dag.Graph, path: str) -> PurePosixPath:
    return PurePosixPath(graph.working_directory, path)


def _proof(step: dag.Step) -> Iterator[Finding]:
    if not (step.verify.cheap or step.verify.deep):
        yield Finding(
            "RDTL-U129", "warning", f"nothing proves that {step.name} did its work",
            where=f"steps.{step.name}",
            why="its exit code" + (" and its outputs" if step.outputs else "") + " may be wrong",
            fix="verify: {cheap: …}",
        )  # fmt: skip
    if step.timeout_s is None and step.stall_s is None:
        yield Finding(
            "RDTL-U130", "warning", f"nothing ends {step.name} when it hangs",
            where=f"steps.{step.name}", fix="timeout: 10m, or stall: 5m",
        )  # fmt: skip


def _secrets(loaded: Loaded, step: dag.Step) -> Iterator[Finding]:
    where = f"steps.{step.name}"
    for name in step.secrets:
        if name not in loaded.recipe.secrets:
            yield Finding(
                "RDTL-U126", "error", f"the secret {name} is not declared", where=where,
                fix=f"secrets: {{{name}: what it is for}} at the top of the recipe",
            )  # fmt: skip
    told = [*step.argv, step.script, *step.env.values(), *_verifying(step)]
    for pattern in (redaction.TOKENS, redaction.USER, PRIVATE_KEY):
        if any(pattern.search(text) for text in told):
            yield Finding(
                "RDTL-W003", "error", f"{step.name} holds something that looks like a secret",
                where=where,
                why="argv, scripts and graphs can be read by others; clone URLs stay in .git",
                fix="declare it under `secrets` and let the step read it from its environment",
            )  # fmt: skip
    for script in _all_scripts(step):
        for line, name in shell_text.shown(script, loaded.recipe.secrets):
            yield Finding(
                "RDTL-W003", "error", f"{name} would become a word of a program",
                where=f"{where}, line {line} of the script",
                why="words of programs stand in the process list, where everybody reads them",
                fix=f"""printf '%s' "${name}" into a file of mode 600, or let the program """
                "read its environment",
            )  # fmt: skip


def _scripts(loaded: Loaded, step: dag.Step) -> Iterator[Finding]:
    for script in _all_scripts(step):
        for line, name in shell_text.unquoted(script):
            if name in step.env or name in loaded.recipe.secrets:
                yield Finding(
                    "RDTL-U131", "error", f"${name} stands without quotes",
                    where=f"steps.{step.name}, line {line} of the script",
                    why="a value with a space or a * becomes several words",
                    fix=f'"${name}"',
                )  # fmt: skip
    told = [" ".join(step.argv), *_all_scripts(step)]
    if "gpu" not in step.resources and any(TRAINERS.search(text) for text in told):
        yield Finding(
            "RDTL-B020", "warning", f"{step.name} trains without holding the token gpu",
            where=f"steps.{step.name}", why="another training could start on the same GPUs",
            fix="resources: {gpu: 1}",
        )  # fmt: skip
    for text in told:
        for code, pattern, why in HABITS:
            if pattern.search(text):
                yield Finding(
                    code, "warning", f"{step.name} does by {pattern.search(text)[0]!r} "  # type: ignore[index]
                    "what does not work on a rented box", where=f"steps.{step.name}", why=why,
                    fix="the runner starts, watches and ends programs itself",
                )  # fmt: skip


def _all_scripts(step: dag.Step) -> list[str]:
    commands = (step.script, step.verify.cheap, step.verify.deep)
    return [command for command in commands if isinstance(command, str) and command]


def _verifying(step: dag.Step) -> Iterator[str]:
    for command in (step.verify.cheap, step.verify.deep):
        yield from [command] if isinstance(command, str) else command or ()


def _upstream(graph: dag.Graph) -> Iterator[Finding]:
    """A step that reads what another makes must come after it (RDTL-B008)."""
    makers = {_path(graph, out): step.name for step in graph.steps for out in step.outputs}
    before = ancestors(graph)
    for step in graph.steps:
        read = "\n".join([*step.inputs, *step.argv, _expanded(step), *step.env.values()])
        for path, maker in makers.items():
            late = maker != step.name and maker not in before[step.name]
            if late and step.name not in before[maker] and _names(read, path):
                yield Finding(
                    "RDTL-B008", "error", f"{step.name} uses what {maker} makes, but does not need "
                    "it", where=f"steps.{step.name}: {path}",
                    why="it would start too early, or with what an earlier run left",
                    fix=f"needs: [{maker}]",
                )  # fmt: skip


def _names(text: str, path: PurePosixPath) -> bool:
    """Whether ``text`` names ``path`` or something below it."""
    return re.search(rf"(?<![\w/.-]){re.escape(str(path))}(?![\w.-])", text) is not None


def _expanded(step: dag.Step) -> str:
    """The step's script with the values of its own variables in it, to look for paths."""
    return re.sub(r"\$\{?(\w+)\}?", lambda m: step.env.get(m[1], m[0]), step.script)


def ancestors(graph: dag.Graph) -> dict[str, set[str]]:
    """All steps that come before each step."""
    found: dict[str, set[str]] = {}
    for step in graph.order():
        found[step.name] = {*step.needs, *(b for need in step.needs for b in found[need])}
    return found


def _unused(loaded: Loaded) -> Iterator[Finding]:
    recipe = loaded.recipe
    text = str(recipe.model_dump())
    for name in (*recipe.parameters, *recipe.variables):
        if not re.search(rf"\$\{{?{name}\b", text):
            yield Finding(
                "RDTL-U132", "warning", f"nothing uses {name}", where=str(loaded.path),
                why="whoever sets it believes that it does something", fix="use it or take it out",
            )  # fmt: skip
    for name in recipe.secrets:
        if name not in str(recipe.steps):
            yield Finding(
                "RDTL-U132", "warning", f"no step uses the secret {name}",
                where=str(loaded.path), fix="name it under `secrets` of a step",
            )  # fmt: skip
