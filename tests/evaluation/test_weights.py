"""What `evaluate.checkpoint` may name, which copy is taken, and what is noted of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from jobs import evaluate, evaluated
from launcher import config as configs
from launcher.cli.evaluate import weights_chosen, with_network
from launcher.core import files
from launcher.core.errors import RdtlError
from launcher.core.job import Job
from launcher.core.runs import RunDir
from launcher.placement import named_files
from rdt import checkpoint
from rdt.checkpoint import save
from rdt.spec import protocol as protocols
from rdt.spec import record as records
from rdt.spec.contract import LIBERO_RAW_VELOCITY
from tests.evaluation.test_plan import run_config
from tests.rdt import checkpoints, small_policy

pytestmark = pytest.mark.train


def job_of(root: Path, task: dict[str, Any] | None = None, **settings: Any) -> Job:
    """A task that evaluates the policy rdt with these settings."""
    asked = {"policies": ["rdt"], "execution_horizon": 4, **settings}
    config = run_config(task, **asked).model_dump(mode="json")
    run = RunDir(root)
    files.write_json(run.plan, {"config": config})
    return Job(run, config, "evaluate", 0, 1, attempt=0, node=0)


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    """RUN/checkpoints/step_000020/policy of the public shape, as an adopted one: no encoders."""
    folder = tmp_path / "run" / "checkpoints" / "step_000020" / "policy"
    folder.parent.mkdir(parents=True)
    network = small_policy.network(small_policy.config())
    save(folder, network, small_policy.card(LIBERO_RAW_VELOCITY))
    return folder


def test_a_run_a_step_and_a_file_are_the_same_weights(policy: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "policy").symlink_to(policy, target_is_directory=True)
    named = [run, policy.parent, policy, policy / "model.safetensors"]
    found = [
        evaluated.tested(job_of(tmp_path / str(n), checkpoint=str(place)))
        for n, place in enumerate(named)
    ]
    assert set(found) == {found[0]} and found[0].checkpoint
    for place in named:  # what an evaluation then loads
        assert checkpoint.open_checkpoint(place).card == evaluated.cards.read(policy)
    noted = files.read_json(tmp_path / "1" / "records" / protocols.WEIGHTS)
    assert (noted["weights"], noted["dtype"], noted["findings"]) == ("ema", "float32", [])


def test_an_average_in_16_bits_is_warned_of_before_and_after(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    network = small_policy.network(small_policy.config(), torch.bfloat16)
    checkpoints.reference(folder, network)
    checkpoints.reference(folder / "ema", network)
    for copy, kind in ((folder, "raw"), (folder / "ema", "ema")):
        path = copy / "model.safetensors"
        made = replace(small_policy.card(LIBERO_RAW_VELOCITY), weights=kind, dtype="bfloat16")
        replace(made, weights_sha256=evaluated.cards.weights_sha256(path)).write(copy)
    for asked, taken in (("auto", "raw"), ("ema", "ema"), ("raw", "raw")):
        findings, horizon = weights_chosen(str(folder), asked)
        assert horizon == small_policy.HORIZON
        assert findings[0].what.startswith(f"{taken} weights, bfloat16")
        warned = [f.code for f in findings if f.severity == "warning"]
        assert warned == ([] if asked == "raw" else ["RDTL-T002"])
        job = job_of(tmp_path / asked, checkpoint=str(folder), weights=asked)
        assert evaluated.tested(job).checkpoint
        noted = files.read_json(job.run.records / protocols.WEIGHTS)
        assert noted["weights"] == taken
        assert [f["code"] for f in noted["findings"]] == warned


def test_weights_without_a_card_are_to_be_adopted(tmp_path: Path) -> None:
    folder = checkpoints.reference(tmp_path / "foreign", checkpoints.network())
    job = job_of(tmp_path / "run", checkpoint=str(folder))
    with pytest.raises(RdtlError, match="RDTL-T012") as caught:
        evaluate.body(job)
    assert f"rdtl checkpoint adopt {folder}" in caught.value.problem.fix
    assert not job.run.records.exists()  # a protocol without its policy would be in the way later
    with pytest.raises(RdtlError, match="RDTL-T012"):
        weights_chosen(str(folder), "auto")


def test_paths_are_absolute_bound_and_hub_ids_are_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file.yaml").write_text("{name: x, evaluate: {policies: [zero]}}")
    weights = tmp_path / "made" / "ema" / "model.safetensors"
    weights.parent.mkdir(parents=True)
    weights.touch()
    settings = [
        "evaluate.checkpoint=made/ema/model.safetensors",
        "evaluate.vision=google/siglip-so400m-patch14-384",
        "evaluate.language=./sentences",
    ]
    config = with_network(configs.load_run_config(tmp_path / "file.yaml", settings, ["evaluate"]))
    assert config.evaluate is not None
    assert config.evaluate.policies == ["rdt", "zero"]
    assert config.evaluate.vision == "google/siglip-so400m-patch14-384"
    assert named_files(config) == [tmp_path / "sentences", tmp_path / "made"]


@pytest.mark.sim
def test_an_adopted_public_policy_is_evaluated(policy: Path, tmp_path: Path) -> None:
    """SigLIP from a folder, instructions encoded before; tiny instances of the public classes."""
    small_policy.vision().model.save_pretrained(tmp_path / "siglip")
    words = torch.randn(7, small_policy.LANG)
    name = "pick_up_the_alphabet_soup_and_place_it_in_the_basket"
    small_policy.save_sentence(tmp_path / "sentences", name, words)
    job = job_of(
        tmp_path / "evaluation",
        {"max_steps": 6, "camera_size": 64},
        checkpoint=str(policy.parent),
        vision=str(tmp_path / "siglip"),
        language=str(tmp_path / "sentences"),
        init_states=(0, 1),
    )
    evaluate.body(job)
    (found,) = records.read_folder(job.run.records).records
    assert (found.status, found.steps, found.queries) == ("fail", 6, 2)
    assert found.checkpoint == evaluated.cards.read(policy).weights_sha256[:12]
    assert protocols.read(job.run.records).views == ("agentview", "eye_in_hand", "background")
