"""SigLIP and T5 through real loading code, pictures against Pillow, sentences encoded before."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from launcher.core.errors import RdtlError, RefusedError
from rdt.encoders import language, pictures, siglip
from rdt.encoders.embeddings import Embeddings, plain
from tests.rdt import small_policy, small_t5

pytestmark = pytest.mark.train
WIDTH = 24


@settings(max_examples=25, deadline=None)
@given(st.integers(8, 500), st.integers(8, 500), st.integers(0, 9), st.booleans())
def test_pictures_equal_pillows(height: int, width: int, seed: int, smooth: bool) -> None:
    """Padding is the same, and bicubic resizing within 2 of 255, noise and edges included."""
    from PIL import Image

    random = np.random.default_rng(seed)
    small = random.integers(0, 256, (9, 9, 3) if smooth else (height, width, 3), np.uint8)
    source = Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
    side = max(height, width)
    padded = Image.new("RGB", (side, side), (127, 127, 127))
    padded.paste(source, ((side - width) // 2, (side - height) // 2))
    expected = np.asarray(padded.resize((384, 384), Image.Resampling.BICUBIC), np.int64)
    found = pictures.fitted(np.asarray(source), 384)
    batch = torch.from_numpy(np.array(source))[None]
    np.testing.assert_array_equal(pictures.square(batch)[0], np.asarray(padded))
    assert found.dtype == np.uint8
    assert np.abs(found - expected).max() <= 2
    on_a_gpu = pictures._resized(pictures.square(batch).permute(0, 3, 1, 2).float(), 384)
    assert np.abs(on_a_gpu[0].permute(1, 2, 0).numpy() - expected).max() <= 2


def test_pictures_are_turned_as_the_contract_says() -> None:
    picture = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    assert pictures.rotated(picture, "raw") is picture
    np.testing.assert_array_equal(pictures.rotated(picture, "180")[0, 0], picture[1, 1])


@pytest.fixture(scope="module")
def whole_siglip(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A random SigLIP with text tower and pooling heads on disk, as on the hub."""
    from transformers import SiglipConfig, SiglipModel

    text = {
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "vocab_size": 50,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    vision = small_policy.vision_settings()
    model = SiglipModel(SiglipConfig(vision_config=vision, text_config=text)).eval()
    folder = tmp_path_factory.mktemp("siglip")
    model.save_pretrained(folder)
    assert "vision_model.encoder.layers.0.mlp.fc1.weight" in load_file(folder / "model.safetensors")
    return folder, model


def test_siglip_out_of_the_whole_model(
    whole_siglip: tuple[Path, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    folder, model = whole_siglip
    encoder = siglip.load(folder, torch.float32, "cpu")
    assert capfd.readouterr() == ("", "")  # transformers would list every left-out tensor
    assert (encoder.size, encoder.tokens, encoder.width) == (42, 9, 32)
    shown = np.random.default_rng(0).integers(0, 256, (2, 42, 42, 3), np.uint8)
    pixels = (torch.from_numpy(shown).permute(0, 3, 1, 2) / 255 - 0.5) / 0.5
    with torch.no_grad():
        expected = model.vision_model(pixel_values=pixels).last_hidden_state
    torch.testing.assert_close(encoder(torch.from_numpy(shown)), expected, rtol=0, atol=0)


def test_siglip_in_bf16(whole_siglip: tuple[Path, Any]) -> None:
    encoder = siglip.load(whole_siglip[0], torch.bfloat16, "cpu")
    assert {p.dtype for p in encoder.model.parameters()} == {torch.bfloat16}
    assert encoder(torch.zeros(1, 42, 42, 3, dtype=torch.uint8)).dtype == torch.bfloat16


def test_siglip_out_of_a_vision_model_alone(tmp_path: Path) -> None:
    made = small_policy.vision()
    made.model.save_pretrained(tmp_path)
    loaded = siglip.load(tmp_path, torch.float32, "cpu")
    shown = torch.full((1, 42, 42, 3), 9, dtype=torch.uint8)
    assert torch.equal(loaded(shown), made(shown))


def test_an_encoder_with_a_missing_tensor_is_refused(tmp_path: Path) -> None:
    small_policy.vision().model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["post_layernorm.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(RdtlError, match=r"RDTL-T020[\s\S]*1 tensors[\s\S]*post_layernorm.weight"):
        siglip.load(tmp_path, torch.float32, "cpu")


def test_an_encoder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RdtlError, match="RDTL-T020"):
        siglip.load(tmp_path / "nothing", torch.float32, "cpu")


@pytest.fixture(scope="module")
def t5(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A random T5 of the v1.1 kind in the hub's layout."""
    folder = tmp_path_factory.mktemp("t5")
    return folder, small_t5.save(folder, WIDTH)


def test_t5_out_of_a_whole_checkpoint(t5: tuple[Path, Any]) -> None:
    """Token numbers are sentencepiece's own; the states are those of the encoder half."""
    import sentencepiece

    folder, model = t5
    encoder = language.load(folder, WIDTH, torch.float32, "cpu")
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "spiece.model"))
    ids = [*pieces.encode("Pick up the soup."), 1]
    with torch.no_grad():
        expected = model.encoder(torch.tensor([ids])).last_hidden_state[0]
    torch.testing.assert_close(encoder.tokens("pick up the soup"), expected, rtol=0, atol=1e-6)
    long = language.load(folder, WIDTH, torch.bfloat16, "cpu").tokens("soup " * 400)
    assert long.dtype == torch.bfloat16
    assert len(long) > 1024  # nothing is cut off behind one's back


def test_t5_without_its_tokenizer(t5: tuple[Path, Any], tmp_path: Path) -> None:
    for name in ("config.json", "pytorch_model.bin"):
        (tmp_path / name).symlink_to(t5[0] / name)
    with pytest.raises(RdtlError, match="RDTL-T020"):
        language.load_t5(tmp_path, torch.float32, "cpu")


@pytest.mark.parametrize("text", ["pick up  the soup", "Pick up the soup.", "pick_up_the_soup"])
def test_instructions_become_sentences(text: str) -> None:
    assert language.sentence(text) == "Pick up the soup."


def _numbers(seed: int, width: int = WIDTH) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randn(4 + seed, width, generator=random).to(torch.bfloat16)


def test_embeddings_in_both_layouts(tmp_path: Path) -> None:
    """A folder deep, with scenes in file names, and dictionaries that name their sentence."""
    stove = "turn_on_the_stove"
    small_policy.save_sentence(tmp_path / "libero_90", f"KITCHEN_SCENE3_{stove}", _numbers(1))
    small_policy.save_sentence(tmp_path / "libero_90", f"LIVING_ROOM_SCENE9_{stove}", _numbers(1))
    torch.save(
        {"name": "x", "instruction": "Open the Drawer.", "embeddings": _numbers(2)[None]},
        tmp_path / "x.pt",
    )
    found = language.load(tmp_path, WIDTH, torch.float32, "cpu")
    assert isinstance(found, Embeddings)
    assert torch.equal(found.tokens("turn on the stove"), _numbers(1))
    assert torch.equal(found.tokens("Turn on the stove."), _numbers(1))
    assert torch.equal(found.tokens("open the drawer"), _numbers(2))
    alone = language.load(tmp_path / "x.pt", WIDTH, torch.float32, "cpu")
    assert torch.equal(alone.tokens("open the drawer"), _numbers(2))


def test_an_unknown_instruction_names_near_ones(tmp_path: Path) -> None:
    small_policy.save_sentence(tmp_path, "turn_on_the_stove", _numbers(1))
    small_policy.save_sentence(tmp_path, "open_the_drawer", _numbers(2))
    with pytest.raises(RefusedError) as caught:
        Embeddings(tmp_path, WIDTH).tokens("turn off the stove")
    assert caught.value.problem.code == "RDTL-D020"
    assert "near ones: turn on the stove" in caught.value.problem.where
    assert "2 instructions" in caught.value.problem.where


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (torch.zeros(5, 768), "shape (5, 768), expected (L, 24)"),
        (torch.zeros(2, 5, WIDTH), "shape (2, 5, 24)"),
        (torch.zeros(0, WIDTH), "shape (0, 24)"),
        (torch.zeros(WIDTH), "shape (24,)"),
        (torch.zeros(5, WIDTH, dtype=torch.int64), "no tensor of numbers"),
        ({"instruction": "go"}, "NoneType"),
        ({"instruction": "go", "embeddings": torch.zeros(1, 5, 768)}, "shape (5, 768)"),
        (torch.full((5, WIDTH), float("nan")), "NaN"),
    ],
)
def test_embeddings_that_do_not_fit(tmp_path: Path, content: Any, reason: str) -> None:
    torch.save(content, tmp_path / "go.pt")
    with pytest.raises(RefusedError) as caught:
        Embeddings(tmp_path, WIDTH)
    assert caught.value.problem.code == "RDTL-D021"
    assert "go.pt" in caught.value.problem.where
    assert reason in caught.value.problem.where


