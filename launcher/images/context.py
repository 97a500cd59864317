"""The build's context: a fresh directory with exactly the files that a build may see."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from launcher.images.definition import Definition, Lock
from launcher.images.render import steps

PACKAGE = Path(__file__).parent.parent
CONTAINERS = PACKAGE / "_containers"  # in an installed launcher; in a checkout they lie beside it
HELPERS = ("pip.sh", "part.py", "selftest.py", "10_nvidia.json")
CODE = ("rdt", "launcher/core")


def step_files(definition: Definition) -> dict[str, Path]:
    """Name → file of every script that this definition's build runs or copies."""
    root = CONTAINERS if CONTAINERS.is_dir() else PACKAGE.parent / "containers"
    names = [script for script, _ in steps(definition)] + list(HELPERS)
    return {name: root / "steps" / name for name in names}


def steps_digest(definition: Definition) -> str:
    """SHA-256 over the steps. Our own code is not in it: the image holds none, it is only used
    to test the image."""
    digest = hashlib.sha256()
    for name, path in sorted(step_files(definition).items()):
        digest.update(f"{name}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


def write(folder: Path, definition: Definition, lock: Lock, wheels: Path | None) -> None:
    """Fill the empty directory ``folder``; wheels are hard links where the file system can."""
    (folder / "steps").mkdir()
    for name, path in step_files(definition).items():
        shutil.copyfile(path, folder / "steps" / name)
    (folder / "lock.txt").write_text(lock.text, encoding="utf-8")
    write_code(folder / "code")
    if wheels:
        (folder / "wheels").mkdir()
        for path in sorted(wheels.iterdir()):
            (folder / "wheels" / path.name).hardlink_to(path)


def write_code(folder: Path) -> None:
    """Our code that the self-test needs: the simulator's probe and what it imports."""
    for part in CODE:
        source = PACKAGE.parent / part
        for path in sorted(source.rglob("*.py")):
            target = folder / part / path.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    shutil.copyfile(PACKAGE / "__init__.py", folder / "launcher" / "__init__.py")
