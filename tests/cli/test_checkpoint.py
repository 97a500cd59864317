"""``rdtl checkpoint`` as a user meets it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rdt import checkpoint
from rdt.spec.contract import CONTRACTS
from tests.cli.run_rdtl import rdtl
from tests.rdt import checkpoints

pytestmark = pytest.mark.train


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = checkpoints.network()
    return checkpoints.reference(tmp_path_factory.mktemp("foreign"), made, "pytorch_model.bin")


@pytest.mark.slow
def test_adopt_export_and_inspect(folder: Path, tmp_path: Path) -> None:
    """From foreign weights to a folder that says what it is, in 80 columns."""
    wide = {"COLUMNS": "80"}
    adopted = rdtl("checkpoint", "adopt", str(folder), "--contract", "libero-eef6d", cwd=tmp_path)
    assert adopted.returncode == 0, adopted.stderr
    assert adopted.stdout.startswith(f"card {folder / 'card.json'}\n")
    done = rdtl("checkpoint", "export", str(folder), "out", cwd=tmp_path, env=wide)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "README.md", "card.json", "config.json", "pytorch_model.bin",
    }  # fmt: skip
    shown = rdtl("checkpoint", "inspect", "out", cwd=tmp_path, env=wide)
    assert shown.returncode == 0, shown.stderr
    for line in (
        "network   hidden 64, depth 1, heads 2; predicts 64 x 128 (sample, 5 steps)",
        "  model.blocks        21      41,920  float32",
        "  contract  libero-eef6d",
        "  cameras   agentview, eye_in_hand, none; rotation raw",
        "  end-effector shift  30–32  1.2 cm at |a| = 1",
        "ok    RDTL-T012  the card belongs to these weights (sha256)",
    ):
        assert line in shown.stdout.splitlines()
    lines = [line for line in shown.stdout.splitlines() if str(tmp_path) not in line]
    assert max(map(len, lines)) <= 80
    assert checkpoint.load(tmp_path / "out").card is not None


@pytest.mark.slow
def test_inspect_a_hub_id_as_json(tmp_path: Path) -> None:
    checkpoints.hub_cache(tmp_path / "hub", "someone/rdt-tiny", checkpoints.network())
    env = {"HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"}
    done = rdtl("checkpoint", "inspect", "someone/rdt-tiny", "--json", cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["layout"], report["tensors"], report["parameters"]) == ("hub", 51, 814_528)
    assert report["card"] is None


def test_inspect_says_what_is_wrong_and_ends_with_3(folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_text(json.dumps(checkpoints.config(hidden_size=128)))
    (broken / "pytorch_model.bin").write_bytes((folder / "pytorch_model.bin").read_bytes())
    done = rdtl("checkpoint", "inspect", str(broken), cwd=tmp_path)
    assert done.returncode == 3
    assert "FAIL  RDTL-T021" in done.stdout
    assert "rdt.hidden_size = 128, the tensors have 64" in done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_errors_of_the_job_arrive_with_code_and_status(folder: Path, tmp_path: Path) -> None:
    cut = tmp_path / "pytorch_model.bin"
    cut.write_bytes((folder / "pytorch_model.bin").read_bytes()[:-1000])
    done = rdtl("checkpoint", "export", str(cut), "out", "--json", cwd=tmp_path)
    assert done.returncode == 1
    assert json.loads(done.stdout)["error"]["code"] == "RDTL-T031"
    assert not (tmp_path / "out").exists()


def test_a_misspelt_contract_gets_a_suggestion(folder: Path, tmp_path: Path) -> None:
    done = rdtl("checkpoint", "adopt", str(folder), "--contract", "libero-eef6", cwd=tmp_path)
    assert done.returncode == 2
    assert "RDTL-U028" in done.stderr
    assert "did you mean libero-eef6d?" in done.stderr
    assert all(name in done.stderr for name in CONTRACTS)
