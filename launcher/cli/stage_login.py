"""``rdtl stage login``: a token for a remote of rclone, without a browser here."""

from __future__ import annotations

from typing import Annotated

import typer

from launcher.cli import common


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command("login")(login)


def login(
    remote: Annotated[str, typer.Argument(help="Name of the remote, as recipes call it: gg1.")],
    path: Annotated[str, typer.Argument(help="A folder on it that must be there.")] = "",
    kind: Annotated[str, typer.Option("--type", help="What it is, as rclone calls it.")] = "drive",
    settings: Annotated[
        list[str], typer.Option("--set", help="An option, e.g. root_folder_id=ID; no secret.")
    ] = [],  # noqa: B006  typer copies it
    as_json: common.JsonOption = False,
) -> None:
    """Make or renew a remote of rclone without a browser here.

    The token comes in on standard input. It is tried by listing and only then written,
    readable for you alone.
    """
    import sys

    from launcher.staging import login as logins
    from launcher.staging import remotes

    output = common.start_output(as_json)
    asked = logins.parse(remote, kind, settings, path)
    if sys.stdin.isatty():
        for line in logins.instructions(asked):
            output.say(line)
        text = logins.read_hidden()
    else:
        text = sys.stdin.read()
    names = logins.finish(asked, text)
    place = remotes.config_file()
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    output.text(f"{remote}: works; {shown or 'nothing lies there yet'}")
    output.say(f"written to {place}, for you alone (0600)")
    output.result({"remote": remote, "names": names, "config": str(place)})
