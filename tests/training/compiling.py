"""``python -m tests.training.compiling FOLDER``: what our optimizer and DeepSpeed's own compile.

Where extensions are built is TORCH_EXTENSIONS_DIR; both keep the optimizer in the CPU's memory.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import deepspeed

from launcher.core import files
from rdt.spec import deepspeed as settings
from rdt.training import engine as distributed
from tests.training import tiny

OURS = {"zero_stage": 2, "offload": True}


def built() -> list[str]:
    """Names of the extensions that a build was begun of."""
    return [path.name for path in Path(os.environ["TORCH_EXTENSIONS_DIR"]).glob("*")]


def main(folder: Path) -> None:
    """A step of ours, then a start as DeepSpeed has it by itself."""
    distributed.start()
    training = tiny.Training(folder / "run", **OURS).to(1)
    seen = {"ours": built(), "error": ""}
    config = settings.config(training.train)
    config["optimizer"]["params"]["torch_adam"] = False
    try:
        deepspeed.initialize(model=tiny.network(), config=config)
    except (RuntimeError, OSError) as error:
        seen["error"] = str(error)
    files.write_json(folder / "seen.json", seen | {"theirs": built()})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
