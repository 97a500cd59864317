"""The image's own test: ``selftest.py import:NAME… op:NAME… gloo frame``.

import:NAME   the module can be imported
op:NAME       DeepSpeed's operator was compiled into the image and can be loaded
gloo          two processes add their numbers with an all-reduce
frame         LIBERO draws the known picture and a known scene settles; needs our code (``rdt``,
              ``launcher.core``) on PYTHONPATH, because an image holds none of it
"""

from __future__ import annotations

import importlib
import os
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory


def imported(name: str) -> str:
    """Import a top module; returns its version."""
    module = importlib.import_module(name)
    return str(getattr(module, "__version__", "imported"))


def loaded(name: str) -> str:
    """Load a prebuilt operator of DeepSpeed; AssertionError when it would be compiled now."""
    import deepspeed
    import torch
    from deepspeed.git_version_info import installed_ops
    from deepspeed.ops.op_builder.all_ops import ALL_OPS

    full = name if name in installed_ops else f"deepspeed_{name}"
    assert installed_ops.get(full), f"DeepSpeed {deepspeed.__version__} came without {full}"
    # An operator for CUDA can only be loaded where there is a driver.
    if torch.version.cuda is None:
        ALL_OPS[full].load()
    return "prebuilt"


def _add(rank: int, store: str) -> None:
    import torch
    import torch.distributed as dist

    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    number = torch.tensor([float(rank + 1)])
    dist.all_reduce(number)
    dist.destroy_process_group()
    assert number.item() == 3.0, f"1 + 2 over two processes gave {number.item()}"


def all_reduce() -> str:
    """One gloo all-reduce of two processes on this machine."""
    import torch.multiprocessing as multiprocessing

    with TemporaryDirectory() as folder:
        multiprocessing.spawn(_add, args=(str(Path(folder) / "store"),), nprocs=2)
    return "1 + 2 = 3 on both processes"


def golden_frame() -> str:
    """Draw and settle the known scenes; AssertionError when one differs."""
    from rdt.sim.probe import probe

    findings = probe()
    text = "; ".join(finding.what for finding in findings)
    assert all(finding.severity == "ok" for finding in findings), text
    return text


def run(test: str) -> str:
    """Run one test by its argument; returns what it saw."""
    kind, _, name = test.partition(":")
    if kind == "import":
        return imported(name)
    if kind == "op":
        return loaded(name)
    return {"gloo": all_reduce, "frame": golden_frame}[test]()


def main() -> None:
    """Run all tests in order; the first failure ends the program with a traceback."""
    if not Path("/dev/nvidiactl").exists():  # the build of an image for GPUs draws in software
        os.environ["MUJOCO_GL"] = os.environ["PYOPENGL_PLATFORM"] = "osmesa"
    for test in sys.argv[1:]:
        begin = time.monotonic()
        print(f"self-test {test}: {run(test)} ({time.monotonic() - begin:.1f} s)", flush=True)
    print(f"self-test: {len(sys.argv) - 1} tests passed", flush=True)


if __name__ == "__main__":
    main()
