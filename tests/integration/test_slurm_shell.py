"""A shell in a job that runs on a real Slurm."""

from __future__ import annotations

from pathlib import Path

from tests.cli.run_rdtl import rdtl
from tests.integration.slurm_runs import NEEDS, Bench, ends_well, stage

pytestmark = NEEDS


def test_a_shell_goes_into_the_stage_that_runs(cluster: Path, tmp_path: Path) -> None:
    """Not into the one that was submitted last: it still waits."""
    wait = "touch begun; while ! test -e end; do sleep 0.1; done"
    bench = Bench(tmp_path, cluster, [stage("a", then=wait), stage("b", needs="a")])
    launcher = bench.start()
    bench.wait(lambda: (bench.run.root / "begun").exists())
    bench.wait(lambda: bench.run.ledger.read("submitted.b.a1"))
    joined = rdtl("shell", "--site", "minislurm", "--into", str(bench.run.root), "--",
                  "sh", "-c", "echo in $RDTL_STAGE; touch end", cwd=cluster)  # fmt: skip
    assert joined.stdout == "in a\n", joined.stderr
    ends_well(launcher)
