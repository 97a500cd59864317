"""Which tasks and demonstrations of a data set are wanted; what is not there is refused.

Tasks are chosen by name or by instruction, never by number: their order differs between
copies. Demonstrations are chosen by name, or by number within their task: N of `demo_N`
in LIBERO's files, the N-th episode of the task (from 0) elsewhere.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from launcher.core.checks import Finding
from launcher.core.errors import UsageError
from rdt.spec.suites import DEMONSTRATIONS, SUITES


def key(text: str) -> str:
    """Name or instruction of a task in one form: lower case, joined by underscores."""
    return "_".join(text.lower().replace("_", " ").strip(" .").split())


class Selection:
    """Empty sequences choose everything. A pass over the set asks :meth:`start` first.

    ``at_most``: no more demonstrations of each task than these, the first ones of those chosen.
    """

    def __init__(
        self,
        tasks: Sequence[str] = (),
        demos: Sequence[int | str] = (),
        at_most: int | None = None,
    ) -> None:
        self._tasks = {key(task): task for task in tasks}
        self._demos = set(demos)
        self._at_most = at_most
        self.start()

    def start(self) -> None:
        """Forget what earlier passes have seen."""
        self._seen_tasks: dict[str, None] = {}
        self._seen_demos: set[int | str] = set()
        self._numbers: Counter[str] = Counter()
        self._kept: Counter[str] = Counter()
        self._counted = False

    def wants(self, task: str, instruction: str, name: str, number: int | None = None) -> bool:
        """Whether an episode is chosen; without ``number`` episodes of a task are counted."""
        names = {key(task), key(instruction)}
        self._seen_tasks.update(dict.fromkeys((task, instruction)))
        if number is None:
            number, self._counted = self._numbers[task], True
        self._numbers[task] += 1
        if self._tasks and not names & self._tasks.keys():
            return False
        self._seen_demos |= {number, name}
        chosen = not self._demos or bool({number, name} & self._demos)
        chosen = chosen and (self._at_most is None or self._kept[task] < self._at_most)
        self._kept[task] += chosen
        return chosen

    def finish(self, path: Path) -> None:
        """Raise UsageError RDTL-D033 for what no episode answered to."""
        seen = {key(task): task for task in self._seen_tasks}
        for wanted, text in self._tasks.items():
            if wanted not in seen:
                raise _unknown("task", text, path, _near(wanted, list(seen)))
        for demo in sorted(self._demos - self._seen_demos, key=str):
            names = sorted(str(name) for name in self._seen_demos if type(name) is type(demo))
            raise _unknown("demonstration", demo, path, _near(str(demo), names))
        if self._counted and not self._tasks and all(isinstance(d, str) for d in self._demos):
            return  # names are of the whole set here, so other tasks may go without
        for task, kept in self._kept.items():
            if kept == 0:
                raise _unknown("demonstration", f"of {task}", path, "none of those chosen")

    def findings(self, path: Path) -> list[Finding]:
        """After :meth:`finish`: what is there and not chosen (RDTL-D019), and what a copy of one
        of LIBERO's suites lacks (RDTL-D014)."""
        return [*self._left_out(path), *self._lacking(path)]

    def _left_out(self, path: Path) -> Iterator[Finding]:
        tasks = [task for task in self._numbers if task in self._kept]
        used, there = sum(self._kept.values()), sum(self._numbers[task] for task in tasks)
        if used < there:
            what = f"{used} of {there} demonstrations of {len(tasks)} tasks are used"
            yield Finding("RDTL-D019", "info", what, f"{path}: the list `demos` chooses them")

    def _lacking(self, path: Path) -> Iterator[Finding]:
        name = path.parent.name if path.name.replace(".", "").isdecimal() else path.name
        suite = next((s for s in SUITES if name == s or name.startswith(f"{s}_")), None)
        if suite is None:
            return
        tasks, there = len(self._numbers), self._numbers.total()
        published = SUITES[suite].tasks
        if tasks < published and not (self._counted and suite == "libero_90"):  # words repeat there
            yield Finding(
                "RDTL-D014",
                "warning",
                f"{tasks} of the {published} tasks of {suite} are there",
                f"{path}: {', '.join(sorted(self._numbers))[:200]}",
                "the others would not be learned, and an evaluation of the suite asks for them",
                "copy the data set again; if it is meant so, call the folder otherwise",
            )
        elif there != published * DEMONSTRATIONS:
            yield Finding(
                "RDTL-D014",
                "info",
                f"{there:,} demonstrations, {suite} has {published * DEMONSTRATIONS:,}: another "
                "copy than the published one, such as one without pauses or failures",
                f"{path}: {min(self._numbers.values())} to {max(self._numbers.values())} of a task",
            )


def _near(wanted: str, names: list[str]) -> str:
    close = difflib.get_close_matches(wanted, names, n=3, cutoff=0.5)
    more = f"{len(names)} there are, e.g. {', '.join(names[:3])}"
    return f"did you mean {' or '.join(close)}?" if close else more


def _unknown(what: str, name: object, path: Path, hint: str) -> UsageError:
    return UsageError(
        "RDTL-D033",
        f"the data set has no {what} {name}",
        where=f"{path}: {hint}",
        why="training on less than was asked for would be another experiment",
        fix=f"correct the {what} in the list of data sets",
    )
