"""Files that must not be taken for a checkpoint, each really broken; named and coded."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from launcher.core.errors import RdtlError, RefusedError, UsageError
from rdt import checkpoint
from rdt.checkpoint import describing
from rdt.checkpoint.opening import open_checkpoint
from rdt.model.rdt import Rdt
from tests.rdt import checkpoints

pytestmark = pytest.mark.train

BIN, SAFE = "pytorch_model.bin", "model.safetensors"


@pytest.fixture(scope="module")
def made() -> Rdt:
    return checkpoints.network()


class Bomb:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch '{self.path}'",)


def refused(source: Path, code: str, kind: type[RdtlError] = RefusedError) -> str:
    """What the error says of the place; ``source`` must be refused with ``code``."""
    with pytest.raises(kind) as caught:
        checkpoint.load(source)
    assert caught.value.problem.code == code, str(caught.value)
    return caught.value.problem.where


@pytest.mark.parametrize("how", ["beside the tensors", "as the file", "in a DeepSpeed file"])
def test_a_pickle_with_code_is_not_run(how: str, made: Rdt, tmp_path: Path) -> None:
    target = tmp_path / "touched"
    bomb = Bomb(target)
    path = checkpoints.reference(tmp_path / "rdt", made, BIN) / BIN
    if how == "as the file":
        path.write_bytes(pickle.dumps(bomb))
        refused(path.parent, "RDTL-T032")
    else:
        if how == "in a DeepSpeed file":
            path.unlink()
            path = path.parent / "pytorch_model/mp_rank_00_model_states.pt"
            checkpoints.write(path, {"module": made.state_dict(), "optimizer": bomb})
        else:
            checkpoints.write(path, {**made.state_dict(), "extra": bomb})
        assert "posix.system" in refused(path.parent, "RDTL-T032")
    assert str(path) in refused(path, "RDTL-T032")
    assert not target.exists()
    call, arguments = bomb.__reduce__()  # what a reader that runs pickles would have done
    assert call(*arguments) == 0
    assert target.exists()


@pytest.mark.parametrize("name", [BIN, SAFE])
@pytest.mark.parametrize("kept", [0, 3, 100, 0.5, -1])
def test_a_file_that_is_cut_short(name: str, kept: float, made: Rdt, tmp_path: Path) -> None:
    path = checkpoints.reference(tmp_path, made, name) / name
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content)) if kept == 0.5 else int(kept)])
    where = refused(tmp_path, "RDTL-T031", RdtlError)
    assert str(path) in where
    assert f"{path.stat().st_size:,} bytes" in where


@pytest.mark.parametrize("content", [[torch.ones(2)], torch.ones(2), {"a": 3}, {}])
def test_an_archive_without_weights(content: Any, made: Rdt, tmp_path: Path) -> None:
    path = checkpoints.reference(tmp_path, made, BIN) / BIN
    torch.save(content, path)
    assert str(path) in refused(tmp_path, "RDTL-T031", RdtlError)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"rdt": {"hidden_size": 128}}, "rdt.hidden_size = 128, the tensors have 64"),
        ({"rdt": {"depth": 2}}, "rdt.depth = 2, the tensors have 1"),
        ({"rdt": {"num_heads": 4}}, "rdt.num_heads = 4, the tensors have 2"),
        ({"pred_horizon": 32}, "pred_horizon = 32, the tensors have 64"),
        ({"action_dim": 64}, "action_dim = 64, the tensors have 128"),
        ({"state_token_dim": 64}, "state_token_dim = 64, the tensors have 128"),
        ({"lang_token_dim": 768}, "lang_token_dim = 768, the tensors have 4096"),
        ({"img_token_dim": 1024}, "img_token_dim = 1024, the tensors have 1152"),
        ({"lang_adaptor": "linear"}, "lang_adaptor = linear, the tensors have mlp2x_gelu"),
        ({"img_adaptor": "mlp3x_gelu"}, "img_adaptor = mlp3x_gelu, the tensors have mlp2x_gelu"),
        (
            {"max_lang_cond_len": 512, "lang_pos_embed_config": [["lang", -512]]},
            "max_lang_cond_len = 512, the tensors have 1024",
        ),
        (
            {"img_cond_len": 2187, "img_pos_embed_config": [["image", [1, 3, -729]]]},
            "img_cond_len = 2187, the tensors have 4374",
        ),
    ],
)
def test_a_config_of_other_sizes_is_named_by_its_field(
    change: dict[str, Any], field: str, made: Rdt, tmp_path: Path
) -> None:
    folder = checkpoints.reference(tmp_path, made)
    data = checkpoints.config()
    inner = {**data["rdt"], **change.get("rdt", {})}
    (folder / "config.json").write_text(json.dumps({**data, **change, "rdt": inner}))
    where = refused(folder, "RDTL-T021")
    assert where.count("the tensors have") == 1
    assert f"{folder / 'config.json'}: {field}" in where


def test_a_small_network_under_a_large_config_names_tensors_and_their_number(
    made: Rdt, tmp_path: Path
) -> None:
    """The well-known case: weights of the small model under the sizes of the large one."""
    folder = checkpoints.reference(tmp_path, made)
    data = checkpoints.config(hidden_size=2048, depth=28, num_heads=32)
    (folder / "config.json").write_text(json.dumps(data))
    where = refused(folder, "RDTL-T021")
    for part in (
        "rdt.hidden_size = 2048, the tensors have 64; rdt.num_heads = 32, the tensors have 2; "
        "rdt.depth = 28, the tensors have 1",
        "50 tensors of another shape: model.x_pos_embed [1, 67, 64], expected [1, 67, 2048]",
        "and 47 more",
        "567 missing, 0 unexpected",
    ):
        assert part in where


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ("{", "config.json"),
        ("[]", "no JSON object"),
        ({"img_cond_len": 100}, "4374 tokens, not 100"),
        ({"img_adaptor": "conv"}, "'conv' is not known"),
        ({"rdt": {}}, "hidden_size"),
        ({"horizon": 64}, "horizon"),
    ],
)
def test_a_config_that_describes_no_network(
    data: str | dict[str, Any], problem: str, made: Rdt, tmp_path: Path
) -> None:
    folder = checkpoints.reference(tmp_path, made)
    text = data if isinstance(data, str) else json.dumps({**checkpoints.config(), **data})
    (folder / "config.json").write_text(text)
    assert problem in refused(folder, "RDTL-T021")


@pytest.mark.parametrize("name", [BIN, SAFE])
def test_missing_and_unexpected_tensors(name: str, made: Rdt, tmp_path: Path) -> None:
    folder = checkpoints.reference(tmp_path, made)
    (folder / SAFE).unlink()
    state = made.state_dict()
    lost = state.pop("model.blocks.0.ffn.fc1.bias")
    checkpoints.write(folder / name, state)
    where = refused(folder, "RDTL-T020", RdtlError)
    assert "1 missing: model.blocks.0.ffn.fc1.bias" in where
    checkpoints.write(folder / name, {**made.state_dict(), "model.extra.bias": lost.clone()})
    assert "1 unexpected: model.extra.bias" in refused(folder, "RDTL-T020", RdtlError)


def test_weights_in_parts_or_of_a_wrapper_get_a_hint(made: Rdt, tmp_path: Path) -> None:
    folder = checkpoints.reference(tmp_path, made)
    state = made.state_dict()
    (folder / SAFE).unlink()
    names = list(state)
    for number, part in ((1, names[:20]), (2, names[20:])):
        path = folder / f"model-0000{number}-of-00002.safetensors"
        checkpoints.write(path, {name: state[name] for name in part})
    with pytest.raises(UsageError) as caught:
        checkpoint.load(folder)
    assert caught.value.problem.code == "RDTL-T034"
    assert "join 2 parts (model-00001-of-00002.safetensors" in caught.value.problem.fix
    checkpoints.write(folder / SAFE, torch.nn.ModuleDict({"module": made}).state_dict())
    with pytest.raises(RdtlError) as wrapped:
        checkpoint.load(folder)
    assert wrapped.value.problem.code == "RDTL-T020"
    assert "take `module.` off the names" in wrapped.value.problem.fix


@pytest.mark.parametrize("name", [BIN, SAFE])
@pytest.mark.parametrize(
    "dtype", [torch.int8, torch.bool, torch.complex64, torch.float8_e4m3fn, torch.float8_e5m2]
)
def test_encoded_weights_are_refused(
    dtype: torch.dtype, name: str, made: Rdt, tmp_path: Path
) -> None:
    """Quantised ones above all. An inspection says so, and does not fail."""
    folder = checkpoints.reference(tmp_path, made, name)
    state = made.state_dict()
    state["img_adaptor.0.weight"] = state["img_adaptor.0.weight"].to(dtype)
    checkpoints.write(folder / name, state)
    typed = f"img_adaptor.0.weight ({str(dtype).removeprefix('torch.')})"
    assert typed in refused(folder, "RDTL-T022")
    findings = describing.describe(open_checkpoint(folder))["findings"]
    assert [f["code"] for f in findings if f["severity"] == "error"] == ["RDTL-T022"]


@pytest.mark.parametrize("how", ["sparse", "meta", "csr"])
def test_tensors_without_their_numbers(how: str, made: Rdt, tmp_path: Path) -> None:
    folder = checkpoints.reference(tmp_path, made, BIN)
    state = made.state_dict()
    weight = state["img_adaptor.0.weight"]
    changes = {"sparse": weight.to_sparse, "meta": weight.to, "csr": weight.to_sparse_csr}
    state["img_adaptor.0.weight"] = changes[how](*(["meta"] if how == "meta" else []))
    checkpoints.write(folder / BIN, state)
    assert "'img_adaptor.0.weight' is no tensor" in refused(folder, "RDTL-T031", RdtlError)
