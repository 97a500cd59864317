"""The policies of an evaluation by name, and what the one under test makes of an observation."""

from __future__ import annotations

import functools
import hashlib
import itertools
import socket
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from jobs.serve import read_token
from launcher.core import files
from launcher.core.errors import RdtlError
from launcher.core.job import Job
from rdt.policy.policy import Policy
from rdt.policy.references import Expert, Replay, Zero, first_demonstration
from rdt.sim.tasks import TaskInfo, find_task
from rdt.spec import card as cards
from rdt.spec import chunks
from rdt.spec import protocol as protocols
from rdt.spec.contract import CONTRACTS, Contract
from rdt.spec.protocol import Sight, seed_rule

if TYPE_CHECKING:
    from rdt.policy.remote import RemotePolicy

NETWORK, SERVER = "rdt", "server"
OPENS = -1
"""The sign of the gripper's command that opens it, where nothing else is declared."""


class Tested(NamedTuple):
    """The policy under test: its digest (as in records) and its sight; empty without one."""

    name: str = ""
    checkpoint: str = ""
    sight: Sight = Sight()


class Shared(NamedTuple):
    """The network under test behind a server of this task."""

    uri: str
    tested: Tested


def tested(job: Job) -> Tested:
    """What is under test, read from the card of the weights or told by the server.

    Loading the policy refuses a card whose weights are others. Raises RdtlError RDTL-T012 without
    a card or for pictures of another size than in training, and UsageError RDTL-E074 when more
    actions shall be executed than a chunk has.
    """
    policies = job.config["evaluate"]["policies"]
    if SERVER in policies:
        return _served(job)
    if NETWORK not in policies:
        return Tested()
    from rdt import checkpoint  # torch: an evaluation of references runs without it
    from rdt.policy import slots
    from rdt.policy.loading import contract_of

    copy, card, notes = checkpoint.chosen(source(job), job.config["evaluate"]["weights"])
    where = str(copy.path.parent / cards.FILE)
    contract = contract_of(card, job.config["evaluate"]["contract"], where)
    executed = job.config["evaluate"]["execution_horizon"]
    chunks.require(executed, card.horizon, where)
    if (size := job.config["task"]["camera_size"]) != (card.camera_size or size):
        raise slots.other_size(f"{where}: task.camera_size = {size}", card.camera_size)
    sight = Sight(_named(contract), _views(contract), _seed_rule(job.config["evaluate"]))
    told: dict[str, Any] = {"path": str(copy.path), "weights": card.weights, "dtype": card.dtype}
    notes += chunks.replanning(executed, card.horizon, where)
    found = [asdict(note) for note in notes if note.severity == "warning"]
    learned = card.training.task.split(", ") if card.training else []
    told |= {"origin": card.origin, "findings": found, "tasks": learned}
    files.publish_once(job.run.records / protocols.WEIGHTS, told)
    return Tested(NETWORK, card.weights_sha256[:12], sight)


def _served(job: Job) -> Tested:
    job.progress(0, 0, "episodes", f"waiting for {job.config['evaluate']['server']}")
    remote = _connect(job)
    told = remote.metadata
    remote.close()
    if isinstance(told.get("action_horizon"), int):
        evaluate = job.config["evaluate"]
        chunks.require(evaluate["execution_horizon"], told["action_horizon"], evaluate["server"])
    digest = hashlib.sha256(repr(sorted(told.items(), key=str)).encode()).hexdigest()[:12]
    sent = " ".join(f"{key} {value}" for key, value in sorted(remote.sent.items()))
    sight = _sight_of(told) if remote.ours else Sight(sent, (), protocols.UNTOLD)
    return Tested(SERVER, str(told.get("checkpoint", digest)), sight)


def _sight_of(server: dict[Any, Any]) -> Sight:
    """As our own server tells it, or one that speaks as ours does and tells less.

    Of a contract that is not known here it tells no views.
    """
    known = {_named(contract): _views(contract) for contract in CONTRACTS.values()}
    name = str(server.get("data_contract", "not told"))
    return Sight(name, known.get(name, ()), _seed_rule_of(server))


def _named(contract: Contract) -> str:
    return f"{contract.name} {contract.digest()}"


def _views(contract: Contract) -> tuple[str, ...]:
    return tuple(name or "background" for name in contract.cameras)


def _seed_rule(evaluate: dict[str, Any]) -> str:
    device = "cuda" if evaluate["gpus"] else "cpu"
    return seed_rule(evaluate["batching"], evaluate["rows"], device)


def _seed_rule_of(server: dict[Any, Any]) -> str:
    """As our own server tells it."""
    if not server.keys() >= {"seed", "batching", "rows", "device", "dtype"}:
        return protocols.UNTOLD
    seed = f"the server's seed {server['seed']}, episode, query"
    return seed_rule(server["batching"], server["rows"], server["device"], server["dtype"], seed)


