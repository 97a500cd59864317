"""The network against tensors recorded from the reference, and its key names."""

from __future__ import annotations

import csv

import pytest
import torch

from launcher.core.errors import RefusedError
from rdt import diffusion
from rdt.model.blocks import RmsNorm
from rdt.model.config import NOISE_SCHEDULER, parse
from rdt.model.rdt import Rdt, adaptor
from tests.rdt import golden

pytestmark = pytest.mark.train


@pytest.fixture(scope="module")
def recorded() -> dict[str, torch.Tensor]:
    return golden.tensors("rdt_A")


@pytest.fixture(scope="module")
def network(recorded: dict[str, torch.Tensor]) -> Rdt:
    network = Rdt(parse(golden.config("rdt_A"), "rdt_A.config.json"))
    weights = {key[3:]: value for key, value in recorded.items() if key.startswith("sd.")}
    network.load_state_dict(weights, strict=True)
    return network


def keys(network: Rdt, tensors: dict[str, torch.Tensor], images: bool = False) -> list:
    return network.keys(
        tensors["in.lang_tokens"],
        tensors["in.lang_attn_mask"],
        tensors["in.img_tokens"],
        tensors["in.img_mask"] if images else None,
    )


def predict(network: Rdt, tensors: dict[str, torch.Tensor], images: bool = False) -> torch.Tensor:
    return network.denoise(
        tensors["in.state_tokens"],
        tensors["out.noisy_action"],
        tensors["in.action_mask"],
        tensors["in.ctrl_freqs"],
        tensors["in.timesteps"],
        keys(network, tensors, images),
    )


def test_position_tables_start_as_the_reference(recorded: dict[str, torch.Tensor]) -> None:
    fresh = Rdt(parse(golden.config("rdt_A"), "rdt_A")).state_dict()
    for name in ("x_pos_embed", "lang_cond_pos_embed", "img_cond_pos_embed"):
        assert torch.equal(fresh[f"model.{name}"], recorded[f"init.{name}"]), name


def test_a_fresh_network_predicts_zero(recorded: dict[str, torch.Tensor]) -> None:
    fresh = Rdt(parse(golden.config("rdt_A"), "rdt_A"))
    assert predict(fresh, recorded).abs().max() == 0


def test_prediction_and_loss(network: Rdt, recorded: dict[str, torch.Tensor]) -> None:
    prediction = predict(network, recorded)
    assert golden.distance(prediction, recorded["out.pred"]) <= 1e-6
    loss = (prediction - recorded["in.action_gt"]).square().mean()
    assert golden.distance(loss, recorded["out.loss"]) <= 1e-6
    assert golden.distance(predict(network, recorded, True), recorded["out.pred_imgmask"]) <= 1e-6


def test_gradients(network: Rdt, recorded: dict[str, torch.Tensor]) -> None:
    network.zero_grad()
    (predict(network, recorded) - recorded["in.action_gt"]).square().mean().backward()
    named = dict(network.named_parameters())
    for key in (key for key in recorded if key.startswith("grad.")):
        assert golden.distance(named[key[5:]].grad, recorded[key]) <= 1e-5, key
    norm = torch.stack([p.grad.norm() for p in network.parameters()]).norm()
    assert golden.distance(norm, recorded["out.grad_norm"]) <= 1e-5


@torch.no_grad()
def sampled(network: Rdt, tensors: dict[str, torch.Tensor], noise: torch.Tensor) -> torch.Tensor:
    return network.sample(
        tensors["in.state_tokens"],
        tensors["in.action_mask"],
        tensors["in.ctrl_freqs"],
        keys(network, tensors),
        noise,
        diffusion.alphas_cumprod(),
    )


def test_sampled_action(network: Rdt, recorded: dict[str, torch.Tensor]) -> None:
    action = sampled(network, recorded, recorded["in.init_noise"])
    assert golden.distance(action, recorded["out.action"]) <= 5e-6
    torch.manual_seed(1234)
    drawn = sampled(network, recorded, torch.randn(recorded["in.init_noise"].shape))
    assert golden.distance(drawn, recorded["out.action_seed1234"]) <= 5e-6


