"""What Slurm 20.11 to 25.05 print, read; see tests/data/slurm/README.md for where it comes from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from launcher.arrays import Part
from launcher.core.errors import RefusedError
from launcher.core.plan import Plan, Stage
from launcher.core.runs import RunDir
from launcher.sites import Site
from launcher.submit import fit, limits, parse, slurm
from launcher.submit.clients import Clients, Reply
from launcher.submit.fit import Cluster
from launcher.submit.parse import NodeKind, Row

DATA = Path(__file__).parent.parent / "data" / "slurm"


def text(name: str) -> str:
    return (DATA / f"{name}.txt").read_text()


class Canned(Clients):
    """Answers of a cluster that is not here, from files; counts the questions."""

    def __init__(self, answers: dict[str, str]) -> None:
        super().__init__({}, print)
        self.answers = answers

    def run(self, argv: list[str], timeout_s: float = 30) -> Reply:
        self.calls += 1
        for words, answer in self.answers.items():
            if words in " ".join(argv):
                return Reply(0, answer, "")
        return Reply(1, "", "sacctmgr: error: Problem talking to the database: Connection refused")


def read(version: str, site: Site, **answers: str) -> limits.Limits:
    told = {"show config": text(f"{version}-config"), **answers}
    found = limits.read(Canned(told), site)
    assert found
    return found


@pytest.mark.parametrize(
    ("version", "array", "queued", "remembers", "settles", "accounting"),
    [
        ("20.11", 1001, 10_000, 300, 10, True),
        ("22.05", 10_001, 300_000, 3600, 5, True),
        ("23.11", 4001, 200_000, 300, 60, True),
        ("25.05", 1001, 10_000, 300, 10, False),
    ],
)
def test_limits_of_every_version(
    version: str, array: int, queued: int, remembers: int, settles: int, accounting: bool
) -> None:
    found = read(version, Site(kind="slurm"))
    assert found.version.startswith(version)
    assert (found.array_tasks, found.queued_tasks) == (array, queued)
    assert (found.remembers_s, found.settles_s) == (remembers, settles)
    assert found.accounting is accounting
    assert found.part_size == min(array, queued)


ACCOUNTS = {"show assoc": text("23.11-assoc"), "show qos": text("23.11-qos")}


@pytest.mark.parametrize(
    ("site", "queued"),
    [
        (Site(kind="slurm", partition="cpu"), 500),
        (Site(kind="slurm", partition="gpu"), 300),
        (Site(kind="slurm", partition="debug"), 2),
        (Site(kind="slurm", partition="cpu,gpu"), 300),
        (Site(kind="slurm", partition="cpu", qos="long"), 20),
        (Site(kind="slurm", partition="cpu", max_queued_tasks=7), 7),
    ],
)
def test_the_smallest_limit_of_account_and_qos_counts(site: Site, queued: int) -> None:
    assert read("23.11", site, **ACCOUNTS).queued_tasks == queued


def test_a_database_that_is_down_tells_no_limits_and_stops_nothing() -> None:
    assert read("23.11", Site(kind="slurm")).queued_tasks == 200_000


def test_where_nothing_is_enforced_the_database_is_not_asked() -> None:
    clients = Canned({"show config": text("25.05-config")})
    limits.read(clients, Site(kind="slurm"))
    assert clients.calls == 1


@pytest.mark.parametrize("version", ["20.11", "25.05"])
def test_partitions_and_nodes(version: str) -> None:
    found = parse.partitions(text(f"{version}-partition"))
    assert list(found) == ["gpu", "debug"]
    assert found["gpu"]["MaxTime"] == "2-00:00:00"
    kinds = parse.nodes(text(f"{version}-sinfo"))
    assert kinds[0] == NodeKind("gpu", 8, 64, 515_000, 8)
    assert kinds[2] == NodeKind("debug", 2, 32, 128_000, 0)


def test_what_this_slurm_printed() -> None:
    assert list(parse.partitions(text("22.05-partition"))) == ["main", "low", "high"]
    assert parse.nodes(text("22.05-sinfo"))[0] == NodeKind("main", 3, 4, 4600, 2)
    assert parse.queue(text("22.05-squeue")) == [
        Row("1", 1, "COMPLETED", "None", "hostname"),
        Row("3", 1, "COMPLETED", "None", "rdtl-ok"),
        Row("2", 22, "PENDING", "JobHeldUser", "rdtl-x|y"),
    ]


@pytest.mark.parametrize(
    ("expression", "tasks"),
    [("N/A", 1), ("7", 1), ("0-9", 10), ("0-9,20,30-40%3", 22), ("0-8:2", 5), ("0-3,5-...", 4)],
)
def test_tasks_of_an_array_expression(expression: str, tasks: int) -> None:
    assert parse.count_tasks(expression) == tasks


@pytest.mark.parametrize(
    ("limit", "minutes"),
    [
        ("UNLIMITED", None),
        ("infinite", None),
        ("NONE", None),
        ("30", 30),
        ("45:30", 45),
        ("01:30:00", 90),
        ("2-00:00:00", 2880),
        ("1-12", 2160),
        ("1-12:30", 2190),
    ],
)
def test_time_limits(limit: str, minutes: int | None) -> None:
    assert parse.minutes(limit) == minutes


@pytest.mark.parametrize(
    ("gres", "count"),
    [
        ("(null)", 0),
        ("gpu:2", 2),
        ("gpu:a100:8(S:0-1)", 8),
        ("gpu:a100:4(S:0),gpu:h100:4(S:1)", 8),
        ("nvme:1,gpu:a100_80gb:3", 3),
        ("gpu", 1),
    ],
)
def test_gpus(gres: str, count: int) -> None:
    assert parse.gpus(gres) == count


def cluster() -> Cluster:
    return Cluster(parse.partitions(text("25.05-partition")), parse.nodes(text("25.05-sinfo")))


def refusal(stage: Stage, partition: str | None) -> str:
    with pytest.raises(RefusedError) as caught:
        fit.check(stage, Site(kind="slurm", partition=partition).partitions, cluster())
    assert caught.value.problem.code == "RDTL-S021"
    return str(caught.value)


def stage(**wants: int) -> Stage:
    return Stage(**{"name": "train", "argv": ("true",), "memory_mb": 1000, "minutes": 20, **wants})


@pytest.mark.parametrize(
    ("wants", "partition", "words"),
    [
        ({"minutes": 31}, None, "in the site file); or partition gpu, which"),
        ({"minutes": 3000}, "gpu", "ask for at most 2880 minutes"),
        ({"cpus": 9}, "debug", "at most 8 cores per node; or partition gpu, which"),
        ({"memory_mb": 5000}, "debug", "at most 4000 MB of memory per node"),
        ({"memory_mb": 600_000}, "gpu", "at most 500000 MB of memory per node"),
        ({"nodes": 5}, "gpu", "at most 4 nodes"),
        ({"gpus_per_node": 9}, "gpu", "at most 8 GPUs per node"),
        ({"gpus_per_node": 1}, "debug", "ask for no GPUs per node; or partition gpu, which"),
        ({}, "nosuch", "partitions: debug, gpu"),
        ({}, "gpu,nosuch", "there is no partition nosuch"),
        ({"minutes": 3000}, "debug,gpu", "partition gpu cannot give it: 3000 minutes"),
    ],
)
def test_what_can_never_run_is_refused_with_the_nearest_that_fits(
    wants: dict[str, int], partition: str | None, words: str
) -> None:
    assert words in refusal(stage(**wants), partition)


def test_too_long_a_limit_is_refused_with_where_it_is_said() -> None:
    long = stage(minutes=3000)
    assert "2880 minutes (max_minutes: 2880 in the site file)" in refusal(long, "gpu")
    command = replace(long, own_code=False)
    assert "2880 minutes (--minutes 2880)" in refusal(command, "gpu")


def test_a_site_bounds_the_time_of_every_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site(kind="slurm", partition="gpu", max_minutes=2880)
    run, part = RunDir(tmp_path), Part("train", 1, (0,))
    long, short = stage(minutes=3000), stage(minutes=20)
    assert slurm.request(run, site, long, part, []).minutes == 2880
    assert slurm.request(run, site, short, part, []).minutes == 20
    monkeypatch.setattr(slurm, "require_scheduler", lambda name: None)
    answers = {"scontrol": text("25.05-partition"), "sinfo": text("25.05-sinfo")}
    monkeypatch.setattr(slurm, "Clients", lambda *words: Canned(answers))
    backend = slurm.SlurmBackend(run, site)
    backend.check(Plan("p", "s", (long, short), {}))
    with pytest.raises(RefusedError, match="RDTL-S021"):  # a command's limit is its user's word
        backend.check(Plan("run", "s", (replace(long, own_code=False),), {}))


@pytest.mark.parametrize(
    ("wants", "partition"),
    [
        ({}, None),
        ({"cpus": 64}, "debug,gpu"),
        ({"minutes": 2880, "gpus_per_node": 8, "nodes": 4, "cpus": 64}, "gpu"),
    ],
)
def test_what_fits_is_let_through(wants: dict[str, int], partition: str | None) -> None:
    partitions = Site(kind="slurm", partition=partition).partitions
    fit.check(stage(**wants), partitions, cluster())
    assert refusal(stage(**{**wants, "nodes": 1000}), partition)  # the check did look


def test_cores_memory_and_gpus_must_come_together() -> None:
    kinds = [NodeKind("p", 2, 64, 1000, 0), NodeKind("p", 1, 8, 64_000, 4)]
    both = Cluster({"p": {"MaxTime": "UNLIMITED"}}, kinds)
    with pytest.raises(RefusedError, match="train"):
        fit.check(stage(cpus=64, memory_mb=2000), ["p"], both)
    with pytest.raises(RefusedError) as caught:
        fit.check(stage(gpus_per_node=1, nodes=2), ["p"], both)
    assert "2 nodes of this size, at most 1" in str(caught.value)
    fit.check(stage(cpus=8, memory_mb=2000, gpus_per_node=4), ["p"], both)


def test_an_accounting_table() -> None:
    assert {row["jobname"] for row in parse.table(text("22.05-sacct"))} == {"hostname", "rdtl-ok"}
    rows = parse.table("JobID|JobName|State\n12_3|rdtl-a|CANCELLED by 0\n")
    assert rows == [{"jobid": "12_3", "jobname": "rdtl-a", "state": "CANCELLED by 0"}]
    assert parse.table("") == []
