"""The runner as one file that a bare box can run: ``python3 runner.pyz …``."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

from launcher.core import files

MODULES = (
    "__init__.py",
    "core/__init__.py",
    "core/box_*.py",
    "core/dag*.py",
    "core/errors.py",
    "core/files.py",
    "core/redaction.py",
    "core/signatures.py",
)
"""Everything that the runner imports, below the package ``launcher``; ``tests/recipes`` holds
that it is all standard library and Python 3.10."""
PACKAGE = Path(__file__).parent.parent
OLDEST = (3, 10)
TOO_OLD = {
    "code": "RDTL-B049",
    "what": "the Python of this machine is older than 3.10",
    "where": "python3",
    "why": "the runner of recipes is written for 3.10 and later, and brings no Python of its own",
    "fix": "take an image with a newer python3 (Ubuntu 22.04 has 3.10), or put one into PATH",
    "exit_status": 3,
}
MAIN = f"""import sys
if sys.version_info < {OLDEST}:
    sys.stderr.write({json.dumps(TOO_OLD)!r} + "\\n")
    sys.exit(3)
from launcher.core.dag_box import main
sys.exit(main())
"""
SHEBANG = b"#!/usr/bin/env python3\n"
WHEN = (2020, 1, 1, 0, 0, 0)
"""Equal sources make equal bytes."""


def sources() -> list[Path]:
    """The modules that are shipped."""
    return sorted({path for pattern in MODULES for path in PACKAGE.glob(pattern)})


def write(path: Path) -> None:
    """Make the zip application at ``path``, whole or not at all."""
    with files.whole_file(path) as temporary:
        temporary.write_bytes(SHEBANG)
        with zipfile.ZipFile(temporary, "a") as archive:
            for source in sources():
                _add(
                    archive,
                    f"launcher/{source.relative_to(PACKAGE).as_posix()}",
                    source.read_text(),
                )
            _add(archive, "__main__.py", MAIN)


def _add(archive: zipfile.ZipFile, name: str, text: str) -> None:
    archive.writestr(zipfile.ZipInfo(name, WHEN), text, zipfile.ZIP_DEFLATED)
