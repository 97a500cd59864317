"""What `rdtl doctor --site` says of a cluster, and of a site file that promises too much."""

from __future__ import annotations

from pathlib import Path

from launcher.sites import Site
from launcher.submit.checks import compare, tell
from launcher.submit.limits import Limits
from launcher.submit.parse import NodeKind
from launcher.submit.script import Request, render

KINDS = [NodeKind("gpu", 4, 64, 500_000, 8), NodeKind("gpu", 2, 32, 250_000, 4),
         NodeKind("cpu", 9, 128, 900_000, 0)]  # fmt: skip


def test_a_site_that_fits_has_no_findings() -> None:
    site = Site(kind="slurm", partition="gpu", nodes=6, cpus_per_node=64, gpus_per_node=8)
    assert compare(site, KINDS) == []


def test_each_number_that_is_too_large_is_named_with_what_there_is() -> None:
    site = Site(kind="slurm", partition="cpu", nodes=10, gpus_per_node=1, cpus_per_node=128)
    found = compare(site, KINDS)
    assert [finding.code for finding in found] == ["RDTL-S021"] * 2
    assert [finding.fix for finding in found] == [
        "nodes: 9 in the site file", "gpus_per_node: 0 in the site file",
    ]  # fmt: skip


def test_of_several_partitions_one_must_be_as_large_as_the_site_says() -> None:
    def of(**values: int) -> list[str]:
        site = Site(kind="slurm", partition="cpu,gpu", **values)
        return [finding.fix for finding in compare(site, KINDS)]

    assert of(nodes=9) == []
    assert of(nodes=6, gpus_per_node=8, cpus_per_node=64) == []
    assert of(nodes=7, gpus_per_node=8) == ["gpus_per_node: 0 in the site file"]


def test_limits_are_told_in_one_line() -> None:
    line = tell(Limits("23.11.1", 1001, None, 300.0, 10.0, False)).what
    assert "Slurm 23.11.1, arrays of at most 1001 tasks, at most any number of tasks" in line


def test_the_kind_of_gpu_stands_in_the_script() -> None:
    asked = Request(
        "t", "j", Path("/r"), Path("/c"), "python", 1, 1, 100, 60, gpus_per_node=8, gpu_type="a100"
    )
    assert "#SBATCH --gpus-per-node=a100:8\n" in render(asked)
