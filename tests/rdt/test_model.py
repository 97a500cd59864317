"""The network's parts: norm, keys by picture slot, what is refused, memory and compilation."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from launcher.core.errors import RefusedError
from rdt import diffusion
from rdt.encoders import VisionConfig
from rdt.model.blocks import RmsNorm
from rdt.model.config import NOISE_SCHEDULER, RdtConfig, parse
from rdt.model.policy_network import PolicyNetwork
from rdt.model.presets import PRESETS
from rdt.model.rdt import Rdt, adaptor, empty
from rdt.model.trainable import Batch
from rdt.spec.contract import CONTRACTS
from tests.rdt import golden, small_rdt
from tests.rdt.storage import LiveStorage

STEPS = "num_inference_timesteps"
pytestmark = pytest.mark.train


@pytest.fixture(scope="module")
def network() -> Rdt:
    return small_rdt.network(small_rdt.CONFIG)


@pytest.fixture
def inputs() -> small_rdt.Inputs:
    return small_rdt.inputs(small_rdt.CONFIG, rows=2, language=7)


def refused(code: str, call: Callable[[], object]) -> str:
    """Where the refusal of ``call`` with ``code`` points to."""
    with pytest.raises(RefusedError) as caught:
        call()
    assert caught.value.problem.code == code
    return caught.value.problem.where


def test_the_written_out_norm_equals_the_plain_formula() -> None:
    x = torch.randn(3, 5, 24, dtype=torch.float64, generator=golden.seeded()) + 2
    norm = RmsNorm(24).double()
    nn.init.normal_(norm.weight, generator=golden.seeded())
    plain = x * torch.rsqrt(x.var(-1, keepdim=True) + 1e-6) * norm.weight
    assert golden.distance(norm(x), plain) <= 1e-12
    x.requires_grad_()
    assert torch.autograd.gradcheck(norm, x)


@pytest.mark.parametrize(("shift", "limit"), [(0.0, 1e-6), (30.0, 1e-6), (-1000.0, 2e-5)])
def test_the_norm_of_numbers_far_from_zero(shift: float, limit: float) -> None:
    """The fused kernel sums up moments: a mean of a thousand spreads costs a digit."""
    x = torch.randn(64, 32, generator=golden.seeded()) + shift
    plain = x.double() * torch.rsqrt(x.double().var(-1, keepdim=True) + 1e-6)
    assert golden.distance(RmsNorm(32)(x), plain) <= limit


def test_the_norm_is_differentiated_once_only() -> None:
    """Its second derivative is not written out: asking for one fails, and gives no number."""
    x = torch.randn(3, 8, generator=golden.seeded(), requires_grad=True)
    (gradient,) = torch.autograd.grad(RmsNorm(8)(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_the_norm_keeps_the_type_that_a_gpu_would_widen() -> None:
    """Tensors without numbers say which types a GPU's autocast gives; the way back needs one."""
    with FakeTensorMode(), torch.no_grad():
        norm = RmsNorm(8)
        norm.weight = nn.Parameter(torch.empty(8, device="cuda", dtype=torch.bfloat16))
        x = torch.empty(2, 3, 8, device="cuda", dtype=torch.bfloat16)
        torch.set_autocast_enabled("cuda", True)
        try:
            plain = torch.native_layer_norm(x, (8,), norm.weight, None, 1e-6)[0]
            found = norm(x)
        finally:
            torch.set_autocast_enabled("cuda", False)
            torch.clear_autocast_cache()
    assert plain.dtype == torch.float32, "this autocast widens nothing"
    assert found.dtype == torch.bfloat16


def test_a_fresh_network_predicts_zero(inputs: small_rdt.Inputs) -> None:
    torch.manual_seed(0)
    assert small_rdt.predict(Rdt(small_rdt.CONFIG), inputs).abs().max() == 0


