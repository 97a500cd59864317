"""Draws frames until nothing of the runs is alive any more."""

from __future__ import annotations

import time

from rich.console import Console, Group
from rich.live import Live

from launcher import status
from launcher.core.runs import RunDir
from launcher.markers import Markers
from launcher.status import RunStatus
from launcher.watch import draw

INTERVAL_S = 2.0
"""Between two looks at the files. The queue is asked far less often: see launcher.controller."""


def watch(runs: list[RunDir], *, once: bool) -> None:
    """Show ``runs``; one frame for ``once``, and where no terminal is.

    Raises KeyboardInterrupt: Ctrl-C ends the looking, never a run.
    """
    console = Console(highlight=False, soft_wrap=False)
    known: dict[RunDir, Markers] = {}
    if once or not console.is_terminal:
        console.print(_group(status.of_all(runs, known=known), console))
        return
    with Live(console=console, screen=True, auto_refresh=False) as view:
        while True:
            found = status.of_all(runs, known=known)
            view.update(_group(found, console), refresh=True)
            if not any(one.live for one in found):
                break
            time.sleep(INTERVAL_S)
    console.print(_group(found, console))


def _group(runs: list[RunStatus], console: Console) -> Group:
    plain = not console.encoding.lower().startswith("utf")
    return Group(*draw.frame(runs, console.width, plain=plain))
