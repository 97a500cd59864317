"""Fine-tuning of a checkpoint: of public shape with frozen SigLIP and embeddings, of our own,
all weights or LoRA."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from jobs import dataset, train
from launcher.cli.app import app
from launcher.core.errors import RefusedError, UsageError
from launcher.core.job import Job
from rdt import lora, lora_weights
from rdt.checkpoint import saving
from rdt.data import statistics
from rdt.policy import loading
from rdt.spec.contract import LIBERO_RAW_VELOCITY, LIBERO_VELOCITY
from rdt.training.beginning import begin
from rdt.training.checkpoint import require_identity
from rdt.training.data import Data
from tests.rdt import checkpoints, small_policy, synthetic
from tests.training import ranks

CPU = torch.device("cpu")


def public_folders(root: Path) -> dict[str, str]:
    """A checkpoint of public shape, its SigLIP and the instruction's embedding."""
    checkpoints.reference(root / "rdt", small_policy.network(small_policy.config()))
    small_policy.vision().model.save_pretrained(root / "siglip")
    (root / "words").mkdir()
    name = synthetic.INSTRUCTION.replace(" ", "_")
    tokens = torch.randn(5, small_policy.LANG, generator=torch.Generator().manual_seed(1))
    torch.save(tokens.to(torch.bfloat16), root / "words" / f"{name}.pt")
    places = {"checkpoint": "rdt", "vision": "siglip", "language": "words"}
    return {key: str(root / name) for key, name in places.items()}


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return public_folders(tmp_path_factory.mktemp("public"))


def prepared(run: Path, **train: object) -> dict[str, Any]:
    changes = {"steps": 6, "warmup_steps": 1, "checkpoint_every": 4, "log_every": 1, **train}
    config = synthetic.write_plan(run, changes={"train": changes})
    synthetic.write_parts(run / "data/parts", 3, every=1)
    dataset.body(Job.from_environment(str(run)))
    return config


def lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "checkpoints/metrics.jsonl").open()]


@pytest.mark.slow
def test_the_loaded_network_starts_from_the_weights_of_the_checkpoint(
    public: dict[str, str], tmp_path: Path
) -> None:
    config = prepared(tmp_path, **public)
    described = statistics.read(tmp_path / "data/statistics.json")
    begun = begin(config, described, LIBERO_VELOCITY, CPU)
    stored = load_file(f"{public['checkpoint']}/model.safetensors")
    found = begun.module.state_dict()
    assert checkpoints.equal(dict(sorted(found.items())), stored)
    assert all(parameter.requires_grad for parameter in begun.module.parameters())
    assert begun.camera_size == described.camera_size > 0, "though SigLIP resizes"
    assert (begun.shown.moments, begun.shown.cameras, begun.shown.size) == (2, 3, 42)
    run = Job.from_environment(str(tmp_path)).run
    with Data(run, config, described, 0, 1, CPU, begun.shown).training() as batches:
        batch = batches.micro(0, 0)
    assert batch.pictures.shape[1:] == (6, 42, 42, 3)
    assert (batch.pictures[:, [2, 5]] == 127).all(), "the left wrist that the robot lacks"
    loss = begun.module(batch)
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad is not None for p in begun.module.parameters())


def test_encoders_that_were_replaced_under_their_path_are_another_experiment(
    tmp_path: Path,
) -> None:
    """A sentence more, for an evaluation, is not: training never says it."""
    public = public_folders(tmp_path / "public")
    config = prepared(tmp_path / "run", **public)
    job = Job.from_environment(str(tmp_path / "run"))
    described = statistics.read(job.run.data / "statistics.json")

    def identity() -> dict[str, str]:
        begun = begin(config, described, LIBERO_VELOCITY, CPU)
        batches = Data(job.run, config, described, 0, 1, CPU, begun.shown).training()
        return train.identity(config, described, begun, batches)

    first, words = identity(), Path(public["language"])
    torch.save(torch.ones(5, small_policy.LANG), words / "another_sentence.pt")
    assert identity() == first
    (told,) = words.glob(f"{synthetic.INSTRUCTION.replace(' ', '_')}.pt")
    torch.save(2 * torch.load(told, weights_only=True), told)
    assert {key for key, value in identity().items() if value != first[key]} == {"language"}
    with pytest.raises(RefusedError, match="RDTL-T012"):
        require_identity(tmp_path, {**first, "step": 4}, identity())
    torch.save(torch.load(told, weights_only=True) / 2, told)
    weights = Path(public["vision"]) / "model.safetensors"
    tensors = load_file(weights)
    save_file({name: tensor * 1.5 for name, tensor in tensors.items()}, weights, {"format": "pt"})
    assert {key for key, value in identity().items() if value != first[key]} == {"vision"}
    older = {key: first[key] for key in ("settings", "dataset")}
    require_identity(tmp_path, older, identity())