@torch.no_grad()
def test_keys_of_picture_slots_are_those_of_all_pictures(
    network: Rdt, inputs: small_rdt.Inputs
) -> None:
    """A slot alone, in any order, gives its rows of the keys of all."""
    whole = network.keys(inputs.lang, inputs.lang_valid, inputs.img)
    assert (network.picture_slots, network.picture_tokens) == (6, 5)
    adapted = network.adapt_pictures(inputs.img.unflatten(1, (6, 5)))
    for slots in ([0], [4, 1], [2, 5, 3]):
        some = network.img_keys(adapted[:, slots], slots)
        for keys, all_keys in zip(some, whole[1::2], strict=True):
            for found, everything in ((keys.k, all_keys.k), (keys.v, all_keys.v)):
                expected = everything.unflatten(2, (6, 5))[:, :, slots].flatten(2, 3)
                assert golden.distance(found, expected) <= 1e-6
    language = network.lang_keys(inputs.lang, inputs.lang_valid)
    assert len(language) == 2 and len(some) == 1
    for keys, all_keys in zip(language, whole[::2], strict=True):
        assert torch.equal(keys.k, all_keys.k) and torch.equal(keys.v, all_keys.v)


@torch.inference_mode()
def test_keys_take_the_documented_memory_and_hold_nothing_else(
    network: Rdt, inputs: small_rdt.Inputs
) -> None:
    config = network.config
    for index, keys in enumerate(network.keys(inputs.lang, None, inputs.img)):
        tokens = config.img_cond_len if index % 2 else 7
        held = sum(part.untyped_storage().nbytes() for part in (keys.k, keys.v))
        assert held == 4 * 2 * len(inputs.lang) * tokens * config.hidden_size


def test_keys_are_computed_once_per_chunk(
    network: Rdt, inputs: small_rdt.Inputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    for block in network.model.blocks:
        layer = block.cross_attn.kv
        monkeypatch.setattr(
            layer, "forward", lambda x, f=layer.forward, n=layer: (calls.append(n), f(x))[1]
        )
    small_rdt.sample(network, inputs)
    assert len(calls) == network.config.depth


@torch.no_grad()
def test_several_draws_of_one_condition_equal_repeated_conditions(
    network: Rdt, inputs: small_rdt.Inputs
) -> None:
    """Rows that share keys give what they give when each row has its own."""
    many = inputs.repeated(3)
    own = small_rdt.predict(network, many)
    shared = network.keys(inputs.lang, inputs.lang_valid, inputs.img)
    assert golden.distance(small_rdt.predict(network, many, shared), own) <= 1e-6


def test_masks_that_are_not_bool_are_refused(network: Rdt, inputs: small_rdt.Inputs) -> None:
    for mask in (inputs.lang_valid.float(), inputs.lang_valid.long()):
        where = refused("RDTL-D022", lambda mask=mask: network.lang_keys(inputs.lang, mask))
        assert str(mask.dtype) in where
    seen = torch.ones(inputs.img.shape[:2])
    refused("RDTL-D022", lambda: network.keys(inputs.lang, None, inputs.img, seen))


def test_too_many_language_tokens_are_refused_with_both_numbers(network: Rdt) -> None:
    width = network.config.lang_token_dim
    where = refused("RDTL-D043", lambda: network.lang_keys(torch.zeros(1, 12, width), None))
    assert where.startswith("12 tokens") and "max_lang_cond_len = 11" in where
    network.lang_keys(torch.zeros(1, 11, width), None)


def test_tokens_of_other_encoders_and_other_picture_counts_are_refused(
    network: Rdt, inputs: small_rdt.Inputs
) -> None:
    wide = torch.zeros(1, 3, network.config.lang_token_dim + 1)
    where = refused("RDTL-D021", lambda: network.lang_keys(wide, None))
    assert "width 14" in where and "lang_token_dim = 13" in where
    where = refused("RDTL-T021", lambda: network.adapt_pictures(inputs.img[..., 1:]))
    assert "img_token_dim = 10" in where
    where = refused("RDTL-T021", lambda: network.keys(inputs.lang, None, inputs.img[:, :25]))
    assert "25 picture tokens, 30 expected" in where and "img_cond_len" in where
    adapted = torch.zeros(1, 2, 4, network.config.hidden_size)
    where = refused("RDTL-T021", lambda: network.img_keys(adapted, [0, 1]))
    assert "8 picture tokens, 10 expected" in where


@pytest.mark.parametrize("kind", ["mlp2x_relu", "conv", "mlpx_gelu"])
def test_unknown_adaptors_are_refused(kind: str) -> None:
    with pytest.raises(ValueError, match="is not known"):
        adaptor(kind, 4, 4)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"horizon": 3}, "horizon"),
        ({"noise_scheduler": {**NOISE_SCHEDULER, "prediction_type": "v"}}, "prediction_type"),
        ({"noise_scheduler": {**NOISE_SCHEDULER, "beta_schedule": "linear"}}, "beta_schedule"),
        ({"noise_scheduler": None}, "noise_scheduler"),
        ({"rdt": {"hidden_size": 64, "depth": 2}}, "num_heads"),
        *(
            ({"noise_scheduler": {**NOISE_SCHEDULER, STEPS: steps}}, STEPS)
            for steps in (0, -1, 1000, 2.5, True, None, "abc")
        ),
    ],
)
def test_a_foreign_config_is_refused_by_name(change: dict, field: str) -> None:
    data = {**golden.config("rdt_A"), **change}
    where = refused("RDTL-T021", lambda: parse(data, "some/config.json"))
    assert "some/config.json" in where and field in where


