"""``python -m jobs.embed_language REQUEST``: the work of ``rdtl data embed``, where torch is.

REQUEST is a JSON object; the last line of stdout is ``{"result": …}`` or ``{"error": …}``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from jobs.answer import answer
from launcher.core.errors import UsageError
from rdt.data.store import stream
from rdt.spec import suites

SUITES = (*suites.KNOWN, *suites.PLUS)


def make(request: dict[str, Any]) -> dict[str, Any]:
    """Collect the instructions of all sources and embed those that are missing."""
    found = [words for source in request["sources"] for words in instructions(source)]
    from rdt.encoders.embed import embed  # torch and transformers cost seconds

    made = embed(found, request["encoder"], Path(request["out"]))
    return {"path": request["out"], **made._asdict()}


def instructions(source: str) -> list[str]:
    """The words of a .txt file (one instruction a line), a data set, or a suite of LIBERO.

    Raises UsageError RDTL-D078 for a text without words, RDTL-D079 for what is none of
    these, and what readers of data sets raise.
    """
    path = Path(source)
    if path.suffix == ".txt" and path.is_file():
        return _lines(path)
    if path.exists():
        return list(dict.fromkeys(found.episode.instruction for found in stream(path)))
    if source in SUITES:
        from rdt.sim import tasks

        return tasks.instructions(source)
    raise UsageError(
        "RDTL-D079",
        f"there are no instructions to be found under {source!r}",
        where=str(path.resolve()),
        why="it is no file or folder, and no suite",
        fix=f"name a data set, a .txt file, or one of {', '.join(suites.KNOWN)}, or a suite of "
        f"LIBERO-plus, e.g. {next(iter(suites.PLUS))}",
    )


def _lines(path: Path) -> list[str]:
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except UnicodeDecodeError as error:
        raise _no_words(path, f"byte {error.start} is no UTF-8") from error
    if not any(lines):
        raise _no_words(path, "it is empty")
    return [line for line in lines if line]


def _no_words(path: Path, reason: str) -> UsageError:
    return UsageError(
        "RDTL-D078",
        "a list of instructions cannot be read",
        where=f"{path}: {reason}",
        why="there would be nothing to embed",
        fix="write one instruction a line, in UTF-8",
    )


def main(argv: list[str]) -> int:
    """Answer one request."""
    return answer(lambda: make(json.loads(argv[0])), "embeddings were being made")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
