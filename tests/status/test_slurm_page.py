"""The site files of docs/slurm.md are ones that the launcher takes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from launcher.sites import Site
from tests.cli.run_rdtl import rdtl

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "slurm.md").read_text()
SITES = re.findall(r"^### (.+?)\n\n```yaml\n(.*?)```", PAGE, flags=re.MULTILINE | re.DOTALL)


def test_there_are_three() -> None:
    assert [title.split(",")[0] for title, _ in SITES] == [
        "A100 nodes",
        "Pyxis",
        "A cluster over SSH",
    ]


@pytest.mark.parametrize(("title", "text"), SITES)
def test_it_is_a_site(title: str, text: str) -> None:
    assert Site(**yaml.safe_load(text)).kind == "slurm"


def test_pyxis_is_rendered_and_not_submitted(tmp_path: Path) -> None:
    sites = tmp_path / "configs" / "sites"
    sites.mkdir(parents=True)
    (sites / "pyxis.yaml").write_text(dict(SITES)["Pyxis"])
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "sbatch").write_text("#!/bin/sh\nexit 1\n")  # a login node has one
    (programs / "sbatch").chmod(0o755)
    env = {"PATH": f"{programs}:/usr/bin:/bin"}
    words = ("--site", "pyxis", "--", "hostname")
    rendered = rdtl("run", "--dry-run", *words, cwd=tmp_path, env=env)
    assert rendered.returncode == 0, rendered.stderr
    assert "--container-image" in rendered.stdout
    refused = rdtl("run", *words, cwd=tmp_path, env=env)
    assert refused.returncode == 2
    assert "RDTL-C001" in refused.stderr
