"""Wires the commands together. Importing it imports typer and nothing heavy.

Command modules import what they need inside the function, so ``rdtl --help``
stays quick. Errors end here: an :class:`RdtlError` becomes its message and exit
status; anything else is a bug of ours and says how to show the traceback.
"""

from __future__ import annotations

import os
import sys

import typer

from launcher.cli import (
    checkpoint,
    common,
    data,
    data_buffer,
    data_collect,
    data_embed,
    data_inspect,
    demo,
    doctor,
    evaluate,
    hostfile,
    image,
    pipeline,
    report,
    run,
    runs,
    runs_change,
    serve,
    shell,
    sweep,
    train,
)
from launcher.core.errors import EXIT_FAILED, EXIT_INTERRUPTED, RdtlError, full_disk

app = typer.Typer(
    name="rdtl",
    help="From a login node or a bare box to a LIBERO success-rate table that can be trusted.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich costs half of the start-up time and adds boxes, no words
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.command("demo")(demo.demo)
app.command("run", context_settings={"allow_extra_args": False, "ignore_unknown_options": False})(
    run.run
)
app.command("pipeline")(pipeline.pipeline)
app.command("shell")(shell.shell)
app.command("train")(train.train)
app.command("evaluate")(evaluate.evaluate)
app.command("sweep")(sweep.sweep)
app.command("serve")(serve.serve)
app.command("hostfile")(hostfile.hostfile)
app.command("report")(report.report)
app.command("doctor")(doctor.doctor)
app.add_typer(checkpoint.app, name="checkpoint")
data_buffer.add_to(data.app)
data_collect.add_to(data.app)
data_inspect.add_to(data.app)
data_embed.add_to(data.app)
app.add_typer(data.app, name="data")
app.add_typer(image.app, name="image")
runs_change.add_to(runs.app)
app.add_typer(runs.app, name="runs")


@app.callback(invoke_without_command=True)
def _root(
    version: bool = typer.Option(False, "--version", help="Show the version and exit."),
) -> None:
    if version:
        from launcher import __version__

        typer.echo(f"rdtl {__version__}")
        raise typer.Exit


def main() -> None:
    """Entry point of the ``rdtl`` script: runs a command and turns errors into exit statuses."""
    try:
        if any(word == "--site" or word.startswith("--site=") for word in sys.argv):
            from launcher import remote

            status = remote.require(sys.argv[1:])
            if status is not None:
                sys.exit(status)
        app()
    except RdtlError as error:
        common.current.error(error)
        sys.exit(error.exit_status)
    except SystemExit as end:  # Typer turns Ctrl-C into this without a word
        if end.code == EXIT_INTERRUPTED:
            common.current.say("interrupted; what is finished is kept, the same command continues")
        raise
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
