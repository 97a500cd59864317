"""``rdtl data embed``: instructions through the text encoder, once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from launcher.cli import common, data

NOT_HERE = ("HF_HUB_OFFLINE", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
"""An encoder may be fetched, and one process has all cores; the user's own settings hold."""


def add_to(app: typer.Typer) -> None:
    """Add this command to ``rdtl data``."""
    app.command("embed")(embed)


def embed(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE…",
            help="A data set, a .txt file with one instruction a line, or a suite of LIBERO.",
        ),
    ],
    encoder: Annotated[
        str, typer.Option(help="A T5: its folder or its hub id, e.g. google/t5-v1_1-xxl.")
    ],
    out: Annotated[Path, typer.Option(help="The folder of embeddings; what it has is kept.")],
    as_json: common.JsonOption = False,
) -> None:
    """Embed instructions with T5, so that training and evaluation need no text encoder.

    Only what is missing is computed; killed at any moment, it goes on where it was.
    """
    import json

    from launcher import heavy
    from launcher.presets import JOB_ENVIRONMENT

    output = common.start_output(as_json)
    for source in sources:
        data.require_outside(out.resolve(), Path(source).resolve())
    request = {
        "sources": [str(Path(s).resolve()) if Path(s).exists() else s for s in sources],
        "encoder": str(Path(encoder).resolve()) if Path(encoder).is_dir() else encoder,
        "out": str(out.resolve()),
    }
    environment = {k: v for k, v in JOB_ENVIRONMENT.items() if k not in NOT_HERE}
    with output.working(f"embedding with {encoder}"):
        answer = heavy.call("jobs.embed_language", json.dumps(request), environment=environment)
    result = answer["result"]
    made = result["encoder"]
    output.text(f"{result['wanted']} instructions, {result['computed']} computed now")
    output.text(f"encoder: {made['source']}, {made['width']} wide, digest {made['digest'][:12]}")
    output.text(f"written: {result['path']}")
    output.result(result)
