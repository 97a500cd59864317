"""The policy directory of a training run: its own vision tower, hashed words, one moment."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from launcher.core.errors import RdtlError, RefusedError
from rdt.checkpoint import save
from rdt.data import rotations, unified
from rdt.encoders import language_tokens
from rdt.model.policy_network import PolicyNetwork, build, config_from_run
from rdt.policy.loading import load
from rdt.policy.rdt import Request
from rdt.spec import card as cards
from rdt.spec.contract import LIBERO_VELOCITY
from tests.rdt import small_policy

pytestmark = pytest.mark.train
SIZE = 64
MODEL = {
    "hidden": 32,
    "depth": 4,
    "heads": 4,
    "horizon": small_policy.HORIZON,
    "vision_hidden": 32,
    "vision_depth": 2,
    "patch": 16,
    "sampling_steps": 3,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """config.json, model.safetensors and card.json of a network with random weights."""
    config = config_from_run(MODEL, SIZE, LIBERO_VELOCITY)
    torch.manual_seed(0)
    network = build(config, LIBERO_VELOCITY, "test")
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    save(tmp_path / "policy", network, small_policy.card(LIBERO_VELOCITY, SIZE))
    return tmp_path / "policy"


def request(size: int = SIZE) -> Request:
    observed = small_policy.observation(2, first=True)
    return Request(replace(observed, pictures=small_policy.pictures(2, size)), "a", 0)


def test_equals_the_network_that_was_trained(folder: Path) -> None:
    """What training computes of a picture pair and words, the policy computes as well."""
    policy = load(folder, 5)
    network = policy.network
    assert isinstance(network, PolicyNetwork)
    asked = request()
    observed = asked.observation
    pictures = torch.from_numpy(np.stack([observed.pictures[c] for c in LIBERO_VELOCITY.cameras]))
    robot = unified.RobotState(
        observed.eef_pos,
        rotations.quat_to_axis_angle(observed.eef_quat),
        observed.gripper_qpos,
        observed.joint_pos,
    )
    state = unified.encode_state(robot, LIBERO_VELOCITY)
    scores = unified.normalise_state(state, (0.0,) * 128, (1.0,) * 128, LIBERO_VELOCITY)
    with torch.inference_mode():
        keys = network.condition(pictures[None], *language_tokens(observed.instruction))
        noise = policy._noise(asked)[None]
        state = torch.from_numpy(scores)[None, None]
        chunk = network.sample(state, network.mask, network.freq, keys, noise, network.alphas)
        expected = chunk[0].numpy()
    found = policy.chunks([asked])
    assert np.abs(found.unified[0] - expected).max() <= 1e-5 * np.abs(expected).max()
    assert policy.sight.passes == 2
    assert not policy.sees_previous


def test_pictures_of_another_size_are_refused(folder: Path) -> None:
    with pytest.raises(RefusedError, match=r"RDTL-T012[\s\S]*--set task.camera_size=64"):
        load(folder, 5).chunks([request(128)])


@pytest.mark.parametrize("change", ["fewer", "other"])
def test_weights_that_are_not_those_of_the_network(folder: Path, change: str) -> None:
    weights = load_file(folder / "model.safetensors")
    name = "vision.post_layernorm.weight"
    weights = {k: v for k, v in weights.items() if k != name}
    if change == "other":
        weights[name] = torch.zeros(5)
    path = folder / "model.safetensors"
    save_file(weights, path)
    replace(cards.read(folder), weights_sha256=cards.weights_sha256(path)).write(folder)
    with pytest.raises(RdtlError, match=r"RDTL-T02[01]"):
        load(folder, 5)


@pytest.mark.slow
def test_an_evaluation_needs_no_transformers(folder: Path) -> None:
    """Importing it takes seconds, in every process of every array task."""
    code = (
        "import sys; from pathlib import Path; from rdt.policy.loading import load;"
        f"load(Path({str(folder)!r}), 1); assert 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
