"""Evaluation: every planned episode once, whatever was killed, shared or broken."""

import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from jobs import evaluate, evaluated, sweep
from launcher.core.errors import RdtlError, RefusedError
from launcher.core.job import Job
from launcher.schema import DataSet, Sweep
from rdt.policy.references import Expert, Replay, Zero
from rdt.sim import episode, sequential
from rdt.sim.libero import Simulator
from rdt.spec import planned
from rdt.spec import record as records
from rdt.spec.record import EpisodeKey, Record
from tests import inside
from tests.sim.conftest import lender

pytestmark = pytest.mark.sim
Build = Callable[..., Any]
SMALL = {"policies": ["expert", "zero"], "init_states": (30, 32), "max_steps": 8}
TIMED = ("wall_s", "policy_s", "shard", "host")


def _records(job: Job) -> list[Record]:
    return records.read_folder(job.run.records)


def _content(job: Job) -> list[dict[str, Any]]:
    """Records without the fields that tell who ran them and how fast."""
    return [{k: v for k, v in vars(r).items() if k not in TIMED} for r in _records(job)]


def planned_keys(config: dict[str, Any]) -> list[EpisodeKey]:
    plan = planned.from_config(config)
    return [plan.key(number) for number in range(len(plan))]


def _lines(job: Job) -> int:
    return sum(len(p.read_text().splitlines()) for p in job.run.records.glob("part-*.jsonl"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, make_job: Build, config: Build) -> Job:
    """A finished evaluation by a single task."""
    job: Job = make_job(tmp_path_factory.mktemp("whole"), config(**SMALL))
    evaluate.body(job)
    return job


@pytest.fixture
def lend(monkeypatch: pytest.MonkeyPatch, blind: Simulator) -> None:
    """Jobs get the session's simulator: an episode depends on no earlier one, and it is faster."""
    borrow = lender(blind)
    monkeypatch.setattr(sequential, "Simulator", lambda task, blind, cameras: borrow(task))


def test_every_planned_episode_has_one_record(whole: Job) -> None:
    found = _records(whole)
    assert [r.key for r in found] == sorted(planned_keys(whole.config))
    assert {r.status for r in found} == {"fail"}
    for r in found:
        actions = np.load(whole.run.records / "actions" / f"{r.key.text()}.npy")
        assert actions.shape == (8, 7)
        assert episode.actions_digest(actions) == r.actions_sha256


@pytest.mark.slow
def test_two_tasks_give_the_same_records(
    whole: Job, tmp_path: Path, make_job: Build, config: Build, lend: None
) -> None:
    for index in (1, 0):
        job = make_job(tmp_path, config(**SMALL), index=index, count=2)
        evaluate.body(job)
        assert len(_records(job)) == (2 if index == 1 else 4)
    assert _content(job) == _content(whole)


def test_tasks_share_every_policy(config: Build) -> None:
    plan = planned.from_config(config(policies=["rdt", "expert", "zero", "replay"]))
    shares = [plan.share(index, 4) for index in range(4)]
    work = [key for share in shares for key in share]
    assert len(work) == len(set(work)) == 80
    for share in shares:
        assert {[key.policy for key in share].count(name) for name in plan.policies} == {5}


def test_resumes_after_a_torn_line(
    whole: Job, tmp_path: Path, make_job: Build, config: Build, lend: None
) -> None:
    """The first episode is kept, the torn one and the others are run."""
    job = make_job(tmp_path, config(**SMALL))
    first, second = (r.line() for r in _records(whole)[:2])
    first = first.replace('"host": "', '"host": "first-')
    job.run.records.mkdir()
    torn = job.run.records / "part-a0-s0-first-1-00000000.jsonl"
    torn.write_text(first + "\n" + second)  # killed before the newline: it never counted
    evaluate.body(job)
    assert _content(job) == _content(whole)
    assert _records(job)[0].host.startswith("first-")
    assert not _records(job)[1].host.startswith("first-")
    assert _lines(job) - 1 == 4  # `splitlines` also counts the torn one
    assert torn.read_text() == first + "\n" + second
    evaluate.body(job)
    assert _lines(job) - 1 == 4


class Faulty(Zero):
    def chunk(self, observation: Any, query: int) -> Any:
        if query == 1:
            raise ValueError("out of cheese")
        return super().chunk(observation, query)


def test_a_faulty_policy_is_no_failed_episode(
    tmp_path: Path,
    make_job: Build,
    config: Build,
    monkeypatch: pytest.MonkeyPatch,
    lend: None,
) -> None:
    settings = config(policies=["zero"], init_states=(30, 32), max_steps=3)
    job = make_job(tmp_path, settings)
    with monkeypatch.context() as patch:
        patch.setattr(evaluated, "load", lambda job, name, shared: lambda suite, number: Faulty())
        with pytest.raises(RdtlError, match="RDTL-E066") as caught:
            evaluate.body(job)
    assert "i31-n0: query 1: ValueError: out of cheese" in caught.value.problem.where
    assert {(r.status, r.error) for r in _records(job)} == {
        ("policy_error", "query 1: ValueError: out of cheese")
    }
    evaluate.body(job)  # an error is no result: the episodes run again
    assert {r.status for r in _records(job)} == {"fail"}


def test_a_fault_of_the_harness_is_tried_once_more(
    tmp_path: Path,
    make_job: Build,
    config: Build,
    monkeypatch: pytest.MonkeyPatch,
    blind: Simulator,
) -> None:
    settings = config(policies=["zero"], init_states=(30, 32), max_steps=3)
    job = make_job(tmp_path, settings)
    borrow = lender(blind)
    built: list[dict[str, Any]] = []

    def build(task: dict[str, Any], blind: bool, cameras: Any) -> Simulator:
        built.append(task)
        return borrow(task)

    faults = iter([True, True, False, True])
    real = evaluate.run_episode

    def shaky(*arguments: Any) -> episode.Outcome:
        if next(faults):
            raise RuntimeError("the scene exploded")
        return real(*arguments)

    monkeypatch.setattr(sequential, "Simulator", build)
    monkeypatch.setattr(evaluate, "run_episode", shaky)
    evaluate.body(job)
    first, second = _records(job)
    assert (first.status, second.status) == ("fail", "env_error")
    assert second.error == "RuntimeError: the scene exploded"
    assert len(built) == 3  # a new simulator after each fault


def exploding(*arguments: Any) -> episode.Outcome:
    raise RuntimeError("the scene exploded")


def test_without_any_result_it_is_never_done(
    tmp_path: Path, make_job: Build, config: Build, monkeypatch: pytest.MonkeyPatch, lend: None
) -> None:
    """Neither while an episode has tries left, nor when it has none."""
    job = make_job(tmp_path, config(policies=["zero"], init_states=(30, 31)))
    monkeypatch.setattr(evaluate, "run_episode", exploding)
    for _ in range(evaluate.MOST_TRIES // evaluate.TRIES + 1):
        with pytest.raises(RdtlError, match="RDTL-E066"):
            evaluate.body(job)
    assert _lines(job) == evaluate.MOST_TRIES


def test_a_sweep_with_a_cell_without_any_result_is_not_done(
    tmp_path: Path, make_job: Build, config: Build, monkeypatch: pytest.MonkeyPatch, lend: None
) -> None:
    """The other cells are run all the same, and the cell is tried again by the next command."""
    from tests.rdt import small_policy

    settings = config(policies=["rdt"], init_states=(30, 31))
    settings["task"]["camera_size"] = 64  # as on its card
    settings["sweep"] = Sweep(horizons=[2, 4]).model_dump()
    small_policy.trained_folder(tmp_path)
    job = make_job(tmp_path, settings)
    still = np.zeros((1, 7), np.float32)

    def shaky(simulator: Simulator, policy: Any, key: EpisodeKey, horizon: int, *rest: Any) -> Any:
        return (
            episode.Outcome(False, still, 1, 0, 0.1, 0.1, "", "") if horizon == 4 else exploding()
        )

    monkeypatch.setattr(evaluate, "run_episode", shaky)
    monkeypatch.setattr(evaluate, "prove", lambda job: None)
    for tries in (1, 2):
        with pytest.raises(RdtlError, match="RDTL-E066") as caught:
            sweep.body(job)
        assert "own-h02" in caught.value.problem.where
        found = [
            line
            for cell in job.run.cells.iterdir()
            for line in records.read_lines(cell / "records")
        ]
        assert sorted(r.status for r in found) == ["env_error"] * 2 * tries + ["fail"]


def test_a_superseded_attempt_publishes_nothing(
    tmp_path: Path, make_job: Build, config: Build, lend: None
) -> None:
    job = make_job(tmp_path, config(policies=["zero"], init_states=(30, 31), max_steps=2))
    job.run.ledger.publish("claim.stage.a1", indices=[0])
    with pytest.raises(RefusedError, match="RDTL-S034"):
        evaluate.body(job)
    assert _records(job) == []
    assert not (job.run.records / "actions").exists()


def test_other_weights_under_the_same_name_are_refused(
    tmp_path: Path, make_job: Build, config: Build, whole: Job
) -> None:
    job = make_job(tmp_path, config(policies=["rdt"], init_states=(30, 31)))
    from tests.rdt import small_policy

    small_policy.trained_folder(job.run.root)
    job.config["evaluate"]["execution_horizon"] = small_policy.HORIZON
    job.config["task"]["camera_size"] = 64  # as on its card
    job.run.records.mkdir()
    old = Record(**{**vars(_records(whole)[0]), "policy": "rdt", "checkpoint": "0123456789ab"})
    (job.run.records / "part-x.jsonl").write_text(old.line() + "\n")
    with pytest.raises(RefusedError, match="RDTL-E038"):
        evaluate.body(job)


class Looker(Zero):
    """Sees; answers chunks of five."""

    sees = True

    def __init__(self) -> None:
        self.seen: list[int] = []

    def chunk(self, observation: Any, query: int) -> Any:
        self.seen.append(len(observation.pictures))
        return np.repeat(super().chunk(observation, query), 5, axis=0)


def test_pictures_only_where_the_policy_looks(seeing: Simulator) -> None:
    """Horizon 4 of chunks of 5, 10 steps: queries at 0, 4 and 8, none after the last step."""
    short = lender(seeing)({**seeing.task, "max_steps": 10})
    looker = Looker()
    outcome = episode.run_episode(short, looker, EpisodeKey("rdt", "s", 0, 30, 0), 4)
    assert looker.seen == [2, 2, 2]
    assert (outcome.queries, outcome.renders, len(outcome.actions)) == (3, 6, 10)


class LooksBack(Looker):
    """Also sees the control step before; notes its pictures and the present ones."""

    sees_previous = True

    def __init__(self) -> None:
        super().__init__()
        self.frames: list[tuple[Any, Any]] = []

    def chunk(self, observation: Any, query: int) -> Any:
        before = observation.previous
        self.frames.append((before and before["agentview"], observation.pictures["agentview"]))
        return super().chunk(observation, query)


@pytest.mark.slow
def test_a_policy_that_looks_back_gets_the_step_before(seeing: Simulator) -> None:
    """Each query but the first has two frames, one control step apart; no other is rendered."""
    short = lender(seeing)({**seeing.task, "max_steps": 10})
    every, fourth = LooksBack(), LooksBack()
    key = EpisodeKey("rdt", "s", 0, 30, 0)
    stepwise = episode.run_episode(short, every, key, 1)
    outcome = episode.run_episode(short, fourth, key, 4)
    assert (stepwise.queries, stepwise.renders) == (10, 2 * 10)
    assert (outcome.queries, outcome.renders) == (3, 2 * (1 + 2 + 2))
    assert every.frames[0][0] is None and fourth.frames[0][0] is None
    for step in range(1, 10):
        np.testing.assert_array_equal(every.frames[step][0], every.frames[step - 1][1])
    for query, step in ((1, 4), (2, 8)):
        np.testing.assert_array_equal(fourth.frames[query][0], every.frames[step - 1][1])
        np.testing.assert_array_equal(fourth.frames[query][1], every.frames[step][1])


def test_the_expert_solves_what_its_replay_repeats(blind: Simulator) -> None:
    key = EpisodeKey("expert", "libero_object", 0, 31, 0)
    solved = episode.run_episode(blind, Expert(), key, 16)
    again = episode.run_episode(blind, Replay(solved.actions), key, 16)
    assert solved.success
    assert again.success
    assert again.actions_sha256 == solved.actions_sha256
    assert again.fixtures_sha256 == solved.fixtures_sha256


SOUP, CHEESE = (
    f"pick_up_the_{what}_and_place_it_in_the_basket" for what in ("alphabet_soup", "cream_cheese")
)


def data_set(path: Path, gripper_open: int = -1) -> dict[str, Any]:
    """An entry of dataset.sets."""
    return DataSet(path=str(path), gripper_open=gripper_open).model_dump()


def demonstration(path: Path, value: float, task: str | None = None) -> Path:
    """A file of one demonstration, the same number everywhere; ``task``: of which it says it is."""
    path.parent.mkdir(exist_ok=True)
    with h5py.File(path, "w") as file:
        file["data/demo_0/actions"] = np.full((3, 7), value)
        if task:
            file["data"].attrs["bddl_file_name"] = f"bddl_files/libero_object/{task}.bddl"
    return path


def replayed(job: Job, number: int) -> Any:
    """The first action that a replay plays in a task of libero_object."""
    return evaluated.load(job, "replay")("libero_object", number)._actions[0]


def test_a_replay_finds_its_file_among_the_data_sets(
    tmp_path: Path, make_job: Build, config: Build
) -> None:
    """Of the evaluated task, in a folder of HDF5 files; other layouts have none."""
    job: Job = make_job(tmp_path, config(**SMALL))
    copies, suite = tmp_path / "rlds", tmp_path / "libero_object"
    job.config["dataset"]["sets"] = [data_set(copies), data_set(suite)]
    with pytest.raises(RdtlError, match="RDTL-D065") as caught:
        evaluated.load(job, "replay")("libero_object", 0)
    assert str(copies) in caught.value.problem.where
    demonstration(suite / f"{SOUP}_demo.hdf5", 0.5)
    np.testing.assert_array_equal(replayed(job, 0), 0.5)


def test_a_replay_never_plays_another_task(tmp_path: Path, make_job: Build, config: Build) -> None:
    """Data sets that are files, in whatever order; a file that is called otherwise is asked."""
    job: Job = make_job(tmp_path, config(**SMALL))
    soup = demonstration(tmp_path / f"{SOUP}_demo.hdf5", 0.25)
    cheese = demonstration(tmp_path / f"{CHEESE}_demo.hdf5", 0.5)
    job.config["dataset"]["sets"] = [data_set(soup), data_set(cheese)]
    assert (replayed(job, 0)[0], replayed(job, 1)[0]) == (0.25, 0.5)
    job.config["evaluate"]["demonstrations"] = str(soup)
    assert replayed(job, 0)[0] == 0.25
    with pytest.raises(RdtlError, match="RDTL-D065"):
        replayed(job, 1)
    mine = demonstration(tmp_path / "mine.hdf5", 0.75, CHEESE)
    job.config["evaluate"]["demonstrations"] = str(mine)
    assert replayed(job, 1)[0] == 0.75
    with pytest.raises(RdtlError, match="RDTL-D065"):
        replayed(job, 0)


def test_a_replay_opens_the_gripper_as_its_data_set_does(
    tmp_path: Path, make_job: Build, config: Build
) -> None:
    job: Job = make_job(tmp_path, config(**SMALL))
    soup = demonstration(tmp_path / f"{SOUP}_demo.hdf5", 0.25)
    job.config["dataset"]["sets"] = [data_set(soup, gripper_open=1)]
    np.testing.assert_array_equal(replayed(job, 0), [0.25] * 6 + [-0.25])


@pytest.mark.parametrize("of", ["suite", "suite/a file", "suite/.."])
def test_a_replay_of_a_named_file_opens_the_gripper_as_the_set_that_has_it(
    tmp_path: Path, make_job: Build, config: Build, of: str
) -> None:
    """`evaluate.demonstrations` is that set, a folder in it or around it, or a file of it."""
    job: Job = make_job(tmp_path, config(**SMALL))
    suite = tmp_path / "sets/suite"
    suite.mkdir(parents=True)
    soup = demonstration(suite / f"{SOUP}_demo.hdf5", 0.25)
    job.config["dataset"]["sets"] = [
        data_set(tmp_path / "sets/suit"),
        data_set(suite, gripper_open=1),
    ]
    named = {"suite": suite, "suite/a file": soup, "suite/..": suite.parent}[of]
    job.config["evaluate"]["demonstrations"] = str(named)
    np.testing.assert_array_equal(replayed(job, 0), [0.25] * 6 + [-0.25])
    other = demonstration(tmp_path / f"{SOUP}_demo.hdf5", 0.5)
    job.config["evaluate"]["demonstrations"] = str(other)
    np.testing.assert_array_equal(replayed(job, 0), 0.5)


@pytest.mark.slow
def test_killed_twice_it_still_runs_each_episode_once(
    tmp_path: Path, make_job: Build, config: Build
) -> None:
    job = make_job(tmp_path, config(policies=["zero"], init_states=(30, 36), max_steps=20))
    program = inside.python(["-P", "-m", "jobs.evaluate", str(tmp_path)], tmp_path, {})
    for enough in (1, 3):
        process = subprocess.Popen(program.argv, env=program.environment, stdout=subprocess.DEVNULL)
        while _lines(job) < enough and process.poll() is None:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
    kept = {r.key: r for r in _records(job)}
    assert 3 <= len(kept) < 6
    subprocess.run(program.argv, check=True, env=program.environment)
    found = records.read_folder(job.run.records)
    assert len(found) == len(records.read_lines(job.run.records)) == 6
    assert {r.key: r for r in found if r.key in kept} == kept
