"""A policy of the public shape, end to end: what it computes, how often, and for whom alike."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from launcher.core.errors import RefusedError
from rdt import diffusion
from rdt.data import rotations, unified
from rdt.encoders import pictures
from rdt.policy.loading import Settings, assemble
from rdt.policy.memory import Memory
from rdt.policy.rdt import Request
from rdt.policy.sight import REMEMBERED
from rdt.spec.contract import LIBERO_EEF6D, LIBERO_RAW_VELOCITY, LIBERO_VELOCITY
from tests.rdt import golden, small_policy

pytestmark = pytest.mark.train
DTYPES = (torch.float32, torch.bfloat16)
RECORDED = [0.182845682, 0.653947115, -0.423253775]


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    """As an evaluation runs; the sums of a batch then do not depend on the number of cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@torch.inference_mode()
def plainly(request: Request) -> np.ndarray:
    """The chunk (H, 128) of the same weights, written out: six pictures, nothing remembered."""
    policy = small_policy.policy()
    net, contract, observed = policy.network, policy.contract, request.observation
    grey = pictures.grey(small_policy.SIZE)
    slots = []
    for moment in (observed.previous, observed.pictures):
        for camera in ("agentview", "eye_in_hand", ""):
            seen = moment is not None and camera
            slots.append(pictures.fitted(moment[camera], small_policy.SIZE) if seen else grey)
    features = policy.sight.vision(torch.from_numpy(np.stack(slots)))
    tokens = policy.language.tokens(observed.instruction)[None]
    valid = torch.ones(tokens.shape[:2], dtype=torch.bool)
    keys = net.keys(tokens, valid, features.reshape(1, -1, features.shape[-1]))
    robot = unified.RobotState(
        observed.eef_pos,
        rotations.quat_to_axis_angle(observed.eef_quat),
        observed.gripper_qpos,
        observed.joint_pos,
    )
    state = torch.from_numpy(unified.encode_state(robot, contract)).float()[None, None]
    mask = torch.zeros(1, 1, 128)
    mask[..., [10, 39, 40, 41, 42, 43, 44]] = 1
    noise = policy._noise(request)[None]
    alphas = diffusion.alphas_cumprod()
    return net.sample(state, mask, torch.tensor([20.0]), keys, noise, alphas)[0].numpy()


@pytest.mark.parametrize("seed", [4, 5, 6])
@pytest.mark.parametrize("batching", ["fixed", "free"])
def test_equals_the_plain_computation(seed: int, batching: Any) -> None:
    """First query of an episode (4) and later ones; a short and a long instruction (5, 6)."""
    request = small_policy.request(seed)
    found = small_policy.policy(batching=batching).chunks([request])
    expected = plainly(request)
    assert np.abs(found.unified[0] - expected).max() <= 1e-5 * np.abs(expected).max()
    decoded = unified.decode_action(expected, LIBERO_RAW_VELOCITY)
    assert np.abs(found.actions[0] - decoded).max() <= 1e-4
    assert found.actions.shape == (1, small_policy.HORIZON, 7)
    assert found.actions.dtype == np.float32


@pytest.mark.parametrize("dtype", DTYPES)
def test_encoders_from_disk_to_decoded_actions(tmp_path: Path, dtype: torch.dtype) -> None:
    """SigLIP in a folder, sentences encoded beforehand, pictures of a camera: actions."""
    small_policy.vision().model.save_pretrained(tmp_path / "siglip")
    for text in small_policy.INSTRUCTIONS:
        tokens = small_policy.Sentences().tokens(text)
        small_policy.save_sentence(tmp_path / "sentences", text.replace(" ", "_"), tokens)
    chosen = Settings(
        dtype=dtype, vision=str(tmp_path / "siglip"), language=str(tmp_path / "sentences")
    )
    contract = LIBERO_RAW_VELOCITY
    network = small_policy.network(small_policy.config())
    policy = assemble(network, small_policy.card(contract), contract, 5, chosen)
    requests = [small_policy.request(i) for i in range(3)]
    found, expected = policy.chunks(requests), small_policy.policy(dtype).chunks(requests)
    np.testing.assert_array_equal(found.unified, expected.unified)
    assert found.actions.shape == (3, small_policy.HORIZON, 7)
    assert np.abs(found.actions).max() <= 1
    assert set(np.unique(found.actions[..., 6])) <= {-1, 1}


