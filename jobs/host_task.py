"""``python -m jobs.host_task``: one node of a stage task on a host of a list, started over ssh.

The launcher's end of standard input is both order and lifeline. First comes one
line of JSON (:func:`order` describes it), then single bytes: a letter of
:data:`SIGNALS`, or ``.`` every few seconds. When the launcher or the connection is
gone (end of file, or silence), everything that was started here is killed, as on a
local site: the next launcher may be about to start the same task again.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import threading
from typing import Any, NoReturn

from jobs.node import NodeTask, StageFailedError
from jobs.place import Place
from launcher.core.errors import EXIT_REQUEUE, EXIT_SAVED, RdtlError

SIGNALS = {b"T": signal.SIGTERM, b"I": signal.SIGINT, b"U": signal.SIGUSR2}
ALIVE = b"."


def order(
    task: NodeTask, place: Place | None, environment: dict[str, str], silence_s: float
) -> bytes:
    """What the launcher sends first; ``place`` is None for a task of one node."""
    data = {
        "task": [task.run_dir, task.stage, task.index, task.attempt],
        "place": place and [place.node, place.nodes, place.address, place.port],
        "environment": environment,
        "silence_s": silence_s,
    }
    return json.dumps(data).encode() + b"\n"


def obey(descriptor: int, silence_s: float) -> NoReturn:
    """Turn bytes into signals to this process until the launcher is gone; then kill all."""
    while True:
        ready, _, _ = select.select([descriptor], [], [], silence_s)
        said = os.read(descriptor, 4096) if ready else b""
        for letter, number in SIGNALS.items():
            if letter in said:
                os.kill(os.getpid(), number)
        if not said:  # nothing is printed: standard error may be gone, too
            os.killpg(0, signal.SIGKILL)


def end_at_once(number: int, frame: object) -> NoReturn:
    """End with the code of a job that has saved its state."""
    sys.exit(EXIT_REQUEUE if number == signal.SIGUSR2 else EXIT_SAVED)


def main() -> int:
    """Run the task that standard input names; its exit code."""
    if os.getpgrp() != os.getpid():  # sshd often makes it so already
        os.setpgid(0, 0)  # what is killed at the end is ours
    # Until the node task listens nothing runs, so there is nothing to save.
    for number in SIGNALS.values():
        signal.signal(number, end_at_once)
    with open(0, "rb", buffering=0, closefd=False) as orders:  # not a byte more than the line
        data: dict[str, Any] = json.loads(orders.readline())
    os.environ.update(data["environment"])
    threading.Thread(target=obey, args=(0, data["silence_s"]), daemon=True).start()
    try:
        return NodeTask(*data["task"])(data["place"] and Place(*data["place"]))
    except StageFailedError as failed:
        return failed.exit_code
    except RdtlError as error:  # the marker has it; here for whoever reads the log of ssh
        print(error, file=sys.stderr)
        return error.exit_status
    finally:  # no scheduler ends what a program has left behind
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.killpg(0, signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
