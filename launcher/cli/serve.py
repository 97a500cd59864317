"""``rdtl serve``: a policy that evaluations and openpi's clients ask over a port."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from launcher.cli import common


def serve(
    checkpoint: Annotated[
        str, typer.Argument(metavar="CHECKPOINT", help="A run, a folder, a file, or a hub id.")
    ],
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    host: Annotated[
        str, typer.Option(help="Any but a loopback address needs a token.")
    ] = "127.0.0.1",
    token_file: Annotated[
        Path | None, typer.Option(help="File with the token that clients must send.")
    ] = None,
    token_env: Annotated[
        str | None, typer.Option(metavar="NAME", help="Variable with that token.")
    ] = None,
    batching: Annotated[
        Literal["fixed", "free"],
        typer.Option(help="fixed: an answer does not depend on who asks at the same time."),
    ] = "fixed",
    rows: Annotated[int, typer.Option(min=1, help="Requests of one batch.")] = 8,
    wait_ms: Annotated[
        float, typer.Option(min=0, help="How long a request waits for others.")
    ] = 5.0,
    seed: Annotated[int, typer.Option(help="Seed of the sampling noise.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N; a server a GPU.")] = "cpu",
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16"], typer.Option(help="Of weights and activations.")
    ] = "float32",
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of the network.")] = 1,
    compiled: Annotated[bool, typer.Option(help="Compile the sampler (GPU).")] = False,
    vision: Annotated[str | None, typer.Option(help="SigLIP: folder or hub id.")] = None,
    language: Annotated[
        str | None, typer.Option(help="T5 or a folder of embeddings; or a hub id.")
    ] = None,
    instruction: Annotated[
        str, typer.Option(help="A sentence to warm up with.")
    ] = "pick up the alphabet soup and place it in the basket",
) -> None:
    """Answer openpi's clients and our own evaluations until Ctrl-C.

    The line "listening on ws://…" appears once the network is warm. `GET /healthz`
    answers OK.
    """
    import json
    import os
    import sys

    from launcher.presets import JOB_ENVIRONMENT

    common.start_output(False)
    require_packages("torch", "websockets", "msgpack")
    options = {
        "checkpoint": checkpoint,
        "host": host,
        "port": port,
        "token_file": str(token_file) if token_file else None,
        "token_env": token_env,
        "batching": batching,
        "rows": rows,
        "wait_ms": wait_ms,
        "seed": seed,
        "device": device,
        "dtype": dtype,
        "threads": threads,
        "compiled": compiled,
        "vision": vision,
        "language": language,
        "instruction": instruction,
    }
    # A hub id that a person names here means just that; a job may not reach the hub.
    environment = {k: v for k, v in JOB_ENVIRONMENT.items() if not k.startswith("HF_")}
    argv = [sys.executable, "-P", "-m", "jobs.serve", json.dumps(options)]
    os.execve(argv[0], argv, {**os.environ, **environment, "OMP_NUM_THREADS": str(threads)})


def require_packages(*names: str) -> None:
    """Refuse with RDTL-U098 when one of these packages is not installed here."""
    from importlib.util import find_spec

    from launcher.core.errors import RdtlError

    missing = [name for name in names if find_spec(name) is None]
    if missing:
        raise RdtlError(
            "RDTL-U098",
            f"a policy cannot be served without {', '.join(missing)}",
            where="the Python environment of rdtl",
            fix="pip install 'rdt-launcher[train,serve]' into this environment",
        )
