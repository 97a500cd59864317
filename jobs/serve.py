"""``python -m jobs.serve JSON``: a policy behind a port until SIGTERM; `rdtl serve` starts it.

The first line that begins with "listening on" says where, once the network is warm.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from launcher.core.errors import RdtlError, UsageError
from rdt.policy import loading
from rdt.policy.rdt import Batching
from rdt.serve import server

TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Options:
    """What `rdtl serve` was told; tokens come as the name of where they are."""

    checkpoint: str
    host: str
    port: int
    token_file: str | None
    token_env: str | None
    batching: Batching
    rows: int
    wait_ms: float
    seed: int
    device: str
    dtype: str
    threads: int
    compiled: bool
    vision: str | None
    language: str | None
    instruction: str


def token(options: Options) -> str | None:
    """The token, or None when none is named.

    Raises UsageError RDTL-E057 when the named place has none.
    """
    place = options.token_file or options.token_env
    if place is None:
        return None
    try:
        text = Path(place).read_text() if options.token_file else os.environ.get(place, "")
    except OSError as error:
        text, place = "", f"{place}: {error.strerror}"
    if text.strip().isascii() and text.strip().isprintable() and text.strip():
        return text.strip()
    raise UsageError(
        "RDTL-E057",
        "there is no token where one should be",
        where=f"--token-{'file' if options.token_file else 'env'} {place}",
        why="clients prove by it that they may ask",
        fix="write one line of printable ASCII there, e.g. the output of: openssl rand -hex 24",
    )


def serve(options: Options) -> None:
    """Load, warm up, listen; returns after SIGTERM or SIGINT."""
    door = server.Door(options.host, options.port, token(options), options.wait_ms / 1000)
    _require_device(options.device)
    torch.set_num_threads(options.threads)
    settings = loading.Settings(
        dtype=TYPES[options.dtype],
        device=options.device,
        batching=options.batching,
        rows=options.rows,
        compiled=options.compiled,
        vision=options.vision,
        language=options.language,
    )
    policy = loading.load(options.checkpoint, options.seed, settings)
    asyncio.run(server.run(policy, door, options.instruction))


def _require_device(name: str) -> None:
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        raise UsageError(
            "RDTL-U030",
            f"torch cannot use the device {name}",
            where=f"--device {name}: {str(error).splitlines()[0]}",
            why="the policy server has one device, and computes nowhere else",
            fix="--device cpu, cuda or cuda:N; nvidia-smi lists the GPUs",
        ) from error


def main(argv: list[str]) -> int:
    """Run one server."""
    try:
        serve(Options(**json.loads(argv[0])))
    except RdtlError as error:
        print(error, file=sys.stderr)
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
