"""Looking at the queue: seldom, patiently, and never believing more than was said."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from launcher.core.errors import RemoteError
from launcher.core.plan import Stage
from launcher.core.runs import RunDir
from launcher.sites import Site
from launcher.submit import clients as clients_module
from launcher.submit.clients import Clients, Reply, clean_environment
from launcher.submit.queue import Queue
from launcher.submit.slurm import SlurmBackend

SILENT = "slurm_load_jobs error: Unable to contact slurm controller (connect failure)"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Scripted(Clients):
    """A cluster that says what it is told to say, and counts."""

    def __init__(self, clock: Clock, answer: Callable[[list[str]], Reply]) -> None:
        self.said: list[str] = []
        super().__init__({}, self.said.append, clock)
        self.answer = answer
        self.asked: list[str] = []

    def run(self, argv: list[str], timeout_s: float = 30) -> Reply:
        self.calls += 1
        self.asked.append(argv[0])
        return self.answer(argv)


def rows(*lines: str) -> Callable[[list[str]], Reply]:
    return lambda argv: Reply(0, "".join(f"{line}\n" for line in lines), "")


def silent(argv: list[str]) -> Reply:
    return Reply(1, "", SILENT)


def watch(queue: Queue, clock: Clock, ids: list[str], seconds: float) -> None:
    """What driving does: a look every two seconds."""
    end = clock.now + seconds
    while clock.now < end:
        queue.alive(ids)
        clock.now += 2


@pytest.mark.parametrize("tasks", ["N/A", "0-999%100"], ids=["one job", "1,000 tasks"])
def test_an_hour_of_watching_costs_at_most_240_calls(tasks: str) -> None:
    clock = Clock()
    clients = Scripted(clock, rows(f"7|{tasks}|RUNNING|None|rdtl-x-a"))
    queue = Queue(clients, "rdtl-x-", clock)
    queue.sent("7", 1000)
    watch(queue, clock, ["7"], 3600)
    assert 100 <= clients.calls <= (125 if tasks == "N/A" else 121) <= 240


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("Batch job submission failed: Invalid job array specification", "RDTL-S002"),
        ("Batch job submission failed: Requested time limit is invalid", "RDTL-S021"),
        ("Batch job submission failed: Invalid account or account/partition", "RDTL-S031"),
        ("Job violates accounting/QOS policy (user's size and/or time limits)", "RDTL-S021"),
        # The words of a site's own submit filter, and what sbatch says where it gives none.
        ("Job request does not match any supported policy", "RDTL-S031"),
        ("Batch job submission failed: Unspecified error", "RDTL-S031"),
    ],
)
def test_what_sbatch_refuses_has_a_code(said: str, code: str, tmp_path: Path) -> None:
    backend = SlurmBackend(RunDir(tmp_path), Site(kind="slurm"), lambda text: None)
    with pytest.raises(RemoteError, match=code) as caught:
        backend._not_sent(Stage("train", ("true",)), Reply(1, "", f"sbatch: error: {said}\n"))
    assert said in caught.value.problem.where


def test_small_jobs_are_looked_at_soon_and_large_arrays_are_not() -> None:
    for tasks, expected in (("N/A", 4), ("0-999", 1)):
        clock = Clock()
        clients = Scripted(clock, rows(f"7|{tasks}|RUNNING|None|rdtl-x-a"))
        watch(Queue(clients, "rdtl-x-", clock), clock, ["7"], 20)
        assert clients.calls == expected


def test_a_job_that_went_in_after_the_last_look_is_not_called_gone() -> None:
    clock = Clock()
    clients = Scripted(clock, rows())
    queue = Queue(clients, "rdtl-x-", clock)
    assert queue.alive(["7"]) == set()
    clock.now += 1
    queue.sent("7", 3)
    assert queue.alive(["7"]) == {"7"}
    assert queue.tasks() == 3
    clock.now += 31
    assert queue.alive(["7"]) == set()


def test_a_job_that_another_launcher_sent_after_the_last_look_is_not_called_gone() -> None:
    clock = Clock()
    clients = Scripted(clock, rows("7|N/A|RUNNING|None|rdtl-x-a"))
    queue = Queue(clients, "rdtl-x-", clock)
    watch(queue, clock, ["7"], 60)  # by now an answer is kept for half a minute
    clients.answer = rows("7|N/A|RUNNING|None|rdtl-x-a", "8|N/A|PENDING|None|rdtl-x-b")
    for _ in range(10):
        assert queue.alive(["7", "8"]) == {"7", "8"}
        clock.now += 0.3
    clients.answer = rows("7|N/A|RUNNING|None|rdtl-x-a")
    clock.now += 31
    assert queue.alive(["7", "8"]) == {"7"}


def test_silence_is_neither_running_nor_gone_and_is_met_with_patience() -> None:
    clock = Clock()
    clients = Scripted(clock, silent)
    queue = Queue(clients, "rdtl-x-", clock)
    asked_at = []
    for _ in range(300):
        before = clients.calls
        assert queue.alive(["7"]) is None
        if clients.calls > before:
            asked_at.append(clock.now)
        clock.now += 1
    pauses = [b - a for a, b in itertools.pairwise(asked_at)]
    assert pauses == [2, 4, 8, 16, 32, 60, 60, 60]
    assert len(clients.said) == 1 and "connect failure" in clients.said[0]
    clients.answer = rows("7|N/A|RUNNING|None|rdtl-x-a")
    clock.now += 60
    assert queue.alive(["7"]) == {"7"}
    assert clients.said[-1] == "the cluster answers again"


def test_patience_ends_with_plain_words() -> None:
    clock = Clock()
    queue = Queue(Scripted(clock, silent), "rdtl-x-", clock)
    with pytest.raises(RemoteError) as caught:
        watch(queue, clock, ["7"], 2 * clients_module.PATIENCE_S)
    assert caught.value.problem.code == "RDTL-S032"
    assert "what was submitted goes on" in str(caught.value)


def test_sbatch_is_not_tried_for_ever_because_squeue_answers(tmp_path: Path) -> None:
    backend = SlurmBackend(RunDir(tmp_path), Site(kind="slurm"), lambda text: None)
    train, tries = Stage("train", ("true",)), 0
    with pytest.raises(RemoteError, match="RDTL-S032") as caught:
        while tries < 100:
            assert backend._not_sent(train, Reply(1, "", SILENT)) is None
            backend._clients.answered()  # as squeue's answer does
            tries += 1
    assert "sbatch has not answered 30 times" in caught.value.problem.what
    assert "connect failure" in caught.value.problem.where


@pytest.mark.parametrize(("queued", "tries"), [(rows(), 5), (rows("9|0-2|RUNNING|None|x"), 50)])
def test_a_full_queue_that_looks_empty_is_asked_again_and_not_for_ever(
    queued: Callable[[list[str]], Reply], tries: int, tmp_path: Path
) -> None:
    """Tasks that have just ended are gone from squeue and still count for the account."""
    backend = SlurmBackend(RunDir(tmp_path), Site(kind="slurm"), lambda text: None)
    backend.queue = Queue(Scripted(Clock(), queued), "rdtl-x-", Clock())
    train, full = Stage("train", ("true",)), "error: QOSMaxSubmitJobPerUserLimit: QOS policy"
    for _ in range(tries):
        assert backend._not_sent(train, Reply(1, "", full)) == []
    if tries == 5:
        with pytest.raises(RemoteError, match="RDTL-S021"):
            backend._not_sent(train, Reply(1, "", full))


def test_a_job_id_given_a_second_time_is_not_ours() -> None:
    clock = Clock()
    queue = Queue(Scripted(clock, rows("7|N/A|RUNNING|None|somebody-else")), "rdtl-x-", clock)
    assert queue.alive(["7"]) == set()


def test_a_dependency_that_can_never_be_satisfied_is_an_end() -> None:
    clock = Clock()
    line = "7|N/A|PENDING|DependencyNeverSatisfied|rdtl-x-b"
    queue = Queue(Scripted(clock, rows(line)), "rdtl-x-", clock)
    assert queue.alive(["7"]) == set()
    assert queue.hopeless(["7", "8"]) == {"7"}


def sacct_and_squeue(found: str, sacct: Reply) -> Callable[[list[str]], Reply]:
    return lambda argv: sacct if argv[0] == "sacct" else Reply(0, found, "")


NAME = "rdtl-x-a-a1"
SACCT = Reply(0, f"JobID|JobName\n7_0|{NAME}\n7_[1-9]|{NAME}\n", "")


@pytest.mark.parametrize(
    ("squeue", "sacct", "since", "accounting", "expected"),
    [
        (f"7|0-9|PENDING|None|{NAME}\n", SACCT, 0.0, True, ["7"]),
        ("", SACCT, 0.0, True, ["7"]),
        ("", Reply(0, "JobID|JobName\n", ""), 0.0, True, []),
        ("", Reply(1, "", "Slurm accounting storage is disabled"), 0.0, False, []),
        ("", Reply(1, "", "Connection refused"), 0.0, True, None),
        (f"7|0-9|PENDING|None|{NAME}.c0\n", Reply(1, "", ""), 0.0, False, []),
    ],
    ids=["in the queue", "accounting only", "nowhere", "no accounting", "database down", "other"],
)
def test_a_part_is_looked_up_by_its_name(
    squeue: str, sacct: Reply, since: float, accounting: bool, expected: list[str] | None
) -> None:
    clock = Clock()
    queue = Queue(Scripted(clock, sacct_and_squeue(squeue, sacct)), "rdtl-x-", clock)
    assert queue.find(NAME, since, accounting, memory_s=300) == expected


def test_while_the_controller_remembers_accounting_is_not_needed() -> None:
    import time

    clock = Clock()
    clients = Scripted(clock, sacct_and_squeue("", Reply(1, "", "down")))
    assert Queue(clients, "rdtl-x-", clock).find(NAME, time.time(), True, memory_s=300) == []
    assert clients.asked == ["squeue"]


def test_how_a_job_ended_in_words() -> None:
    told = Reply(0, "JobID|State\n7_0|COMPLETED\n7_1|OUT_OF_MEMORY\n7_2|CANCELLED by 0\n", "")
    clock = Clock()
    queue = Queue(Scripted(clock, sacct_and_squeue("", told)), "rdtl-x-", clock)
    assert queue.ended(["7"], 0.0) == "CANCELLED by 0, OUT_OF_MEMORY"


def test_without_accounting_the_controller_says_how_a_job_ended() -> None:
    clock = Clock()
    clients = Scripted(clock, sacct_and_squeue("CANCELLED\nCOMPLETING\n", Reply(1, "", "disabled")))
    assert Queue(clients, "rdtl-x-", clock).ended(["7"], 0.0) == "CANCELLED"
    assert clients.asked == ["sacct", "squeue"]


def test_nothing_of_an_enclosing_job_is_inherited() -> None:
    inherited = ["SLURM_JOB_ID", "SLURMD_NODENAME", "SRUN_DEBUG", "SBATCH_PARTITION", "PMI_RANK",
                 "PMIX_RANK", "PMI2_RANK", "SUBMITIT_FOLDER"]  # fmt: skip
    current = dict.fromkeys([*inherited, "SLURM_CONF", "PATH", "HOME"], "x")
    assert clean_environment(current, {"SLURM_CONF": "y"}) == {
        "SLURM_CONF": "y",
        "PATH": "x",
        "HOME": "x",
    }


def test_what_a_user_prefers_to_see_of_the_queue_does_not_hide_jobs() -> None:
    own = {"SQUEUE_STATES": "PENDING", "SQUEUE_PARTITION": "other", "SINFO_PARTITION": "other",
           "SCANCEL_INTERACTIVE": "1", "SACCT_FORMAT": "x", "SCONTROL_ALL": "1"}  # fmt: skip
    site = {"SQUEUE_FEDERATION": "1"}
    assert clean_environment({**own, "PATH": "x"}, site) == {"PATH": "x", **site}
