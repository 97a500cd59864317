"""A recipe whose job waits on a cluster: what it will read stays until it has ended."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.interrupting import interrupt
from tests.cli.run_rdtl import rdtl
from tests.recipes.users import Here

WORDS = ("recipe", "run", "here.yaml", "--site", "far")
PROGRAMS = {
    "sbatch": """
        test ! -e refuses || { echo 'Invalid account' >&2; exit 1; }
        sed -n 's/^#SBATCH --job-name=//p' "${!#}" > sent  # Ctrl-C ends this program, too
        mv sent queue; echo Submitted batch job 41""",
    "squeue": """
        test -e queue || exit 0
        case "$*" in
        *%S*) echo "41|N/A|PENDING|Priority|N/A||$(cat queue)" ;;
        *) echo "41|N/A|PENDING|Priority|$(cat queue)" ;;
        esac""",
    "scontrol": "echo MessageTimeout = 1 sec",
    "sinfo": "exit 1",
    "sacct": "exit 1",
}
"""A cluster on which nothing begins: what was sent waits until its line is removed."""


@pytest.fixture
def waiting(tmp_path: Path) -> Here:
    """A user whose recipe was sent to such a cluster; its launcher was interrupted."""
    here = Here(tmp_path)
    for name, script in PROGRAMS.items():
        (tmp_path / name).write_text(f"#!/bin/bash\ncd {tmp_path}\n{script}\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "configs/sites").mkdir(parents=True)
    (tmp_path / "configs/sites/far.yaml").write_text("{kind: slurm}\n")
    here.env |= {
        "PATH": f"{tmp_path}:/usr/bin:/bin",
        "XDG_STATE_HOME": str(tmp_path / "state"),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }
    done = interrupt(*WORDS, when=(tmp_path / "queue").exists, cwd=tmp_path, env=here.env)
    assert done.returncode == 130, done.stderr
    return here


def secrets(here: Here) -> list[Path]:
    return list((here.folder / "state/rdtl/secrets").iterdir())


def test_its_secrets_stay_while_it_waits(waiting: Here) -> None:
    assert len(secrets(waiting)) == 1
    refused = rdtl(*WORDS, "--minutes", "300", cwd=waiting.folder, env=waiting.env)
    assert "RDTL-T068" in refused.stderr
    assert len(secrets(waiting)) == 1
    (waiting.folder / "queue").unlink()
    (waiting.folder / "refuses").touch()
    gone = rdtl(*WORDS, cwd=waiting.folder, env=waiting.env)
    assert "Invalid account" in gone.stderr
    assert secrets(waiting) == [], "nothing reads them any more"


@pytest.mark.slow
def test_nothing_is_sent_under_it_while_it_waits(waiting: Here) -> None:
    runner = waiting.folder / "runs/here-far/recipe/runner.pyz"
    sent = runner.stat().st_mtime_ns
    rdtl(*WORDS, "--minutes", "300", cwd=waiting.folder, env=waiting.env)
    assert runner.stat().st_mtime_ns == sent
    (waiting.folder / "queue").unlink()
    (waiting.folder / "refuses").touch()
    rdtl(*WORDS, cwd=waiting.folder, env=waiting.env)
    assert runner.stat().st_mtime_ns != sent, "the next job gets what is there now"
