"""Puts what was measured into docs/why-zero-percent.md: ``python -m benchmarks.zero_page``."""

from __future__ import annotations

import re
from pathlib import Path

from benchmarks import zero, zero_caught

PAGE = Path(__file__).parents[1] / "docs" / "why-zero-percent.md"
TABLES = {"measured": zero.table, "caught": zero_caught.table}


def filled(text: str) -> str:
    """The page with its tables made from benchmarks/results."""
    for name, table in TABLES.items():
        between = re.compile(rf"(?<=<!-- {name} -->\n).*?(?=\n<!-- end -->)", re.S)
        found = between.search(text)
        assert found, name
        head = "\n".join(found[0].splitlines()[:2])
        made = f"{head}\n{table()}"
        text = f"{text[: found.start()]}{made}{text[found.end() :]}"
    return text


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text()))
