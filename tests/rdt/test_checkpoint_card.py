"""Cards bind weights to what their numbers mean; what is adopted and exported stays the same."""

from __future__ import annotations

import csv
import dataclasses
import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from launcher.core.errors import RdtlError, RefusedError, UsageError
from rdt import checkpoint
from rdt.checkpoint import adopting, describing, exporting
from rdt.checkpoint.opening import open_checkpoint
from rdt.model.policy_network import build, config_from_run
from rdt.model.rdt import Rdt
from rdt.spec import card as cards
from rdt.spec.contract import CONTRACTS, LIBERO_VELOCITY, require_same
from tests.rdt import checkpoints, golden, synthetic

pytestmark = pytest.mark.train

FOREIGN = sorted(name for name in CONTRACTS if name != LIBERO_VELOCITY.name)


TRAINING = {
    "steps": 3, "seed": 0, "effective_batch": 1, "dataset_digest": "d", "suite": "s", "task": "t",
    "demonstrations": 1, "windows": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def made() -> Rdt:
    return checkpoints.network(dtype=torch.bfloat16)


@pytest.fixture
def folder(made: Rdt, tmp_path: Path) -> Path:
    return checkpoints.reference(tmp_path / "rdt", made, "pytorch_model.bin")


def change_card(folder: Path, **fields: Any) -> None:
    path = folder / "card.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


@pytest.mark.parametrize("name", FOREIGN)
def test_adopt_then_load(name: str, folder: Path) -> None:
    card = adopting.adopt(open_checkpoint(folder), CONTRACTS[name])
    loaded = checkpoint.load(folder)
    assert loaded.card == card == cards.read(folder)
    assert card.contract == CONTRACTS[name].to_dict()
    assert (card.origin, card.training, card.weights) == ("adopted", None, "raw")
    assert (card.dtype, card.horizon, card.camera_size) == ("bfloat16", 64, 0)
    assert card.weights_sha256 == cards.weights_sha256(folder / "pytorch_model.bin")


def test_another_card_is_not_overwritten(folder: Path) -> None:
    adopting.adopt(open_checkpoint(folder), CONTRACTS["libero-eef6d"])
    before = (folder / "card.json").read_bytes()
    adopting.adopt(open_checkpoint(folder), CONTRACTS["libero-eef6d"])
    with pytest.raises(RefusedError, match="another card") as caught:
        adopting.adopt(open_checkpoint(folder), CONTRACTS["libero-raw-velocity"])
    assert caught.value.problem.code == "RDTL-T012"
    assert (folder / "card.json").read_bytes() == before


def test_the_card_of_one_copy_decides_which_is_loaded(folder: Path) -> None:
    average = checkpoints.network(seed=1)
    checkpoints.write(folder / "ema/model.safetensors", average.state_dict())
    assert checkpoint.load(folder).origin.weights == "ema"
    adopting.adopt(open_checkpoint(folder, "raw"), CONTRACTS["libero-eef6d"])
    assert checkpoint.load(folder).origin.weights == "raw"
    adopting.adopt(open_checkpoint(folder, "ema"), CONTRACTS["libero-eef6d"])
    assert cards.read(folder / "ema").weights == "ema"
    assert checkpoint.load(folder).origin.weights == "ema"


def test_a_contract_that_cannot_hold_is_refused(folder: Path) -> None:
    opened = open_checkpoint(folder)
    with pytest.raises(RefusedError, match="needs the statistics"):
        adopting.adopt(opened, LIBERO_VELOCITY)
    contract = CONTRACTS["libero-eef6d"]
    for change, code, field in (
        ({"action_dim": 24}, "RDTL-T012", "action_dim = 24, expected 128"),
        ({"lang_token_dim": 768}, "RDTL-T012", "lang_token_dim = 768, expected 4096"),
        ({"img_cond_len": 6 * 256}, "RDTL-T012", "256 a picture, expected 729 a picture"),
        ({"img_pos_embed_config": [["image", [2, 1, -729]]]}, "RDTL-T021", "3 cameras"),
        ({"img_pos_embed_config": None}, "RDTL-T021", "[1 or 2 moments, cameras, -tokens]"),
    ):
        config = dataclasses.replace(opened.config, **change)
        with pytest.raises(RefusedError) as caught:
            adopting.adopt(dataclasses.replace(opened, config=config), contract)
        assert caught.value.problem.code == code
        assert field in caught.value.problem.where
    assert not (folder / "card.json").exists()


def test_swapped_weights_are_refused(made: Rdt, folder: Path) -> None:
    adopting.adopt(open_checkpoint(folder), CONTRACTS["libero-eef6d"])
    other = checkpoints.network(seed=1, dtype=torch.bfloat16)
    checkpoints.write(folder / "pytorch_model.bin", other.state_dict())
    with pytest.raises(RefusedError, match="belongs to other weights") as caught:
        checkpoint.load(folder)
    assert caught.value.problem.code == "RDTL-T012"
    assert str(folder / "card.json") in caught.value.problem.where


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"format": 1}, "format"),
        ({"extra": 1}, "extra"),
        ({"weights": "best"}, "weights"),
        ({"origin": "trained"}, "training"),
        ({"encoders": {"vision": "clip"}}, "encoders.vision"),
        ({"state_std": [1.0] * 127}, "state_std"),
        ({"state_mean": [0.5] * 128}, "statistics_digest"),
        ({"contract": {"name": "libero-velocity"}}, "action"),
        ({"training": {"steps": 3}}, "training"),
        ({"contract": "libero-eef6d"}, "contract = 'libero-eef6d', expected an object"),
        ({"contract": None}, "contract = None, expected an object"),
        ({"encoders": ["a"]}, "encoders = ['a'], expected an object of texts"),
        ({"encoders": {"vision": 1, "language": None}}, "expected an object of texts"),
        ({"weights": ["raw"]}, "weights = ['raw'], expected a text"),
        ({"dtype": 16}, "dtype = 16, expected a text"),
        ({"dtype": "float32"}, "dtype = 'float32', pytorch_model.bin holds bfloat16"),
        ({"weights_sha256": None}, "weights_sha256 = None, expected a text"),
        ({"state_mean": 0.0}, "state_mean = 0.0, expected a list of finite numbers"),
        ({"state_std": ["1"] * 128}, "state_std"),
        ({"state_std": [float("nan")] * 128}, "state_std"),
        ({"state_mean": [10**400] * 128}, "statistics_digest"),
        ({"statistics_digest": {}}, "statistics_digest = {}, expected a text"),
        ({"horizon": "64"}, "horizon = '64', expected a whole number"),
        ({"horizon": True}, "horizon = True, expected a whole number"),
        ({"camera_size": -1}, "camera_size = -1, expected a whole number"),
        ({"origin": 3}, "origin = 3, expected a text"),
        ({"training": "yes"}, "training = 'yes', expected an object or null"),
        ({"origin": "trained", "training": {**TRAINING, "seed": "0"}}, "training.seed = '0'"),
        ({"versions": {"torch": 2}}, "versions = {'torch': 2}, expected an object of texts"),
        ({"format": 2.0}, "format = 2.0, expected a whole number"),
    ],
)
def test_a_card_that_was_changed_is_refused(
    change: dict[str, Any], field: str, folder: Path
) -> None:
    adopting.adopt(open_checkpoint(folder), CONTRACTS["libero-eef6d"])
    change_card(folder, **change)
    with pytest.raises(RefusedError) as caught:
        checkpoint.load(folder)
    assert caught.value.problem.code == "RDTL-T012"
    assert field in caught.value.problem.where
    (folder / "card.json").write_text("[]")
    with pytest.raises(RdtlError, match="no readable policy card"):
        checkpoint.load(folder)