def source(job: Job) -> str:
    """Where the weights are: a path, or the id of a hub."""
    return str(job.config["evaluate"]["checkpoint"] or job.run.policy)


def load(job: Job, name: str, shared: Shared | None = None) -> Callable[[str, int], Policy]:
    """The policy of that name for a task (suite, number).

    Raises RdtlError when its files are missing or foreign, and what
    :func:`rdt.policy.remote.open_policy` raises.
    """
    if name == "replay":
        return functools.cache(lambda suite, number: _replay(job, find_task(suite, number)))
    policy = _behind(shared.uri) if shared and name == NETWORK else _same_for_all_tasks(job, name)
    return lambda suite, number: policy


def _same_for_all_tasks(job: Job, name: str) -> Policy:
    if name == SERVER:
        return _connect(job)
    if name == NETWORK:
        import torch

        from rdt.policy.loading import Settings, load

        torch.set_num_threads(1)  # one process per core; sums then do not depend on their number
        evaluate = job.config["evaluate"]
        named = {
            key: evaluate[key] for key in ("vision", "language", "weights", "contract", "rows")
        }
        return load(source(job), evaluate["policy_seed"], Settings(**named))
    return Expert() if name == "expert" else Zero()


def _connect(job: Job) -> RemotePolicy:
    evaluate = job.config["evaluate"]
    place = evaluate["server_token"]
    token = read_token(place, "evaluate.server_token") if place else None
    learned = functools.partial(_note_chunk, job)
    return _behind(evaluate["server"], token, evaluate["execution_horizon"], learned)


def _note_chunk(job: Job, chunk: int) -> None:
    """Warn, once in a run, when a server's chunks of ``chunk`` actions hardly let it look again.

    The launcher cannot: it does not ask the server, and many servers do not declare it.
    """
    evaluate = job.config["evaluate"]
    where = f"the first answer of {evaluate['server']}"
    found = chunks.replanning(evaluate["execution_horizon"], chunk, where)
    told = {"findings": [asdict(finding) for finding in found]}
    if found and files.publish_once(job.run.records / protocols.SERVER, told):
        for finding in found:
            print(f"{finding.severity} {finding.code}: {finding.what}", flush=True)


def _behind(
    uri: str,
    token: str | None = None,
    executed: int = 1,
    learned: Callable[[int], None] | None = None,
) -> RemotePolicy:
    require_protocol()
    from rdt.policy.remote import open_policy

    return open_policy(uri, token, executed=executed, learned=learned)


def require_protocol() -> None:
    """Refuse with RdtlError RDTL-U098 where packages for openpi's protocol are missing."""
    try:
        import rdt.serve.codec
        import rdt.serve.connection  # noqa: F401
    except ModuleNotFoundError as error:
        raise RdtlError(
            "RDTL-U098",
            f"no policy server can be asked without {error.name}",
            where=f"{sys.prefix} on {socket.gethostname()}",
            why="openpi's protocol is messages of msgpack over a websocket",
            fix="pip install 'rdt-launcher[serve]' into this environment, or choose an image that "
            "has it",
        ) from error


def _replay(job: Job, task: TaskInfo) -> Replay:
    return Replay(first_demonstration(*_demonstrations(job, task)))


def _demonstrations(job: Job, task: TaskInfo) -> tuple[Path, int]:
    """The file with demonstrations of a task, and the sign that opens the gripper there."""
    from rdt.data.finding import hdf5_files
    from rdt.data.libero_attributes import task_of

    name = f"{task.name}_demo.hdf5"
    named = job.config["evaluate"]["demonstrations"]
    sets = job.config["dataset"]["sets"]
    places = [Path(entry["path"]) for entry in sets] if named is None else [Path(named)]
    if not places:
        return job.run.data / task.suite / name, OPENS
    called_so = (path for place in places for path in hdf5_files(place) if path.name == name)
    otherwise = (each for each in places if each.is_file() and task_of(each) == task.name)
    found = next(itertools.chain(called_so, otherwise), None)
    if found:
        return found, _opens(found, sets)
    raise RdtlError(
        "RDTL-D065",
        "there is no demonstration to replay",
        where=f"{', '.join(map(str, places))}: no {name}",
        why="a replay needs the actions of a LIBERO HDF5 file of the evaluated task",
        fix="name a folder of one for each task in evaluate.demonstrations, or leave replay out of "
        "evaluate.policies",
    )


def _opens(file: Path, sets: list[dict[str, Any]]) -> int:
    """The sign that the data set declares which is this file, or has it in its folder."""
    for entry in sets:
        place = Path(entry["path"])
        if file.is_relative_to(place) or file.resolve().is_relative_to(place.resolve()):
            return int(entry["gripper_open"])
    return OPENS
