"""``python -m jobs.statistics REQUEST``: the work of ``rdtl data stats``, where h5py is.

REQUEST is a JSON object; the last line of stdout is ``{"result": …}`` or ``{"error": …}``.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jobs.answer import answer
from launcher.core.errors import UsageError
from rdt.data import statistics_files
from rdt.data.declared import DeclaredSet
from rdt.data.measuring import Measured, measure
from rdt.spec.contract import CONTRACTS


def write(request: dict[str, Any]) -> dict[str, Any]:
    """Measure every data set, write one file, and say what is in it."""
    contract, slots = CONTRACTS[request["contract"]], request["format"] == "rdt"
    sets: dict[str, Measured] = {}
    for text in request["paths"]:
        source = DeclaredSet.of(request | {"path": text})
        name = request["name"] or set_name(source.path)
        if name in sets:
            raise _same_name(name, text)
        sets[name] = measure(source, contract, slots=slots, processes=request["processes"])
    out = Path(request["out"])
    statistics_files.write(out, request["format"], sets)
    return {"path": str(out), "sets": {name: _described(m) for name, m in sets.items()}}


def set_name(path: Path) -> str:
    """What a data set is called: its folder without a version, or its file's stem."""
    versioned = path.is_dir() and path.name.replace(".", "").isdigit()
    return (path.resolve().parent if versioned else path.resolve()).stem.removesuffix("_demo")


def _described(measured: Measured) -> dict[str, Any]:
    described = asdict(measured) | {"contract": measured.contract.name}
    return json.loads(json.dumps(described))  # type: ignore[no-any-return]


def _same_name(name: str, path: str) -> UsageError:
    return UsageError(
        "RDTL-D033",
        f"two data sets would be called {name}",
        where=f"{path}, --name" if name else path,
        why="a file of statistics holds each name once",
        fix="write a file for each, with --name",
    )


def main(argv: list[str]) -> int:
    """Answer one request."""
    return answer(lambda: write(json.loads(argv[0])), "statistics were being made")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
