"""Canaries: what a secret holds stands in nothing that a command prints or writes.

Staging, recipes, rentals, images and the policy server have canaries in their own tests.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from tests.cli.run_rdtl import rdtl

CANARIES = {
    "WANDB_API_KEY": "canary-wandb-5d1f0c",
    "HF_TOKEN": "canary-hf-93ab77",
    "AWS_SECRET_ACCESS_KEY": "canary-aws-1c2e88",
    "VAST_API_KEY": "canary-vast-6f60aa",
}
CONFIGS = Path(__file__).parent.parent.parent / "configs"


def require_silence(folder: Path, *said: str) -> None:
    """No canary in these texts, nor in any file below ``folder``."""
    texts = [*said, *(p.read_bytes().decode("latin-1") for p in folder.rglob("*") if p.is_file())]
    assert not [name for name, value in CANARIES.items() if any(value in text for text in texts)]


@pytest.mark.parametrize(
    "words",
    [
        ("train", "train/demo.yaml", "--dry-run"),
        ("pipeline", "demo/quick.yaml", "--dry-run", "--json"),
        ("evaluate", "evaluate/smoke.yaml", "--dry-run", "--policy", "ws://127.0.0.1:9"),
    ],
)
def test_what_would_be_done(words: tuple[str, ...], tmp_path: Path) -> None:
    """Plans and scripts name variables and files, never what they hold."""
    command, config, *rest = words
    done = rdtl(command, str(CONFIGS / config), *rest, cwd=tmp_path, env=CANARIES)
    assert done.returncode == 0, done.stderr
    require_silence(tmp_path, done.stdout, done.stderr)


def test_a_run_hands_secrets_on_and_writes_none_of_them(tmp_path: Path) -> None:
    code = "import hashlib, os; print(hashlib.sha256(os.environ['HF_TOKEN'].encode()).hexdigest())"
    done = rdtl("run", "--name", "a", "--", "python3", "-c", code, cwd=tmp_path, env=CANARIES)
    assert done.returncode == 0, done.stderr
    (log,) = tmp_path.glob("runs/a-local/logs/run/attempt_1/*.log")
    assert hashlib.sha256(CANARIES["HF_TOKEN"].encode()).hexdigest() in log.read_text()
    require_silence(tmp_path, done.stdout, done.stderr)


@pytest.mark.slow
def test_doctor(tmp_path: Path) -> None:
    done = rdtl("doctor", "--json", cwd=tmp_path, env=CANARIES)
    assert "RDTL-" in done.stdout
    require_silence(tmp_path, done.stdout, done.stderr)


@pytest.mark.parametrize("key", ["--policy", "--set"])
def test_a_password_in_the_address_of_a_server_is_refused_and_not_repeated(
    key: str, tmp_path: Path
) -> None:
    """The plan, the protocol and every record's run would hold it."""
    address = f"ws://me:{CANARIES['HF_TOKEN']}@127.0.0.1:9"
    value = address if key == "--policy" else f"evaluate.server={address}"
    done = rdtl("evaluate", str(CONFIGS / "evaluate/smoke.yaml"), key, value, cwd=tmp_path)
    assert done.returncode == 2
    assert "RDTL-U001" in done.stderr and "server_token" in done.stderr
    require_silence(tmp_path, done.stdout, done.stderr)