LORA = {"rank": 4, "alpha": 8, "dropout": 0.1}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("adapter", "stage"),
    [(None, 1), (LORA, 1), (LORA, 3)],
)
def test_a_fine_tuned_checkpoint_is_a_policy(
    adapter: dict[str, Any] | None, stage: int, public: dict[str, str], tmp_path: Path
) -> None:
    prepared(tmp_path, lora=adapter, zero_stage=stage, **public)
    ranks.run(2, "jobs.train", tmp_path)
    settings = loading.Settings(vision=public["vision"], language=public["language"])
    for folder in ("policy", "checkpoints/step_000004"):
        policy = loading.load(tmp_path / folder, seed=0, settings=settings)
        assert policy.card.encoders["vision"].startswith("google/siglip")
        assert policy.card.horizon == small_policy.HORIZON
        assert policy.card.camera_size == 64, "that of the data, though SigLIP resizes"
    found = load_file(tmp_path / "policy/model.safetensors")
    stored = load_file(f"{public['checkpoint']}/model.safetensors")
    assert found.keys() == stored.keys()
    changed = {name for name in found if not torch.equal(found[name], stored[name])}
    if adapter is None:
        assert changed == found.keys()
        return
    factors = load_file(tmp_path / "policy/adapter/adapter_model.safetensors")
    adapted = {name.split("model.", 1)[1].split(".lora_")[0] + ".weight" for name in factors}
    assert changed == {name.removeprefix("model.") for name in adapted}
    network = small_policy.network(small_policy.config())
    joined = lora.merge(lora.load(network, tmp_path / "policy/adapter")).state_dict()
    for name in found:
        assert torch.allclose(joined[name], found[name], atol=1e-6), name


@pytest.mark.slow
def test_lora_is_resumed_bit_for_bit(public: dict[str, str], tmp_path: Path) -> None:
    """With its dropout; the average goes on from the factors."""
    settings = {"lora": {"rank": 2, "alpha": 4, "dropout": 0.5}, **public}
    for name in ("whole", "cut"):
        prepared(tmp_path / name, **settings)
        ranks.run(2, "jobs.train", tmp_path / name)
    again = tmp_path / "cut"
    before = (again / "policy/model.safetensors").read_bytes()
    assert before == (tmp_path / "whole/policy/model.safetensors").read_bytes()
    (again / "policy").rename(again / "old")
    ranks.run(2, "jobs.train", again)
    assert (again / "policy/model.safetensors").read_bytes() == before
    assert [line["step"] for line in lines(again)] == [1, 2, 3, 4, 5, 6]


@pytest.mark.slow
def test_our_own_checkpoint_goes_on_learning(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    prepared(first)
    ranks.run(2, "jobs.train", first)
    prepared(second, checkpoint=str(first / "policy"), learning_rate=1e-9)
    ranks.run(2, "jobs.train", second)
    old, new = (load_file(run / "policy/model.safetensors") for run in (first, second))
    assert old.keys() == new.keys()
    assert all(torch.allclose(old[name], new[name], atol=1e-6) for name in old)
    assert loading.load(second / "policy", seed=0).card.encoders["vision"] == "trained"


def test_what_does_not_fit_is_refused(public: dict[str, str], tmp_path: Path) -> None:
    config = prepared(tmp_path, **public)
    described = statistics.read(tmp_path / "data/statistics.json")
    config["train"]["language"] = None
    with pytest.raises(UsageError, match="RDTL-T008"):
        begin(config, described, LIBERO_VELOCITY, CPU)
    other = tmp_path / "other"
    made = small_policy.network(small_policy.config())
    saving.save(other, made, checkpoints.card(LIBERO_RAW_VELOCITY))
    config["train"]["checkpoint"] = str(other)
    with pytest.raises(RefusedError, match="another contract"):
        begin(config, described, LIBERO_VELOCITY, CPU)
    words = ["train", "configs/train/demo.yaml", "--set", f"train.checkpoint={other}"]
    runs = tmp_path / "runs"
    with pytest.raises(RefusedError, match="RDTL-T012"):  # and by the command, at once
        CliRunner().invoke(app, [*words, "--runs-dir", str(runs)], catch_exceptions=False)
    assert not runs.exists()


def test_merging_is_what_peft_does() -> None:
    torch.manual_seed(0)
    network = small_policy.network(small_policy.config())
    adapted = lora.add(network, lora.Lora(rank=4, alpha=12, dropout=0.0))
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.1)
    weights = {name: p.detach().clone() for name, p in network.named_parameters()}
    expected = lora.merge(adapted).state_dict()
    plain = lora_weights.merged(weights, 12 / 4)
    assert plain.keys() == expected.keys()
    assert all(torch.allclose(plain[name], expected[name], atol=1e-5) for name in plain)
