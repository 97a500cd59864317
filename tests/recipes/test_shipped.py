"""The shipped recipes: each profile makes a graph that runs, and says what it was written for."""

from __future__ import annotations

import pytest

from launcher.core import dag_failures, dag_reading, dag_remedies
from launcher.core.errors import RdtlError
from launcher.core.signatures import Watch
from launcher.dag import lint, load, resolve

GIVEN = {"rdt/ssh-workstation": {"workspace": "/data/me"}}
SHIPPED = {
    "openpi/serve-eval",
    "openpi/waypoint-ae",
    "openpi/waypoint-vlm",
    "rdt/finetune",
    "rdt/ssh-workstation",
}


def test_all_are_found_by_name() -> None:
    assert set(load.names()) >= SHIPPED


def profiles() -> list[tuple[str, str | None]]:
    return [
        (name, p) for name in sorted(SHIPPED) for p in (load.load(name).recipe.profiles or [None])
    ]


@pytest.mark.parametrize(("name", "profile"), profiles())
def test_a_profile_makes_a_graph_without_findings(name: str, profile: str | None) -> None:
    loaded = load.load(name)
    graph = resolve.resolve(loaded, "/run/of/it", profile, GIVEN.get(name))
    assert dag_reading.from_dict(graph.to_dict()).order()
    assert lint.findings(loaded, graph) == []
    assert all(step.about for step in graph.steps)


@pytest.mark.parametrize("half", ["ae", "vlm"])
def test_profiles_pin_their_commits(half: str) -> None:
    loaded = load.load(f"openpi/waypoint-{half}")
    commits = {
        name: resolve.parameters(loaded.recipe, name, {})["commit"]
        for name in loaded.recipe.profiles
    }
    assert commits == {
        "as-noted": "2a6770512c5d27623ef3e7221b0d1001b8f58aab",
        "fixed": "7de21c782d402fc2118b1e2c15c3599efc06dc05",
    }
    assert loaded.recipe.profile == "fixed"


@pytest.mark.parametrize("half", ["ae", "vlm"])
def test_what_is_wrong_with_older_code_is_said_before_it_runs(half: str) -> None:
    """The default profile holds its commit to what mended that (RDTL-D026, T016)."""
    recipe = load.load(f"openpi/waypoint-{half}").recipe
    known = {one.code: one for one in lint.flaws(recipe, "as-noted")}
    assert "RDTL-T016" in known and known["RDTL-T016"].fix == "--profile fixed"
    assert ("RDTL-D026" in known) is (half == "vlm")
    assert lint.flaws(recipe, None) == lint.flaws(recipe, "fixed") == []
    assert resolve.parameters(recipe, "as-noted", {})["contains"] == ""
    fixes = resolve.parameters(recipe, None, {})["contains"].split()
    assert [fix[:17] for fix in fixes] == [
        *("RDTL-D026=379c749", "RDTL-D026=30da709", "RDTL-T016=631fbe8")
    ]


def test_the_advice_for_a_flaw_is_a_profile_without_it() -> None:
    recipe = load.load("openpi/waypoint-ae").recipe
    old = recipe.profiles["as-noted"]
    both = {"RDTL-T016": "a", "RDTL-D026": "b"}
    profiles = {
        "old": old.model_copy(update={"flaws": both}),
        "half": old.model_copy(update={"flaws": {"RDTL-T016": "a"}}),
        "new": old.model_copy(update={"flaws": {}}),
    }
    found = lint.flaws(recipe.model_copy(update={"profiles": profiles}), "old")
    assert {one.code: one.fix for one in found} == {
        "RDTL-T016": "--profile new",
        "RDTL-D026": "--profile half",
    }


def test_convert_waits_for_the_overlay_and_statistics_need_no_tensorflow() -> None:
    graph = resolve.resolve(load.load("openpi/waypoint-ae"), "/run")
    before = lint.ancestors(graph)
    assert {"overlay", "dl_base", "uv_sync"} <= before["convert"]
    assert not {"tf", "uv_sync"} & before["statistics"]
    assert {"convert", "statistics", "dl_waypoints", "tokenizer", "overlay"} <= before["train"]


def test_training_is_watched() -> None:
    train = resolve.resolve(load.load("openpi/waypoint-ae"), "/run").step("train")
    order = [marker.name for marker in train.markers if marker.order is not None]
    assert order == ["dataset", "weights", "data", "step"]
    assert (train.start_s, train.stall_s) == (300.0, 210.0)
    assert train.resources == {"gpu": 1}  # never two trainings on the same GPUs
    assert train.argv == () and "/.venv/bin/torchrun" in train.script


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_a_hang_is_seen_before_the_first_step_too(name: str) -> None:
    graph = resolve.resolve(load.load(name), "/run", None, GIVEN.get(name))
    watched = [step for step in graph.steps if step.stall_s is not None]
    assert len(watched) == 1
    for step in watched:
        late = Watch(step, 0.0).late(step.timeout_s or 0.0)
        assert late is not None and late.code == "RDTL-B053"


@pytest.mark.parametrize("name", sorted(SHIPPED - {"rdt/ssh-workstation"}))
def test_the_last_step_says_where_the_results_are_proven_to_be(name: str) -> None:
    """Without it a rented box is not given back."""
    graph = resolve.resolve(load.load(name), "/run", None, GIVEN.get(name))
    (last,) = [step for step in graph.steps if step.always and step.after_failure]
    assert any("(?P<proven>" in marker.pattern for marker in last.markers)
    refused = dag_failures.said(str(RdtlError("RDTL-G008", "not sent")).splitlines())
    assert last.retries and dag_remedies.cure(last, refused, {}) is not None
