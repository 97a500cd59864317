"""`rdtl recipe verify`: what it proves again, and what it must not pass over."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.recipes.users import Here


@pytest.fixture
def here(tmp_path: Path) -> Here:
    return Here(tmp_path)


def test_a_step_that_cannot_be_proven_is_named(here: Here) -> None:
    here.let_go()
    assert here("run").returncode == 0
    for wrong in (("one", "tow"), ("tow",)):
        done = here("verify", *wrong)
        assert done.returncode == 2, done.stdout
        assert "RDTL-U122" in done.stderr
        assert "did you mean two?" in done.stderr
        assert done.stdout == ""
    assert here("verify", "two").stdout == "good  two\n"


@pytest.mark.slow
def test_a_recipe_without_proofs_proves_nothing(here: Here) -> None:
    made = {"name": "here", "about": "a test"}
    steps = {"one": {"script": "true", "timeout": "10s"}}
    (here.folder / "here.yaml").write_text(yaml.safe_dump({**made, "steps": steps}))
    assert here("run").returncode == 0
    assert "RDTL-U122" in here("verify", "one").stderr
    done = here("verify")
    assert (done.returncode, done.stdout) == (0, "")
    assert "no step of here has a proof" in done.stderr


@pytest.mark.slow
def test_what_is_optional_need_not_be_there(here: Here) -> None:
    made = yaml.safe_load((here.folder / "here.yaml").read_text())
    made |= {"secrets": {"TOKEN": "t", "EXTRA": "e"}, "optional_secrets": ["EXTRA"]}
    verify = {"cheap": 'test -z "$EXTRA"'}
    made["steps"] = {"one": {"script": "true", "secrets": ["EXTRA"], "verify": verify}}
    (here.folder / "here.yaml").write_text(yaml.safe_dump(made))
    assert here("run").returncode == 0
    done = here("verify")
    assert (done.returncode, done.stdout) == (0, "good  one\n"), done.stderr
    assert "without EXTRA" in done.stderr
    assert here.planned()[0]["would"] == "skip"
