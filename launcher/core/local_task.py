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
from pathlib import Path
from typing import Any


def main(submitted: str, result: str) -> int:
    """Call, then publish ("success", value) or ("error", traceback) as a whole file."""
    function, args, kwargs = pickle.loads(Path(submitted).read_bytes())
    outcome: tuple[str, Any]
    try:
        outcome = ("success", function(*args, **kwargs))
    except Exception:  # whatever the call raised is its result; the submitter raises it again
        outcome = ("error", traceback.format_exc())
    temporary = Path(f"{result}.{os.getpid()}.part")
    temporary.write_bytes(pickle.dumps(outcome))
    temporary.replace(result)
    return 0 if outcome[0] == "success" else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
