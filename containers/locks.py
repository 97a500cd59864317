"""Writes the locks of all image definitions: ``make locks``.

A lock is what `uv pip compile` resolves from the definition's extras of ``pyproject.toml`` under
``constraints.txt``: exact versions with the hashes of all their files, and neither an index nor a
path. On CPU torch is pinned to its CPU build, which is not on PyPI: by default it comes from
PyTorch's own index; ``UV_FIND_LINKS`` may name a folder that holds the wheel instead.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
DEFINITIONS = ROOT / "configs" / "images"
INSTALLERS = ["pip", "setuptools", "wheel"]  # build the few packages that come as source
COMPILE = ["uv", "pip", "compile", "--generate-hashes", "--no-header", "--no-annotate", "--quiet"]
COMPILE += ["--python-platform", "x86_64-manylinux_2_28", "--no-python-downloads"]
HEADER = "# Made by `make locks`; do not edit. Extras: {extras}; Python {python}, {build}.\n"


def requirements(extras: list[str]) -> list[str]:
    """Requirements of the extras, and what installs them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    listed = [item for extra in extras for item in project["optional-dependencies"][extra]]
    return sorted({*listed, *INSTALLERS})


def constraints(gpu: bool) -> str:
    """``constraints.txt``; for CPU images torch is narrowed to its CPU build."""
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    return text if gpu else re.sub(r"^(torch==[\d.]+)$", r"\1+cpu", text, flags=re.MULTILINE)


def resolve(definition: dict[str, object], folder: Path) -> str:
    """The lock's text; CalledProcessError when uv finds no solution (it says why itself)."""
    asked, narrowed = folder / "requirements.in", folder / "constraints.txt"
    asked.write_text("\n".join(requirements(definition["extras"])) + "\n", encoding="utf-8")
    narrowed.write_text(constraints(bool(definition["gpu"])), encoding="utf-8")
    index = [] if definition["gpu"] or "UV_FIND_LINKS" in os.environ else ["--torch-backend=cpu"]
    python = ["--python-version", str(definition["python"])]
    done = subprocess.run(
        [*COMPILE, *index, *python, "--constraints", str(narrowed), str(asked)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return done.stdout


def main() -> None:
    """Write ``configs/images/locks/NAME.txt`` of every definition."""
    for path in sorted(DEFINITIONS.glob("*.yaml")):
        definition = yaml.safe_load(path.read_text(encoding="utf-8"))
        with tempfile.TemporaryDirectory() as folder:
            text = resolve(definition, Path(folder))
        header = HEADER.format(
            extras=", ".join(definition["extras"]),
            python=definition["python"],
            build="CUDA build of torch" if definition["gpu"] else "CPU build of torch",
        )
        target = DEFINITIONS / "locks" / f"{path.stem}.txt"
        target.write_text(header + text, encoding="utf-8")
        print(f"{target.relative_to(ROOT)}: {text.count('==')} packages", file=sys.stderr)


if __name__ == "__main__":
    main()
