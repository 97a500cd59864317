"""Real checkpoints of a tiny network, in the layouts that are met."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from rdt.model.config import parse
from rdt.model.rdt import Rdt
from rdt.spec.card import SIGLIP, T5, Card, statistics_digest
from rdt.spec.contract import UNIFIED_SIZE, Contract
from tests.rdt import golden

ROOT = Path(__file__).parents[2]


def config(**rdt: int) -> dict[str, Any]:
    """config.json as the reference wrote it for a tiny network; ``rdt`` changes its sizes."""
    data: dict[str, Any] = json.loads(
        (golden.DATA / "config_saved_by_reference_tiny.json").read_text()
    )
    return {**data, "rdt": {**data["rdt"], **rdt}}


def network(seed: int = 0, dtype: torch.dtype = torch.float32, **rdt: int) -> Rdt:
    """A network in which no tensor is constant, so that a lost one shows."""
    torch.manual_seed(seed)
    made = Rdt(parse(config(**rdt), "config"))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_(std=0.05)
    return made.to(dtype)


def reference(folder: Path, made: Rdt, name: str = "model.safetensors") -> Path:
    """A folder as on the hub: config.json and one file of weights."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(made.config.to_dict()))
    write(folder / name, made.state_dict())
    return folder


def write(path: Path, state: dict[str, Tensor]) -> None:
    """Weights in the format that the file's name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)


def deepspeed(folder: Path, *stages: str) -> None:
    """``folder/STAGE/`` for stages like "2" or "2-bf16": really trained for one step, and saved."""
    subprocess.run(
        [sys.executable, "-m", "tests.rdt.deepspeed_checkpoints", str(folder), *stages],
        cwd=ROOT,
        env={**os.environ, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"},
        check=True,
        capture_output=True,
        timeout=120,
    )


def equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    """Whether two state dicts hold the same names in the same order, and the same bits."""
    return list(found) == list(expected) and all(
        torch.equal(found[name], tensor) for name, tensor in expected.items()
    )


def card(contract: Contract, vision: str = SIGLIP, language: str = T5) -> Card:
    """A card for a network that nobody has trained; `save` fills in what belongs to the file."""
    mean, std = (0.0,) * UNIFIED_SIZE, (1.0,) * UNIFIED_SIZE
    return Card(
        contract=contract.to_dict(),
        encoders={"vision": vision, "language": language},
        weights="ema",
        dtype="",
        weights_sha256="",
        state_mean=mean,
        state_std=std,
        statistics_digest=statistics_digest(mean, std),
        horizon=64,
        camera_size=0 if vision == SIGLIP else 64,
        origin="adopted",
        training=None,
        versions={},
    )


def hub_cache(root: Path, name: str, made: Rdt) -> None:
    """A cached download as the hub's client lays it out: blobs, and links to them."""
    folder = root / f"models--{name.replace('/', '--')}"
    made_folder, commit = reference(root / "made", made, "pytorch_model.bin"), "a" * 40
    (folder / "refs").mkdir(parents=True)
    (folder / "refs/main").write_text(commit)
    (folder / "blobs").mkdir()
    (folder / "snapshots" / commit).mkdir(parents=True)
    for path in made_folder.iterdir():
        blob = folder / "blobs" / path.name.encode().hex()
        shutil.copy(path, blob)
        (folder / "snapshots" / commit / path.name).symlink_to(Path("../../blobs") / blob.name)
