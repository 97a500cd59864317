"""Embeddings made beforehand: content-addressed, resumable, of one encoder, read as listed."""

from __future__ import annotations

import fcntl
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from launcher.core.errors import RdtlError, RefusedError
from rdt.encoders import embed as embedding
from rdt.encoders import language
from rdt.encoders.embed import embed
from rdt.encoders.embeddings import Embeddings
from tests.rdt import small_policy, small_t5

pytestmark = pytest.mark.train
WIDTH = 24
STOVE = ["KITCHEN_SCENE3_turn_on_the_stove", "Turn on the stove."]
WORDS = [*STOVE, "open the drawer", "pick up the soup"]
MANY = [f"put {number} on the plate" for number in ("it", "soup", "the drawer", "the stove")]


@pytest.fixture(scope="module")
def t5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encoders") / "t5"
    small_t5.save(folder, WIDTH)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("[!.]*"))}


def test_the_folder_says_what_the_encoder_says(t5: Path, tmp_path: Path) -> None:
    made = embed(WORDS, str(t5), tmp_path)
    assert (made.wanted, made.computed) == (3, 3)  # scene and full stop are no other words
    live = language.load_t5(t5, torch.bfloat16, "cpu")
    found = language.load(tmp_path, WIDTH, torch.float32, "cpu")
    assert isinstance(found, Embeddings)
    for words in WORDS:
        expected = live.tokens("turn on the stove" if words in STOVE else words)
        assert torch.equal(found.tokens(words), expected)
    listed = json.loads((tmp_path / "manifest.json").read_text())
    assert listed["encoder"]["source"] == str(t5)
    assert (listed["encoder"]["width"], listed["encoder"]["dtype"]) == (WIDTH, "bfloat16")
    entry = listed["sentences"]["turn on the stove"]
    assert entry["sentence"] == "Turn on the stove."
    assert entry["tokens"] == len(live.tokens("turn on the stove"))
    # Without the list each file still says of which words it is.
    (tmp_path / "manifest.json").unlink()
    assert torch.equal(Embeddings(tmp_path, WIDTH).tokens("open the drawer"), live.tokens(WORDS[2]))


def test_only_what_is_missing_is_computed(
    t5: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed(WORDS, str(t5), tmp_path)
    before = contents(tmp_path)
    assert embed([*WORDS, *MANY[:1]], str(t5), tmp_path).computed == 1
    after = contents(tmp_path)
    assert {name: after[name] for name in before if name.endswith(".pt")} == {
        name: data for name, data in before.items() if name.endswith(".pt")
    }

    def never(*_: Any) -> None:
        raise AssertionError("the encoder was loaded for nothing")

    monkeypatch.setattr(embedding.language, "load_t5", never)
    assert embed(WORDS, str(t5), tmp_path).computed == 0


PROGRAM = """
import json, sys
from pathlib import Path
from rdt.encoders.embed import embed
words, t5, folder = json.loads(sys.argv[1])
embed(words, t5, Path(folder))
"""


def killed_after(files: int, t5: Path, folder: Path) -> None:
    """Start embedding in another process and kill it when ``files`` are there."""
    request = json.dumps([[*WORDS, *MANY], str(t5), str(folder)])
    child = subprocess.Popen([sys.executable, "-c", PROGRAM, request])
    while len(list(folder.glob("[!.]*.pt"))) < files:
        time.sleep(0.0005)
        if child.poll() is not None:
            pytest.fail("it ended before it was killed")
    child.kill()
    assert child.wait() == -signal.SIGKILL


@pytest.mark.slow
def test_killed_at_any_moment(t5: Path, tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    embed([*WORDS, *MANY], str(t5), whole)
    for files in (1, 4):
        killed_after(files, t5, broken)
        if json.loads((broken / "manifest.json").read_text())["sentences"]:
            Embeddings(broken, WIDTH)  # whatever is listed can be read
    assert embed([*WORDS, *MANY], str(t5), broken).computed <= 7 - 3
    assert contents(broken) == contents(whole)


def test_another_encoder_is_refused(t5: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    embed(WORDS, str(t5), out)
    before = contents(out)
    small_t5.save(tmp_path / "other", WIDTH, seed=1)
    with pytest.raises(RefusedError) as caught:
        embed(MANY, str(tmp_path / "other"), out)
    assert caught.value.problem.code == "RDTL-D076"
    assert str(tmp_path / "other") in caught.value.problem.where
    assert contents(out) == before
    shutil.copytree(t5, tmp_path / "moved")  # the same encoder at another place is the same
    assert embed([*WORDS, *MANY], str(tmp_path / "moved"), out).computed == len(MANY)


def test_embeddings_of_an_unknown_encoder_are_left_alone(t5: Path, tmp_path: Path) -> None:
    small_policy.save_sentence(tmp_path, "open_the_drawer", torch.zeros(3, WIDTH))
    with pytest.raises(RefusedError, match=r"RDTL-D076[\s\S]*open_the_drawer.pt"):
        embed(WORDS, str(t5), tmp_path)


def test_a_damaged_file_is_named_and_made_again(t5: Path, tmp_path: Path) -> None:
    embed(WORDS, str(t5), tmp_path)
    before = contents(tmp_path)
    path = sorted(tmp_path.glob("*.pt"))[1]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(RefusedError, match=rf"RDTL-D021[\s\S]*{path.name}[\s\S]*bytes"):
        Embeddings(tmp_path, WIDTH)
    path.unlink()
    with pytest.raises(RefusedError, match=rf"RDTL-D021[\s\S]*{path.name}[\s\S]*missing"):
        Embeddings(tmp_path, WIDTH)
    assert embed(WORDS, str(t5), tmp_path).computed == 1
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"encoder": {}, "sentences": {"a": {"file": "../b"}}}']
)
def test_a_broken_list(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(RefusedError, match=r"RDTL-D021[\s\S]*manifest.json"):
        Embeddings(tmp_path, WIDTH)


def test_two_at_once(t5: Path, tmp_path: Path) -> None:
    with (tmp_path / ".lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(RefusedError, match="RDTL-D077"):
            embed(WORDS, str(t5), tmp_path)


def test_an_encoder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RdtlError, match="RDTL-T020"):
        embed(WORDS, str(tmp_path / "nothing"), tmp_path / "out")