class Touch:
    """Unpickling it would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mknod, (str(self.path),)


def test_code_in_an_embedding_does_not_run(tmp_path: Path) -> None:
    made = tmp_path / "made"
    pickle.loads(pickle.dumps(Touch(made)))
    assert made.exists()  # the file really carries code
    made.unlink()
    torch.save(Touch(made), tmp_path / "go.pt")
    with pytest.raises(RefusedError, match="RDTL-D021"):
        Embeddings(tmp_path, WIDTH)
    assert not made.exists()


def test_torn_and_contradicting_embeddings(tmp_path: Path) -> None:
    path = small_policy.save_sentence(tmp_path, "open_the_drawer", _numbers(2))
    small_policy.save_sentence(tmp_path, "KITCHEN_SCENE1_open_the_drawer", _numbers(3))
    with pytest.raises(RefusedError, match=r"RDTL-D021[\s\S]*other numbers"):
        Embeddings(tmp_path, WIDTH)
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(RefusedError, match=r"RDTL-D021[\s\S]*cannot be read"):
        Embeddings(path, WIDTH)
    with pytest.raises(RefusedError, match="RDTL-D021"):
        Embeddings(tmp_path / "nowhere", WIDTH)


def test_instruction_in_a_file_name() -> None:
    assert plain("LIVING_ROOM_SCENE10_put_the_mug_down") == "put the mug down"
    for text in ("put_the_mug_down", "Put the mug  down .", "KITCHEN SCENE2 put the mug down"):
        assert plain(text) == "put the mug down"


def test_an_embedding_of_no_instruction(tmp_path: Path) -> None:
    torch.save({"embeddings": _numbers(2)[None]}, tmp_path / "a.pt")
    with pytest.raises(RefusedError, match=r"RDTL-D021[\s\S]*of which instruction"):
        Embeddings(tmp_path, WIDTH)
