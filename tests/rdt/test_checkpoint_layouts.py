"""Checkpoints in every layout: found, read, loaded to the last bit."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from launcher.core.errors import RdtlError, RefusedError, RemoteError, UsageError
from rdt import checkpoint
from rdt.checkpoint.opening import open_checkpoint
from rdt.model.policy_network import build, config_from_run
from rdt.model.rdt import Rdt
from rdt.spec.contract import LIBERO_VELOCITY
from tests.rdt import checkpoints, synthetic

pytestmark = pytest.mark.train

BIN = "pytorch_model.bin"


@pytest.fixture(scope="module")
def made() -> Rdt:
    return checkpoints.network()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("deepspeed")
    checkpoints.deepspeed(folder, "0", "0-bf16", "1", "2-bf16", "3")
    return folder


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("as_file", [False, True])
def test_reference_folder(name: str, as_file: bool, made: Rdt, tmp_path: Path) -> None:
    folder = checkpoints.reference(tmp_path / "rdt", made, name)
    loaded = checkpoint.load(folder / name if as_file else str(folder))
    assert checkpoints.equal(loaded.network.state_dict(), made.state_dict())
    assert loaded.config == made.config
    assert loaded.origin == (folder / name, folder / "config.json", "reference", "raw", "float32")
    assert not any(p.is_meta for p in [*loaded.network.parameters(), *loaded.network.buffers()])


@pytest.mark.parametrize("stage", ["0", "0-bf16", "1", "2-bf16"])
@pytest.mark.parametrize(
    "inside", ["", "pytorch_model", "pytorch_model/mp_rank_00_model_states.pt"]
)
def test_what_deepspeed_saves(stage: str, inside: str, trained: Path) -> None:
    expected = load_file(trained / f"{stage}.safetensors")
    stored = torch.bfloat16 if "bf16" in stage else torch.float32
    loaded = checkpoint.load(trained / stage / inside, dtype=stored)
    found = loaded.network.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert loaded.origin.layout == "deepspeed"
    assert loaded.origin.config == trained / stage / "config.json"


def test_the_reference_s_training_folder(trained: Path, tmp_path: Path) -> None:
    """config.json and pytorch_model.bin of its save hook, DeepSpeed's files, and the average."""
    folder = tmp_path / "checkpoint-500"
    shutil.copytree(trained / "2-bf16", folder)
    weights = load_file(trained / "2-bf16.safetensors")
    checkpoints.write(folder / "pytorch_model.bin", weights)
    average = checkpoints.network(seed=1)
    checkpoints.write(folder / "ema/model.safetensors", average.state_dict())
    assert checkpoint.load(folder, weights="raw").origin.path == folder / "pytorch_model.bin"
    assert checkpoint.load(folder).origin.path == folder / "ema/model.safetensors"
    for place in ("ema", "ema/model.safetensors"):
        loaded = checkpoint.load(folder / place)
        assert checkpoints.equal(loaded.network.state_dict(), average.state_dict())
        assert loaded.origin.weights == "ema"
        assert loaded.origin.config == folder / "config.json"


def test_an_average_in_16_bits_is_distrusted(made: Rdt, tmp_path: Path) -> None:
    folder = checkpoints.reference(tmp_path, made, "pytorch_model.bin")
    frozen = checkpoints.network(seed=1, dtype=torch.bfloat16)
    checkpoints.write(folder / "ema/model.safetensors", frozen.state_dict())
    loaded = checkpoint.load(folder)
    assert loaded.origin.weights == "raw"
    assert checkpoints.equal(loaded.network.state_dict(), made.state_dict())
    assert [note.code for note in loaded.notes if note.severity == "warning"] == ["RDTL-T002"]
    assert any("RDTL-T002" in line and "raw weights are used" in line for line in loaded.lines())
    asked = checkpoint.load(folder, weights="ema")
    assert asked.origin.weights == "ema"
    assert "it is used, as asked for" in asked.notes[0].what


def test_shards_of_zero_3_are_refused(trained: Path) -> None:
    shard = "zero_pp_rank_0_mp_rank_00_model_states.pt"
    for place in ("", "pytorch_model", f"pytorch_model/{shard}"):
        with pytest.raises(RefusedError, match="ZeRO-3") as caught:
            checkpoint.load(trained / "3" / place)
        assert caught.value.problem.code == "RDTL-T033"
        assert f"python {trained / '3'}/zero_to_fp32.py" in caught.value.problem.fix


OLD_SCRIPT = """
import argparse
import torch
from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

parser = argparse.ArgumentParser()
parser.add_argument("checkpoint_dir")
parser.add_argument("output_file")
args = parser.parse_args()
torch.save(get_fp32_state_dict_from_zero_checkpoint(args.checkpoint_dir), args.output_file)
"""
"""The arguments that the script had before DeepSpeed 0.15: the output is a file, no flag."""


def test_the_command_for_shards_fits_the_script_beside_them(trained: Path, tmp_path: Path) -> None:
    folder = tmp_path / "my checkpoint"
    shutil.copytree(trained / "3", folder)
    for script, command in (
        (None, f"python '{folder}/zero_to_fp32.py' --safe_serialization '{folder}' "),
        (OLD_SCRIPT, f"python '{folder}/zero_to_fp32.py' '{folder}' '{folder}/whole/{BIN}' && "),
        ("", f"python -m deepspeed.utils.zero_to_fp32 --safe_serialization '{folder}' "),
    ):
        if script is not None:
            (folder / "zero_to_fp32.py").write_text(script)
        with pytest.raises(RefusedError) as caught:
            checkpoint.load(folder)
        assert command in caught.value.problem.fix


