"""The test cluster itself: it is real, it limits, it requeues, it leaves nothing behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
JOB_MEMORY_MB = 2200  # two such jobs fit into a node of 4600 MB

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(
        os.geteuid() != 0 or shutil.which("slurmctld", path="/usr/sbin:/usr/bin") is None,
        reason="needs root and the packages of tests/cluster/install.sh",
    ),
]


@dataclass
class Cluster:
    """One private test cluster, driven through its command line as people drive it."""

    root: Path

    def call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        verb, *rest = arguments
        argv = [sys.executable, "-m", "tests.cluster.minislurm", verb, "--root", str(self.root)]
        return subprocess.run(
            [*argv, *rest], cwd=REPOSITORY, capture_output=True, text=True, timeout=120
        )

    def start(self) -> subprocess.Popen[str]:
        argv = [sys.executable, "-m", "tests.cluster.minislurm", "up", "--root", str(self.root)]
        return subprocess.Popen(argv, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)

    def status(self) -> dict[str, Any]:
        return json.loads(self.call("status", "--json").stdout)

    def slurm(self, *argv: str, user: int | None = None) -> str:
        """Output of a Slurm client command, which must succeed."""
        env = {"PATH": os.environ["PATH"], "SLURM_CONF": str(self.root / "etc" / "slurm.conf")}
        done = subprocess.run(
            argv, env=env, cwd="/", user=user, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, f"{argv}: {done.stderr}"
        return done.stdout

    def submit(self, script: str, log: Path, *options: str) -> str:
        """Job id of ``script`` run by sh."""
        options = ("--parsable", f"--output={log}", *options)
        return self.slurm("sbatch", *options, f"--wrap={script}").strip()

    def state(self, job: str) -> str:
        return self.slurm("squeue", "-h", "-j", job, "-o", "%T").strip()


def make(name: str) -> Cluster:
    return Cluster(Path(tempfile.gettempdir()) / f"rdtl-ms-{os.getpid()}-{name}")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """The cluster that the harmless tests share."""
    made = make("shared")
    done = made.call("up")
    assert done.returncode == 0, done.stderr
    yield made
    assert made.call("down").returncode == 0


@pytest.fixture
def private() -> Iterator[Cluster]:
    """A cluster that a test may break; not started."""
    made = make("private")
    yield made
    made.call("down")


def wait_for(condition: Callable[[], bool], seconds: float) -> float:
    """Seconds until ``condition`` held."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, f"not within {seconds} s"
        time.sleep(0.1)
    return time.monotonic() - began


def remains(root: Path) -> list[str]:
    """Everything on this machine that belongs to the cluster in ``root``."""
    script = "from tests.cluster.layout import tag_of; import pathlib, sys; "
    script += "print(tag_of(pathlib.Path(sys.argv[1])))"
    tag = subprocess.check_output(
        [sys.executable, "-c", script, str(root)], cwd=REPOSITORY, text=True
    ).strip()
    found = [str(root)] if root.exists() else []
    for folder in ("/run/netns", "/etc/netns", "/sys/class/net"):
        found += [str(path) for path in Path(folder).glob(f"{tag}*")]
    mark = f"SLURM_CONF={root}/".encode()
    for environ in Path("/proc").glob("[0-9]*/environ"):
        try:
            text = environ.read_bytes()  # empty for a zombie
        except OSError:  # the process ended while we looked
            continue
        if mark in text:
            found.append(str(environ))
    return found


def test_up_answers_quickly_and_leaves_a_running_cluster_alone(private: Cluster) -> None:
    began = time.monotonic()
    first = private.call("up")
    took = time.monotonic() - began
    assert first.returncode == 0, first.stderr
    assert took < 15, "it waits for something"
    before = private.status()
    assert before["state"] == "up"
    assert before["nodes"].keys() == {"n1", "n2", "n3"}
    assert set(before["nodes"].values()) <= {"idle", "completing"}  # its first job may be ending
    again = private.call("up")
    assert again.returncode == 0 and again.stdout.startswith("already up")
    assert private.status()["daemons"].keys() == before["daemons"].keys()
    assert [d["pid"] for d in private.status()["daemons"].values()] == [
        d["pid"] for d in before["daemons"].values()
    ]
    other = private.call("up", "--nodes", "2")
    assert other.returncode == 2 and "3 nodes" in other.stderr
    assert remains(private.root), "the search of the next test finds nothing even now"


def test_down_leaves_nothing_even_with_jobs_running(private: Cluster, tmp_path: Path) -> None:
    assert private.call("up").returncode == 0
    job = private.submit("sleep 600", tmp_path / "log", "--mem=100")
    wait_for(lambda: private.state(job) == "RUNNING", 60)
    done = private.call("down")
    assert done.returncode == 0, done.stderr
    assert remains(private.root) == []
    again = private.call("down")
    assert again.returncode == 0 and "not up" in again.stdout


def test_site_file_names_the_cluster(cluster: Cluster) -> None:
    yaml = pytest.importorskip("yaml")
    site = yaml.safe_load(Path(cluster.status()["site"]).read_text())
    assert site["kind"] == "slurm" and site["partition"] == "main"
    assert site["environment"] == {"SLURM_CONF": cluster.status()["slurm_conf"]}
    assert (site["nodes"], site["cpus_per_node"]) == (3, 4)
    real = cluster.slurm("sinfo", "-h", "-N", "-p", "main", "-o", "%N %c %m").splitlines()
    memory = site["max_memory_per_node_mb"]
    assert real == [f"n{i} {site['cpus_per_node']} {memory}" for i in (1, 2, 3)]


