"""Wires the commands together. Importing it imports typer and nothing heavy.

Command modules import what they need inside the function, so ``rdtl --help``
stays quick. Errors end here: an :class:`RdtlError` becomes its message and exit
status; anything else is a bug of ours and says how to show the traceback.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from launcher.cli import (
    checkpoint,
    cloud,
    cloud_boxes,
    common,
    data,
    data_buffer,
    data_collect,
    data_embed,
    data_inspect,
    demo,
    diagnose,
    doctor,
    evaluate,
    examples,
    hostfile,
    image,
    pipeline,
    recipe,
    recipe_look,
    recipe_run,
    report,
    run,
    runs,
    runs_change,
    serve,
    shell,
    stage,
    stage_cache,
    stage_login,
    sweep,
    train,
)
from launcher.cli.group import Group
from launcher.cli.reachable import reachable
from launcher.core.errors import EXIT_FAILED, EXIT_INTERRUPTED, RdtlError, full_disk

app = typer.Typer(
    cls=Group,
    name="rdtl",
    help="From a login node or a bare box to a LIBERO success-rate table that can be trusted.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich costs half of the start-up time and adds boxes, no words
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.command("demo")(demo.demo)
app.command("run")(run.run)
app.command("pipeline")(pipeline.pipeline)
app.command("shell")(shell.shell)
app.command("train")(train.train)
app.command("evaluate")(evaluate.evaluate)
app.command("sweep")(sweep.sweep)
app.command("serve")(serve.serve)
app.command("hostfile")(hostfile.hostfile)
app.command("report")(report.report)
app.command("doctor")(doctor.doctor)
app.command("diagnose")(diagnose.diagnose)
app.add_typer(checkpoint.app, name="checkpoint")
cloud_boxes.add_to(cloud.app)
app.add_typer(cloud.app, name="cloud")
data_buffer.add_to(data.app)
data_collect.add_to(data.app)
data_inspect.add_to(data.app)
data_embed.add_to(data.app)
app.add_typer(data.app, name="data")
app.add_typer(image.app, name="image")
recipe_run.add_to(recipe.app)
recipe_look.add_to(recipe.app)
app.add_typer(recipe.app, name="recipe")
stage_cache.add_to(stage.app)
stage_login.add_to(stage.app)
app.add_typer(stage.app, name="stage")
runs_change.add_to(runs.app)
app.add_typer(runs.app, name="runs")
examples.add_to(app)


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", help="Show version, packages and sites of this installation."),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="With --version: one JSON document on stdout.")
    ] = False,
) -> None:
    if version:
        from launcher.cli import version as versions

        versions.show(as_json)
        raise typer.Exit
    if as_json:
        raise typer.BadParameter(
            f"say it after the command: rdtl {context.invoked_subcommand or 'COMMAND'} … --json"
        )


def main() -> None:
    """Entry point of the ``rdtl`` script: runs a command and turns errors into exit statuses."""
    try:
        if any(word == "--site" or word.startswith("--site=") for word in sys.argv):
            from launcher import remote

            status = remote.require(sys.argv[1:])
            if status is not None:
                sys.exit(status)
        completing = "_RDTL_COMPLETE" in os.environ  # of words that stand elsewhere
        program = app if completing else reachable(app, sys.argv[1:])
        program(prog_name="rdtl")  # completion looks for this name, however it was started
    except RdtlError as error:
        common.current.error(error)
        sys.exit(error.exit_status)
    except SystemExit as end:  # Typer turns Ctrl-C into this without a word
        if end.code == EXIT_INTERRUPTED:
            common.current.interrupted()
        raise
    except KeyboardInterrupt:  # before Typer has begun, or on its way to a login node
        common.current.interrupted()
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(EXIT_FAILED)
    except Exception as error:
        sys.exit(_unexpected(error))


def _unexpected(error: Exception) -> int:
    if isinstance(error, OSError) and (known := full_disk(error, "the launcher was writing")):
        common.current.error(known)
        return EXIT_FAILED
    if os.environ.get("RDTL_TRACEBACK"):
        raise error
    common.current.error(
        RdtlError(
            "RDTL-U099",
            f"unexpected {type(error).__name__}: {error}",
            why="this is a bug of RDT Launcher or a broken installation",
            fix="RDTL_TRACEBACK=1 with the same command shows where; please report it",
        )
    )
    return EXIT_FAILED
