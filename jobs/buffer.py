"""``python -m jobs.buffer REQUEST``: the work of ``rdtl data buffer``, where the readers are.

REQUEST is a JSON object; each line of stdout is one, too: ``{"plan": …}`` before anything
is made, ``{"made": …}`` for every chunk, and ``{"error": …}`` at the end of what failed.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import connection, get_context
from multiprocessing.connection import Connection
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any

from jobs.answer import answer, say
from launcher.core.errors import RdtlError, RefusedError, from_dict
from launcher.core.job import die_with_parent
from rdt.data import buffer
from rdt.data.buffer import Producer
from rdt.data.declared import DeclaredSet
from rdt.data.order import Order
from rdt.data.sample_source import SampleSource
from rdt.data.saved import open_saved
from rdt.spec.contract import CONTRACTS

POLL_S = 0.2


def produce(request: dict[str, Any]) -> None:
    """Fill the buffer, once or for ever, with as many processes as are asked for."""
    folder = Path(request["folder"])
    with buffer.producing(folder) as lock:
        source = open_source(folder, request)
        order = Order(source.index.sizes, request["seed"], tuple(request["weights"]))
        producer = Producer(folder, source, order, request["chunks"], request["samples"])
        plan = described(folder, source, producer, request)
        say({"plan": plan})
        require_room(folder, plan)
        producer.publish()
        with workers(producer, request, lock) as pipes:
            follow(pipes)


def open_source(folder: Path, request: dict[str, Any]) -> SampleSource:
    """The data sets of ``request``; what was found in them is kept in ``folder``."""
    sets = [DeclaredSet.of(request | {"path": path}) for path in request["paths"]]
    stores = [
        open_saved(
            folder,
            each.path,
            tasks=each.tasks,
            demos=each.demos,
            gripper_open=each.gripper_open,
            alignment=each.alignment,
        )
        for each in sets
    ]
    return SampleSource(
        stores,
        CONTRACTS[request["contract"]],
        request["moments"],
        request["horizon"],
        tuple(request["lengths"]),
    )


def described(
    folder: Path, source: SampleSource, producer: Producer, request: dict[str, Any]
) -> dict[str, Any]:
    """How large the buffer becomes, and what it is made of."""
    lengths = source.index.ends - source.index.starts
    shortest, longest = source.lengths
    chunks = folder.glob("chunk_*.npy")
    return {
        "chunks": request["chunks"],
        "samples": request["samples"],
        "bytes": producer.bytes,
        "bytes_there": sum(path.stat().st_size for path in chunks),
        "bytes_free": shutil.disk_usage(folder).free,
        "steps": len(source.index),
        "samples_of_an_epoch": sum(source.index.sizes),
        "episodes": len(lengths),
        "too_short": int((lengths < shortest).sum()),
        "too_long": int((lengths > longest).sum()),
        "processes": request["processes"],
    }


def require_room(folder: Path, plan: dict[str, Any]) -> None:
    """Refuse (RDTL-D060) a buffer for which the disk has no room."""
    missing = plan["bytes"] - plan["bytes_there"] - plan["bytes_free"]
    if missing > 0:
        raise RefusedError(
            "RDTL-D060",
            "the disk has no room for this buffer",
            where=f"{folder}: {plan['bytes'] / 1e9:.2f} GB in all, "
            f"{plan['bytes_there'] / 1e9:.2f} GB there, {plan['bytes_free'] / 1e9:.2f} GB free",
            why="the disk would be full in the middle of a training",
            fix=f"free {missing / 1e9:.2f} GB, or use fewer or smaller chunks",
        )


@contextmanager
def workers(producer: Producer, request: dict[str, Any], lock: int) -> Iterator[list[Connection]]:
    """Processes that fill the buffer, as the pipes through which they tell; ended at last."""
    context = get_context("fork")  # the numbers of all steps are shared, nothing is read again
    processes: list[ForkProcess] = []
    pipes: list[Connection] = []
    try:
        for number in range(request["processes"]):
            mine, theirs = context.Pipe(duplex=False)
            arguments = (producer, number, request, lock, theirs)
            processes.append(context.Process(target=work, args=arguments))
            processes[-1].start()
            theirs.close()
            pipes.append(mine)
        yield pipes
    finally:
        for process in processes:
            process.kill()
            process.join()


def work(
    producer: Producer, number: int, request: dict[str, Any], lock: int, pipe: Connection
) -> None:
    """One process; it ends with the one that has started it, and never holds its lock."""
    die_with_parent()
    os.close(lock)
    try:
        while True:
            if producer.make_one(number, request["processes"]):
                tell(pipe, {"made": 1})
            elif request["fill_up"]:
                tell(pipe, {"done": True})
                return
            else:
                time.sleep(POLL_S)
    except RdtlError as error:
        tell(pipe, {"error": error.to_dict()})
    except Exception as error:
        tell(pipe, {"error": _ended(f"{type(error).__name__}: {error}").to_dict()})


def tell(pipe: Connection, message: dict[str, Any]) -> None:
    """One message, as JSON."""
    pipe.send_bytes(json.dumps(message).encode())


def follow(pipes: list[Connection]) -> None:
    """Pass on what the processes tell until all are done; raises what one of them raised."""
    working = set(pipes)
    while working:
        for pipe in connection.wait(list(working)):
            assert isinstance(pipe, Connection)
            try:
                message = json.loads(pipe.recv_bytes())
            except EOFError:
                raise _ended("killed, without a word") from None
            if "error" in message:
                raise from_dict(message["error"])
            if "made" in message:
                say(message)
            else:
                working.discard(pipe)


def _ended(how: str) -> RdtlError:
    return RdtlError(
        "RDTL-D061",
        "a process that fills the buffer has ended",
        where=how,
        why="when it was killed, memory may have run out: each holds a chunk more than twice",
        fix="run the same command again, with fewer --jobs; chunks that are there are kept",
    )


def main(argv: list[str]) -> int:
    """Answer one request."""
    die_with_parent()
    return answer(lambda: produce(json.loads(argv[0])), "a buffer was being filled")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