def test_nodes_have_their_own_names_and_reach_each_other(cluster: Cluster) -> None:
    names = cluster.slurm("srun", "--immediate=20", "-w", "n1,n2", "-N2", "-n2", "hostname")
    assert sorted(names.split()) == ["n1", "n2"]
    port = "(: </dev/tcp/n1/17818) && echo reached"
    assert cluster.slurm("srun", "--immediate=20", "-w", "n3", "bash", "-c", port) == "reached\n"


def test_an_ordinary_user_may_submit(cluster: Cluster) -> None:
    seen = cluster.slurm("srun", "--immediate=20", "--mem=100", "id", "-u", user=65534)
    assert seen == "65534\n"


def test_fake_gpus_are_handed_out_one_by_one(cluster: Cluster) -> None:
    show = ["sh", "-c", "echo $CUDA_VISIBLE_DEVICES"]
    devices = cluster.slurm("srun", "--immediate=20", "-n1", "--gpus-per-node=2", *show)
    assert devices == "0,1\n"


@pytest.mark.slow
def test_memory_limits_how_many_array_tasks_run_at_once(cluster: Cluster, tmp_path: Path) -> None:
    body = "echo $(hostname) $(date +%s.%N); sleep 2; date +%s.%N"
    job = cluster.submit(
        body, tmp_path / "%a", "--array=0-8", f"--mem={JOB_MEMORY_MB}", "--cpus-per-task=1"
    )
    wait_for(lambda: cluster.state(job) == "", 30)
    runs = [(tmp_path / str(index)).read_text().split() for index in range(9)]
    assert {host for host, _, _ in runs} == {"n1", "n2", "n3"}
    for node in ("n1", "n2", "n3"):
        spans = [(float(begin), float(end)) for host, begin, end in runs if host == node]
        together = [sum(b <= begin < e for b, e in spans) for begin, _ in spans]
        assert max(together) == 2, f"{node}: {spans}"


@pytest.mark.slow
def test_a_requeued_job_runs_again_within_seconds(cluster: Cluster, tmp_path: Path) -> None:
    body = 'echo run ${SLURM_RESTART_COUNT:-0}; [ -n "$SLURM_RESTART_COUNT" ] || sleep 600'
    log = tmp_path / "log"
    job = cluster.submit(body, log, "--mem=100", "--open-mode=append", "--requeue")
    wait_for(lambda: log.exists() and "run 0" in log.read_text(), 60)
    cluster.slurm("scontrol", "requeue", job)
    waited = wait_for(lambda: "run 1" in log.read_text(), 60)
    assert waited > 1, "the job never left its node"


def test_killed_node_is_gone_and_up_repairs(private: Cluster) -> None:
    assert private.call("up").returncode == 0
    killed = private.call("kill-node", "n2")
    assert killed.returncode == 0 and "killed 1 " in killed.stdout
    broken = private.call("status")
    assert broken.returncode == 1 and "broken" in broken.stdout
    assert not private.status()["daemons"]["slurmd-n2"]["alive"]
    assert private.status()["daemons"]["slurmd-n1"]["alive"]
    assert private.call("up").stdout.startswith("up in")
    assert private.status()["state"] == "up"


@pytest.mark.parametrize("delay", [0.1, 0.2, 0.3])
def test_up_killed_at_any_moment_is_repaired_by_the_next(private: Cluster, delay: float) -> None:
    for _ in range(2):
        starting = private.start()
        time.sleep(delay)
        starting.send_signal(signal.SIGKILL)
        starting.communicate()
    done = private.call("up")
    assert done.returncode == 0, done.stderr
    names = private.slurm("srun", "--immediate=20", "-N3", "-n3", "hostname")
    assert sorted(names.split()) == ["n1", "n2", "n3"]
    assert private.call("down").returncode == 0
    assert remains(private.root) == []


def test_two_at_once_are_serialised_beside_another_cluster(
    private: Cluster, cluster: Cluster
) -> None:
    both = [private.start(), private.start()]
    output = "".join(starting.communicate()[0] for starting in both)
    assert [starting.returncode for starting in both] == [0, 0]
    assert output.count("up in ") == 1 and output.count("already up") == 1
    assert private.status()["network"] != cluster.status()["network"]
    assert cluster.status()["state"] == "up"


def test_directory_of_somebody_else_is_refused(private: Cluster) -> None:
    private.root.mkdir()
    treasure = private.root / "thesis.tex"
    treasure.write_text("years of work")
    try:
        for verb in ("up", "down"):
            done = private.call(verb)
            assert done.returncode == 2 and "holds no test cluster" in done.stderr
        assert treasure.read_text() == "years of work"
    finally:
        shutil.rmtree(private.root)


def test_without_root_it_says_what_to_do() -> None:
    script = (
        "import os, sys; from tests.cluster.minislurm import main; os.setuid(65534); "
        "sys.exit(main(['up', '--root', '/tmp/rdtl-ms-nobody']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "needs root" in done.stderr and "sudo" in done.stderr


def test_missing_package_names_the_installer() -> None:
    script = (
        "import shutil, sys; which = shutil.which; "
        "shutil.which = lambda name, **k: None if name == 'slurmctld' else which(name, **k); "
        "from tests.cluster.minislurm import main; "
        "sys.exit(main(['up', '--root', '/tmp/rdtl-ms-missing']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "slurmctld" in done.stderr and "tests/cluster/install.sh" in done.stderr


@pytest.mark.slow
def test_accounting_remembers_finished_jobs(private: Cluster) -> None:
    done = private.call("up", "--accounting")
    assert done.returncode == 0, done.stderr
    private.slurm("srun", "--immediate=20", "--job-name=remembered", "true")
    query = ["sacct", "-X", "-n", "-P", "-o", "JobName,State"]
    wait_for(lambda: "remembered|COMPLETED" in private.slurm(*query), 10)
    assert private.call("down").returncode == 0
    assert remains(private.root) == []