@pytest.mark.parametrize("with_card", [False, True])
def test_export_is_what_the_reference_reads(
    with_card: bool, made: Rdt, folder: Path, tmp_path: Path
) -> None:
    if with_card:
        adopting.adopt(open_checkpoint(folder), CONTRACTS["libero-eef6d"])
    out = tmp_path / "out"
    exporting.export(open_checkpoint(folder), out)
    state = torch.load(out / "pytorch_model.bin", weights_only=True)
    assert type(state) is dict
    assert checkpoints.equal(state, made.state_dict())
    assert json.loads((out / "config.json").read_text()) == checkpoints.config()
    assert (out / "pytorch_model.bin").stat().st_size < 1.1 * sum(t.nbytes for t in state.values())
    again = checkpoint.load(out, dtype=torch.bfloat16)
    assert checkpoints.equal(again.network.state_dict(), made.state_dict())
    readme = (out / "README.md").read_text()
    if with_card:
        assert again.card is not None
        assert again.card.contract["name"] == "libero-eef6d"
        assert "| contract | libero-eef6d |" in readme
        assert "| action | 30–32 | end-effector shift | 1.2 cm at \\|a\\| = 1 | world |" in readme
    else:
        assert again.card is None
        assert "units, signs and cameras are unknown" in readme


