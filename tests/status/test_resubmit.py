"""Which tasks are submitted again, and that nobody's claim is overlooked on the way."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from launcher import resubmit, status
from launcher.arrays import Part
from launcher.core import files
from launcher.core.errors import RemoteError
from launcher.core.plan import Plan, Stage
from launcher.core.runs import RunDir
from launcher.drive import Driver, submit_all
from launcher.judges import LIVE, State, Task
from launcher.markers import Markers
from launcher.status import RunStatus, StageStatus

FIRST = Stage("first", ("true",), array=3)
SECOND = Stage("second", ("true",), needs=("first",))
REPORT = Stage("report", ("true",), needs=("second",), needs_ended=True)
STATES: tuple[State, ...] = (
    "done",
    "running",
    "waiting",
    "failed",
    "gone",
    "unknown",
    "unsubmitted",
)
three = st.tuples(*[st.lists(st.sampled_from(STATES), min_size=n, max_size=n) for n in (3, 1, 1)])


class Queue:
    """A scheduler in memory: whatever is sent stays alive."""

    poll_s = 0.0
    submits_ahead = True

    def __init__(self) -> None:
        self.sent: list[Part] = []
        self.order: dict[str, list[str]] = {}

    def part_size(self, stage: Stage) -> int | None:
        return None

    def room(self, tasks: int) -> bool:
        return True

    def submit(self, stage: Stage, part: Part, after: list[str]) -> list[str]:
        self.sent.append(part)
        return [f"{part.stage}-{part.tag}"]

    def find(self, part: Part, began: float) -> list[str]:
        return []

    def alive(self, ids: list[str]) -> set[str]:
        return set(ids)

    def ended(self, ids: list[str], since: float) -> str:
        return ""

    def wait_for(self, ids: list[str], parents: list[str]) -> bool:
        self.order |= dict.fromkeys(ids, parents)
        return True

    def cancel(self, ids: list[str]) -> None:
        raise AssertionError("nobody asked for that")


def status_of(root: Path, states: tuple[list[State], ...]) -> RunStatus:
    run = RunDir(root)
    stages = []
    for stage, found in zip((FIRST, SECOND, REPORT), states, strict=True):
        tasks = tuple(
            Task(i, state, job="7" if state in LIVE else "") for i, state in enumerate(found)
        )
        stages.append(StageStatus(stage, tasks, 1, 0.0))
    plan = Plan("p", "s", (FIRST, SECOND, REPORT), {})
    return RunStatus(run, plan, tuple(stages), Markers(run), "slurm")


def test_what_is_done_or_alive_is_never_chosen(tmp_path: Path) -> None:
    @settings(max_examples=150, deadline=None)
    @given(three, st.sampled_from(["all", "failed", "missing"]), st.booleans())
    def holds(states: tuple[list[State], ...], which: resubmit.Which, ahead: bool) -> None:
        one = status_of(tmp_path, states)
        found = {s.name: indices for s, indices in resubmit.chosen(one, which, ahead=ahead)}
        for stage in one.stages:
            wanted = found.get(stage.stage.name, [])
            again = stage.stage.needs_ended and not found.keys().isdisjoint(stage.stage.needs)
            may = {*resubmit.STATES[which], *(["done"] if again else [])}
            assert all(stage.tasks[i].state in may for i in wanted)
        # The first stage waits for nobody, so all that is wanted of it is chosen.
        first = [t.index for t in one.stages[0].tasks if t.state in resubmit.STATES[which]]
        assert found.get("first", []) == first

    holds()


def test_a_stage_whose_parent_stays_broken_is_left_alone(tmp_path: Path) -> None:
    one = status_of(tmp_path, (["done", "failed", "done"], ["gone"], ["unsubmitted"]))
    names = [stage.name for stage, _ in resubmit.chosen(one, "missing", ahead=True)]
    assert names == ["report"], "a report reads what there is, the second stage needs the first"
    everything = resubmit.chosen(one, "all", ahead=True)
    assert [(stage.name, indices) for stage, indices in everything] == [
        ("first", [1]),
        ("second", [0]),
        ("report", [0]),
    ]
    here = resubmit.chosen(one, "all", ahead=False)
    assert [stage.name for stage, _ in here] == ["first"], "the others follow when it is done"


def test_what_has_read_too_little_is_read_again(tmp_path: Path) -> None:
    states = (["done"] * 3, ["failed"], ["done"])
    found = resubmit.chosen(status_of(tmp_path, states), "failed", ahead=True)
    assert [(stage.name, indices) for stage, indices in found] == [("second", [0]), ("report", [0])]
    of_first = status_of(tmp_path, (["failed", "done", "done"], ["running"], ["done"]))
    found = resubmit.chosen(of_first, "failed", ahead=True)
    assert [stage.name for stage, _ in found] == ["first"], "it does not read the first stage"


def test_a_detached_run_sends_it_again_too(tmp_path: Path) -> None:
    class Later(Queue):
        """Of the first attempts nothing is alive any more."""

        def alive(self, ids: list[str]) -> set[str]:
            return {id_ for id_ in ids if not id_.endswith("a1")}

    report = Stage("report", ("true",), needs=("first",), needs_ended=True)
    run, plan = RunDir(tmp_path), Plan("p", "s", (FIRST, report), {})
    assert submit_all(run, plan, Queue()) == {"first": ["first-a1"], "report": ["report-a1"]}
    for task, code in {"first.i0": 0, "first.i1": 1, "first.i2": 0, "report.i0": 0}.items():
        run.ledger.publish(f"started.{task}.a1.r0", progress=0)
        run.ledger.publish(f"finished.{task}.n0.a1.r0", exit_code=code, error=None, host="n1")
    later = Later()
    assert submit_all(run, plan, later) == {"first": ["first-a2"], "report": ["report-a2"]}
    assert [(part.stage, part.indices) for part in later.sent] == [
        ("first", (1,)),
        ("report", (0,)),
    ]


def test_a_stage_is_not_sent_without_the_one_that_it_needs(tmp_path: Path) -> None:
    """The cluster does not say once how many tasks the first stage's array may have."""

    class Silent(Queue):
        def part_size(self, stage: Stage) -> int | None:
            return 0 if stage == FIRST else None

        def alive(self, ids: list[str]) -> set[str]:
            return {id_ for id_ in ids if id_ != "first-a1"}

    run, plan = RunDir(tmp_path), Plan("p", "local", (FIRST, SECOND), {})
    files.write_json(run.plan, plan.to_dict())
    run.ledger.publish("claim.first.a1", indices=[0, 1, 2], part_size=None)
    run.ledger.publish("submitted.first.a1", ids=["first-a1"], indices=[0, 1, 2])
    silent = Silent()
    with pytest.raises(RemoteError) as refused:
        resubmit.resubmit(run, silent, "all")
    assert refused.value.problem.code == "RDTL-S032"
    assert silent.sent == [], "the second stage would read what the first has not made"
    assert run.ledger.attempts("second") == [], "the next try finds nothing half done"


