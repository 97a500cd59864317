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
        head = "\n".join(between.search(text)[0].splitlines()[:2])
        text = between.sub(lambda _, head=head, table=table: f"{head}\n{table()}", text, count=1)
    return text


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text()))
