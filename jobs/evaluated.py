"""The policies of an evaluation by name, and what the one under test makes of an observation."""

from __future__ import annotations

import functools
import hashlib
import socket
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from launcher.core import files
from launcher.core.errors import RdtlError, UsageError
from launcher.core.job import Job
from rdt.policy.policy import Policy
from rdt.policy.references import Expert, Replay, Zero, first_demonstration
from rdt.sim.libero import TaskInfo, find_task
from rdt.spec import card as cards
from rdt.spec.protocol import WEIGHTS, Sight

if TYPE_CHECKING:
    from rdt.policy.remote import RemotePolicy

NETWORK, SERVER = "rdt", "server"


class Tested(NamedTuple):
    """The policy under test: its digest (as in records) and its sight; empty without one."""

    name: str = ""
    checkpoint: str = ""
    sight: Sight = Sight()


def tested(job: Job) -> Tested:
    """What is under test, read from the card of the weights or told by the server.

    Loading the policy refuses a card whose weights are others. Raises RdtlError RDTL-T012 without
    a card, and UsageError RDTL-E022 when more actions shall be executed than a chunk has.
    """
    policies = job.config["evaluate"]["policies"]
    if SERVER in policies:
        return _served(job)
    if NETWORK not in policies:
        return Tested()
    from rdt import checkpoint  # torch: an evaluation of references runs without it
    from rdt.policy.loading import contract_of

    copy, card, notes = checkpoint.chosen(source(job), job.config["evaluate"]["weights"])
    where = str(copy.path.parent / cards.FILE)
    contract = contract_of(card, job.config["evaluate"]["contract"], where)
    _require_chunk(job, card.horizon, where)
    views = tuple(name or "background" for name in contract.cameras)
    sight = Sight(f"{contract.name} {contract.digest()}", views)
    told = {"path": str(copy.path), "weights": card.weights, "dtype": card.dtype}
    found = [asdict(note) for note in notes if note.severity == "warning"]
    files.publish_once(
        job.run.records / WEIGHTS, {**told, "origin": card.origin, "findings": found}
    )
    return Tested(NETWORK, card.weights_sha256[:12], sight)


def _served(job: Job) -> Tested:
    job.progress(0, 0, "episodes", f"waiting for {job.config['evaluate']['server']}")
    remote = _connect(job)
    told = remote.metadata
    remote.close()
    if isinstance(told.get("action_horizon"), int):
        _require_chunk(job, told["action_horizon"], job.config["evaluate"]["server"])
    digest = hashlib.sha256(repr(sorted(told.items(), key=str)).encode()).hexdigest()[:12]
    sight = " ".join(f"{key} {value}" for key, value in sorted(remote.sent.items()))
    return Tested(SERVER, str(told.get("checkpoint", digest)), Sight(sight))


def _require_chunk(job: Job, horizon: int, where: str) -> None:
    asked = job.config["evaluate"]["execution_horizon"]
    if asked > horizon:
        raise UsageError(
            "RDTL-E022",
            f"{asked} actions of each chunk shall be executed, but a chunk has {horizon}",
            where=f"evaluate.execution_horizon, {where}",
            why="the protocol would name a horizon that was never executed",
            fix=f"--set evaluate.execution_horizon={max(1, horizon // 4)}",
        )


def source(job: Job) -> str:
    """Where the weights are: a path, or the id of a hub."""
    return str(job.config["evaluate"]["checkpoint"] or job.run.policy)


def load(job: Job, name: str) -> Callable[[str, int], Policy]:
    """The policy of that name for a task (suite, number).

    Raises RdtlError when its files are missing or foreign, and what
    :func:`rdt.policy.remote.open_policy` raises.
    """
    if name == "replay":
        return functools.cache(lambda suite, number: _replay(job, find_task(suite, number)))
    policy = _same_for_all_tasks(job, name)
    return lambda suite, number: policy


def _same_for_all_tasks(job: Job, name: str) -> Policy:
    if name == SERVER:
        return _connect(job)
    if name == NETWORK:
        import torch

        from rdt.policy.loading import Settings, load

        torch.set_num_threads(1)  # one process per core; sums then do not depend on their number
        evaluate = job.config["evaluate"]
        named = {key: evaluate[key] for key in ("vision", "language", "weights", "contract")}
        return load(source(job), evaluate["policy_seed"], Settings(**named))
    return Expert() if name == "expert" else Zero()


def _connect(job: Job) -> RemotePolicy:
    try:
        from rdt.policy.remote import open_policy
    except ModuleNotFoundError as error:
        raise RdtlError(
            "RDTL-U098",
            f"a policy server cannot be asked without {error.name}",
            where=f"{sys.prefix} on {socket.gethostname()}",
            why="openpi's protocol is messages of msgpack over a websocket",
            fix="pip install 'rdt-launcher[serve]' into this environment, or choose an image that "
            "has it",
        ) from error

    evaluate = job.config["evaluate"]
    place = evaluate["server_token"]
    return open_policy(evaluate["server"], Path(place).read_text().strip() if place else None)


def _replay(job: Job, task: TaskInfo) -> Replay:
    return Replay(first_demonstration(_demonstrations(job, task)))


def _demonstrations(job: Job, task: TaskInfo) -> Path:
    """The file with demonstrations of a task."""
    name = f"{task.name}_demo.hdf5"
    named = job.config["evaluate"]["demonstrations"]
    places = [Path(entry["path"]) for entry in job.config["dataset"]["sets"]]
    if named is not None:
        places = [Path(named)]
    if not places:
        return job.run.data / task.suite / name
    files_inside = [path for place in places for path in sorted(place.rglob(name))]
    found = [path for path in places if path.suffix == ".hdf5"] + files_inside
    if found:
        return found[0]
    raise RdtlError(
        "RDTL-D065",
        "there is no demonstration to replay",
        where=f"{', '.join(map(str, places))}: no {name}",
        why="a replay needs the actions of a LIBERO HDF5 file of the evaluated task",
        fix="name one in evaluate.demonstrations, or leave replay out of evaluate.policies",
    )
