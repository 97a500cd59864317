"""Pages that stand alone: one file, no network, no script, light and dark, fit for print.

``style.css`` holds their common look and :mod:`launcher.html.svg` the strokes of their charts.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from launcher.core.errors import UsageError

if TYPE_CHECKING:
    import jinja2

HERE = Path(__file__).parent


def environment(templates: Path, why: str, again: str) -> jinja2.Environment:
    """Templates of a folder and ours; whatever comes from outside is escaped.

    Raises UsageError RDTL-U015 when jinja2 is not installed, with ``why`` that matters
    and the command to give ``again``.
    """
    try:
        import jinja2
    except ImportError as error:
        raise UsageError(
            "RDTL-U015",
            "the page cannot be written: jinja2 is not installed",
            where=f"{error}",
            why=why,
            fix=f"pip install 'rdt-launcher[report]', then {again}",
        ) from error
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader([templates, HERE]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
