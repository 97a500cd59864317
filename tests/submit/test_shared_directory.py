"""A site's shared directory: what does not lie below it, the nodes would not see."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from launcher.core.errors import RefusedError
from launcher.sites import Site, require_shared
from tests.cli.run_rdtl import rdtl


@pytest.mark.parametrize(
    "kind",
    ["kind: slurm\n", "kind: hosts\nhosts: [n1, n2]\n"],
)
def test_a_run_outside_is_refused_before_it_begins(tmp_path: Path, kind: str) -> None:
    shared, here = tmp_path / "shared", tmp_path / "home"
    for folder in (shared, here / "configs/sites"):
        folder.mkdir(parents=True)
    (here / "configs/sites/far.yaml").write_text(f"{kind}shared_directory: {shared}\n")
    done = rdtl("run", "--site", "far", "--name", "mine", "--", "true", cwd=here)
    assert done.returncode == 3
    assert "RDTL-S023" in done.stderr and f"--runs-dir {shared}/runs" in done.stderr
    assert not (here / "runs/mine-far/plan.json").exists(), "no run, only the copied directory"


def site(**changes: Any) -> Site:
    return Site.model_validate({"kind": "slurm", **changes})


def test_what_lies_below_it_under_any_name_may_run(tmp_path: Path) -> None:
    shared, link = tmp_path / "shared", tmp_path / "link"
    (shared / "runs").mkdir(parents=True)
    link.symlink_to(shared)
    for named in (shared, link):
        for root in (shared / "runs/mine", link / "runs/mine", link / "new/mine"):
            require_shared(site(shared_directory=str(named)), root)
    require_shared(site(shared_directory=str(tmp_path / "new")), tmp_path / "new/runs/mine")
    require_shared(site(), tmp_path / "elsewhere")
    require_shared(site(kind="local", shared_directory=str(shared)), tmp_path / "elsewhere")
    with pytest.raises(RefusedError, match="RDTL-S023"):
        require_shared(site(shared_directory=str(link)), tmp_path / "shared-too/mine")
