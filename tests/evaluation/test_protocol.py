"""One protocol for several suites, with everything that can move a rate."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from launcher.report.compare import differing_fields
from rdt.spec import protocol as protocols
from rdt.spec.protocol import Protocol, Sight
from tests.evaluation.test_plan import run_config
from tests.report.runs import VERSIONS


def protocol_of(sight: Sight = protocols.BLIND, **evaluate: Any) -> Protocol:
    """The protocol of a configuration with the pinned simulator."""
    config = run_config(**evaluate).model_dump(mode="json")
    return protocols.from_config(config, VERSIONS, "osmesa", sight)


def test_each_suite_has_its_limit() -> None:
    found = protocol_of(suites={"libero_spatial": [0], "libero_10": []})
    assert found.max_steps == {"libero_10": 520, "libero_spatial": 220}
    assert found.suite == "libero_10, libero_spatial"
    assert found.limits == "520 (libero_10), 220 (libero_spatial)"
    assert protocol_of().limits == "280"


def test_every_field_moves_the_fingerprint() -> None:
    base = protocol_of()
    seen = {base.fingerprint()}
    for field in fields(Protocol):
        old = getattr(base, field.name)
        new = {str: f"{old}!", int: 99, dict: {"libero_90": 400}, tuple: ("x",)}[type(old)]
        seen.add(replace(base, **{field.name: new}).fingerprint())
    assert len(seen) == 1 + len(fields(Protocol))


def test_what_the_policy_sees_and_the_order_of_resets_are_part_of_it(tmp_path: Path) -> None:
    views = ("agentview", "eye_in_hand", "background")
    found = protocol_of(Sight("libero-eef6d 0123", views), reset="openvla-sequential")
    assert (found.preprocessing, found.views) == ("libero-eef6d 0123", views)
    assert found.reset_rule.startswith("seed-once")
    protocols.publish(found, tmp_path)
    assert protocols.read(tmp_path) == found


def test_only_common_suites_are_compared() -> None:
    one = protocol_of(suites={"libero_goal": [], "libero_10": []})
    assert differing_fields(one, protocol_of(suites={"libero_goal": [], "libero_90": []})) == []
    other = replace(one, max_steps={"libero_goal": 720, "libero_90": 400})
    assert differing_fields(one, other) == [
        ("max_steps", "{'libero_goal': 300}", "{'libero_goal': 720}")
    ]


@pytest.mark.parametrize("field", ["mujoco", "execution_horizon", "reset_rule", "settle_steps"])
def test_other_fields_still_differ(field: str) -> None:
    one = protocol_of()
    other = replace(one, **{field: "x" if isinstance(getattr(one, field), str) else 99})
    assert [name for name, _, _ in differing_fields(one, other)] == [field]