@pytest.mark.parametrize("source", ["safetensors", "bin"])
def test_exported_names_are_the_reference_s(source: str, tmp_path: Path) -> None:
    """Depth and widths of the public 170M model's list of keys, at a small hidden size."""
    with (golden.DATA / "keys_rdt-170m.tsv").open() as file:
        expected = [row["key"] for row in csv.DictReader(file, delimiter="\t")]
    made = checkpoints.network(depth=14)
    name = "model.safetensors" if source == "safetensors" else "pytorch_model.bin"
    checkpoints.reference(tmp_path / "rdt", made, name)
    exporting.export(open_checkpoint(tmp_path / "rdt"), tmp_path / "out")
    state = torch.load(tmp_path / "out/pytorch_model.bin", weights_only=True)
    assert sorted(state) == sorted(expected)
    assert checkpoints.network(seed=1, depth=14).load_state_dict(state, strict=True)


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """The system refuses to let any file grow beyond ``size`` bytes, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_outputs_are_whole_or_absent(made: Rdt, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    writers = (
        lambda: exporting.export(open_checkpoint(folder), out),
        lambda: checkpoint.save(out, made, checkpoints.card(LIBERO_VELOCITY)),
    )
    for write in writers:
        with largest_file(200_000), pytest.raises(OSError, match="File too large") as failed:
            write()
        assert str(tmp_path) in str(failed.value.filename)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["rdt"]
    writers[0]()
    for write in writers:
        with pytest.raises(UsageError) as caught:
            write()
        assert caught.value.problem.code == "RDTL-U027"


def test_a_policy_with_its_own_vision_encoder_is_not_exported(tmp_path: Path) -> None:
    synthetic.write_plan(tmp_path / "run")
    plan = json.loads((tmp_path / "run/plan.json").read_text())
    data = config_from_run(plan["config"]["train"]["model"], 64, LIBERO_VELOCITY)
    network = build(data, LIBERO_VELOCITY, "test")
    card = checkpoints.card(LIBERO_VELOCITY, vision="trained", language="word-hash")
    checkpoint.save(tmp_path / "policy", network, card)
    with pytest.raises(RefusedError, match="vision encoder of its own") as caught:
        exporting.export(open_checkpoint(tmp_path / "policy"), tmp_path / "out")
    assert caught.value.problem.code == "RDTL-T035"
    assert not (tmp_path / "out").exists()


def test_inspection_sees_what_is_wrong(made: Rdt, folder: Path) -> None:
    sound = describing.describe(open_checkpoint(folder))
    assert [(f["code"], f["severity"]) for f in sound["findings"]] == [
        ("RDTL-T020", "ok"), ("RDTL-T018", "ok"), ("RDTL-T012", "warning"),
    ]  # fmt: skip
    state = {name: tensor.clone() for name, tensor in made.state_dict().items()}
    state["model.blocks.0.ffn.fc1.weight"][3, 4] = float("nan")
    state["img_adaptor.0.bias"][0] = float("inf")
    del state["model.x_pos_embed"]
    checkpoints.write(folder / "pytorch_model.bin", state)
    found = describing.describe(open_checkpoint(folder))
    assert found["not_finite"] == ["model.blocks.0.ffn.fc1.weight", "img_adaptor.0.bias"]
    assert found["fit"]["missing"] == ["model.x_pos_embed"]
    errors = [f["code"] for f in found["findings"] if f["severity"] == "error"]
    assert errors == ["RDTL-T020", "RDTL-T018"]
    json.dumps(found)


@pytest.mark.parametrize("found", [None, "libero-eef6d", ["name"], 3])
def test_a_contract_must_be_an_object(found: Any) -> None:
    with pytest.raises(RefusedError, match="is not known") as caught:
        require_same(found, "statistics.json")
    assert caught.value.problem.code == "RDTL-T012"


def test_only_the_file_that_stands_for_its_folder_is_adopted(made: Rdt, folder: Path) -> None:
    """A card for the other one would make the folder unreadable."""
    contract = CONTRACTS["libero-eef6d"]
    checkpoints.write(folder / "model.safetensors", made.state_dict())
    with pytest.raises(RefusedError, match="another file of weights") as caught:
        adopting.adopt(open_checkpoint(folder / "pytorch_model.bin"), contract)
    assert caught.value.problem.code == "RDTL-T012"
    assert f"adopt {folder / 'model.safetensors'}" in caught.value.problem.fix
    assert not (folder / "card.json").exists()
    assert checkpoint.load(folder).card is None
    adopting.adopt(open_checkpoint(folder / "model.safetensors"), contract)
    assert checkpoint.load(folder).card is not None


@pytest.mark.parametrize("name", ["step-9.safetensors", "ema/model.safetensors"])
def test_a_file_by_itself_is_adopted(name: str, made: Rdt, tmp_path: Path) -> None:
    checkpoints.reference(tmp_path, made, name)
    adopting.adopt(open_checkpoint(tmp_path / name), CONTRACTS["libero-eef6d"])
    assert checkpoint.load(tmp_path / name).card is not None
