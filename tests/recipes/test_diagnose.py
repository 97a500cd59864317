"""Logs of failures are recognised: really made here where that is possible."""

# ruff: noqa: E501  lines of logs stay as they are

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from launcher import diagnose
from launcher.core import signatures
from launcher.core.errors import RefusedError, UsageError
from tests.recipes import failing
from tests.recipes.boxes import wait_for
from tests.recipes.samples import SAMPLES, Sample
from tests.staging import servers

ROOT = Path(__file__).parents[2]
OF_SSH = {"RDTL-B012", "RDTL-B013"}


def codes(log: Path) -> set[str]:
    return {found.code for found in diagnose.diagnose(log)}


@pytest.mark.parametrize("code", failing.FAILURES)
def test_a_failure_caused_here_is_recognised(code: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("wb") as out:
        subprocess.run(
            [sys.executable, "-m", "tests.recipes.failing", code],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            timeout=60,
            check=False,
        )
    assert code in codes(log), log.read_text()


@pytest.mark.slow
def test_failures_of_torch_are_recognised(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "tests.recipes.failing", str(tmp_path)]
    subprocess.run(argv, cwd=ROOT, timeout=120, check=True)
    for code in failing.OF_TORCH:
        log = tmp_path / f"{code}.log"
        assert code in codes(log), log.read_text()


@pytest.mark.slow
def test_what_ssh_says_is_recognised(tmp_path: Path) -> None:
    """A server with another key than before, and more sessions than it admits."""
    with servers.sshd(tmp_path / "server") as (server, words):
        ssh = [*words.split(), "-p", str(server.port), "127.0.0.1"]
        other = (tmp_path / "server/me.pub").read_text().split()[:2]
        known = tmp_path / "known"
        known.write_text(f"[127.0.0.1]:{server.port} {' '.join(other)}\n")
        changed = [word.replace(str(tmp_path / "server/known"), str(known)) for word in ssh]
        said = subprocess.run([*changed, "true"], capture_output=True, timeout=20, check=False)
        (tmp_path / "changed.log").write_bytes(said.stderr)
        control = ["-o", f"ControlPath={tmp_path}/c", "-o", "ControlPersist=5"]
        subprocess.run(
            [*ssh[:1], "-o", "ControlMaster=yes", *control, *ssh[1:], "true"], timeout=20
        )
        held = f"until test -e {tmp_path}/enough; do sleep 0.1; done"
        shared = [*ssh[:1], "-o", "ControlMaster=no", *control, *ssh[1:], held]
        with (tmp_path / "many.log").open("wb") as out:
            asked = [subprocess.Popen(shared, stderr=out) for _ in range(12)]
            try:
                wait_for(lambda: codes(tmp_path / "many.log"))
            finally:
                (tmp_path / "enough").touch()
            for one in asked:
                one.wait(30)
    assert codes(tmp_path / "changed.log") == {"RDTL-B013"}
    assert codes(tmp_path / "many.log") == {"RDTL-B012"}


@pytest.mark.slow
@pytest.mark.parametrize(("version", "refused"), [("0.19.11", True), ("0.31.0", False)])
def test_an_old_wandb_refuses_a_key_of_today(version: str, refused: bool, tmp_path: Path) -> None:
    """Its real command; our own optional dependency begins with the first version that takes it.
    The server that would be asked about the key is not there."""
    uv, key = Path(sys.executable).with_name("uv"), f"wandb_v1_{'x' * 77}"
    words = ["run", "-q", "--no-project", "--with", f"wandb=={version}", "wandb", "login", key]
    own = {"HOME": str(tmp_path), "WANDB_BASE_URL": "http://127.0.0.1:9"}
    cache = subprocess.run([uv, "cache", "dir"], check=True, capture_output=True, text=True)
    with (tmp_path / "log").open("wb") as out:
        done = subprocess.run(
            [uv, *words],
            cwd=tmp_path,
            env={**os.environ, **own, "UV_CACHE_DIR": cache.stdout.strip()},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            timeout=200,
            check=False,
        )
    assert ("RDTL-W005" in codes(tmp_path / "log")) == refused, (tmp_path / "log").read_text()
    assert not refused or done.returncode


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.code)
def test_a_known_message_is_recognised(sample: Sample, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(f"some line before\n{sample.text}some line after\n")
    found = {one.code: one for one in diagnose.diagnose(log)}
    assert found[sample.code].line == 2 or sample.text.count("\n") > 1
    assert found[sample.code].cause and found[sample.code].fix


def test_every_signature_has_a_log_that_shows_it() -> None:
    shown = {*failing.FAILURES, *failing.OF_TORCH, *OF_SSH} | {one.code for one in SAMPLES}
    assert {signature.code for signature in diagnose.known()} == shown


HEALTHY = """\
12:00:00.000 [I] WaypointAEDataset: 454 episodes, 8409 valid pairs, 0 skipped (dur>32)
12:00:01.000 [I]   Skipping time_mlp_in.weight: shape torch.Size([1024, 1024]) != torch.Size([1024, 2048])
12:00:01.000 [I] Loaded 811 weight tensors, skipped 1
12:00:01.000 [I] PaliGemma weights loaded: 603 params, 1 missing, 0 unexpected
12:00:02.000 [I] [AE] step=0/10000 loss=0.9120 lr=1.00e-05 gnorm=1.25 sps=0.1
12:00:02.000 [I] [AE] step=100/10000 loss=0.2410 lr=1.00e-05 gnorm=1.25 sps=0.1 gpu=78.7GB eta=2300min
12:00:02.000 [I] [VLM] step=0/30000 loss=11.4000 lr=1.00e-05 gnorm=1.25 sps=0.3
12:00:02.000 [I] [VLM] step=500/30000 loss=4.6000 lr=1.00e-05 gnorm=1.25 sps=0.3
AE Training:   1%|          | 100/10000 [23:20<38:30:00, 14.0s/it, loss=0.2410, step=100]
wandb: View run at https://wandb.ai/owner/project/runs/abc
INFO:    squashfuse not found, will not be able to mount SIF or other squashfs files
ERROR: pip's dependency resolver does not currently take into account all the packages that are installed. This behaviour is the source of the following dependency conflicts.
Model conversion completed successfully!
"""


def test_nothing_in_a_healthy_log_ends_a_step() -> None:
    """Lines that look bad and are harmless explain a step only once it has failed."""
    ending = [one for one in diagnose.known() if not one.only_after_failure]
    assert list(signatures.matches(ending, HEALTHY.splitlines())) == []
    found = {one.code for _, one in signatures.matches(diagnose.known(), HEALTHY.splitlines())}
    assert found == {"RDTL-C013", "RDTL-C017"}


def test_equal_findings_are_told_once_and_secrets_not_at_all(tmp_path: Path) -> None:
    secret = "hf_canary0123456789"
    log = tmp_path / "log"
    log.write_text(f"{secret} CUDA out of memory\n" * 3 + f"\r{secret}\rloss=nan {secret}\n")
    memory, loss = diagnose.diagnose(log)
    assert (memory.code, memory.line, memory.count) == ("RDTL-T007", 1, 3)
    assert (loss.code, loss.line, loss.text) == ("RDTL-T018", 4, "loss=nan [hidden]")
    assert secret not in str([memory, loss])


def test_our_own_errors_are_read_back_whole(tmp_path: Path) -> None:
    error = RefusedError("RDTL-G007", "not whole", where="model", why="strict", fix="again")
    job = RefusedError("RDTL-D004", "7 numbers", where="file", why="joints", fix="use state")
    log = tmp_path / "log"
    log.write_text(f"begin\n{error}\n{json.dumps({'error': job.to_dict()})}\n")
    first, second = diagnose.diagnose(log)
    assert (first.code, first.cause, first.text, first.fix, first.line) == (
        "RDTL-G007",
        "not whole. strict",
        "model",
        "again",
        2,
    )
    assert (second.code, second.cause, second.text) == ("RDTL-D004", "7 numbers. joints", "file")


def test_a_folder_stands_for_its_logs(tmp_path: Path) -> None:
    for name in ("steps/train/log", "steps/train/check.log", "logs/train/attempt_0/0.n0.log"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("CUDA out of memory\n")
    (tmp_path / "steps/train/state.json").write_text("loss=nan")
    (found,) = diagnose.diagnose(tmp_path)
    assert found.count == 3
    with pytest.raises(UsageError, match="RDTL-B080"):
        diagnose.diagnose(tmp_path / "nowhere")


def test_the_command_tells_people_and_programs(tmp_path: Path) -> None:
    log = tmp_path / "train.log"
    log.write_text("[AE] step=5/100 loss=nan lr=1 gnorm=1 sps=0.1\n")
    argv = [sys.executable, "-P", "-m", "launcher", "diagnose", str(log)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    person = subprocess.run(argv, capture_output=True, text=True, env=env, cwd=tmp_path, check=True)
    assert "RDTL-T018" in person.stdout and f"{log}:1" in person.stdout and "fix" in person.stdout
    program = subprocess.run(
        [*argv, "--json"], capture_output=True, env=env, cwd=tmp_path, check=True
    )
    assert [one["code"] for one in json.loads(program.stdout)["found"]] == ["RDTL-T018"]