def test_the_form_that_the_reference_saves_is_read_and_written() -> None:
    text = (golden.DATA / "config_saved_by_reference_tiny.json").read_text()
    config = parse(json.loads(text), "tiny")
    assert json.dumps(config.to_dict(), indent=2, sort_keys=True) == text
    assert (config.depth, config.picture_slots, config.picture_tokens) == (1, 6, 729)


def test_the_other_prediction_target_is_read() -> None:
    scheduler = {**NOISE_SCHEDULER, "prediction_type": "epsilon"}
    config = parse({**golden.config("rdt_A"), "noise_scheduler": scheduler}, "x")
    assert config.prediction_type == "epsilon"


@pytest.mark.parametrize(
    ("positions", "slots"), [(None, 1), ([["image", -30]], 1), ([["image", [5, -6]]], 5)]
)
def test_picture_slots_of_other_grids(positions: list | None, slots: int) -> None:
    config = small_rdt.changed(img_pos_embed_config=positions)
    assert (config.picture_slots, config.picture_tokens) == (slots, 30 // slots)


def test_an_empty_network_has_nothing_outside_its_state_dict() -> None:
    config = PRESETS["tiny"]
    full, hollow = Rdt(config), empty(config)
    assert all(tensor.is_meta for tensor in hollow.state_dict().values())
    hollow.load_state_dict(full.state_dict(), strict=True, assign=True)
    assert not any(tensor.is_meta for tensor in [*hollow.parameters(), *hollow.buffers()])
    small = small_rdt.inputs(config, rows=1, language=3)
    with torch.no_grad():
        for network in (full, hollow):
            network.model.final_layer.ffn_final.fc2.weight.fill_(0.01)
    expected = small_rdt.predict(full, small)
    assert expected.abs().max() > 0
    assert torch.equal(small_rdt.predict(hollow, small), expected)


def policy_network(config: RdtConfig) -> PolicyNetwork:
    """One that is trained from pictures, with weights that are nowhere zero."""
    torch.manual_seed(0)
    vision = VisionConfig(config.img_token_dim, 1, 2, 32, image_size=32, patch_size=8)
    network = PolicyNetwork(config, vision, CONTRACTS["libero-velocity"])
    small_rdt.randomise(network)
    return network


def training_batch(config: RdtConfig, rows: int, draws: int) -> Batch:
    random = golden.seeded()

    def numbers(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random)

    return Batch(
        pictures=torch.randint(0, 256, (rows, 2, 32, 32, 3), generator=random, dtype=torch.uint8),
        words=numbers(1, 6, config.lang_token_dim),
        word_valid=torch.ones(1, 6, dtype=torch.bool),
        state=numbers(rows, 1, 128),
        mask=torch.ones(rows, 1, 128),
        freq=torch.full((rows,), 20.0),
        actions=numbers(rows, config.pred_horizon, 128),
        weight=torch.full((rows, config.pred_horizon), 1 / (rows * config.pred_horizon)),
        slots=torch.full((128,), 1 / 128),
        noise=numbers(rows * draws, config.pred_horizon, 128),
        t=torch.randint(0, 1000, (rows * draws,), generator=random),
    )


TRAINED = small_rdt.changed(
    action_dim=128,
    state_token_dim=128,
    img_token_dim=16,
    img_cond_len=32,
    img_pos_embed_config=[["image", [1, 2, -16]]],
    rdt={**small_rdt.CONFIG.rdt, "depth": 6},
)


def test_gradient_checkpointing_of_the_training_loss() -> None:
    """The same loss and gradients, bit for bit, from a third of the memory."""
    batch = training_batch(TRAINED, rows=4, draws=2)
    results = {}
    for on in (False, True):
        network = policy_network(TRAINED)
        network.checkpointing = on
        with LiveStorage() as live:
            loss = network(batch)
            held = live.bytes()
        loss.backward()
        results[on] = (loss.detach(), [p.grad for p in network.parameters()], held)
    (loss, gradients, everything), (again, others, little) = results[False], results[True]
    assert torch.equal(loss, again)
    assert all(torch.equal(a, b) for a, b in zip(gradients, others, strict=True))
    assert little < everything / 3, f"{little} of {everything} bytes"


def test_checkpointing_works_in_every_mode_and_elsewhere_only_in_training() -> None:
    """RDTL-T009: transformers takes the wish of a network in eval mode and does nothing for it."""
    from transformers import SiglipVisionConfig, SiglipVisionModel

    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 6}
    given = SiglipVisionConfig(num_attention_heads=2, image_size=64, patch_size=16, **sizes)
    theirs, ours = SiglipVisionModel(given), policy_network(TRAINED)
    pictures, batch = torch.zeros(4, 3, 64, 64), training_batch(TRAINED, rows=4, draws=2)

    def held(network: torch.nn.Module, *inputs: Any) -> int:
        with LiveStorage() as live:
            out = network(*inputs)
            kept = live.bytes()
        del out
        return kept

    without = {name: held(theirs.train(name == "train"), pictures) for name in ("train", "eval")}
    theirs.gradient_checkpointing_enable({"use_reentrant": False})
    assert held(theirs.train(), pictures) < without["train"] / 2
    assert held(theirs.eval(), pictures) == without["eval"], "the wish had no effect"
    for network in (ours.train(), ours.eval()):
        network.checkpointing = False
        everything = held(network, batch)
        network.checkpointing = True
        assert held(network, batch) < everything / 3


