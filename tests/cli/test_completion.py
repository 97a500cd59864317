"""TAB in a real shell, and what an installation says of itself."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.run_rdtl import rdtl

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A PATH with `rdtl`, a run called red-local, and a site and a configuration of one's own."""
    program = tmp_path / "bin" / "rdtl"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -P -m launcher "$@"\n')
    program.chmod(0o755)
    for path in ("runs/red-local/plan.json", "configs/sites/mine.yaml", "configs/train/own.yaml"):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).touch()
    return {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}", "HOME": str(tmp_path)}


COMPLETED = {
    "rdtl ru": ["run", "runs"],
    "rdtl recipe li": ["lint", "list"],
    "rdtl train --dr": ["--dry-run"],
    "rdtl train ow": ["own"],
    "rdtl train own --site mi": ["mine"],
    "rdtl runs show r": ["red-local"],
    "rdtl recipe run openpi/s": ["openpi/serve-eval"],
    "rdtl demo --image all": ["all-cpu", "all-gpu"],
    "rdtl data verify x --contract libero-r": ["libero-raw-velocity"],
}


def test_bash_completes_commands_options_and_names(
    environment: dict[str, str], tmp_path: Path
) -> None:
    """The script that rdtl shows is loaded by bash, and its function called as TAB calls it."""
    script = ['eval "$(rdtl --show-completion)"', "f=$(complete -p rdtl); f=${f#*-F }; f=${f%% *}"]
    for line in COMPLETED:
        script += [
            f"COMP_WORDS=({line}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))",
            '"$f" rdtl; echo "${COMPREPLY[*]}"',
        ]
    done = subprocess.run(
        ["bash", "-c", "\n".join(script)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    answers = dict(zip(COMPLETED, map(str.split, done.stdout.splitlines()), strict=True))
    assert {line: sorted(found) for line, found in answers.items()} == COMPLETED, done.stderr


def test_zsh_is_answered(environment: dict[str, str], tmp_path: Path) -> None:
    asked = {"_RDTL_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": "rdtl runs show r"}
    done = rdtl(cwd=tmp_path, env={**environment, **asked})
    assert '"red-local"' in done.stdout, done.stderr


def test_completion_says_nothing_where_nothing_can_be_read(
    environment: dict[str, str], tmp_path: Path
) -> None:
    nowhere = {"RDTL_RUNS": str(tmp_path / "none"), "_RDTL_COMPLETE": "complete_bash"}
    asked = {"COMP_WORDS": "rdtl runs show r", "COMP_CWORD": "3"}
    done = rdtl(cwd=tmp_path, env={**environment, **nowhere, **asked})
    assert (done.stdout.strip(), done.stderr) == ("", "")


def test_the_version_names_commit_packages_and_sites(
    environment: dict[str, str], tmp_path: Path
) -> None:
    done = rdtl("--version", "--json", cwd=tmp_path, env={"HOME": str(tmp_path)})
    found = json.loads(done.stdout)
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["packages"]["submitit"] == importlib.metadata.version("submitit")
    assert found["packages"].keys() >= {"torch", "deepspeed", "mujoco"}
    assert found["sites"]["mine"] == str(tmp_path / "configs/sites/mine.yaml")
    if (ROOT / ".git").exists():
        head = subprocess.run(
            ["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True
        )
        assert found["git"]["commit"] == head.stdout.strip()
    lines = rdtl("--version", cwd=tmp_path).stdout.splitlines()
    assert lines[0].startswith(f"rdtl {found['rdtl']}")
    assert any(line.split()[:2] == ["site", "mine"] for line in lines)


def test_json_belongs_behind_the_command(tmp_path: Path) -> None:
    done = rdtl("--json", "runs", "list", cwd=tmp_path)
    assert done.returncode == 2
    assert "rdtl runs … --json" in done.stderr
