"""What the programs behind ``rdtl`` commands print: lines of JSON, the last is the answer.

Commands whose work needs torch or h5py run such a program, as the launcher imports neither.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from launcher.core.errors import RdtlError, file_system


def say(message: dict[str, Any]) -> None:
    """One line of JSON."""
    print(json.dumps(message), flush=True)


def answer(work: Callable[[], dict[str, Any] | None], doing: str) -> int:
    """Say ``{"result": …}``, if there is one, or ``{"error": …}``; returns the exit status.

    ``doing`` says in an error of the file system what was going on.
    """
    try:
        try:
            result = work()
        except OSError as error:
            raise file_system(error, doing) from error
    except RdtlError as error:
        say({"error": error.to_dict()})
        return error.exit_status
    if result is not None:
        say({"result": result})
    return 0
