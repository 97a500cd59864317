"""Where instructions come from, and the command from a data set to what a policy reads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobs.embed_language import instructions
from launcher.core.errors import RdtlError, UsageError
from rdt.encoders.embeddings import Embeddings, plain
from rdt.spec import suites
from tests.cli.run_rdtl import rdtl
from tests.rdt import small_t5

WIDTH = 24
SOUP = "pick up the alphabet soup and place it in the basket"


def test_words_of_data_sets_in_every_layout(
    collected: Path, rlds: Path, lerobot2: Path, lerobot3: Path
) -> None:
    for path in (collected, rlds, lerobot2, lerobot3):
        assert [plain(words) for words in instructions(str(path))] == [SOUP]


@pytest.mark.sim
def test_words_of_the_suites_are_those_of_the_public_embeddings() -> None:
    text = Path("configs/assets/libero-t5-embeddings.yaml").read_text()
    published = {plain(Path(line.split(":")[0].strip()).stem) for line in text.splitlines()
                 if ".pt: " in line}  # fmt: skip
    found = {suite: instructions(suite) for suite in suites.SUITES}
    assert [len(words) for words in found.values()] == [10, 10, 10, 10, 90]
    assert {plain(text) for words in found.values() for text in words} == published


def test_words_of_a_text(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("open the drawer\n\n  Put it down. \n")
    assert instructions(str(path)) == ["open the drawer", "Put it down."]


@pytest.mark.parametrize("content", [b"", b"\n \n", b"caf\xe9"])
def test_a_text_without_words(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "words.txt"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"RDTL-D078[\s\S]*words.txt"):
        instructions(str(path))


def test_neither_data_nor_suite(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"RDTL-D079[\s\S]*libero_object"):
        instructions("libero_objects")
    with pytest.raises(RdtlError, match="RDTL-D014"):
        instructions(str(tmp_path))


@pytest.mark.slow
@pytest.mark.train
def test_the_command(collected: Path, tmp_path: Path) -> None:
    small_t5.save(tmp_path / "t5", WIDTH)
    (tmp_path / "words.txt").write_text("open the drawer\n")
    out = tmp_path / "embeddings"
    arguments = ("data", "embed", str(collected), str(tmp_path / "words.txt"))
    end = ("--encoder", str(tmp_path / "t5"), "--out", str(out), "--json")
    done = rdtl(*arguments, *end, cwd=Path.cwd())
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["wanted"], found["computed"]) == (2, 2)
    assert len(Embeddings(out, WIDTH).tokens(SOUP)) > 4
    done = rdtl("data", "embed", "nothing", *end, cwd=Path.cwd())
    assert (done.returncode, json.loads(done.stdout)["error"]["code"]) == (2, "RDTL-D079")
