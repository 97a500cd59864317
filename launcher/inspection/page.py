"""``index.html`` of a data set: what is in it, as a person should see it before training."""

from __future__ import annotations

from pathlib import Path

from launcher import html
from launcher.inspection import charts, words
from launcher.inspection.words import Inspection

TEMPLATE = "data.html.j2"


def render(found: Inspection, again: str) -> str:
    """The page as HTML text; everything from outside is escaped by the template engine.

    Raises UsageError RDTL-U015 when jinja2 is not installed; ``again`` is the command.
    """
    environment = html.environment(
        Path(__file__).parent, why="the table needs no template engine, the page does", again=again
    )
    from markupsafe import Markup

    return environment.get_template(TEMPLATE).render(
        found=found,
        words=words,
        tasks=found["tasks"],
        telling=words.telling(found),
        actions=[(Markup(charts.action(number)), number) for number in found["actions"]],
        lengths=Markup(charts.lengths(found)),
        coverage=Markup(charts.coverage(found)),
    )
