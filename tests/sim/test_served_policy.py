"""The same episode with the policy here and behind a server: the same bits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import torch
from PIL import Image

from jobs import evaluate
from launcher.core.errors import RefusedError, UsageError
from rdt.policy.remote import open_policy
from rdt.sim import sequential
from rdt.sim.episode import run_episode
from rdt.sim.libero import Simulator
from rdt.spec import protocol as protocols
from rdt.spec import record as records
from rdt.spec.contract import LIBERO_EEF6D, LIBERO_RAW_VELOCITY
from rdt.spec.record import EpisodeKey
from tests.rdt import small_policy
from tests.serve import servers
from tests.sim.conftest import lender

pytestmark = [pytest.mark.sim, pytest.mark.train]
KEY = EpisodeKey("rdt", "libero_object", 0, 30, 0)
Build = Callable[..., Any]
STEPS, HORIZON = 13, 4


def episode(simulator: Simulator, policy: Any) -> Any:
    """A short episode."""
    simulator.task["max_steps"], before = STEPS, simulator.task["max_steps"]
    try:
        return run_episode(simulator, policy, KEY, HORIZON)
    finally:
        simulator.task["max_steps"] = before


def test_an_episode_through_a_server_is_that_of_the_policy_itself(seeing: Simulator) -> None:
    """Two moments, joints, raw pictures of 256 pixels; a batch of two with an empty place."""
    torch.set_num_threads(1)
    expected = episode(seeing, small_policy.policy(rows=2))
    with servers.ours(small_policy.policy(rows=2)) as uri:
        remote = open_policy(uri, patience_s=20)
        found = episode(seeing, remote)
        remote.close()
    assert found.actions_sha256 == expected.actions_sha256
    assert (found.queries, found.renders) == (expected.queries, expected.renders) == (4, 14)


def test_a_server_whose_chunks_are_too_short_ends_the_evaluation(
    tmp_path: Path, make_job: Build, config: Build, seeing: Simulator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """It declares nothing, so its first answer tells: the protocol would say 16, and 10 be done."""
    borrow = lender(seeing)
    monkeypatch.setattr(sequential, "Simulator", lambda task, blind, cameras: borrow(task))
    asked = {"policies": ["server"], "init_states": (30, 32), "execution_horizon": 16}
    with servers.foreign(lambda asked: {"actions": np.zeros((10, 7), np.float32)}) as (uri, heard):
        job = make_job(tmp_path, config(max_steps=STEPS, server=uri, **asked))
        with pytest.raises(UsageError, match="RDTL-E074") as caught:
            evaluate.body(job)
    assert "a chunk has 10" in caught.value.problem.what
    assert len(heard) == 1 and not list(records.read_lines(job.run.records))


@pytest.mark.slow
def test_our_server_under_another_contract_is_another_protocol(
    tmp_path: Path, make_job: Build, config: Build, seeing: Simulator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The same weights at the same address, adopted again: they mean something else."""
    borrow = lender(seeing)
    monkeypatch.setattr(sequential, "Simulator", lambda task, blind, cameras: borrow(task))
    own = LIBERO_RAW_VELOCITY
    with servers.ours(small_policy.policy()) as uri:
        asked = {"policies": ["server"], "server": uri, "execution_horizon": HORIZON}
        job = make_job(tmp_path, config(max_steps=STEPS, init_states=(30, 31), **asked))
        evaluate.body(job)
    other = small_policy.policy(contract=LIBERO_EEF6D)
    with servers.ours(other, port=urlsplit(uri).port):
        job = make_job(tmp_path, config(max_steps=STEPS, init_states=(30, 32), **asked))
        with pytest.raises(RefusedError, match="RDTL-E021") as caught:
            evaluate.body(job)
    assert "libero-eef6d" in caught.value.problem.where
    assert len(records.read_folder(job.run.records)) == 1
    found = protocols.read(job.run.records)
    assert found.preprocessing == f"{own.name} {own.digest()}"
    assert found.views == ("agentview", "eye_in_hand", "background")


def test_an_openpi_server_drives_the_simulator(seeing: Simulator) -> None:
    """It is sent what openpi's example sends: pictures turned by 180 degrees, then made smaller."""
    actions = np.tile(np.array([0, 0, 0, 0, 0, 0, -1], np.float32), (10, 1))
    with servers.foreign(lambda asked: {"actions": actions}) as (uri, asked):
        remote = open_policy(uri, patience_s=20)
        outcome = episode(seeing, remote)
        remote.close()
    assert len(asked) == outcome.queries == 4 and np.array_equal(outcome.actions, [actions[0]] * 13)
    seeing.reset(KEY.init_state)
    first = seeing.observation()
    for name, key in (("agentview", "image"), ("eye_in_hand", "wrist_image")):
        turned = Image.fromarray(np.ascontiguousarray(first.pictures[name][::-1, ::-1]))
        smaller = np.asarray(turned.resize((224, 224), Image.Resampling.BILINEAR))
        assert np.array_equal(asked[0][f"observation/{key}"], smaller)
    assert np.array_equal(asked[0]["observation/state"][:3], first.eef_pos)
    assert np.array_equal(asked[0]["observation/state"][6:], first.gripper_qpos)
    assert asked[0]["prompt"] == "pick up the alphabet soup and place it in the basket"