def test_a_claim_made_while_a_launcher_begins_is_not_overlooked(tmp_path: Path) -> None:
    run, queue = RunDir(tmp_path), Queue()
    late = Driver(run, Plan("p", "s", (FIRST,), {}), queue)
    early = Driver(run, Plan("p", "s", (FIRST,), {}), queue)
    early.adopt()
    early.submit_ready(early.look())
    late.adopt()
    late.submit_ready(late.look())
    assert [part.tag for part in queue.sent] == ["a1"], "the stage was sent twice"


def test_what_nobody_had_sent_yet_is_sent_once(tmp_path: Path) -> None:
    """The launcher died between its claim and sbatch, or while it waited for a full queue."""
    run, plan, queue = RunDir(tmp_path), Plan("p", "local", (FIRST, SECOND), {}), Queue()
    files.write_json(run.plan, plan.to_dict())
    run.ledger.publish("claim.first.a1", indices=[0, 1, 2], part_size=2)
    waiting = Driver(run, plan, queue)
    waiting.adopt()
    found, _ = resubmit.resubmit(run, queue, "all")
    assert [(part.tag, part.indices) for part in queue.sent] == [("a2", (0, 1, 2)), ("a1", (0,))]
    assert [(one.stage, one.ids) for one in found] == [
        ("first", ["first-a2"]),
        ("second", ["second-a1"]),
    ]
    waiting.submit_ready(waiting.look())
    (first, _) = waiting.look()
    assert first.ids == ["first-a2"], "the launcher that waited for room goes on with the new one"
    assert len(queue.sent) == 2


def test_a_run_with_a_job_that_nobody_remembers_can_be_looked_at(tmp_path: Path) -> None:
    """Its launcher died with sbatch under way; the job began, ended and was forgotten."""

    class Killed(Queue):
        def submit(self, stage: Stage, part: Part, after: list[str]) -> list[str]:
            raise KeyboardInterrupt

    run, plan = RunDir(tmp_path), Plan("p", "s", (FIRST,), {})
    files.write_json(run.plan, plan.to_dict())
    with pytest.raises(KeyboardInterrupt):
        submit_all(run, plan, Killed())
    run.ledger.publish("started.first.i0.a1.r0", progress=0)
    run.ledger.publish("finished.first.i0.n0.a1.r0", exit_code=1, error=None, host="n1")
    Driver(run, plan, Queue()).adopt()
    assert (run.ledger.read("submitted.first.a1") or {})["ids"] == []
    assert status.of(run).counts == {"failed": 1, "unknown": 2}
    assert submit_all(run, plan, Queue()) == {"first": ["first-a2"]}


def test_an_attempt_beside_a_living_one_is_driven_with_it(tmp_path: Path) -> None:
    """The next launcher waits for both, and claims nothing of what lives in the older one."""
    run, queue = RunDir(tmp_path), Queue()
    driver = Driver(run, Plan("p", "s", (FIRST,), {}), queue)
    driver.adopt()
    driver.submit_ready(driver.look())
    assert driver.again(FIRST, [1], None) == 2
    driver.submit_ready(driver.look(), claim=False)
    assert [(part.tag, part.indices) for part in queue.sent] == [("a1", (0, 1, 2)), ("a2", (1,))]
    second = Driver(run, Plan("p", "s", (FIRST,), {}), queue)
    second.adopt()
    (view,) = second.look()
    assert view.state == "active"
    assert view.ids == ["first-a1", "first-a2"]
    second.submit_ready([view])
    assert len(queue.sent) == 2


@pytest.mark.parametrize(("index", "fenced"), [(1, True), (0, False)])
def test_only_the_tasks_that_were_claimed_again_are_fenced_off(
    tmp_path: Path, index: int, fenced: bool
) -> None:
    from launcher.core.job import Job

    run = RunDir(tmp_path)
    run.ledger.publish("claim.first.a1", indices=[0, 1, 2])
    run.ledger.publish("claim.first.a2", indices=[1])
    old = Job(run, {}, "first", index, 3, attempt=1, node=0)
    assert old.fenced() is fenced
    assert not Job(run, {}, "first", 1, 3, attempt=2, node=0).fenced()
