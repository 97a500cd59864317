"""``rdtl recipe plan | run | attach``: recipes on a machine."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from launcher.cli import common, complete
from launcher.cli.recipe import ProfileOption, RecipeArgument, SetOption

if TYPE_CHECKING:
    from launcher.dag.client import Order
    from launcher.dag.places import Place
    from launcher.output import Output

HostOption = Annotated[
    str | None,
    typer.Option("--host", help="Run there instead of here: ssh://user@host:port."),
]
SshOption = Annotated[
    list[str], typer.Option("--ssh-option", help="A further word for ssh, e.g. -iKEYFILE.")
]
SecretOption = Annotated[
    list[str],
    typer.Option("--secret", help="Where a secret lies: NAME=env:VARIABLE or NAME=file:PATH."),
]


def add_to(app: typer.Typer) -> None:
    """Add the commands that need a machine to ``rdtl recipe``."""
    for command in (plan, run, attach):
        app.command()(command)


def _order(
    recipe: str,
    profile: str | None,
    settings: list[str],
    host: str | None,
    ssh: list[str],
    name: str | None,
) -> Order:
    from launcher.dag import client, resolve

    return client.order(_place(host, ssh), recipe, profile, resolve.given(settings), name)


def _in_a_job(
    output: Output,
    wanted: tuple[str, str | None, dict[str, str], str | None, str, Path, int],
    secret: list[str],
) -> None:
    """Run the recipe as a job and say what its runner says.

    The file of secrets goes when the job has ended; after Ctrl-C that is where it ends with us.
    """
    from launcher.core.errors import RdtlError
    from launcher.dag import as_job, client, live

    job = as_job.make(*wanted)
    references = client.references(job.order, secret)
    _check(output, job.order, wanted[1])
    common.check(output, job.run, job.plan, job.site)  # before secrets are laid down
    as_job.prepare(job, client.secret_values(job.order, references))
    tail = as_job.Tail(job, output)
    try:
        common.execute(output, job.run, job.plan, job.site, as_job.as_yaml(job), None, tail)
    except RdtlError as error:
        as_job.forget(job)
        tail([])
        raise live.step_failure(job.order, tail.view) or error from None
    except BaseException:  # Ctrl-C among them; what sbatch was just told may still arrive
        if job.site.ends_with_launcher:
            as_job.forget(job)
        raise
    job.secrets.unlink(missing_ok=True)
    tail([])
    output.result(live.result(job.order, tail.view))


def _check(output: Output, what: Order, profile: str | None) -> None:
    """Refuse what `rdtl recipe lint` calls an error, and say the rest, before anything is sent."""
    from launcher.dag import lint
    from launcher.doctor import before

    if what.loaded is not None:
        flaws = lint.flaws(what.loaded.recipe, profile)
        found = [*lint.findings(what.loaded, what.graph), *flaws]
        before.refuse(output, found, "rdtl recipe lint lists all")


def begun(
    recipe: str, profile: str | None, host: str | None, ssh: list[str], name: str | None
) -> Order:
    """A recipe as it was started there; see :func:`client.begun`."""
    from launcher.dag import client

    return client.begun(_place(host, ssh), recipe, profile, name)


def _place(host: str | None, ssh: list[str]) -> Place:
    from launcher.dag import places

    return places.over_ssh(host, ssh) if host else places.here()


def _watch(output: Output, what: Order, again: list[str], after: int = 0) -> None:
    """Show a run until it ends; exit as it did. Ctrl-C ends the looking."""
    from launcher.dag import live

    output.if_interrupted = f"it goes on without you; to look again: {shlex.join(again)}"
    found = live.watch(what, output, after)
    error = live.failure(what, found)
    output.result(live.result(what, found) | ({"error": error.to_dict()} if error else {}))
    if error:
        for line in error.problem.lines():
            output.say(line)
        raise SystemExit(error.exit_status)


def _attach_words(
    recipe: str, profile: str | None, host: str | None, ssh: list[str], name: str | None
) -> list[str]:
    """The command that looks at the same run again."""
    words = ["rdtl", "recipe", "attach", recipe]
    words += ["--profile", profile] if profile else []
    words += ["--name", name] if name else []
    words += ["--host", host] if host else []
    return [*words, *(f"--ssh-option={word}" for word in ssh)]


def plan(
    recipe: RecipeArgument,
    profile: ProfileOption = None,
    settings: SetOption = [],  # noqa: B006
    host: HostOption = None,
    name: common.NameOption = None,
    ssh_option: SshOption = [],  # noqa: B006
    secret: SecretOption = [],  # noqa: B006
    as_json: common.JsonOption = False,
) -> None:
    """Say which steps would run there, which would be skipped, and why."""
    from launcher.dag import client, lint, secrets

    output = common.start_output(as_json)
    what = _order(recipe, profile, settings, host, ssh_option, name)
    flaws = lint.flaws(what.loaded.recipe, profile) if what.loaded else []
    for flaw in flaws:
        output.finding(flaw)
    given = secrets.present(what.secrets(), client.references(what, secret))
    found = client.plan(what, given)
    width = max(len(line["step"]) for line in found)
    for line in found:
        output.text(f"{line['step']:<{width}}  {line['would']:<4}  {line['why']}")
    output.result({"steps": found, "flaws": [flaw.to_dict() for flaw in flaws]})


def run(
    recipe: RecipeArgument,
    profile: ProfileOption = None,
    settings: SetOption = [],  # noqa: B006
    host: HostOption = None,
    name: common.NameOption = None,
    ssh_option: SshOption = [],  # noqa: B006
    secret: SecretOption = [],  # noqa: B006
    site: Annotated[
        str | None,
        typer.Option(
            "--site",
            help="Run as a job of a site instead.",
            autocompletion=complete.configurations("sites"),
        ),
    ] = None,
    minutes: Annotated[
        int, typer.Option("--minutes", min=1, help="Wall-clock limit of such a job.")
    ] = 60,
    runs_dir: common.RunsOption = Path("runs"),
    as_json: common.JsonOption = False,
) -> None:
    """Run a recipe to its end, or watch it where it runs already. Ctrl-C leaves it running."""
    from launcher.core.errors import UsageError
    from launcher.dag import client, resolve

    output = common.start_output(as_json)
    if site and host:
        raise UsageError("RDTL-U006", "--site and --host are two places", fix="name one of them")
    if site:
        values = resolve.given(settings)
        _in_a_job(output, (recipe, profile, values, name, site, runs_dir, minutes), secret)
        return
    what = _order(recipe, profile, settings, host, ssh_option, name)
    references = client.references(what, secret)
    _check(output, what, profile)
    after = client.start(what, lambda: client.secret_values(what, references))
    word = "runs already" if after is None else "started"
    output.say(f"{what.graph.name}: {word} on {what.place.name} in {what.run}")
    _watch(output, what, _attach_words(recipe, profile, host, ssh_option, name), after or 0)


def attach(
    recipe: RecipeArgument,
    profile: ProfileOption = None,
    host: HostOption = None,
    name: common.NameOption = None,
    ssh_option: SshOption = [],  # noqa: B006
    as_json: common.JsonOption = False,
) -> None:
    """Watch a recipe that was started, from its beginning. Starts nothing."""
    output = common.start_output(as_json)
    what = begun(recipe, profile, host, ssh_option, name)
    _watch(output, what, _attach_words(recipe, profile, host, ssh_option, name))