@pytest.mark.slow
@pytest.mark.parametrize("old", [False, True])
def test_the_command_for_shards_works(old: bool, trained: Path, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint 500"
    shutil.copytree(trained / "3", folder)
    if old:
        (folder / "zero_to_fp32.py").write_text(OLD_SCRIPT)
    with pytest.raises(RefusedError) as caught:
        checkpoint.load(folder)
    command, _, then = caught.value.problem.fix.partition(", then name ")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    subprocess.run(
        ["bash", "-c", command],
        env={**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"},
        check=True,
        capture_output=True,
        timeout=120,
    )
    found = checkpoint.load(then).network.state_dict()
    assert all(torch.equal(found[n], t) for n, t in checkpoints.network().state_dict().items())


def test_empty_tensors_of_zero_3_in_a_plain_file(trained: Path, made: Rdt, tmp_path: Path) -> None:
    """The reference's save hook under ZeRO-3 writes a pytorch_model.bin of empty tensors."""
    folder = checkpoints.reference(tmp_path, made, "pytorch_model.bin")
    shutil.copy(trained / "3.bin", folder / "pytorch_model.bin")
    with pytest.raises(RefusedError, match="ZeRO-3"):
        checkpoint.load(folder)


def test_a_policy_with_its_own_vision_encoder(tmp_path: Path) -> None:
    """Through the folder, the run directory and the file; constants are no weights, yet there."""
    run = tmp_path / "run"
    synthetic.write_plan(run)
    model = json.loads((run / "plan.json").read_text())["config"]["train"]["model"]
    data = config_from_run(model, 64, LIBERO_VELOCITY)
    made = build(data, LIBERO_VELOCITY, "test")
    card = checkpoints.card(LIBERO_VELOCITY, vision="trained", language="word-hash")
    written = checkpoint.save(run / "policy", made, card)
    for source in (run, run / "policy", run / "policy/model.safetensors"):
        loaded = checkpoint.load(source)
        assert checkpoints.equal(loaded.network.state_dict(), made.state_dict())
        assert torch.equal(loaded.network.mask, made.mask)
        assert loaded.card == written
        assert (loaded.origin.layout, loaded.origin.weights) == ("policy", "ema")
    (run / "policy/card.json").unlink()
    with pytest.raises(RdtlError, match="has no card") as caught:
        checkpoint.load(run)
    assert caught.value.problem.code == "RDTL-T012"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_every_parameter_has_the_type_asked_for(dtype: torch.dtype, tmp_path: Path) -> None:
    """The reference stores what it built: the transformer in bf16, the adaptors in fp32."""
    made = checkpoints.network()
    made.model.bfloat16()
    folder = checkpoints.reference(tmp_path, made)
    loaded = checkpoint.load(folder, dtype=dtype)
    assert {p.dtype for p in loaded.network.parameters()} == {dtype}
    expected = {name: tensor.to(dtype) for name, tensor in made.state_dict().items()}
    assert checkpoints.equal(loaded.network.state_dict(), expected)
    by_name = {group.name: group.dtypes for group in loaded.groups}
    assert list(by_name["model.blocks"]) == ["bfloat16"]
    assert list(by_name["lang_adaptor"]) == ["float32"]
    assert [note.code for note in loaded.notes] == ["RDTL-T022"]
    assert "lang_adaptor 266,368 float32" in loaded.lines()[1]


def test_a_hub_id_from_the_cache(
    made: Rdt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints.hub_cache(tmp_path / "hub", "someone/rdt-tiny", made)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    loaded = checkpoint.load("someone/rdt-tiny")
    assert checkpoints.equal(loaded.network.state_dict(), made.state_dict())
    assert (loaded.origin.layout, loaded.origin.path.name) == ("hub", "pytorch_model.bin")


def test_names_that_lead_nowhere(
    made: Rdt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(RemoteError, match="nor to be had from the hub") as remote:
        checkpoint.load("someone/never-downloaded")
    assert remote.value.problem.code == "RDTL-T036"
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(checkpoints.reference(tmp_path / "here", made))
    (tmp_path / "here/runs").mkdir()
    names = ("not a name", "./nosuch", "../nosuch", "~/x", "runs/typo", "")
    for source in (tmp_path / "none", tmp_path / "empty", *names):
        with pytest.raises(UsageError) as caught:
            checkpoint.load(source)
        assert caught.value.problem.code == "RDTL-T034"
        assert caught.value.problem.why
    folder = checkpoints.reference(tmp_path / "a/b/c/rdt", made)
    with pytest.raises(UsageError, match="no ema weights"):
        open_checkpoint(folder, "ema")
    (folder / "config.json").unlink()
    with pytest.raises(UsageError, match=r"no config\.json") as caught:
        checkpoint.load(folder)
    assert caught.value.problem.code == "RDTL-T034"


def test_a_run_in_mid_training_names_its_newest_checkpoint(made: Rdt, tmp_path: Path) -> None:
    for step in ("step_999999", "step_1000000"):
        checkpoints.reference(tmp_path / "run/checkpoints" / step / "policy", made)
    (tmp_path / "run/checkpoints/.step_2000000.part/policy").mkdir(parents=True)
    with pytest.raises(UsageError, match="has not ended") as caught:
        checkpoint.load(tmp_path / "run")
    assert "checkpoints/step_1000000," in caught.value.problem.fix


def test_a_link_to_weights_has_the_config_of_its_target(made: Rdt, tmp_path: Path) -> None:
    folder = checkpoints.reference(tmp_path / "store/rdt", made)
    link = tmp_path / "a/b/c/best.safetensors"
    link.parent.mkdir(parents=True)
    link.symlink_to(folder / "model.safetensors")
    loaded = checkpoint.load(link)
    assert checkpoints.equal(loaded.network.state_dict(), made.state_dict())
    assert loaded.origin.config == folder / "config.json"
