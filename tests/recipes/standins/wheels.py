"""Wheels of a few lines each, in place of packages of gigabytes: real to uv, pip and Python."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from pathlib import Path

TORCHRUN = """
import os, signal, subprocess, sys

def main():
    words = sys.argv[1:]
    count = next(int(w.split("=")[1]) for w in words if w.startswith("--nproc_per_node"))
    own = ("--standalone", "--nnodes", "--nproc_per_node")
    command = [sys.executable, *(w for w in words if not w.startswith(own))]
    ranks = [
        subprocess.Popen(command, env={**os.environ, "RANK": str(n), "WORLD_SIZE": str(count)})
        for n in range(count)
    ]
    failed = False
    while ranks:
        pid, status = os.wait()
        ranks = [rank for rank in ranks if rank.pid != pid]
        if status and not failed:
            failed = True
            for rank in ranks:
                rank.send_signal(signal.SIGTERM)
    sys.exit(1 if failed else 0)
"""
TRANSFORMERS = (
    "gemma/configuration_gemma.py",
    "gemma/modeling_gemma.py",
    "paligemma/modeling_paligemma.py",
    "siglip/modeling_siglip.py",
)


def write(folder: Path) -> None:
    """All wheels that the stand-in of openpi asks for."""
    folder.mkdir(parents=True)
    wheel(
        folder,
        "torch",
        "2.7.1",
        {"torch/__init__.py": "", "torch/run.py": TORCHRUN},
        {"torchrun": "torch.run:main"},
    )
    models = {f"transformers/models/{name}": "original = True\n" for name in TRANSFORMERS}
    wheel(folder, "transformers", "4.53.2", {"transformers/__init__.py": "", **models})
    wheel(folder, "jax", "0.5.3", {"jax.py": ""})
    wheel(folder, "tensorflow", "2.15.0", {"tensorflow.py": ""})
    wheel(folder, "tensorflow_datasets", "4.9.3", {"tensorflow_datasets.py": ""})
    wheel(folder, "nvidia_nccl_cu12", "2.29.3", {"nvidia_nccl.py": ""})


def wheel(
    folder: Path,
    name: str,
    version: str,
    contents: dict[str, str],
    scripts: dict[str, str] | None = None,
) -> None:
    """One wheel for any Python."""
    info = f"{name}-{version}.dist-info"
    contents = {
        **contents,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\n"
        "Root-Is-Purelib: true\nTag: py3-none-any\n",
    }
    if scripts:
        lines = "".join(f"{script} = {target}\n" for script, target in scripts.items())
        contents[f"{info}/entry_points.txt"] = f"[console_scripts]\n{lines}"
    record = "".join(
        f"{path},sha256={_digest(text)},{len(text)}\n" for path, text in contents.items()
    )
    contents[f"{info}/RECORD"] = record + f"{info}/RECORD,,\n"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        for path, text in contents.items():
            archive.writestr(path, text)


def _digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
