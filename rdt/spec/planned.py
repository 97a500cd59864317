"""The episodes that a plan asks for, numbered: what is run, what is counted once, what is missing.

Launcher, jobs and report read the plan here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rdt.spec import suites
from rdt.spec.record import EpisodeKey


@dataclass(frozen=True)
class Planned:
    """A grid of episodes; numbers run over policies, tasks, initial states, trials (fastest).

    A million episodes are four short lists here: none is listed until it is asked for.
    """

    policies: tuple[str, ...]
    tasks: tuple[tuple[str, int], ...]
    init_states: range
    trials: int

    @property
    def per_task(self) -> int:
        """Episodes of one policy on one task."""
        return len(self.init_states) * self.trials

    def __len__(self) -> int:
        return len(self.policies) * len(self.tasks) * self.per_task

    def part(self, values: Mapping[str, Any]) -> int | None:
        """What these fields of a key add to an episode's number; None when they are not planned.

        The number of an episode is the sum over any division of its key's fields into parts;
        suite and task_id stay together.
        """
        found = 0
        if "policy" in values:
            if values["policy"] not in self.policies:
                return None
            found += self.policies.index(values["policy"]) * len(self.tasks) * self.per_task
        if "suite" in values:
            task = values["suite"], values["task_id"]
            if task not in self.tasks:
                return None
            found += self.tasks.index(task) * self.per_task
        if "init_state" in values:
            if values["init_state"] not in self.init_states:
                return None
            found += self.init_states.index(values["init_state"]) * self.trials
        if "trial" in values:
            if values["trial"] not in range(self.trials):
                return None
            found += values["trial"]
        return found

    def key(self, number: int) -> EpisodeKey:
        """The episode of this number."""
        block, slot = divmod(number, self.per_task)
        policy, task = divmod(block, len(self.tasks))
        state, trial = divmod(slot, self.trials)
        return EpisodeKey(self.policies[policy], *self.tasks[task], self.init_states[state], trial)

    def share(self, index: int, count: int) -> list[EpisodeKey]:
        """What part ``index`` of ``count`` runs: of each policy a stretch without gaps.

        So a part has few tasks, each of which costs a simulator, and an equal share of every
        policy. The parts of one ``count`` cover everything once.
        """
        each = len(self.tasks) * self.per_task
        return [
            self.key(policy * each + slot)
            for policy in range(len(self.policies))
            for slot in range(each * index // count, each * (index + 1) // count)
        ]

    def blocks(self) -> Iterator[tuple[str, tuple[str, int], range]]:
        """Policy, task and numbers of the episodes of each policy on each task, in order."""
        for first in range(0, len(self), self.per_task):
            key = self.key(first)
            yield key.policy, (key.suite, key.task_id), range(first, first + self.per_task)


def from_config(config: Mapping[str, Any]) -> Planned:
    """What a resolved configuration asks for; empty when it evaluates nothing."""
    task, evaluate = config.get("task"), config.get("evaluate")
    if not task or not evaluate:
        return Planned((), (), range(0), 1)
    return Planned(
        policies=tuple(dict.fromkeys(evaluate["policies"])),
        tasks=tuple(tasks(config)),
        init_states=range(*evaluate["init_states"]),
        trials=evaluate["trials"],
    )


def main_policy(policies: Sequence[str]) -> str:
    """The policy under test (rdt, or that of a server); without one the first reference."""
    return next((name for name in policies if name in ("rdt", "server")), policies[0])


def tasks(config: Mapping[str, Any]) -> list[tuple[str, int]]:
    """Suite and number of each task that is evaluated, in order.

    Raises UsageError RDTL-U020 for a task that its suite lacks.
    """
    task, chosen = config["task"], config["evaluate"]["suites"]
    if not chosen:
        own = suites.task_ids(task["suite"], [task["task_id"]], "task.suite and task.task_id")
        return [(task["suite"], *own)]
    return [(name, n) for name, own in chosen.items() for n in suites.task_ids(name, own)]


def reads_demonstrations(config: Mapping[str, Any]) -> bool:
    """Whether a run reads its data sets: to train, or to replay what it has no file of its own of.

    An evaluation ignores them: it takes only their contract from the same section.
    """
    evaluate = config["evaluate"]
    replays = evaluate and "replay" in evaluate["policies"] and not evaluate["demonstrations"]
    return bool(config["train"] or replays)


def collects(config: Mapping[str, Any]) -> bool:
    """Whether a run makes its demonstrations by itself."""
    wanted = config["collect"] is not None and not config["dataset"]["sets"]
    return wanted and reads_demonstrations(config)


def task_section(config: Mapping[str, Any], suite: str, task_id: int) -> dict[str, Any]:
    """The configuration's section `task` for one of the evaluated tasks."""
    return {**config["task"], "suite": suite, "task_id": task_id}
