"""``python -m jobs.serve JSON``: a policy behind a port until SIGTERM; `rdtl serve` starts it.

The first line that begins with "listening on" says where, once the network is warm.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from launcher.core.errors import EXIT_INTERRUPTED, EXIT_OK, RdtlError, UsageError
from launcher.core.job import leave

if TYPE_CHECKING:
    from rdt.checkpoint.opening import Wanted
    from rdt.policy.rdt import Batching


@dataclass(frozen=True)
class Options:
    """What `rdtl serve` or an evaluation said; tokens come as the name of where they are."""

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
    weights: Wanted = "auto"
    contract: str | None = None
    agreement: str | None = None


def token(options: Options) -> str | None:
    """The token, or None when none is named.

    Raises UsageError RDTL-E057 when the named place has none.
    """
    if options.token_file:
        return read_token(options.token_file, "--token-file")
    if options.token_env is None:
        return None
    return _token(os.environ.get(options.token_env, ""), f"--token-env {options.token_env}")


def read_token(path: str, named_by: str) -> str:
    """The token in a file that ``named_by`` names; UsageError RDTL-E057 when it has none."""
    try:
        return _token(Path(path).read_text(errors="replace"), f"{named_by} {path}")
    except OSError as error:
        return _token("", f"{named_by} {path}: {error.strerror}")


def _token(text: str, where: str) -> str:
    if text.strip().isascii() and text.strip().isprintable() and text.strip():
        return text.strip()
    raise UsageError(
        "RDTL-E057",
        "there is no token where one should be",
        where=where,
        why="clients prove by it that they may ask",
        fix="write one line of printable ASCII there, e.g. the output of: openssl rand -hex 24",
    )


def serve(options: Options) -> int:
    """Load, warm up, listen; returns the signal that ended it, SIGTERM or SIGINT."""
    import torch  # seconds, in which Ctrl-C must end it with a word, too

    from rdt.policy import loading
    from rdt.serve import server

    door = server.Door(options.host, options.port, token(options), options.wait_ms / 1000)
    _require_device(options.device)
    torch.set_num_threads(options.threads)
    settings = loading.Settings(
        dtype=getattr(torch, options.dtype),
        device=options.device,
        batching=options.batching,
        rows=options.rows,
        compiled=options.compiled,
        vision=options.vision,
        language=options.language,
        weights=options.weights,
        contract=options.contract,
    )
    policy = loading.load(options.checkpoint, options.seed, settings)
    kept = Path(options.agreement) if options.agreement else None
    return asyncio.run(server.run(policy, door, options.instruction, kept))


def _require_device(name: str) -> None:
    import torch

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
        by = serve(Options(**json.loads(argv[0])))
    except RdtlError as error:
        leave(error)
    except KeyboardInterrupt:  # while the network was loaded or warmed up
        by = signal.SIGINT
    if by != signal.SIGINT:
        return EXIT_OK
    print("interrupted; the same command serves again, clients wait for it", file=sys.stderr)
    return EXIT_INTERRUPTED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
