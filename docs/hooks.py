"""What the site (`mkdocs.yml`) needs beside its plugins."""

from __future__ import annotations

import re
from typing import Any


def on_page_markdown(markdown: str, **_: Any) -> str:
    """What a block of commands needs is said above it, where GitHub and tests have a comment."""
    return re.sub(r"^<!-- (needs: .+?) -->$", "\\1\n{: .needs }\n", markdown, flags=re.MULTILINE)


def on_page_content(html: str, **_: Any) -> str:
    """Tables as GitHub and a keyboard want them.

    GitHub wants a bar in code as ``\\|``, whose backslash Python-Markdown shows. A wide table
    scrolls sideways on a phone, also for those who have no pointer.
    """
    html = re.sub(r"<code>[^<]*</code>", lambda code: code[0].replace("\\|", "|"), html)
    return html.replace("<table>", '<table tabindex="0">')


def on_post_page(output: str, **_: Any) -> str:
    """The theme's search is a dialog without a name; a screen reader wants one."""
    dialog = 'data-md-component="search" role="dialog"'
    return output.replace(dialog, f'{dialog} aria-label="Search"')
