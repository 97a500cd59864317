"""Lists of hosts, DeepSpeed's words for a choice among them, and sites that name hosts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from launcher import config, hosts
from launcher.core.errors import UsageError
from launcher.hosts import Host
from launcher.sites import Site
from tests.cli.run_rdtl import rdtl

LIST = "# ours\n\nn1 slots=4  # the big one\nn2\n"


@pytest.fixture
def two(tmp_path: Path) -> list[Host]:
    (tmp_path / "list").write_text(LIST)
    return hosts.read_list(tmp_path / "list")


@pytest.mark.parametrize(
    ("include", "exclude", "words"),
    [
        (None, None, []),
        ("n1", None, []),
        ("n1:1,3@n2", None, ["--include", "n1:1,3@n2:0"]),
        (None, "n1:0,2", ["--include", "n1:1,3@n2:0"]),
        (None, "n2", []),
    ],
)
def test_a_choice_in_deepspeed_s_words(
    two: list[Host], include: str | None, exclude: str | None, words: list[str]
) -> None:
    assert hosts.filter_words(hosts.choose(two, include, exclude)) == words


@pytest.mark.parametrize(
    ("include", "exclude"),
    [("n1", "n2"), ("n3", None), ("n1:4", None), ("n1:", None), ("n1@n1", None), (None, "n1@n2")],
)
def test_a_choice_that_is_none(two: list[Host], include: str | None, exclude: str | None) -> None:
    with pytest.raises(UsageError) as refused:
        hosts.choose(two, include, exclude)
    assert refused.value.problem.code == "RDTL-S057"


@pytest.mark.parametrize("text", ["n1 slots = 2\n", "n1\nn1 slots=2\n", "n1 slots=0\n", "#\n", ""])
def test_a_list_that_is_none(text: str, tmp_path: Path) -> None:
    (tmp_path / "list").write_text(text)
    with pytest.raises(UsageError) as refused:
        hosts.read_list(tmp_path / "list")
    assert refused.value.problem.code == "RDTL-S057"


def test_the_command_writes_the_file_once(tmp_path: Path) -> None:
    (tmp_path / "list").write_text(LIST)
    words = ("hostfile", "--hosts", "list", "--exclude", "n1:0")
    done = rdtl(*words, cwd=tmp_path)
    assert done.stdout == "deepspeed --hostfile hostfile --include n1:1,2,3@n2:0 TRAIN.py …\n"
    assert (tmp_path / "hostfile").read_text() == "n1 slots=4\nn2 slots=1\n"
    assert json.loads(rdtl(*words, "--json", cwd=tmp_path).stdout)["command"][-1] == "n1:1,2,3@n2:0"
    (tmp_path / "hostfile").write_text("mine slots=1\n")
    kept = rdtl(*words, cwd=tmp_path)
    assert kept.returncode == 2 and "RDTL-S058" in kept.stderr
    assert (tmp_path / "hostfile").read_text() == "mine slots=1\n"


@pytest.mark.slurm
@pytest.mark.skipif(shutil.which("scontrol") is None, reason="needs Slurm's programs")
def test_nodes_as_slurm_writes_them(cluster: Path) -> None:
    site = config.read_yaml(cluster / "configs" / "sites" / "minislurm.yaml")
    words = ("hostfile", "--nodelist", "n[1-2,7]", "--slots", "8", "--out", "nodes")
    done = rdtl(*words, cwd=cluster, env=site["environment"])
    assert done.returncode == 0, done.stderr
    assert (cluster / "nodes").read_text() == "n1 slots=8\nn2 slots=8\nn7 slots=8\n"


def test_a_site_of_hosts_offers_all_of_them() -> None:
    data = {"kind": "hosts", "hosts": ["n1", {"host": "n2", "slots": 4, "exclude": [0]}]}
    site = config.validate(Site, data, "test")
    assert site.nodes == 2
    assert [host.devices() for host in site.hosts] == [(0,), (1, 2, 3)]
    again = config.validate(Site, site.model_dump(mode="json"), "as a run keeps it")
    assert again == site


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"kind": "hosts"}, "kind hosts needs it"),
        ({"kind": "local", "hosts": ["n1"]}, "belongs to kind hosts"),
        ({"kind": "slurm", "network": {"ib": False}}, "belongs to kind hosts"),
        ({"kind": "hosts", "hosts": ["n1", "n1"]}, "named twice"),
        ({"kind": "hosts", "hosts": ["n1"], "nodes": 2}, "above the number"),
        ({"kind": "hosts", "hosts": [{"host": "n1", "include": [1]}]}, "n1 has the slots 0 to 0"),
        ({"kind": "hosts", "hosts": [{"host": "n1", "exclude": [0]}]}, "no slot of n1 is left"),
        ({"kind": "hosts", "hosts": ["-v"]}, "pattern"),
    ],
)
def test_a_site_that_contradicts_itself(data: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError) as refused:
        config.validate(Site, data, "test")
    assert said in str(refused.value)
