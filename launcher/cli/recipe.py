"""``rdtl recipe``: what recipes there are, what is wrong with one, what it would do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from launcher.cli import common, complete
from launcher.cli.group import Group

if TYPE_CHECKING:
    from launcher.core.dag import Graph
    from launcher.dag.load import Loaded

app = typer.Typer(
    cls=Group,
    help="Recipes: from a bare machine to a result.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

RecipeArgument = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE",
        help="A name of `rdtl recipe list`, or a YAML file.",
        autocompletion=complete.recipes,
    ),
]
ProfileOption = Annotated[
    str | None, typer.Option("--profile", help="A profile of the recipe, instead of its default.")
]
SetOption = Annotated[
    list[str],
    typer.Option(
        "--set", help="Value of a parameter, e.g. workspace=/data.", callback=common.pairs
    ),
]


def graph_of(
    name: str, profile: str | None, settings: list[str], root: str = ""
) -> tuple[Loaded, Graph, str]:
    """A recipe, its graph and its run directory below ``root`` (default: as on this machine)."""
    from launcher.dag import load, places, resolve

    loaded = load.load(name)
    values = resolve.given(settings)
    run = resolve.run_directory(loaded.recipe, profile, root or places.local_root())
    return loaded, resolve.resolve(loaded, run, profile, values), run


@app.command("list")
def list_(as_json: common.JsonOption = False) -> None:
    """List the recipes that can be run by name."""
    from launcher.dag import load

    output = common.start_output(as_json)
    found = [load.load(name).recipe for name in load.names()]
    for r in found:
        profiles = f"  (profiles: {', '.join(r.profiles)})" if r.profiles else ""
        output.text(f"{r.name}{profiles}")
        output.fitted(f"    {r.about}", 4)
    output.result([{"name": r.name, "about": r.about, "profiles": list(r.profiles)} for r in found])


@app.command()
def lint(
    recipe: RecipeArgument,
    profile: ProfileOption = None,
    settings: SetOption = [],  # noqa: B006
    as_json: common.JsonOption = False,
) -> None:
    """Find what would go wrong with a recipe before anything runs (exit 3 if something would)."""
    from launcher import heavy
    from launcher.dag import lint as checks

    output = common.start_output(as_json)
    loaded, graph, _ = graph_of(recipe, profile, settings)
    known = checks.flaws(loaded.recipe, profile)
    heavy.show(output, [*checks.findings(loaded, graph), *known])


@app.command()
def graph(
    recipe: RecipeArgument,
    profile: ProfileOption = None,
    settings: SetOption = [],  # noqa: B006
    page: Annotated[
        Path | None, typer.Option("--html", help="Also write a page that shows the schedule.")
    ] = None,
    as_json: common.JsonOption = False,
) -> None:
    """Show the steps of a recipe, how long each takes, and which of them decide the whole."""
    from launcher.core import dag_reading, files
    from launcher.dag import page as pages
    from launcher.dag import schedule, tree, words

    output = common.start_output(as_json)
    loaded, found, _ = graph_of(recipe, profile, settings)
    dag_reading.check(found)
    times = schedule.plan(found)

    def label(name: str) -> str:
        mark = "*" if name in times.critical else " "
        took = words.length(times.ends[name] - times.begins[name])
        return f"{mark} {took:>8}{tree.others(found, times, name)}"

    for _, line in tree.lines(found, times, label):
        output.text(line)
    serial = sum(times.ends[n] - times.begins[n] for n in times.ends)
    output.text(
        f"* decides the whole: {words.length(times.length)}; one after the other "
        f"{words.length(serial)}"
    )
    if page:
        again = f"rdtl recipe graph {recipe} --html {page}"
        files.write_text(page, pages.render(found, loaded.recipe.about, times, again))
        output.say(f"page {page}")
    output.result(
        {"graph": found.to_dict(), "seconds": times.length, "critical": list(times.critical)}
    )
