"""A checkpoint made by another number of ranks, or with another ZeRO stage.

DeepSpeed's own converter joins the parts of all ranks, parameter by parameter, into a
directory from which any number of ranks takes its part. It is made when it is needed
and removed afterwards.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from launcher.core.errors import RdtlError
from rdt.training import engine as distributed
from rdt.training.checkpoint_files import TAG

CONVERTER = "deepspeed.checkpoint.ds_to_universal"
TRIES = 2
"""A conversion was once seen to fail and to succeed when it was repeated."""


def load(engine: Any, path: Path, group: Any) -> object:
    """Load the checkpoint in ``path`` into DeepSpeed's engine, as `load_checkpoint` answers.

    Every rank calls this; in ``group`` they wait for the conversion, which may take longer
    than any other exchange. Raises RdtlError RDTL-T053 when it cannot be converted.
    """
    made = path.with_name(f".tmp-universal-{path.name}")
    distributed.by_first(lambda: _convert(path / TAG, made / TAG), group)
    engine._config.load_universal_checkpoint = True
    try:
        loaded, _ = engine.load_checkpoint(str(made), tag=TAG)
    finally:
        engine._config.load_universal_checkpoint = False
    distributed.barrier()
    distributed.by_first(lambda: shutil.rmtree(made))
    return loaded


def _convert(source: Path, target: Path) -> None:
    for left in reversed(range(TRIES)):
        shutil.rmtree(target.parent, ignore_errors=True)
        target.parent.mkdir()
        done = subprocess.run(
            [
                *(sys.executable, "-P", "-m", CONVERTER, "--inject_missing_state"),
                *("--input_folder", str(source), "--output_folder", str(target)),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        if done.returncode == 0:
            return
        if not left:
            shutil.rmtree(target.parent, ignore_errors=True)
            raise _failed(source, done.stdout)


def _failed(source: Path, output: str) -> RdtlError:
    last = output.strip().splitlines()[-1:] or ["it said nothing"]
    print(output[-4000:], file=sys.stderr)
    return RdtlError(
        "RDTL-T053",
        "a checkpoint could not be converted for another number of ranks or ZeRO stage",
        where=f"{source}: {last[0]}",
        why="the optimizer state is divided among the ranks that wrote it",
        fix="see the log above (a full disk needs as much again as the checkpoint), or continue "
        "with the ranks and the ZeRO stage that wrote it",
    )
