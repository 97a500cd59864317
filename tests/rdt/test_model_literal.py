"""The network of any size against the literal second implementation."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from rdt import diffusion
from rdt.data import unified
from rdt.model.config import NOISE_SCHEDULER, RdtConfig
from rdt.model.rdt import Rdt
from rdt.spec.contract import LIBERO_VELOCITY
from tests.rdt import golden, literal, small_rdt

pytestmark = pytest.mark.train
EXAMPLES = 60
ADAPTORS = ("linear", "mlp1x_gelu", "mlp2x_gelu", "mlp3x_gelu")


@st.composite
def configs(draw: st.DrawFn) -> RdtConfig:
    """Any small network: sizes, adaptors, grids, targets, steps."""
    small = st.integers(1, 12)
    heads = draw(st.integers(1, 4))
    head_width = draw(st.sampled_from((8, 12, 20, 32)))
    grid = draw(st.lists(st.integers(1, 3), min_size=1, max_size=2))
    tokens = draw(st.integers(1, 7))
    length = tokens
    for axis in grid:
        length *= axis
    language = draw(small)
    slots = draw(st.integers(8, 24))
    scheduler = {
        **NOISE_SCHEDULER,
        "num_inference_timesteps": draw(st.integers(1, 10)),
        "prediction_type": draw(st.sampled_from(("sample", "epsilon"))),
    }
    return RdtConfig(
        action_dim=slots,
        pred_horizon=draw(st.integers(2, 12)),
        rdt={
            "hidden_size": heads * head_width,
            "depth": draw(st.integers(1, 4)),
            "num_heads": heads,
            "cond_pos_embed_type": "multimodal",
        },
        lang_token_dim=draw(small),
        img_token_dim=draw(small),
        state_token_dim=slots,
        max_lang_cond_len=language,
        img_cond_len=length,
        lang_pos_embed_config=draw(st.sampled_from((None, [["lang", -language]]))),
        img_pos_embed_config=draw(st.sampled_from((None, [["image", [*grid, -tokens]]]))),
        lang_adaptor=draw(st.sampled_from(ADAPTORS)),
        img_adaptor=draw(st.sampled_from(ADAPTORS)),
        state_adaptor=draw(st.sampled_from(ADAPTORS)),
        noise_scheduler=scheduler,
    )


@st.composite
def cases(draw: st.DrawFn) -> tuple[Rdt, small_rdt.Inputs]:
    """A network with random weights, and inputs of one to three rows."""
    config, seed = draw(configs()), draw(st.integers(0, 2**31))
    language = draw(st.integers(1, config.max_lang_cond_len))
    rows = draw(st.integers(1, 3))
    return small_rdt.network(config, seed), small_rdt.inputs(config, rows, language, seed)


def literally(inputs: small_rdt.Inputs) -> literal.Inputs:
    """The same in the form of the second implementation."""
    given = (inputs.lang, inputs.lang_valid, inputs.img, None)
    return literal.Inputs(*given, inputs.state, inputs.mask, inputs.freq)


def literal_prediction(network: Rdt, inputs: small_rdt.Inputs) -> Tensor:
    """What the second implementation says of the noisy actions."""
    W, there = network.state_dict(), literally(inputs)
    noisy = literal.noised(inputs.clean, inputs.noise, inputs.t)
    adapted = literal.conditions(W, there)
    return literal.forward(W, network.config.num_heads, there, adapted, noisy, inputs.t)


def literal_chunk(network: Rdt, inputs: small_rdt.Inputs) -> Tensor:
    """The chunk that the second implementation samples."""
    config, W, there = network.config, network.state_dict(), literally(inputs)
    how = (config.sampling_steps, config.prediction_type)
    return literal.sample(W, config.num_heads, there, inputs.noise, *how)


def require_equal(network: Rdt, inputs: small_rdt.Inputs) -> None:
    """Prediction, both losses and the sampled chunk."""
    said = small_rdt.predict(network, inputs)
    assert golden.distance(said, literal_prediction(network, inputs)) <= 1e-6
    W, heads, there = network.state_dict(), network.config.num_heads, literally(inputs)
    for target in get_args(diffusion.Target):
        wanted = diffusion.target(target, inputs.clean, inputs.noise)
        expected = literal.loss(W, heads, there, inputs.clean, inputs.noise, inputs.t, target)
        assert golden.distance((said - wanted).square().mean(), expected) <= 1e-6
    chunk = small_rdt.sample(network, inputs)
    assert golden.distance(chunk, literal_chunk(network, inputs)) <= 5e-6
    assert torch.equal(chunk, uncached(network, inputs))


def uncached(network: Rdt, inputs: small_rdt.Inputs) -> Tensor:
    """A chunk of the network itself, with keys computed anew at every step."""

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        keys = network.keys(inputs.lang, inputs.lang_valid, inputs.img)
        return network.denoise(inputs.state, x, inputs.mask, inputs.freq, t, keys)

    config = network.config
    alphas = diffusion.alphas_cumprod()
    how = (config.sampling_steps, config.prediction_type)
    return diffusion.sample(denoise, inputs.noise, alphas, *how) * inputs.mask


@pytest.mark.slow
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(cases())
@torch.inference_mode()
def test_networks_of_any_size(case: tuple[Rdt, small_rdt.Inputs]) -> None:
    require_equal(*case)


def exact_gelu(x: Tensor, approximate: str) -> Tensor:
    return x * (1 + torch.erf(x / 2**0.5)) / 2


def first_order(self: diffusion.DpmSolver, index: int, said: Tensor, x: Tensor) -> Tensor:
    self._previous = None
    return STEP(self, index, said, x)


STEP = diffusion.DpmSolver.step


@pytest.mark.parametrize(
    ("where", "wrong"),
    [
        ("rdt.model.blocks.RmsNorm.epsilon", 1e-5),
        ("rdt.model.blocks.functional.gelu", exact_gelu),
        ("rdt.diffusion.DpmSolver.step", first_order),
    ],
)
@torch.inference_mode()
def test_the_comparison_notices(where: str, wrong: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The smallest mistakes that have been made in copies of this network."""
    config = small_rdt.CONFIG
    network, inputs = small_rdt.network(config), small_rdt.inputs(config, rows=2, language=7)
    require_equal(network, inputs)
    expected = [literal_chunk(network, inputs), literal_prediction(network, inputs)]
    monkeypatch.setattr(where, wrong)
    found = [small_rdt.sample(network, inputs), small_rdt.predict(network, inputs)]
    distances = [golden.distance(*pair) for pair in zip(found, expected, strict=True)]
    assert distances[0] > 5e-6 or distances[1] > 1e-6, distances


def test_one_mask_of_the_state_alone_stills_the_arm() -> None:
    """RDTL-D018: LIBERO's state and actions share the gripper's slot and no other."""
    contract = LIBERO_VELOCITY
    config = small_rdt.changed(action_dim=128, state_token_dim=128)
    network = small_rdt.network(config, seed=3)
    inputs = small_rdt.inputs(config, 1, 4, seed=3)
    chunks = {}
    for name, slots in (("state", contract.state_slots), ("contract", contract.mask_slots)):
        mask = torch.zeros(1, 1, 128)
        mask[..., list(slots)] = 1.0
        given = literally(replace(inputs, mask=mask))
        W = network.state_dict()
        chunk = literal.sample(W, config.num_heads, given, inputs.noise, 5, "sample")
        chunks[name] = unified.decode_action(chunk[0].detach().numpy(), contract)
    assert not chunks["state"][:, :6].any(), "the arm never moves"
    assert (chunks["contract"][:, :6] != 0).all()
