"""Outputs of steps, copied here: whole, and never over what somebody else has made."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.recipes.users import CANARY, Here

KILLED = """
import os, signal, sys
from launcher.cli.app import main
real, left = os.rename, int(sys.argv.pop(1))
def rename(old, new):
    global left
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1
    real(old, new)
os.rename = rename
main()
"""


@pytest.fixture
def here(tmp_path: Path) -> Here:
    return Here(tmp_path)


def test_outputs_are_fetched_whole(here: Here) -> None:
    here.let_go()
    assert here("run").returncode == 0
    fetched = here("fetch", "one", "--out", "mine")
    assert fetched.returncode == 0, fetched.stderr
    assert (here.folder / "mine/one/size").read_text().strip() == str(len(CANARY))
    (here.work / "size").unlink()
    missing = here("fetch", "one", "--out", "mine")
    assert missing.returncode == 4
    assert (here.folder / "mine/one/size").exists()
    assert [path.name for path in (here.folder / "mine").iterdir()] == ["one"]
    assert "RDTL-U122" in here("fetch", "two", "--out", "mine").stderr


@pytest.mark.slow
def test_fetched_outputs_keep_their_paths(here: Here) -> None:
    made = {"name": "here", "about": "a test", "working_directory": "~/deep"}
    script = "mkdir -p a b; echo 1 > a/r; echo 2 > b/r"
    steps = {"one": {"script": script, "outputs": ["a/r", "b/r"], "timeout": "10s"}}
    (here.folder / "here.yaml").write_text(yaml.safe_dump({**made, "steps": steps}))
    assert here("run").returncode == 0
    fetched = here("fetch", "one", "--out", "mine")
    assert fetched.returncode == 0, fetched.stderr
    folder = here.folder / "mine/one"
    found = {str(p.relative_to(folder)): p.read_text() for p in folder.glob("*/*")}
    assert found == {"a/r": "1\n", "b/r": "2\n"}


@pytest.mark.slow
def test_what_no_fetch_has_made_is_not_replaced(here: Here) -> None:
    here.let_go()
    assert here("run").returncode == 0
    (here.folder / "one").mkdir()
    (here.folder / "one" / "model.py").write_text("mine")
    refused = here("fetch", "one", "--out", ".")
    assert "RDTL-U025" in refused.stderr
    assert "earlier versions left none" in refused.stderr
    assert refused.returncode == 2
    assert (here.folder / "one" / "model.py").read_text() == "mine"
    (here.folder / "linked").mkdir()
    (here.folder / "linked" / "one").symlink_to(here.folder / "one")
    assert "RDTL-U025" in here("fetch", "one", "--out", "linked").stderr
    assert (here.folder / "one" / "model.py").read_text() == "mine"
    (here.folder / "empty" / "one").mkdir(parents=True)
    assert here("fetch", "one", "--out", "empty").returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("renames", [0, 1])
def test_a_kill_while_it_is_replaced_costs_nothing(here: Here, renames: int) -> None:
    here.let_go()
    assert here("run").returncode == 0
    assert here("fetch", "one", "--out", "mine").returncode == 0
    size = here.folder / "mine" / "one" / "size"
    (here.work / "size").write_text("18\n")
    words = ["recipe", "fetch", "here.yaml", "one", "--out", "mine"]
    killed = subprocess.run(
        [sys.executable, "-P", "-c", KILLED, str(renames), *words], cwd=here.folder,
        env={**os.environ, **here.env}, capture_output=True, check=False,
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL
    (here.work / "size").unlink()
    assert here("fetch", "one", "--out", "mine").returncode == 4
    assert size.read_text().strip() == str(len(CANARY))
    (here.work / "size").write_text("19\n")
    aside = here.folder / "mine" / ".one.rdtl-replaced"
    aside.mkdir()  # as after a kill before it was removed
    (aside / "size").write_text("older")
    assert here("fetch", "one", "--out", "mine").returncode == 0
    assert size.read_text() == "19\n"
    assert not aside.exists()
