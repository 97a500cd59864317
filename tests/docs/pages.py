"""The built site, and axe-core, which looks for what keeps people out of a page."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.docs.blocks import ROOT
from tests.report.browser import Browser

AXE = "axe-core@4.14.1"
PHONE = 390
WIDTHS = "return [innerWidth, document.documentElement.scrollWidth]"
CHECK = """
const done = arguments[arguments.length - 1];
axe.run(document, {resultTypes: ['violations']}).then(
  found => done(found.violations.filter(v => ['serious', 'critical'].includes(v.impact)).map(
    v => [v.id, v.help, v.nodes.slice(0, 3).map(n => n.target.join(' ') + ' ' + n.html)])),
  error => done([['axe', String(error), []]]));
"""


def build(folder: Path) -> None:
    """Build the site into ``folder``; a warning (a broken link, a page of no menu) is an error."""
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def axe() -> str:
    """Text of axe-core, kept from one run of the tests to the next."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    folder = cache / "rdtl" / "tests" / AXE
    script = folder / "node_modules" / "axe-core" / "axe.min.js"
    if not script.exists():
        folder.mkdir(parents=True, exist_ok=True)
        npm = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", folder, AXE]
        subprocess.run(npm, check=True, timeout=300)
    return script.read_text()


def trouble(session: Browser, page: Path) -> dict[str, list[Any]]:
    """What axe-core calls serious on a page, on a desk by day and on a phone by night: rule,
    meaning, places. A page that scrolls sideways there is trouble, too."""
    found: dict[str, list[Any]] = {}
    script = axe()
    session.open(page)
    session.run(script + "; return 0")
    for width, scheme in ((1200, "light"), (PHONE, "dark")):
        session.prefer(scheme)
        session.resize(width)
        wrong = _wrong(session, width)
        if wrong:  # a page answers to a new width a moment later
            time.sleep(2)
            wrong = _wrong(session, width)
        if wrong:
            found[f"{page.name} {width} {scheme}"] = wrong
    return found


def _wrong(session: Browser, width: int) -> list[Any]:
    wrong: list[Any] = session.run_async(CHECK)
    if not fits(session, width):
        wrong.append("scrolls sideways")
    return wrong


def fits(session: Browser, width: int) -> bool:
    """Whether the page is as wide as the window, two seconds later at the latest."""
    for _ in range(20):
        if session.run(WIDTHS) == [width, width]:
            return True
        time.sleep(0.1)
    return False