def test_checkpointing_changes_nothing_without_gradients(
    network: Rdt, inputs: small_rdt.Inputs
) -> None:
    expected = small_rdt.sample(network, inputs)
    network.checkpointing = True
    try:
        assert torch.equal(small_rdt.sample(network, inputs), expected)
    finally:
        network.checkpointing = False


@pytest.mark.parametrize("kind", ["sample", "epsilon"])
@torch.no_grad()
def test_the_training_loss_has_the_target_of_the_config(kind: diffusion.Target) -> None:
    scheduler = {**NOISE_SCHEDULER, "prediction_type": kind}
    config = small_rdt.changed(**{**TRAINED.to_dict(), "noise_scheduler": scheduler})
    network, batch = policy_network(config), training_batch(config, rows=2, draws=1)
    keys = network.condition(batch.pictures, batch.words, batch.word_valid)
    noisy = diffusion.add_noise(network.alphas, batch.actions, batch.noise, batch.t)
    said = network.denoise(batch.state, noisy, batch.mask, batch.freq, batch.t, keys)
    wanted = batch.noise if kind == "epsilon" else batch.actions
    assert golden.distance(network(batch), (said - wanted).square().mean()) <= 1e-6


@pytest.mark.slow
def test_compiled_sampling_gives_the_same_chunk(network: Rdt, inputs: small_rdt.Inputs) -> None:
    """With torch's compiler of this machine; CUDA graphs need a GPU."""
    expected = small_rdt.sample(network, inputs)
    network.compiled = True
    try:
        for _ in range(3):
            assert golden.distance(small_rdt.sample(network, inputs), expected) <= 5e-6
    finally:
        network.compiled = False
