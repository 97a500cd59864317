"""Runs one pickled call: the far side of :mod:`launcher.submit.local`.

``python -m launcher.core.local_task SUBMITTED RESULT``. Imports nothing but the
standard library, so a task starts in the time of a bare interpreter. The pickle
comes from the launcher's own private directory and was written a moment ago by
the process that starts us.
"""

from __future__ import annotations

import os
import pickle
import sys
import traceback
from typing import Any


def main(submitted: str, result: str) -> int:
    """Call, then publish ("success", value) or ("error", traceback) as a whole file."""
    with open(submitted, "rb") as handle:
        function, args, kwargs = pickle.load(handle)
    outcome: tuple[str, Any]
    try:
        outcome = ("success", function(*args, **kwargs))
    except Exception:
        outcome = ("error", traceback.format_exc())
    temporary = f"{result}.{os.getpid()}.part"
    with open(temporary, "wb") as handle:
        pickle.dump(outcome, handle)
    os.replace(temporary, result)
    return 0 if outcome[0] == "success" else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
