"""Writes a model of the real one's names and of two of its shapes, out of the JAX checkpoint."""

import argparse
import importlib
import json
import shutil
import struct
from pathlib import Path

KNOWN = ("pi05_libero", "pi05_droid", "pi05_aloha")
SHAPES = {"action_in_proj.weight": [1024, 32], "time_mlp_in.weight": [1024, 1024]}


def main():
    parser = argparse.ArgumentParser()
    for name in ("checkpoint_dir", "config_name", "output_path", "precision"):
        parser.add_argument(f"--{name}", required=True)
    args = parser.parse_args()
    if args.config_name not in KNOWN:
        raise ValueError(f"Config '{args.config_name}' not found. Did you mean 'pi05_libero'?")
    if not hasattr(importlib.import_module("transformers.models.siglip.check"), "laid"):
        raise ValueError("transformers_replace is not installed correctly.")
    parts = [
        path.read_bytes()
        for path in sorted(Path(args.checkpoint_dir, "params").rglob("*"))
        if path.is_file()
    ]
    assert parts
    names = [*SHAPES, *(f"layer.{n}.weight" for n in range(812 - len(SHAPES)))]
    if Path(args.checkpoint_dir, "params/lacks-a-tensor").exists():
        names.pop()
    header, end = {}, 0
    for name in names:
        shape = SHAPES.get(name, [4])
        size = 2 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    out = Path(args.output_path)
    out.mkdir(parents=True, exist_ok=True)
    (out / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(end))
    statistics = Path(args.checkpoint_dir).parent / "assets"  # as upstream: not those in it
    if statistics.is_dir():
        shutil.copytree(statistics, out / "assets", dirs_exist_ok=True)
    print("Model conversion completed successfully!")


main()
