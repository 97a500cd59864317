"""``rdtl recipe status | stop | verify | fetch``: what was started on a machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from launcher.cli import common
from launcher.cli.recipe import ProfileOption, RecipeArgument
from launcher.cli.recipe_run import HostOption, SecretOption, SshOption, begun
from launcher.core.errors import EXIT_REFUSED


def add_to(app: typer.Typer) -> None:
    """Add the commands that look at what runs to ``rdtl recipe``."""
    for command in (status, stop, verify, fetch):
        app.command()(command)


def status(
    recipe: RecipeArgument,
    profile: ProfileOption = None,
    host: HostOption = None,
    name: common.NameOption = None,
    ssh_option: SshOption = [],  # noqa: B006
    as_json: common.JsonOption = False,
) -> None:
    """Say once how far a recipe is."""
    from launcher.dag import client, words

    output = common.start_output(as_json)
    what = begun(recipe, profile, host, ssh_option, name)
    found = client.status(what)
    ended = "never ran to an end" if found["rc"] is None else f"ended with {found['rc']}"
    output.text(f"{found['name']}: {'runs' if found['alive'] else ended}")
    width = max(len(each) for each in found["steps"])
    for each, step in found["steps"].items():
        took = "" if step["seconds"] is None else words.length(step["seconds"])
        output.text(f"{each:<{width}}  {step['status']:<11} {took:>8}")
    output.result({**found, "run": what.run, "place": what.place.name})


def stop(
    recipe: RecipeArgument,
    profile: ProfileOption = None,
    host: HostOption = None,
    name: common.NameOption = None,
    ssh_option: SshOption = [],  # noqa: B006
    as_json: common.JsonOption = False,
) -> None:
    """End a recipe's runner and all its steps; the same `run` goes on where it was."""
    from launcher.dag import client

    output = common.start_output(as_json)
    what = begun(recipe, profile, host, ssh_option, name)
    said = client.stop(what)
    output.say(f"{what.graph.name}: {said}")
    output.result({"state": said})


def verify(
    recipe: RecipeArgument,
    steps: Annotated[list[str], typer.Argument(help="Steps; without any: all.")] = [],  # noqa: B006
    profile: ProfileOption = None,
    host: HostOption = None,
    name: common.NameOption = None,
    ssh_option: SshOption = [],  # noqa: B006
    secret: SecretOption = [],  # noqa: B006
    as_json: common.JsonOption = False,
) -> None:
    """Prove finished steps again, deeply where the recipe says how (exit 3 if one is not good)."""
    from launcher.dag import client, secrets

    output = common.start_output(as_json)
    what = begun(recipe, profile, host, ssh_option, name)
    given = secrets.present(what.secrets(), client.references(what, secret))
    if missing := [each for each, value in given.items() if not value]:
        output.say(f"without {', '.join(missing)}: not given")
    found = client.verify(what, steps, given)
    for line in found:
        output.text(f"{'good' if line['good'] else 'BAD '}  {line['step']}  {line['why']}".rstrip())
    if not found:
        output.say(f"no step of {what.graph.name} has a proof")
    output.result(found)
    if not all(line["good"] for line in found):
        raise SystemExit(EXIT_REFUSED)


def fetch(
    recipe: RecipeArgument,
    steps: Annotated[list[str], typer.Argument(metavar="STEP…", help="Whose outputs to copy.")],
    out: Annotated[Path, typer.Option(help="Folder for them; each step gets one in it.")],
    profile: ProfileOption = None,
    host: HostOption = None,
    name: common.NameOption = None,
    ssh_option: SshOption = [],  # noqa: B006
    as_json: common.JsonOption = False,
) -> None:
    """Copy outputs of finished steps here."""
    from launcher.dag import fetch as fetching

    output = common.start_output(as_json)
    what = begun(recipe, profile, host, ssh_option, name)
    found = [str(path) for path in fetching.fetch(what, steps, out)]
    for path in found:
        output.text(path)
    output.result(found)