@settings(max_examples=12, deadline=None)
@given(
    order=st.permutations(range(9)),
    count=st.integers(1, 9),
    rows=st.sampled_from([1, 2, 4]),
    dtype=st.sampled_from(DTYPES),
)
def test_fixed_answers_depend_on_nobody(
    order: list[int], count: int, rows: int, dtype: torch.dtype
) -> None:
    """Any subset in any order, cut at any place: bit for bit what everyone gets alone."""
    policy = small_policy.policy(dtype, rows=rows)
    chosen = order[:count]
    split = count // 2
    found = [
        answer
        for part in (chosen[:split], chosen[split:])
        if part
        for answer in policy.chunks([small_policy.request(i) for i in part]).unified
    ]
    for index, answer in zip(chosen, found, strict=True):
        alone = small_policy.policy(dtype, rows=rows).chunks([small_policy.request(index)])
        np.testing.assert_array_equal(answer, alone.unified[0])


@pytest.mark.parametrize("rows", [1, 2, 4])
def test_fixed_batches_have_one_shape(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks as small as these round alike in any batch, so the shapes are looked at too."""
    policy, sizes = small_policy.policy(rows=rows), defaultdict(set)

    def spied(name: str, function: Any, size: Any) -> Any:
        def call(*arguments: Any) -> Any:
            sizes[name].add(size(*arguments))
            return function(*arguments)

        return call

    network, sight = policy.network, policy.sight
    monkeypatch.setattr(sight, "vision", Spied(sight.vision, sizes["vision"]))
    for name in ("lang_keys", "adapt_pictures", "img_keys"):
        call = spied(name, getattr(network, name), lambda tokens, *_: tokens.shape[0])
        monkeypatch.setattr(network, name, call)
    call = spied("sample", network.sample, lambda state, *_: len(state))
    monkeypatch.setattr(network, "sample", call)
    policy.chunks([small_policy.request(i) for i in range(7)])
    assert sizes.pop("sample") == {rows}
    assert sizes.keys() == {"vision", "lang_keys", "adapt_pictures", "img_keys"}
    assert all(found == {1} for found in sizes.values()), sizes


class Spied:
    """A vision encoder that notes how many pictures come at once."""

    def __init__(self, vision: Any, sizes: set[int]) -> None:
        self._vision, self._sizes, self.size = vision, sizes, vision.size

    def __call__(self, pictures: torch.Tensor) -> torch.Tensor:
        self._sizes.add(len(pictures))
        return self._vision(pictures)


def test_free_answers_are_the_same_numbers() -> None:
    requests = [small_policy.request(i) for i in range(9)]
    free = small_policy.policy(batching="free").chunks(requests).unified
    fixed = small_policy.policy(rows=4).chunks(requests).unified
    assert np.abs(free - fixed).max() <= 1e-5 * np.abs(fixed).max()
    assert not np.array_equal(fixed[0], fixed[1])


def test_bf16_is_near_fp32() -> None:
    requests = [small_policy.request(i) for i in range(4)]
    exact, rounded = (
        torch.from_numpy(small_policy.policy(d).chunks(requests).unified) for d in DTYPES
    )
    assert 1e-4 < golden.distance(rounded, exact) < 0.05


def test_noise_is_that_of_seed_episode_and_query() -> None:
    request, policy = small_policy.request(5), small_policy.policy()
    changes = (request, replace(request, episode="other"), replace(request, query=9), request)
    first, episode, query, again = (policy.chunks([c]).unified.tobytes() for c in changes)
    policy.seed += 1
    seed = policy.chunks([request]).unified.tobytes()
    assert first == again
    assert len({first, episode, query, seed}) == 4


def test_noise_is_the_same_on_every_machine_and_in_every_version() -> None:
    """Recorded numbers: results of one seed stay comparable."""
    noise = small_policy.policy()._noise(replace(small_policy.request(5), episode="e", query=2))
    assert noise[0, :3].tolist() == pytest.approx(RECORDED, abs=1e-6)


def queries(horizon: int, count: int, episode: str = "a") -> list[Request]:
    """Queries of one episode with ``horizon`` control steps between them."""
    return [
        Request(small_policy.observation(s, first=s == 0), episode, n)
        for n, s in enumerate(range(0, count * horizon, horizon))
    ]


def passes(policy: Any, requests: list[Request]) -> list[int]:
    """Pictures that went through the vision encoder at each query."""
    counts = []
    for request in requests:
        before = policy.sight.passes
        policy.chunks([request])
        counts.append(policy.sight.passes - before)
    return counts


@pytest.mark.parametrize(("horizon", "later"), [(16, 4), (1, 2)])
def test_no_picture_is_encoded_twice_or_for_nothing(horizon: int, later: int) -> None:
    """Two of six slots belong to a camera that is absent; a new process adds one grey pass."""
    policy = small_policy.policy()
    assert passes(policy, queries(horizon, 4)) == [2 + 1, later, later, later]
    again = [replace(r, episode="b") for r in queries(horizon, 2)]
    assert passes(policy, again) == [0, 0]  # the very same pictures
    other = Request(small_policy.observation(900, first=True), "c", 0)
    assert passes(policy, [other]) == [2]


def test_passes_of_a_batch_go_together() -> None:
    policy = small_policy.policy(batching="free")
    calls: list[int] = []
    vision = policy.sight.vision

    class Counting:
        size = vision.size

        def __call__(self, shown: Tensor) -> Tensor:
            calls.append(len(shown))
            return vision(shown)

    policy.sight.vision = Counting()
    batch = [Request(small_policy.observation(10 * i + 10), f"{i}", 1) for i in range(3)]
    policy.chunks(batch)
    assert sorted(calls) == [1, 12]
    policy.chunks([replace(r, query=2) for r in batch])
    assert sorted(calls) == [1, 12]


def test_memory_of_pictures_is_bounded() -> None:
    policy = small_policy.policy()
    for request in queries(16, 20):
        policy.chunks([request])
    assert policy.sight.passes == 1 + 2 + 19 * 4
    assert len(policy.sight._known) == REMEMBERED


def test_memory_forgets_what_was_used_longest_ago() -> None:
    memory: Memory[int] = Memory(2)
    memory.put("a", 1)
    memory.put("b", 2)
    assert memory.get("a") == 1
    memory.put("c", 3)
    assert (memory.get("b"), memory.get("a"), memory.get("c"), len(memory)) == (None, 1, 3, 2)


def test_keys_lie_once_in_one_buffer_per_block() -> None:
    """The documented size, and no new buffers while batches keep their shape."""
    policy = small_policy.policy(rows=2)
    policy.chunks([small_policy.request(0)])
    keys = policy._conditions._buffers
    pointers = [k.k.data_ptr() for k in keys]
    numbers = sum(k.k.numel() + k.v.numel() for k in keys)
    assert numbers == 2 * (2 * 32 * (2 * 6 * 9 + 2 * 32))  # rows, k and v, h, odd and even blocks
    policy.chunks([small_policy.request(i) for i in (1, 3, 4)])
    assert [k.k.data_ptr() for k in policy._conditions._buffers] == pointers


@pytest.mark.parametrize("camera", ["agentview", "eye_in_hand"])
def test_a_missing_camera_is_named(camera: str) -> None:
    observed = small_policy.observation(3)
    del observed.pictures[camera]
    with pytest.raises(RefusedError) as caught:
        small_policy.policy().chunks([Request(observed, "a", 1)])
    assert caught.value.problem.code == "RDTL-E031"
    assert camera in caught.value.problem.what


def test_a_step_before_that_was_not_rendered_is_refused() -> None:
    observed = replace(small_policy.observation(3), previous=None)
    policy = small_policy.policy()
    assert policy.sees_previous
    with pytest.raises(RefusedError, match=r"RDTL-E031[\s\S]*previous, at query 1"):
        policy.chunks([Request(observed, "a", 1)])
    policy.chunks([Request(observed, "a", 0)])  # on the first one there is no step before


@pytest.mark.parametrize(
    ("field", "index", "value", "slot"),
    [
        ("joint_pos", 3, np.nan, "slot 3: joint position 3 (rad)"),
        ("gripper_qpos", 0, np.inf, "slot 10: "),
    ],
)
def test_a_state_that_is_no_number(field: str, index: int, value: float, slot: str) -> None:
    observed = small_policy.observation(3)
    getattr(observed, field)[index] = value
    with pytest.raises(RefusedError) as caught:
        small_policy.policy().chunks([Request(observed, "a", 1)])
    assert caught.value.problem.code == "RDTL-E043"
    assert caught.value.problem.where.startswith(slot)


def test_an_infinite_number_behind_a_clip() -> None:
    observed = small_policy.observation(3)
    observed.gripper_qpos[0] = np.inf
    policy = small_policy.policy(contract=LIBERO_VELOCITY, cameras=2)
    with pytest.raises(RefusedError, match=r"RDTL-E043[\s\S]*slot 10: gripper opening"):
        policy.chunks([Request(observed, "a", 1)])


@pytest.mark.parametrize(
    ("field", "value", "slot"),
    [
        ("eef_quat", [0.0, 0.0, 0.0, np.nan], "slot 33: "),
        ("eef_quat", [0.0, 0.0, 0.0, np.inf], "slot 33: "),
        ("eef_quat", [0.0, 0.0, 0.0, 0.0], "slot 33: "),
        ("eef_pos", [0.0, 1e39, 0.0], "slot 31: "),
    ],
)
def test_a_pose_that_is_none(field: str, value: list[float], slot: str) -> None:
    observed = replace(small_policy.observation(3), **{field: np.array(value)})
    policy = small_policy.policy(contract=LIBERO_EEF6D)
    with pytest.raises(RefusedError) as caught:
        policy.chunks([Request(observed, "some-episode", 1)])
    assert caught.value.problem.code == "RDTL-E043"
    assert caught.value.problem.where.startswith(slot)
    assert "'some-episode', query 1" in caught.value.problem.where


@pytest.mark.parametrize("change", ["float", "grey", "alpha"])
def test_a_picture_of_another_form(change: str) -> None:
    observed = small_policy.observation(0, first=True)
    seen = observed.pictures["agentview"]
    forms = {"float": seen / 255, "grey": seen[..., 0], "alpha": seen[..., [0, 1, 2, 0]]}
    observed.pictures["agentview"] = forms[change]
    with pytest.raises(RefusedError, match=r"RDTL-E031[\s\S]*agentview is"):
        small_policy.policy().chunks([Request(observed, "a", 0)])


@pytest.mark.parametrize(("batching", "rows"), [("Fixed", 1), ("fixed", 0)])
def test_a_batching_that_is_none(batching: Any, rows: int) -> None:
    with pytest.raises(ValueError, match="fixed or free, from 1 row"):
        small_policy.policy(batching=batching, rows=rows)


class Speaks:
    """A text encoder whose tokens have the given shape."""

    def __init__(self, *shape: int) -> None:
        self.shape = shape

    def tokens(self, instruction: str) -> Tensor:
        return torch.zeros(self.shape)


@pytest.mark.parametrize(
    ("shape", "code", "words"),
    [
        ((5, 768), "RDTL-D021", "width 768; config.json: lang_token_dim = 24"),
        ((65, 24), "RDTL-D043", "max_lang_cond_len = 64"),
    ],
)
def test_language_that_does_not_fit(shape: tuple[int, int], code: str, words: str) -> None:
    policy = small_policy.policy()
    policy.language = Speaks(*shape)
    with pytest.raises(RefusedError) as caught:
        policy.chunks([small_policy.request(1)])
    assert caught.value.problem.code == code
    assert words in caught.value.problem.where
    policy.language = Speaks(64, 24)
    policy.chunks([small_policy.request(2)])


@pytest.mark.parametrize(("history", "cameras", "code"), [(3, 2, "RDTL-T021"), (2, 1, "RDTL-T021")])
def test_picture_grids_that_do_not_fit(history: int, cameras: int, code: str) -> None:
    with pytest.raises(RefusedError, match=code):
        small_policy.policy(history=history, cameras=cameras)


def test_a_network_of_one_moment_needs_no_step_before() -> None:
    policy = small_policy.policy(contract=LIBERO_VELOCITY, history=1, cameras=2)
    assert not policy.sees_previous
    assert passes(policy, queries(16, 3)) == [2, 2, 2]  # no camera is absent: nothing is grey
