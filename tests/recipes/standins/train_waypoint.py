"""Prints what openpi's waypoint training prints until some steps are done, and saves like it.

Which fault it has stands in the file `fault` beside it: the lines are those of the real
program and of the libraries that it calls, where it would really meet them.
"""

# ruff: noqa: E501  lines of logs stay as they are

import argparse
import json
import logging
import os
import shutil
import struct
import sys
import time
from pathlib import Path

FAULT_FILE = Path(__file__).parent / "fault"
FAULT = FAULT_FILE.read_text().strip() if FAULT_FILE.exists() else ""
RANK = int(os.environ.get("RANK", "0"))
MIDDLE = {
    "out-of-memory": "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 15.68 GiB. GPU 0 has a "
    "total capacity of 94.97 GiB of which 3.11 GiB is free.",
    "illegal-access": "RuntimeError: CUDA error: an illegal memory access was encountered",
    "no-kernel": "RuntimeError: CUDA error: no kernel image is available for execution on the device",
    "statistics": "ValueError: operands could not be broadcast together with shapes (32,7) (15,) ",
}


def init_logging():
    levels = {"DEBUG": "D", "INFO": "I", "WARNING": "W", "ERROR": "E"}

    class Fmt(logging.Formatter):
        def format(self, record):
            record.levelname = levels.get(record.levelname, record.levelname)
            return super().format(record)

    handler = logging.StreamHandler()
    handler.setFormatter(
        Fmt(
            fmt="%(asctime)s.%(msecs)03d [%(levelname)s] %(message)-80s (%(process)d:%(filename)s:%(lineno)s)",
            datefmt="%H:%M:%S",
        )
    )
    logging.getLogger().addHandler(handler)
    logging.getLogger().setLevel(logging.INFO)


def read(path):
    lines = [line.split("#")[0] for line in Path(path).read_text().splitlines() if ":" in line]
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}


def save_checkpoint(step, save_dir, optimizer, torch):
    tmp_dir = save_dir / f"tmp_{step}"
    shutil.rmtree(tmp_dir, ignore_errors=True)
    tmp_dir.mkdir(parents=True)
    header = json.dumps({"weight": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    (tmp_dir / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    # torch.save(optimizer.state_dict(), tmp_dir / "optimizer.pt")
    torch.save({"global_step": step}, tmp_dir / "metadata.pt")
    tmp_dir.rename(save_dir / f"{step}")
    logging.info(f"Saved checkpoint step {step} -> {save_dir / str(step)}")


class torch:  # noqa: N801
    @staticmethod
    def save(state, path):
        path.write_text(json.dumps(state))


class optimizer:  # noqa: N801
    @staticmethod
    def state_dict():
        return {"state": 1}


def resume(save_dir):
    steps = [int(d.name) for d in save_dir.iterdir() if d.is_dir() and d.name.isdigit()]
    latest = max(steps)
    (save_dir / str(latest) / "optimizer.pt").read_text()
    logging.info(f"Resumed from step {latest}")
    return latest


def action_expert(cfg):
    """Lines before the first step, as every rank or, of the model, rank 0 prints them."""
    episodes = 450 if FAULT == "data" else 454
    skipped = [
        "  Skipping time_mlp_in.weight: shape torch.Size([1024, 1024]) != torch.Size([1024, 2048])"
    ]
    if FAULT == "weights":
        skipped.append(
            "  Skipping action_in_proj.weight: shape torch.Size([1024, 24]) != torch.Size([1024, 32])"
        )
    return [
        f"WaypointAEDataset: {episodes} episodes, 8409 valid pairs, 0 skipped (dur>32), actual_action=7→32",
        f"Loading pretrained weights from {cfg['pretrained_weight_path']}",
        *skipped,
        "Loaded 700 weight tensors, skipped 112"
        if FAULT == "weights-missing"
        else "Loaded 811 weight tensors, skipped 1",
        *(["Model: 3617.8M total, 3617.8M trainable"] if RANK == 0 else []),
        f"Constructing tf.data.Dataset libero_object_no_noops for split train, from {cfg['original_rlds_dir']}",
    ]


def language(cfg):
    """The same of the other half of the policy."""
    missing = 40 if FAULT == "weights-missing" else 1
    return [
        f"WaypointVLMDataset: dir={cfg['wp_rlds_dir']}, M=7, stride={cfg['stride']}, robot=libero",
        f"Loading pretrained PaliGemma weights from {cfg['pretrained_weight_path']}",
        f"PaliGemma weights loaded: 603 params, {missing} missing, 0 unexpected",
        *(["Model: 2923.3M total, 2923.3M trainable"] if RANK == 0 else []),
        f"Constructing tf.data.Dataset waypoint_filtered_rlds__libero for split train, from {cfg['wp_rlds_dir']}",
    ]


LOSSES = {"ae": (0.85, 0.27), "vlm": (11.4, 4.6)}


def main():
    init_logging()
    parser = argparse.ArgumentParser()
    parser.add_argument("--mode", choices=["ae", "vlm"], required=True)
    parser.add_argument("--config", required=True)
    parser.add_argument("--resume", action="store_true")
    args = parser.parse_args()
    cfg = read(args.config)
    steps, save, log = (int(cfg[k]) for k in ("num_train_steps", "save_interval", "log_interval"))
    save_dir = Path(cfg["checkpoint_dir"])
    save_dir.mkdir(parents=True, exist_ok=True)
    said = action_expert(cfg) if args.mode == "ae" else language(cfg)
    for line in said[:-1]:
        logging.info(line)
    first = resume(save_dir) if args.resume else 0
    logging.info(said[-1])
    if FAULT in MIDDLE:
        print("Traceback (most recent call last):", MIDDLE[FAULT], sep="\n", file=sys.stderr)
        sys.exit(1)
    if FAULT == "hang":
        time.sleep(600)
    for step in range(first, steps):
        if RANK == 0 and step % log == 0:
            loss = "nan" if FAULT == "nan" and step else f"{LOSSES[args.mode][step > 0]:.4f}"
            logging.info(
                f"[{args.mode.upper()}] step={step}/{steps} loss={loss} lr=1.00e-05 gnorm=1.25 sps=0.1"
            )
        sys.stderr.write(
            f"{args.mode.upper()} Training:   0%|          | {step}/{steps} [00:00<?, ?it/s]\r"
        )
        time.sleep(0.02)
        if RANK == 0 and (step + 1) % save == 0:
            save_checkpoint(step + 1, save_dir, optimizer, torch)


if __name__ == "__main__":
    main()