def test_the_golden_test_notices_a_true_rms_norm(
    network: Rdt, recorded: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    def mean_square(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * self.weight

    monkeypatch.setattr("rdt.model.blocks.RmsNorm.forward", mean_square)
    assert golden.distance(predict(network, recorded), recorded["out.pred"]) > 1e-2


def test_the_written_out_norm_equals_the_plain_formula() -> None:
    x = torch.randn(3, 5, 24, dtype=torch.float64, generator=golden.seeded()) + 2
    norm = RmsNorm(24).double()
    torch.nn.init.normal_(norm.weight, generator=golden.seeded())
    plain = x * torch.rsqrt(x.var(-1, keepdim=True) + 1e-6) * norm.weight
    assert golden.distance(norm(x), plain) <= 1e-12
    x.requires_grad_()
    assert torch.autograd.gradcheck(norm, x)


def test_several_draws_of_one_condition_equal_repeated_conditions(
    network: Rdt, recorded: dict[str, torch.Tensor]
) -> None:
    """Rows that share keys give what they give when each row has its own."""
    draws = 3
    many = {
        key: value.repeat_interleave(draws, 0)
        for key, value in recorded.items()
        if key in ("in.state_tokens", "in.action_mask", "in.ctrl_freqs", "in.timesteps")
    }
    noisy = torch.randn(2 * draws, 16, 24, generator=golden.seeded())
    arguments = (
        many["in.state_tokens"],
        noisy,
        many["in.action_mask"],
        many["in.ctrl_freqs"],
        many["in.timesteps"],
    )
    repeated = {
        key: value.repeat_interleave(draws, 0)
        for key, value in recorded.items()
        if key.startswith("in.")
    }
    shared = network.denoise(*arguments, keys(network, recorded))
    own = network.denoise(*arguments, keys(network, repeated))
    assert golden.distance(shared, own) <= 1e-6


def test_keys_are_computed_once_per_chunk(
    network: Rdt, recorded: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    for block in network.model.blocks:
        layer = block.cross_attn.kv
        monkeypatch.setattr(
            layer, "forward", lambda x, f=layer.forward, n=layer: (calls.append(n), f(x))[1]
        )
    sampled(network, recorded, recorded["in.init_noise"])
    assert len(calls) == network.config.depth


def test_a_float_language_mask_is_refused(network: Rdt, recorded: dict[str, torch.Tensor]) -> None:
    mask = recorded["in.lang_attn_mask"].float()
    with pytest.raises(TypeError, match="RDTL-D022"):
        network.keys(recorded["in.lang_tokens"], mask, recorded["in.img_tokens"])


def test_keys_and_shapes_of_the_170m_model() -> None:
    data = {
        "action_dim": 128,
        "pred_horizon": 64,
        "rdt": {"hidden_size": 1024, "depth": 14, "num_heads": 32},
        "lang_token_dim": 4096,
        "img_token_dim": 1152,
        "state_token_dim": 128,
        "max_lang_cond_len": 1024,
        "img_cond_len": 4374,
        "lang_pos_embed_config": [["lang", -1024]],
        "img_pos_embed_config": [["image", [2, 3, -729]]],
        "lang_adaptor": "mlp2x_gelu",
        "img_adaptor": "mlp2x_gelu",
        "state_adaptor": "mlp3x_gelu",
        "noise_scheduler": dict(NOISE_SCHEDULER),
        "ema": {},
    }
    with torch.device("meta"):
        network = Rdt(parse(data, "170m"))
    found = {key: ",".join(map(str, value.shape)) for key, value in network.state_dict().items()}
    with (golden.DATA / "keys_rdt-170m.tsv").open() as file:
        expected = {row["key"]: row["shape"] for row in csv.DictReader(file, delimiter="\t")}
    assert found == expected
    assert sum(p.numel() for p in network.parameters()) == 166_229_888


@pytest.mark.parametrize("kind", ["mlp2x_relu", "conv", "mlpx_gelu"])
def test_unknown_adaptors_are_refused(kind: str) -> None:
    with pytest.raises(ValueError, match="is not known"):
        adaptor(kind, 4, 4)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"horizon": 3}, "horizon"),
        ({"noise_scheduler": {**NOISE_SCHEDULER, "prediction_type": "epsilon"}}, "prediction_type"),
    ],
)
def test_a_foreign_config_is_refused_by_name(change: dict, field: str) -> None:
    with pytest.raises(RefusedError, match=field) as caught:
        parse({**golden.config("rdt_A"), **change}, "some/config.json")
    assert caught.value.problem.code == "RDTL-T021"
    assert "some/config.json" in caught.value.problem.where
