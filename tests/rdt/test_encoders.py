"""The vision tower against transformers' SigLIP, and the word vectors."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from launcher.core.errors import RefusedError
from rdt.encoders import WORD_WIDTH, VisionConfig, VisionTower, language_tokens, word_vector
from tests.rdt import golden

pytestmark = pytest.mark.train


def test_tower_equals_siglip_with_the_same_weights() -> None:
    """Same key names, same outputs: real SigLIP weights fit."""
    from transformers import SiglipVisionConfig, SiglipVisionModel

    config = VisionConfig(48, 3, 4, 96, image_size=32, patch_size=8)
    reference = SiglipVisionModel(SiglipVisionConfig(**config.to_dict(), vision_use_head=False))
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter.normal_(std=0.2)
    tower = VisionTower(config)
    tower.load_state_dict(reference.state_dict(), strict=True)
    pictures = torch.randint(0, 256, (3, 32, 32, 3), dtype=torch.uint8, generator=golden.seeded())
    pixels = (pictures.permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5
    with torch.no_grad():
        expected = reference(pixel_values=pixels).last_hidden_state
        assert golden.distance(tower(pictures), expected) <= 1e-6


def test_words_are_vectors_that_depend_on_the_word_alone() -> None:
    assert word_vector("Soup").tolist() == word_vector("soup").tolist()
    # Pinned: another value would change every policy trained before.
    assert word_vector("soup")[:3].tolist() == pytest.approx(PINNED, abs=1e-6)


PINNED = [-2.43468976020813, 1.3830238580703735, 1.4056075811386108]


@pytest.mark.slow
@given(st.lists(st.from_regex(r"[a-z]{1,12}", fullmatch=True), min_size=2, max_size=2, unique=True))
def test_different_words_are_far_apart(words: list[str]) -> None:
    first, second = (torch.from_numpy(word_vector(word)) for word in words)
    assert (first - second).norm() > 0.5 * WORD_WIDTH**0.5


def test_word_numbers_are_standard_normal() -> None:
    numbers = torch.stack([torch.from_numpy(word_vector(f"w{i}")) for i in range(400)])
    assert abs(float(numbers.mean())) < 0.03
    assert abs(float(numbers.std()) - 1) < 0.03


def test_instruction_to_tokens() -> None:
    tokens, valid = language_tokens("Pick up the soup, then stop.")
    assert tokens.shape == (1, 6, WORD_WIDTH)
    assert valid.dtype == torch.bool and valid.all()
    assert torch.equal(tokens[0, 3], torch.from_numpy(word_vector("soup")))


@pytest.mark.parametrize("text", ["", " .,! ", "word " * 33])
def test_instructions_that_do_not_fit(text: str) -> None:
    with pytest.raises(RefusedError, match="words"):
        language_tokens(text)
