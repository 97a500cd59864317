"""Data from a store into a training on a cluster, in the image, and what it makes out again."""

from __future__ import annotations

import json
import os
import re
import shutil
import threading
import time
from pathlib import Path

import pytest
import yaml

from launcher.images.store import BuiltImage
from launcher.staging import published
from tests import process_list
from tests.cli.run_rdtl import rdtl
from tests.rdt import synthetic
from tests.staging import servers
from tests.staging.conftest import KEY, SECRET, tree

pytestmark = [
    pytest.mark.slow,
    pytest.mark.slurm,
    pytest.mark.skipif(os.geteuid() != 0, reason="starts Slurm in network namespaces: needs root"),
    pytest.mark.skipif(shutil.which("slurmctld") is None, reason="Slurm is not installed"),
]


SHELL_SECRET = "CANARY-of-the-shell-that-submits"


@pytest.fixture
def site(cluster: Path, tmp_path: Path) -> tuple[Path, str, Path]:
    """The cluster's site with a cache of its own, the address under which nodes see us, and
    where Slurm keeps its state."""
    path = cluster / "configs" / "sites" / "minislurm.yaml"
    data = yaml.safe_load(path.read_text())
    conf = Path(data["environment"]["SLURM_CONF"]).read_text()
    (address,) = re.findall(r"^SlurmctldHost=\S+\((\S+)\)", conf, re.MULTILINE)
    data["assets"] = str(tmp_path / "cache")
    data["node_local"] = str(tmp_path / "local")
    data["environment"]["RCLONE_CONFIG"] = str(tmp_path / "rclone.conf")
    path.write_text(yaml.safe_dump(data))
    return tmp_path / "cache", address, Path(data["environment"]["SLURM_CONF"]).parent


def test_trained_on_data_from_a_store_that_dies_in_between(
    cluster: Path, sif: BuiltImage, site: tuple[Path, str, Path], tmp_path: Path
) -> None:
    """It dies while data come in, and again when the first checkpoint is about to leave."""
    cache, address, slurm = site
    bucket = tmp_path / "store" / "bkt"
    for number in range(6):
        demos = {f"demo_{n}": synthetic.demonstration(10 * number + n) for n in range(2)}
        path = bucket / "set" / f"{synthetic.TASK}_{number}_demo.hdf5"
        path.parent.mkdir(parents=True, exist_ok=True)
        synthetic.write(path, demos)
    port = servers.free_port()
    more = ("--addr", f"{address}:{port}", "--auth-key", f"{KEY},{SECRET}")
    with servers.serve("s3", bucket.parent, tmp_path / "server", *more) as server:
        write_remote(tmp_path / "rclone.conf", f"http://{address}:{port}")
        run = cluster / "runs" / "fromstore-minislurm"
        killed = [
            kill_when(server, cache, "work/*/files"),
            kill_when(server, run, "checkpoints/step_*"),
        ]
        with process_list.watched(0.05) as seen:
            done = rdtl("pipeline", str(configuration(tmp_path)), "--site", "minislurm",
                        "--runtime", "apptainer", cwd=cluster, timeout=900,
                        env={"AWS_SECRET_ACCESS_KEY": SHELL_SECRET})  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert all(event.is_set() for event in killed)
        facts = json.loads((run / "assets/dataset.sets.0.path/asset.json").read_text())
        assert (facts["uri"], facts["files"]) == ("rclone:store:bkt/set", 6)
        (log,) = run.glob("logs/train/attempt_1/0.n0.log")
        assert (
            "copied to" in (run / "logs/dataset/attempt_1/0.n0.log").read_text() + log.read_text()
        )
        assert tree((run / "assets/dataset.sets.0.path/set").resolve()) == tree(bucket / "set")
        assert any("launcher.staging.outgoing" in line for line in seen), "the uploads were seen"
        secrets = (SECRET, SHELL_SECRET)
        others = [line for line in seen if "rclone serve" not in line]  # the store has its own
        assert not [line for line in others if any(secret in line for secret in secrets)]
        assert json.loads((run / "uploads/state.json").read_text())["behind"] == []
        kept = [*run.rglob("*"), *slurm.rglob("*"), *cache.rglob("*")]
        assert any(path.suffix == ".pkl" for path in kept), "what submitit writes was looked at"
        for path in kept:
            if path.is_file():
                text = path.read_bytes()
                assert not any(secret.encode() in text for secret in secrets), path
        os.environ["RCLONE_CONFIG"] = str(tmp_path / "rclone.conf")
        out = rdtl("stage", "out", str(run / "policy"), "rclone:store:bkt/policy", cwd=cluster)
        assert out.returncode == 0, out.stderr
    for there, here in {
        bucket / "policy": run / "policy",
        bucket / "out" / run.name / "policy": run / "policy",
        bucket / "out" / run.name / "checkpoints/step_000002": run / "checkpoints/step_000002",
    }.items():
        found = tree(there)
        assert found.pop(published.NAME)
        assert found == tree(here)
    assert (run / "uploads" / "checkpoints.step_000002.json").exists()
    assert (bucket / "out" / run.name / "logs/train/attempt_1/0.n0.log").exists()


def write_remote(path: Path, endpoint: str) -> None:
    path.touch(mode=0o600)
    path.write_text(
        f"[store]\ntype = s3\nprovider = Rclone\naccess_key_id = {KEY}\n"
        f"secret_access_key = {SECRET}\nendpoint = {endpoint}\n"
    )


def configuration(folder: Path) -> Path:
    path = folder / "fromstore.yaml"
    data = {
        "name": "fromstore",
        "task": {"camera_size": 64},
        "dataset": {"sets": [{"path": "rclone:store:bkt/set"}]},
        "train": {
            "steps": 4,
            "warmup_steps": 1,
            "checkpoint_every": 2,
            "log_every": 1,
            "memory_gb": 1.2,  # beside it the uploader asks for its share of the small nodes
        },
        "upload": {"uri": "rclone:store:bkt/out", "every_seconds": 5},
    }
    path.write_text(yaml.safe_dump(data))
    return path


def kill_when(server: servers.Server, folder: Path, pattern: str) -> threading.Event:
    """Kill the server once something is there, start it again three seconds later."""
    killed = threading.Event()

    def watch() -> None:
        deadline = time.monotonic() + 600
        while not list(folder.glob(pattern)) and time.monotonic() < deadline:
            time.sleep(0.002)
        server.kill()
        killed.set()
        time.sleep(3)
        server.start()

    threading.Thread(target=watch, daemon=True).start()
    return killed
