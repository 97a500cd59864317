"""What a machine's nvidia-smi says, and that renting and preflight understand it alike."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from launcher.core import box_facts, box_machine
from launcher.core.errors import RefusedError
from launcher.providers.wanted import Facts, Wanted


def tool(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


@pytest.mark.parametrize(
    ("shown", "sold", "enough"),
    [
        (97887, 96, True),
        (81559, 80, True),
        (23028, 24, True),  # with ECC
        (15360, 16, True),
        (22528, 24, False),
        (49140, 80, False),
    ],
)
def test_the_memory_of_a_gpu_is_one_rule(
    shown: int, sold: int, enough: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool(tmp_path, f"echo 'NVIDIA X, {shown}, 570.1'", monkeypatch)
    assert box_facts.gpus() == [("NVIDIA X", shown, "570.1")]
    facts = Facts((("NVIDIA X", shown / 1000),), 10.0, 10.0, 1, "570.1", "", None)
    problems = facts.problems(Wanted(gpus=1, vram_gb=sold))
    assert (problems == []) == enough, problems
    if enough:
        box_machine.machine(1, "", sold, 0, "", tmp_path)
    else:
        assert problems == [f"memory of a GPU {shown / 1000:g}, wanted {sold} GB"]
        with pytest.raises(RefusedError, match="RDTL-B001"):
            box_machine.machine(1, "", sold, 0, "", tmp_path)


@pytest.mark.parametrize(
    ("script", "said"),
    [("echo no devices found >&2; exit 6", "no devices found"), ("exec sleep 9", "answer")],
    ids=["none", "silent"],
)
def test_an_nvidia_smi_that_says_nothing_is_told(
    script: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool(tmp_path, script, monkeypatch)
    monkeypatch.setattr(box_facts, "PATIENCE_S", 0.5)
    with pytest.raises(RefusedError, match=said):
        box_machine.machine(1, "", 0, 0, "", tmp_path)


@pytest.mark.parametrize("directory", ["", "data/not/yet", "~/not/yet", "/not/yet"])
def test_the_disk_of_any_directory_is_told(
    directory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    box_facts.main(directory, "")
    assert json.loads(capsys.readouterr().out)["disk_gb"] > 0
