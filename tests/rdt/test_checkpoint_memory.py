"""Loading holds one copy of the weights: peak memory of a process that does nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from rdt.checkpoint.tensors import WINDOW_BYTES
from rdt.model.config import parse
from rdt.model.rdt import Rdt
from tests.rdt import checkpoints, golden

pytestmark = pytest.mark.train

SLACK = 40 * 2**20
MEASURE = """
import gc, json, sys, time, torch
from pathlib import Path
from rdt import checkpoint

def memory(field):
    status = dict(line.split(":", 1) for line in open("/proc/self/status"))
    return int(status[field].split()[0]) * 1024

checkpoint.load(sys.argv[1])  # imports are not what is measured
base = memory("VmRSS")
for path in sys.argv[2:]:
    for dtype in (torch.bfloat16, torch.float32):
        gc.collect()
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        start = time.monotonic()
        network = checkpoint.load(path, dtype=dtype).network
        seconds = round(time.monotonic() - start, 1)
        assert network.model.x_pos_embed.abs().max() > 0
        size = sum(p.nbytes for p in network.parameters())
        print(json.dumps([path, str(dtype), size, memory("VmHWM") - base, seconds]))
        del network
"""


def growths(folder: Path, *large: Path) -> list[tuple[int, int]]:
    """Bytes of the parameters and of the peak above the start, per file: bfloat16, float32."""
    small = checkpoints.reference(folder / "small", checkpoints.network())
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(small), *map(str, large)],
        cwd=checkpoints.ROOT, capture_output=True, text=True, check=True, timeout=600,
        env={
            **os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(checkpoints.ROOT),
            "MALLOC_MMAP_THRESHOLD_": "65536",  # what is freed goes back to the system at once
        },
    )  # fmt: skip
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    for path, dtype, size, growth, seconds in lines:
        print(
            f"{Path(path).name} to {dtype}: parameters {size / 1e6:.0f} MB, "
            f"peak {growth / 1e6:.0f} MB above the start, {seconds} s"
        )
    return [(size, growth) for _, _, size, growth, _ in lines]


def files_of(folder: Path, data: dict[str, Any], *names: str) -> list[Path]:
    """A checkpoint of bfloat16 numbers, once in every format."""
    with torch.device("meta"):
        shapes = {name: t.shape for name, t in Rdt(parse(data, "test")).state_dict().items()}
    state = {name: torch.full(shape, 0.5, dtype=torch.bfloat16) for name, shape in shapes.items()}
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(data))
    for name in names:
        checkpoints.write(folder / name, state)
    return [folder / name for name in names]


@pytest.mark.slow
def test_one_copy_of_200_mb(tmp_path: Path) -> None:
    data = checkpoints.config(hidden_size=512, depth=34, num_heads=8)
    large = files_of(tmp_path / "large", data, "model.safetensors", "pytorch_model.bin")
    found = growths(tmp_path, *large)
    assert [size // 10**6 for size, _ in found] == [194, 388, 194, 388]
    assert all(growth <= size + WINDOW_BYTES + SLACK for size, growth in found)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_one_copy_of_the_1b_network(name: str, tmp_path: Path) -> None:
    data = json.loads((golden.DATA / "config_rdt-1b.json").read_text())
    found = growths(tmp_path, *files_of(tmp_path / "large", data, name))
    assert [size for size, _ in found] == [1_228_319_872 * 2, 1_228_319_872 * 4]
    assert all(growth <= size + WINDOW_BYTES + SLACK for size, growth in found)
