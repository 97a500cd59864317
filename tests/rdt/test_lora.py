"""LoRA: where it sits, what it changes, and that it stays with its base."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from launcher.core.errors import RdtlError, RefusedError, UsageError
from rdt import checkpoint, lora
from rdt.lora import Adapted, Lora
from rdt.model.config import parse
from rdt.model.rdt import Rdt
from tests.rdt import checkpoints, golden

pytestmark = pytest.mark.train


def outputs(network: Rdt) -> torch.Tensor:
    """A prediction that every linear layer takes part in."""
    random = golden.seeded()
    dtype = next(network.parameters()).dtype
    config = network.config

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=random).to(dtype)

    keys = network.keys(
        draw(1, 6, config.lang_token_dim), None, draw(1, config.img_cond_len, config.img_token_dim)
    )
    mask = torch.ones(1, 1, 128, dtype=dtype)
    freq, t = torch.tensor([20.0]), torch.tensor([400])
    return network.denoise(draw(1, 1, 128), draw(1, 64, 128), mask, freq, t, keys)


def trained(network: Rdt, settings: Lora | None = None) -> Adapted:
    """An adapter as after some training: both factors are far from zero."""
    adapted = lora.add(network, settings)
    random = golden.seeded()
    with torch.no_grad():
        for name, parameter in adapted.network.named_parameters():
            if "lora_" in name:
                parameter.copy_(0.05 * torch.randn(parameter.shape, generator=random))
    network.eval()
    return adapted


def test_default_targets_on_the_1b_network() -> None:
    """203 of 209 linear layers, 32,092,160 parameters: all but embedders and final layer."""
    data = json.loads((golden.DATA / "config_rdt-1b.json").read_text())
    with torch.device("meta"):
        network = Rdt(parse(data, "1b"))
        layers = lora.linear_layers(network)
        matched = lora.match(network, lora.TARGETS)
        parameters = sum(
            32 * (module.in_features + module.out_features)
            for name, module in network.named_modules()
            if any(name in names for names in matched.values())
        )
    names = [name for group in matched.values() for name in group]
    assert (len(layers), len(names), len(set(names))) == (209, 203, 203)
    assert parameters == 32_092_160
    per_block = [target for target in lora.TARGETS if "adaptor" not in target]
    assert {len(matched[target]) for target in per_block} == {28}
    assert all(len(group) == 1 for t, group in matched.items() if t not in per_block)
    assert all("cross" not in name for name in matched["attn.proj"])
    assert sorted(set(layers) - set(names)) == [
        "model.final_layer.ffn_final.fc1", "model.final_layer.ffn_final.fc2",
        "model.freq_embedder.mlp.0", "model.freq_embedder.mlp.2",
        "model.t_embedder.mlp.0", "model.t_embedder.mlp.2",
    ]  # fmt: skip


def test_peft_sits_where_it_was_told_to() -> None:
    """Its own matching of names is not relied on."""
    adapted = lora.add(checkpoints.network(depth=2))
    wanted = {name for names in adapted.matched.values() for name in names}
    assert set(adapted.model.targeted_module_names) == wanted
    inside = {n.removesuffix(".lora_A") for n, _ in adapted.network.named_modules()}
    assert wanted <= inside
    only = lora.add(checkpoints.network(depth=2), Lora(targets=("attn.proj",)))
    assert only.model.targeted_module_names == [
        "model.blocks.0.attn.proj",
        "model.blocks.1.attn.proj",
    ]


@pytest.mark.parametrize("targets", [("attn.prj",), ("proj", "roj"), (".attn.proj",), ()])
def test_a_target_that_is_no_layer_is_refused(targets: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="no linear layer") as caught:
        lora.add(checkpoints.network(), Lora(targets=targets))
    assert caught.value.problem.code == "RDTL-T030"
    assert "cross_attn.proj" in caught.value.problem.where


def test_a_fresh_adapter_changes_nothing_and_only_it_trains() -> None:
    network = checkpoints.network()
    before, weights = outputs(network), {k: v.clone() for k, v in network.state_dict().items()}
    adapted = lora.add(network, Lora(rank=4, dropout=0.0))
    assert torch.equal(outputs(network), before)
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=1.0)
    outputs(network).square().mean().backward()
    optimizer.step()
    assert not torch.equal(outputs(network), before)
    after = network.state_dict()
    assert all(
        torch.equal(after[k] if k in after else after[_wrapped(k)], v) for k, v in weights.items()
    )
    assert "LoRA on 14 of 20 linear layers" in adapted.lines()[0]


def _wrapped(name: str) -> str:
    module, _, leaf = name.rpartition(".")
    return f"{module}.base_layer.{leaf}"


@pytest.mark.parametrize("depth", [1, 2])
def test_merged_equals_unmerged(depth: int) -> None:
    network = checkpoints.network(depth=depth)
    plain = outputs(network)
    names = list(network.state_dict())
    adapted = trained(network)
    unmerged = outputs(network)
    merged = lora.merge(adapted)
    assert golden.distance(outputs(merged), unmerged) <= 1e-6
    assert golden.distance(unmerged, plain) > 1e-2
    assert merged is network
    assert list(merged.state_dict()) == names
    assert all(p.requires_grad for p in merged.parameters())


def test_factors_are_float32_over_a_base_in_16_bits() -> None:
    network = checkpoints.network(dtype=torch.bfloat16)
    adapted = trained(network)
    factors = [p for n, p in network.named_parameters() if "lora_" in n]
    assert {p.dtype for p in factors} == {torch.float32}
    assert {p.dtype for p in network.parameters() if not p.requires_grad} == {torch.bfloat16}
    assert outputs(network).dtype == torch.bfloat16
    assert "in float32 over a base in bfloat16" in adapted.lines()[0]
    assert {p.dtype for p in lora.merge(adapted).parameters()} == {torch.bfloat16}


def test_saved_and_loaded_again(tmp_path: Path) -> None:
    adapted = trained(checkpoints.network())
    expected = outputs(adapted.network)
    lora.save(adapted, tmp_path / "adapter")
    again = lora.load(checkpoints.network(), tmp_path / "adapter")
    again.network.eval()
    assert torch.equal(outputs(again.network), expected)
    assert any(p.requires_grad for p in again.network.parameters())
    numbers = sum(p.numel() for p in again.network.parameters() if p.requires_grad)
    size = (tmp_path / "adapter/adapter_model.safetensors").stat().st_size
    assert 4 * numbers < size < 4 * numbers + 10_000
    with pytest.raises(UsageError) as caught:
        lora.save(adapted, tmp_path / "adapter")
    assert caught.value.problem.code == "RDTL-U027"


@pytest.mark.parametrize("depth", [1, 4])
def test_peft_itself_reads_the_folder(depth: int, tmp_path: Path) -> None:
    """Of many names (depth 4) it makes short ends; the folder has the whole ones."""
    from peft import PeftModel

    adapted = trained(checkpoints.network(depth=depth))
    lora.save(adapted, tmp_path / "adapter")
    written = json.loads((tmp_path / "adapter/adapter_config.json").read_text())
    wanted = {name for names in adapted.matched.values() for name in names}
    assert len(wanted) == depth * 7 + 7
    assert set(written["target_modules"]) == wanted
    other = checkpoints.network(depth=depth)
    PeftModel.from_pretrained(other, str(tmp_path / "adapter"))
    assert torch.equal(outputs(other.eval()), outputs(adapted.network))


def test_another_base_is_refused_and_the_same_in_another_type_is_not(tmp_path: Path) -> None:
    base = checkpoints.network(dtype=torch.bfloat16)
    folder = checkpoints.reference(tmp_path / "base", base)
    lora.save(trained(base), tmp_path / "adapter")
    lora.load(checkpoint.load(folder, dtype=torch.float32).network, tmp_path / "adapter")
    lora.load(checkpoint.load(folder, dtype=torch.bfloat16).network, tmp_path / "adapter")
    other = checkpoint.load(folder).network
    with torch.no_grad():
        other.model.blocks[0].ffn.fc1.bias[3] += 0.1
    with pytest.raises(RefusedError, match="another base") as caught:
        lora.load(other, tmp_path / "adapter")
    assert caught.value.problem.code == "RDTL-T037"
    assert not any("lora" in name for name in other.state_dict())
    with pytest.raises(RefusedError, match="another base"):
        lora.load(checkpoints.network(depth=2), tmp_path / "adapter")


def test_damaged_adapters_are_named(tmp_path: Path) -> None:
    lora.save(trained(checkpoints.network()), tmp_path / "adapter")
    for name in ("adapter_model.safetensors", "adapter_config.json", "base.json"):
        path = tmp_path / "adapter" / name
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        with pytest.raises(RdtlError) as caught:
            lora.load(checkpoints.network(), tmp_path / "adapter")
        assert caught.value.problem.code == "RDTL-T031"
        assert str(path) in caught.value.problem.where
        path.write_bytes(content)
    small = trained(checkpoints.network(), Lora(rank=4))
    lora.save(small, tmp_path / "small")
    (tmp_path / "small/adapter_config.json").write_bytes(
        (tmp_path / "adapter/adapter_config.json").read_bytes()
    )
    with pytest.raises(RdtlError, match="do not fit") as caught:
        lora.load(checkpoints.network(), tmp_path / "small")
    assert caught.value.problem.code == "RDTL-T020"


def require_as_before(network: Rdt, before: dict[str, torch.Tensor]) -> None:
    """``network`` bears no trace of an adapter: names, weights, flags, attributes."""
    after = network.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert all(p.requires_grad for p in network.parameters())
    assert not hasattr(network, "peft_config")


@pytest.mark.parametrize(
    ("name", "change", "code"),
    [
        ("base.json", {"base": 3}, "RDTL-T031"),
        ("base.json", {"matched": None}, "RDTL-T031"),
        ("base.json", {"matched": {"a": "b"}}, "RDTL-T031"),
        ("adapter_config.json", {"r": 0}, "RDTL-T030"),
        ("adapter_config.json", {"r": "x"}, "RDTL-T030"),
        ("adapter_config.json", {"r": 4}, "RDTL-T020"),
        ("adapter_config.json", {"lora_dropout": 2.0}, "RDTL-T030"),
        ("adapter_config.json", {"target_modules": ["attn.qkv"]}, "RDTL-T030"),
        ("adapter_config.json", {"peft_type": "IA3"}, "RDTL-T031"),
        ("adapter_config.json", {"peft_type": "NONE"}, "RDTL-T031"),
        ("adapter_model.safetensors", None, "RDTL-T031"),
    ],
)
def test_a_refusal_leaves_the_network_as_it_was(
    name: str, change: dict[str, object] | None, code: str, tmp_path: Path
) -> None:
    lora.save(trained(checkpoints.network(), Lora(rank=2)), tmp_path / "adapter")
    path = tmp_path / "adapter" / name
    if change is None:
        path.unlink()
    else:
        path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    network = checkpoints.network()
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    with pytest.raises(RdtlError) as caught:
        lora.load(network, tmp_path / "adapter")
    assert caught.value.problem.code == code, str(caught.value)
    require_as_before(network, before)
    lora.add(network)


@pytest.mark.parametrize("settings", [Lora(rank=0), Lora(rank=-1), Lora(dropout=2.0)])
def test_settings_of_no_adapter(settings: Lora) -> None:
    network = checkpoints.network()
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    with pytest.raises(RdtlError) as caught:
        lora.add(network, settings)
    assert caught.value.problem.code == "RDTL-T030"
    require_as_before(network, before)
