"""A pipeline whose data come from outside: staged, trained, evaluated, reported, on Slurm."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import yaml

from launcher.core.plan import read
from tests.cli.run_rdtl import rdtl
from tests.road import small_demo

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(os.geteuid() != 0, reason="starts Slurm in network namespaces: needs root"),
    pytest.mark.skipif(shutil.which("slurmctld") is None, reason="Slurm is not installed"),
]


def write_config(folder: Path, uri: str, *, evaluate: bool = True) -> Path:
    path = folder / "pipeline.yaml"
    config = {
        "name": "outside",
        "task": {"max_steps": 20},
        "dataset": {"sets": [{"path": uri}]},
        "train": {"steps": 4, "warmup_steps": 1, "checkpoint_every": 2, "log_every": 1},
    }
    if evaluate:
        config["evaluate"] = {
            "policies": ["zero"], "init_states": [30, 32], "shards": 2, "videos": 1,
        }  # fmt: skip
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.mark.slow
def test_submitted_detached_then_extended_and_followed_by_other_processes(
    cluster: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    source = next((uninterrupted / "data" / "libero_object").glob("*_demo.hdf5"))
    config = write_config(tmp_path, source.as_uri(), evaluate=False)
    words = ("pipeline", str(config), "--site", "minislurm", "--runtime", "apptainer")
    detached = rdtl(*words, "--detach", "--json", cwd=cluster)
    assert detached.returncode == 0, detached.stderr
    answer = json.loads(detached.stdout)
    assert set(answer["jobs"]) == {"stage", "dataset", "train"}
    assert all(len(ids) == 1 for ids in answer["jobs"].values()), "one job or array a stage"
    write_config(tmp_path, source.as_uri())
    followed = rdtl(*words, cwd=cluster, timeout=300)
    assert followed.returncode == 0, followed.stderr
    run = Path(answer["run"])
    stages = [stage.name for stage in read(run / "plan.json").stages]
    assert stages == ["stage", "dataset", "train", "stage-2", "evaluate", "videos", "report"]
    for stage in stages:
        assert [path.name for path in (run / "events").glob(f"claim.{stage}.*")] == [
            f"claim.{stage}.a1.json"
        ]
    folder = run / "assets" / "dataset.sets.0.path"
    (staged,) = json.loads((folder / "manifest.json").read_text())["files"]
    size, digest = source.stat().st_size, small_demo.digest(source)
    assert staged == {"path": source.name, "size": size, "sha256": digest}
    assert small_demo.digest(folder / source.name) == digest
    assert {record.status for record in small_demo.records(run)} == {"fail"}
    assert (run / "report" / "summary.csv").exists()
    assert len(list((run / "videos").glob("*.mp4"))) == 1


def test_an_asset_that_is_not_there_stops_the_chain(cluster: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path, "file:///nowhere/x_demo.hdf5")
    done = rdtl("pipeline", str(config), "--site", "minislurm", "--name", "nowhere", cwd=cluster)
    assert done.returncode == 1
    assert "RDTL-G002" in done.stderr
    assert not (cluster / "runs/nowhere-minislurm/policy").exists()


@pytest.mark.parametrize("uri", ["ftp://host/x.hdf5", "file://host/x.hdf5"])
def test_places_that_are_none_are_refused_before_anything_is_written(
    uri: str, tmp_path: Path
) -> None:
    done = rdtl("pipeline", str(write_config(tmp_path, uri)), cwd=tmp_path)
    assert done.returncode == 2
    assert "RDTL-G019" in done.stderr
    assert not (tmp_path / "runs").exists()
