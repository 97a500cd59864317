"""Several clients that start one run at the same time: one graph runs, and all know which."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from launcher.core.errors import RdtlError
from launcher.dag import client, places
from launcher.dag.client import Order

SECRET = {"TOKEN": "canary_77b0e1"}
STEP = {"script": 'echo "$word"; sleep 60', "secrets": ["TOKEN"], "timeout": "2m"}


def given() -> Mapping[str, str]:
    return SECRET


def never() -> Mapping[str, str]:
    raise AssertionError("nobody needs secrets for a runner that is at work")


class Recipe:
    """One recipe in one run directory, in different forms."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "one.yaml"
        parameters = {"word": {"about": "what it says", "default": "a"}}
        made = {"name": "one", "about": "a test", "parameters": parameters, "steps": {"say": STEP}}
        self.path.write_text(yaml.safe_dump({**made, "secrets": {"TOKEN": "t"}}))

    def order(self, word: str) -> Order:
        return client.order(places.here(), str(self.path), None, {"word": word})

    def form(self) -> str:
        """The word of the graph that lies there."""
        there = client.begun(places.here(), str(self.path)).graph
        return there.steps[0].env["word"]


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Recipe]:
    monkeypatch.setenv("HOME", str(tmp_path))
    made = Recipe(tmp_path)
    yield made
    client.stop(made.order("a"))


def outcome(order: Order) -> Any:
    """What a start came to: the last event before it, None, or a code."""
    try:
        return client.start(order, given)
    except RdtlError as error:
        return error.problem.code


def test_a_graph_never_replaces_that_of_a_runner_at_work(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert outcome(recipe.order("a")) == 0
    assert client.start(recipe.order("a"), never) is None
    with monkeypatch.context() as patched:
        patched.setattr(client, "status", lambda what: {})  # what was so a moment ago
        assert outcome(recipe.order("a")) is None
        assert outcome(recipe.order("b")) == "RDTL-U137"
    assert recipe.form() == "a"


def test_a_plan_changes_nothing_for_others(recipe: Recipe) -> None:
    planned = client.plan(recipe.order("b"), {})
    assert [line["would"] for line in planned] == ["run"]
    with pytest.raises(RdtlError, match="RDTL-U138"):
        recipe.form()
    assert outcome(recipe.order("a")) == 0


@pytest.mark.parametrize("words", ["aaaa", "abab"])
def test_starts_of_one_moment(recipe: Recipe, words: str) -> None:
    orders = [recipe.order(word) for word in words]
    together, found = threading.Barrier(len(words)), {}

    def begin(number: int) -> None:
        together.wait()
        found[number] = outcome(orders[number])

    threads = [threading.Thread(target=begin, args=(number,)) for number in range(len(words))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    first = next(number for number, said in found.items() if said == 0)
    same = {number for number, word in enumerate(words) if word == words[first]}
    assert {number for number, said in found.items() if said is None} == same - {first}
    assert {said for number, said in found.items() if number not in same} <= {"RDTL-U137"}
    assert recipe.form() == words[first]


def test_a_file_that_was_cut_on_its_way_is_not_there(tmp_path: Path) -> None:
    target = tmp_path / "folder" / "file"
    place = places.here()
    place.put(str(target), b"whole\n")
    words = [str(target), str(len(b"another one\n"))]  # its connection ended in the middle
    with pytest.raises(RdtlError, match="RDTL-U134"):
        place.run(["sh", "-c", places.PUT, "sh", *words], b"another")
    assert target.read_bytes() == b"whole\n"
    assert list(target.parent.iterdir()) == [target]
