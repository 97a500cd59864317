"""The site of hosts without a scheduler: stages over ssh, on as many hosts as they need."""

from __future__ import annotations

import signal
import zlib
from collections import deque
from dataclasses import dataclass

from jobs.host_task import order
from jobs.node import NodeTask
from jobs.place import Place
from launcher.arrays import Part
from launcher.core.plan import Stage
from launcher.core.runs import RunDir
from launcher.sites import Site
from launcher.submit import host_checks
from launcher.submit.host_probes import connection, python
from launcher.submit.host_sessions import SILENCE_S, HostTask, Name, Session
from launcher.submit.local_backend import lock_run


@dataclass(frozen=True)
class Waiting:
    """A task whose turn has not come."""

    stage: Stage
    name: Name
    id: str


@dataclass(frozen=True)
class Running:
    """A task and the slots that it holds, by number of the host."""

    task: HostTask
    slots: dict[int, tuple[int, ...]]


class HostsBackend:
    """Starts tasks in order, each on the first hosts that have enough free slots."""

    poll_s = 0.25
    submits_ahead = False

    def __init__(self, run: RunDir, site: Site) -> None:
        self._run = run
        self._site = site
        self._waiting: deque[Waiting] = deque()
        self._running: dict[str, Running] = {}
        self._lock = lock_run(run)
        self._ways = host_checks.require(site, run.root)
        self._free = [list(host.devices()) for host in site.hosts]
        # As Ctrl-C, so that tasks can save; USR2 lets them save and say "start me again".
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        signal.signal(signal.SIGUSR2, lambda number, frame: self._signal_all(number))

    def part_size(self, stage: Stage) -> int | None:
        """No limit: tasks wait here."""
        return None

    def room(self, tasks: int) -> bool:
        """Always: as above."""
        return True

    def submit(self, stage: Stage, part: Part, after: list[str]) -> list[str] | None:
        """Queue the tasks and start those for which there are free slots."""
        tasks = []
        for index in part.indices:
            name = Name(stage.name, index, part.attempt)
            tasks.append(Waiting(stage, name, f"{stage.name}.a{part.attempt}.{index}"))
        self._waiting.extend(tasks)
        self._start_what_fits()
        return [task.id for task in tasks]

    def find(self, part: Part, began: float) -> list[str] | None:
        """Nothing outlives the launcher: hosts kill their tasks when it is gone."""
        return []

    def alive(self, ids: list[str]) -> set[str] | None:
        """Those of ``ids`` that wait or run; starts what may start now."""
        for id_ in [i for i, running in self._running.items() if not running.task.alive()]:
            for number, slots in self._running.pop(id_).slots.items():
                self._free[number] = sorted([*self._free[number], *slots])
        self._start_what_fits()
        return set(ids) & {*self._running, *(task.id for task in self._waiting)}

    def ended(self, ids: list[str], since: float) -> str:
        """Nothing that the markers do not say better."""
        return ""

    def wait_for(self, ids: list[str], parents: list[str]) -> bool:
        """Nothing waits here: a stage is started when those that it needs have ended."""
        return True

    def cancel(self, ids: list[str]) -> None:
        """Ask the tasks to end and wait until they have; each may save first."""
        self._waiting = deque(task for task in self._waiting if task.id not in ids)
        ending = [self._running[id_] for id_ in ids if id_ in self._running]
        for running in ending:
            running.task.signal(signal.SIGTERM)
        for running in ending:
            running.task.wait()

    def _signal_all(self, number: int) -> None:
        for running in self._running.values():
            running.task.signal(number)

    def _start_what_fits(self) -> None:
        """In order: a task that needs many hosts is not overtaken for ever by small ones."""
        while self._waiting and (slots := self._room_for(self._waiting[0].stage)):
            self._start(self._waiting.popleft(), slots)

    def _room_for(self, stage: Stage) -> dict[int, tuple[int, ...]] | None:
        """Slots for one task by number of the host; None when some are still in use."""
        count = max(stage.gpus_per_node, stage.ranks_per_node)
        numbers = [n for n, free in enumerate(self._free) if len(free) >= count][: stage.nodes]
        if len(numbers) < stage.nodes:
            return None
        return {number: tuple(self._free[number][:count]) for number in numbers}

    def _start(self, waiting: Waiting, slots: dict[int, tuple[int, ...]]) -> None:
        for number, taken in slots.items():
            self._free[number] = [slot for slot in self._free[number] if slot not in taken]
        sessions = [
            self._session(waiting, node, number, slots) for node, number in enumerate(slots)
        ]
        task = HostTask(self._run, waiting.name, sessions)
        self._running[waiting.id] = Running(task, slots)

    def _session(
        self, waiting: Waiting, node: int, number: int, slots: dict[int, tuple[int, ...]]
    ) -> Session:
        stage, name = waiting.stage, waiting.name
        environment = {**self._ways[number].environment(), **self._site.environment}
        if stage.gpus_per_node:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, slots[number]))
        task = NodeTask(str(self._run.root), name.stage, name.index, name.attempt)
        place = None
        if stage.nodes > 1:
            seed = zlib.crc32(f"{self._run.root} {waiting.id}".encode())
            address = self._ways[next(iter(slots))].address
            place = Place(node, stage.nodes, address, 10000 + seed % 20000)
        log = self._run.log(name.stage, name.attempt, name.index, node).with_suffix(".ssh.log")
        return Session(
            connection(self._site, self._site.hosts[number]),
            python(self._run.code, "jobs.host_task"),
            order(task, place, environment, SILENCE_S),
            log,
        )
