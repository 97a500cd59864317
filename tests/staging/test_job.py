"""The stage of a run: its data come from a store, whatever is killed in between."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from unittest.mock import Mock

import pytest

from launcher import assets, presets
from launcher.core import files
from launcher.core.errors import EXIT_REQUEUE
from launcher.core.job import Job
from launcher.core.plan import Plan
from launcher.core.runs import RunDir
from launcher.core.runtimes import Container
from launcher.schema import RunConfig
from launcher.sites import Site
from launcher.staging import job, keep
from launcher.staging.cache import Cache
from tests.staging.conftest import S3, tree

FILES = {f"{n:02}.hdf5": os.urandom(60_000) for n in range(20)}


def config(*uris: str) -> RunConfig:
    sets = [{"path": text} for text in uris]
    return RunConfig.model_validate({"name": "x", "dataset": {"sets": sets}, "train": {}})


@pytest.fixture
def run(tmp_path: Path, cache: Cache) -> RunDir:
    """A run whose data lie in the bucket."""
    found = RunDir(tmp_path / "runs" / "r")
    _, staged = assets.split(config("rclone:t:bkt/set", "rclone:t:bkt/set/00.hdf5"), found)
    data = {"assets": assets.to_config(staged), "asset_cache": str(cache.root)}
    files.write_json(found.plan, Plan("r", "local", (), data).to_dict())
    return found


def start(run: RunDir) -> subprocess.Popen[str]:
    argv = [sys.executable, "-P", "-m", "launcher.staging.job", str(run.root)]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_data_come_in_though_job_and_server_are_killed(s3: S3, run: RunDir, cache: Cache) -> None:
    s3.put(**{f"set/{name}": data for name, data in FILES.items()})
    begun = s3.proxy.slow_from(8, 0.3)
    first = start(run)
    assert begun.wait(60)
    first.kill()
    first.communicate()
    s3.server.kill()
    s3.proxy.fault = lambda path, number, body: None
    again = start(run)
    threading.Timer(1, s3.server.start).start()
    said = again.communicate(timeout=120)
    assert again.returncode in (0, 4), said
    if again.returncode == 4:  # the server was away longer than anybody waits
        assert "RDTL-G011" in said[1]
        last = start(run)
        assert last.communicate(timeout=120) and last.returncode == 0
    folder = run.root / "assets" / "dataset.sets.0.path"
    assert tree(folder / "set") == FILES
    assert (run.root / "assets/dataset.sets.1.path/00.hdf5").read_bytes() == FILES["00.hdf5"]
    facts = json.loads((folder / "asset.json").read_text())
    assert (facts["uri"], facts["files"]) == ("rclone:t:bkt/set", len(FILES))
    assert (
        keep.verify((folder / "set").resolve().parent, lambda file: None).digest == facts["digest"]
    )
    assert cache.references(facts["digest"]) == [run.root]


@pytest.mark.slow
def test_a_signal_ends_it_at_once_and_the_next_start_goes_on(s3: S3, run: RunDir) -> None:
    s3.put(**{f"set/{name}": data for name, data in FILES.items()})
    begun = s3.proxy.slow_from(10, 1)
    job = start(run)
    assert begun.wait(60)
    job.send_signal(signal.SIGUSR2)
    said = job.communicate(timeout=60)
    assert job.returncode == EXIT_REQUEUE, said
    s3.proxy.fault = lambda path, number, body: None
    again = start(run)
    said = again.communicate(timeout=120)
    assert again.returncode == 0, said
    assert tree(run.root / "assets/dataset.sets.0.path/set") == FILES


class KilledError(BaseException):
    """The end of the process, which nothing handles."""


@pytest.mark.slow
def test_killed_before_its_link_it_goes_on_and_what_was_cleaned_away_comes_again(
    s3: S3, run: RunDir, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3.put(**{f"set/{name}": FILES[name] for name in ("00.hdf5", "01.hdf5")})
    target = run.root / "assets/dataset.sets.0.path/set"
    todo = Job(run, files.read_json(run.plan)["config"], "stage", 0, 1, attempt=0, node=0)
    with monkeypatch.context() as patch, pytest.raises(KilledError):
        patch.setattr(job, "link", Mock(side_effect=KilledError))
        job.body(todo)
    for name in ("manifest.json", "asset.json"):
        assert target.with_name(name).exists() and not target.exists()
    job.body(todo)
    shutil.rmtree(target.resolve().parent)
    assert not target.exists()
    job.body(todo)
    assert sorted(tree(target)) == ["00.hdf5", "01.hdf5"]


def test_a_plan_says_where_it_comes_from_and_containers_see_the_cache(tmp_path: Path) -> None:
    site = Site(kind="local", assets=str(tmp_path / "cache"), max_memory_per_node_mb=50_000)
    run = RunDir(tmp_path / "run")
    container = Container("apptainer", "/x.sif", "x", "", "", "")
    plan = presets.pipeline(config("gs://bucket/data/set"), "local", site, run, container)
    first, *others = plan.stages
    assert (first.name, first.container) == ("stage", None)
    assert plan.config["asset_cache"] == str(tmp_path / "cache")
    (asset,) = plan.config["assets"]
    assert asset["uri"] == "gs://bucket/data/set"
    assert plan.config["dataset"]["sets"][0]["path"] == asset["target"]
    for stage in others:
        assert stage.container is not None
        seen = {bind.source: bind.read_only for bind in stage.container.binds}
        assert seen[str(tmp_path / "cache" / "assets")] is True
    assert others[0].needs == ("stage",)
