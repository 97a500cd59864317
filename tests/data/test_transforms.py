"""What transforms do to a sample: the right amount of it, and the same wherever it is prepared."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from rdt.data import augmentation, draws
from rdt.data.augmentation import Draws
from rdt.data.batch import Batch
from rdt.data.loader import Loader
from rdt.data.order import MASK, Order, mix
from rdt.data.sample_source import SampleSource
from rdt.data.sampler import Sampler
from rdt.data.store import open_store
from rdt.data.transforms import Transforms
from rdt.spec.contract import LIBERO_VELOCITY
from tests.data import noise

CPU = torch.device("cpu")
CALM = Draws(*[0.5] * len(Draws._fields))
POSITIONS = np.arange(20_000)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> SampleSource:
    folder = tmp_path_factory.mktemp("noise") / "set"
    return SampleSource(
        [open_store(noise.write(noise.demos((3, 40, 70), size=20), folder))], LIBERO_VELOCITY
    )


def batch_of(source: SampleSource, samples: NDArray[np.int64], position: int = 0) -> Batch:
    return source.fill(samples, source.empty(len(samples)), position).batch


def mean_of(source: SampleSource) -> NDArray[np.float64]:
    return np.linspace(1, 2, 128) * np.isin(np.arange(128), source.contract.state_slots)


def test_numbers_are_uniform_normal_and_unrelated() -> None:
    values = draws.uniform(1, POSITIONS, 2, 3)
    for column in values.T:
        counts = np.bincount((column * 20).astype(int), minlength=20)
        assert ((counts - 1000) ** 2 / 1000).sum() < 43.8, "chi square, 19 degrees, p = 0.001"
    others = [draws.uniform(2, POSITIONS, 2, 1), draws.uniform(1, POSITIONS, 3, 1)]
    columns = np.concatenate([values, np.roll(values, 1, axis=0), *others], axis=1)
    correlation = np.corrcoef(columns.T) - np.eye(columns.shape[1])
    assert np.abs(correlation).max() < 4 / math.sqrt(len(POSITIONS))
    normal = draws.normal(1, POSITIONS, 2, 2)
    assert np.abs(normal.mean(0)).max() < 0.03
    np.testing.assert_allclose(normal.std(0), 1, atol=0.02)
    np.testing.assert_allclose((np.abs(normal) > 1.96).mean(0), 0.05, atol=0.006)


def test_pixels_are_the_hash_of_the_order() -> None:
    """Signed words that wrap and shift give what unsigned ones do."""
    for key in (0, 5, MASK, 0x8000000000000001):
        words = mix(np.arange(1000, dtype=np.uint64) + np.uint64(key), 0) >> np.uint64(41)
        expected = (words.astype(np.float32) + 0.5) * 2.0**-23
        found = draws.pixels(key, (10, 100), CPU)
        np.testing.assert_array_equal(found.reshape(-1), expected)
        assert found.min() > 0 and found.max() < 1


def everything(source: SampleSource, size: int = 24) -> Transforms:
    return Transforms(source.contract, 3, size, 0.5, 40.0, 0.1, 0.2)


def test_a_sample_is_the_same_in_any_batch_and_alone(source: SampleSource) -> None:
    transforms, spread = everything(source), source.state_spread()
    samples = Order(source.index.sizes, 1).at(np.arange(48))
    whole = batch_of(source, samples)
    out = transforms(whole, mean_of(source), spread, CPU)
    places = dict(zip(whole.positions.tolist(), range(48), strict=True))
    for position in range(48):
        alone = batch_of(source, samples[position : position + 1], position)
        for name, found in transforms(alone, mean_of(source), spread, CPU)._asdict().items():
            expected = getattr(out, name)[places[position]]
            assert torch.equal(found[0], expected), f"{name} at {position}"


def test_ranks_and_a_resume_transform_alike(source: SampleSource) -> None:
    """By position: what 1 rank and 3 ranks show, the latter after a resume."""
    transforms, spread = everything(source), source.state_spread()
    order = Order(source.index.sizes, 1)

    def shown(ranks: int, micro: int, first: int) -> dict[int, torch.Tensor]:
        found = {}
        for rank in range(ranks):
            with Loader(source, Sampler(order, ranks * micro, micro, ranks), rank) as loader:
                loader.load_state_dict({"taken": first, "order": order.identity})
                while loader.taken < 36:
                    batch = next(loader)
                    out = transforms(batch, mean_of(source), spread, CPU)
                    found |= dict(zip(batch.positions.tolist(), out.pictures, strict=True))
        return found

    one, three = shown(1, 9, 0), shown(3, 4, 12)
    assert sorted(one) == list(range(36)) and sorted(three) == list(range(12, 36))
    assert all(torch.equal(picture, one[position]) for position, picture in three.items())


def test_nothing_is_changed_unless_asked_for(source: SampleSource) -> None:
    batch = batch_of(source, np.arange(60))
    plain = Transforms(source.contract, 3, 20)
    out = plain(batch, mean_of(source), source.state_spread(), CPU)
    np.testing.assert_array_equal(out.pictures, batch.pictures)
    np.testing.assert_array_equal(out.present, batch.present)
    np.testing.assert_array_equal(out.states, batch.states)
    np.testing.assert_array_equal(out.actions, batch.actions)
    assert out.words.all() and (out.freq == source.contract.control_hz).all()
    assert np.flatnonzero(out.mask[0]).tolist() == sorted(source.contract.mask_slots)
    batch.pictures[:], batch.actions[:] = 0, 0
    assert out.pictures.any() and out.actions.any(), "the loader's arrays may be used again"


def repeated(source: SampleSource, sample: int, count: int) -> Batch:
    """One sample at many positions."""
    return batch_of(source, np.full(count, sample), 1000)


def test_noise_of_the_state_is_a_share_of_its_spread(source: SampleSource) -> None:
    """40 dB is 1 %, 20 dB 10 % of the episode's own spread; unused slots stay 0."""
    rows = open_store(source.stores[0].path).robot.eef_pos
    spread = source.state_spread()
    slots = [30, 31, 32]
    np.testing.assert_allclose(spread[1, slots], np.asarray(rows)[3:43].std(0), rtol=1e-5)
    batch = repeated(source, 10, 4000)
    for decibel, share in ((40.0, 0.01), (20.0, 0.1)):
        transforms = Transforms(source.contract, 3, 1, noise_db=decibel)
        tiny = batch._replace(pictures=batch.pictures[:, :, :, :1, :1])
        states = transforms(tiny, mean_of(source), spread, CPU).states.numpy()
        found = (states - batch.states).std(0)
        np.testing.assert_allclose(found, share * spread[1], rtol=0.06, atol=1e-7)
        assert np.abs((states - batch.states).mean(0)).max() < 0.1 * share * spread.max()


def test_conditions_are_dropped_each_by_itself(source: SampleSource) -> None:
    batch = repeated(source, 60, 6000)
    tiny = batch._replace(pictures=batch.pictures[:, :, :, :1, :1])
    transforms = Transforms(source.contract, 3, 1, dropped=0.1, dropped_external=0.3)
    out = transforms(tiny, mean_of(source), source.state_spread(), CPU)
    real = np.flatnonzero(batch.present[0].reshape(-1))
    gone = {
        "state": (out.states == torch.from_numpy(mean_of(source)).float()).all(1),
        "mask": (out.mask == 0).all(1),
        "freq": out.freq == 0,
        "words": ~out.words,
    } | {f"picture {n}": ~out.present.flatten(1)[:, n] for n in real.tolist()}
    assert len(gone) == 4 + 4, "two moments of two cameras"
    shares = {name: float(values.float().mean()) for name, values in gone.items()}
    per_moment = len(source.contract.cameras)
    for name, share in shares.items():
        external = name in ("picture 0", f"picture {per_moment}")
        assert abs(share - (0.3 if external else 0.1)) < 0.02, name
    correlation = np.corrcoef(np.stack([values.numpy() for values in gone.values()]))
    assert np.abs(correlation - np.eye(len(gone))).max() < 0.05
    dropped = out.pictures[~out.present]
    assert (dropped == 127).all() and len(dropped)
    np.testing.assert_array_equal(out.actions, batch.actions)


def test_half_of_the_pictures_that_are_there_are_augmented(source: SampleSource) -> None:
    batch = repeated(source, 60, 150)
    transforms = Transforms(source.contract, 3, 20, augmented=0.5)
    out = transforms(batch, mean_of(source), source.state_spread(), CPU)
    changed = (out.pictures.numpy() != batch.pictures).any(axis=(3, 4, 5))
    assert not changed[~batch.present].any()
    assert abs(changed[batch.present].mean() - 0.5) < 0.07


def row_of(position: int) -> Draws:
    return Draws._make(draws.uniform(5, np.array([position]), 1, len(Draws._fields))[0].tolist())


def test_every_kind_comes_as_often_as_the_reference_has_it() -> None:
    rows = Draws(*draws.uniform(5, POSITIONS, 1, len(Draws._fields)).T)  # type: ignore[arg-type]
    pick = np.vectorize(augmentation.chosen)
    for numbers, kinds in ((rows.kind, 3), (rows.noise, 3), (rows.blur, 3), (rows.order, 24)):
        shares = np.bincount(pick(numbers, 0, kinds - 1)) / len(POSITIONS)
        assert len(shares) == kinds
        np.testing.assert_allclose(shares, 1 / kinds, atol=0.012)
    for low, high in ((2, 7), (3, 36), (3, 11)):
        found = pick(rows.blur_size, low, high)
        assert (found.min(), found.max()) == (low, high)


@pytest.mark.parametrize(
    ("kind", "spread", "kurtosis"), [(0.1, 1, 3), (0.5, math.sqrt(2), 6), (0.9, None, None)]
)
def test_noise_has_its_distribution(kind: float, spread: float | None, kurtosis: float | None):
    grey = torch.full((3, 128, 128), 127.0)
    draw = CALM._replace(noise=kind, noise_strength=0.8, per_channel=0.0)
    change = (augmentation.noisy(grey, draw, 99) - grey).double()
    strength = 0.8 * 0.05 * 255
    expected = math.sqrt(strength**2 + strength) if spread is None else spread * strength
    assert abs(change.mean()) < 0.25
    assert abs(change.std() / expected - 1) < 0.02
    if kurtosis is not None:
        assert abs((change**4).mean() / change.var() ** 2 / kurtosis - 1) < 0.1
    correlation = np.corrcoef(change.reshape(3, -1).numpy()) - np.eye(3)
    assert np.abs(correlation).max() < 0.03
    common = augmentation.noisy(grey, draw._replace(per_channel=0.7), 99)
    assert (common[0] == common[1]).all() and common.std() > 1


def photo() -> NDArray[np.uint8]:
    """Smooth colours, all hues."""
    small = np.random.default_rng(0).integers(0, 256, (6, 6, 3), np.uint8)
    return np.asarray(Image.fromarray(small).resize((60, 60), Image.Resampling.BICUBIC))


@pytest.mark.parametrize("strength", [0.0, 0.3, 1.0])
def test_colours_change_as_pillow_changes_them(strength: float) -> None:
    """Brightness, contrast and saturation alone, each within 2 of 255."""
    picture = torch.from_numpy(photo().copy()).permute(2, 0, 1).float()
    for name, reach, enhancer in (
        ("brightness", 0.3, ImageEnhance.Brightness),
        ("contrast", 0.4, ImageEnhance.Contrast),
        ("saturation", 0.5, ImageEnhance.Color),
    ):
        found = augmentation.jittered(picture, CALM._replace(**{name: strength}))
        factor = 1 + reach * (2 * strength - 1)
        expected = np.asarray(enhancer(Image.fromarray(photo())).enhance(factor), np.float64)
        assert np.abs(found.permute(1, 2, 0).numpy() - expected).max() <= 2, name
    assert (augmentation.jittered(picture, CALM) == picture).all()


def test_the_hue_turns_and_grey_stays() -> None:
    import colorsys

    colours = photo()[::7, ::7].reshape(-1, 3) / 255
    turned = augmentation.jittered(
        torch.from_numpy(colours.T[:, :, None] * 255).float().round(), CALM._replace(hue=1.0)
    )
    for colour, found in zip(colours, turned[:, :, 0].T.numpy(), strict=True):
        h, s, v = colorsys.rgb_to_hsv(*np.round(colour * 255) / 255)
        expected = np.array(colorsys.hsv_to_rgb((h + 0.03) % 1, s, v)) * 255
        assert np.abs(found - expected).max() <= 1
    grey = torch.full((3, 4, 4), 90.0)
    assert (augmentation.jittered(grey, CALM._replace(hue=0.0)) == grey).all()


def dot(size: int = 61) -> torch.Tensor:
    out = torch.zeros(3, size, size)
    out[:, size // 2, size // 2] = 255.0
    return out


def test_blurs_are_what_they_are_called() -> None:
    average = CALM._replace(blurred=0.0, motion=0.9, blur=0.5, blur_size=0.99)
    spot = augmentation.blurred(dot(), average)[0]
    assert (spot > 0).sum() == 49 and (spot[spot > 0] == round(255 / 49)).all()
    assert not augmentation.blurred(dot(), average._replace(blur=0.9)).any(), "a median ends it"
    assert (augmentation.blurred(dot(), average._replace(blurred=0.6)) == dot()).all()
    kernel = augmentation.gaussian_kernel(2.0)
    offsets = torch.arange(len(kernel)) - len(kernel) // 2
    assert abs(float((kernel.sum(0) * offsets**2).sum()) - 4) < 0.1
    line = augmentation.motion_kernel(21, 0.25, 0.5)
    assert (line.sum(1) > 0).all() and ((line > 1e-6).sum(1) == 1).all(), "a quarter turn: upright"
    assert abs(float(line.sum()) - 1) < 1e-6
    slanted = augmentation.motion_kernel(21, 0.125, 0.5)
    assert 12 <= int((slanted.sum(1) > 1e-6).sum()) <= 17
    one_sided = augmentation.motion_kernel(21, 0.25, 1.0).sum(1)
    assert one_sided[0] > 10 * one_sided[-1]
    flat = torch.full((3, 40, 40), 200.0)
    for position in range(40):
        draw = row_of(position)._replace(blurred=0.0)
        assert (augmentation.blurred(flat, draw) - flat).abs().max() <= 1, "brightness stays"


@pytest.mark.parametrize("size", [3, 7, 11])
def test_the_median_is_that_of_each_window(size: int) -> None:
    values = np.random.default_rng(size).integers(0, 256, (3, 20, 30)).astype(np.float32)
    padded = np.pad(values, ((0, 0), (size // 2,) * 2, (size // 2,) * 2), mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size), axis=(1, 2))
    draw = CALM._replace(blurred=0.0, motion=0.9, blur=0.9, blur_size=(size - 2.5) / 9)
    found = augmentation.blurred(torch.from_numpy(values), draw)
    np.testing.assert_array_equal(found.numpy(), np.median(windows, axis=(3, 4)))


def test_order_of_noise_and_blur_matters() -> None:
    draw = CALM._replace(blurred=0.0, motion=0.9, blur=0.5, noise_strength=1.0, noise=0.0)
    flat = torch.full((3, 60, 60), 100.0)
    last = augmentation.corrupted(flat, draw._replace(blur_first=0.0), 1).std()
    first = augmentation.corrupted(flat, draw._replace(blur_first=0.9), 1).std()
    assert last > 3 * first, "noise behind the blur keeps its strength"


def test_other_seeds_and_epochs_change_a_sample_otherwise(source: SampleSource) -> None:
    batch = batch_of(source, np.array([60]), 7)
    later = batch_of(source, np.array([60]), 7 + len(source.index))
    transforms = Transforms(source.contract, 3, 20, augmented=1.0, noise_db=20.0)
    arguments = (mean_of(source), source.state_spread(), CPU)
    first = transforms(batch, *arguments)
    for other in (transforms(later, *arguments), replace(transforms, seed=4)(batch, *arguments)):
        assert not torch.equal(first.pictures, other.pictures)
        assert not torch.equal(first.states, other.states)


def test_pictures_of_other_shapes_are_padded_behind_the_augmentation(tmp_path: Path) -> None:
    """The grey at the sides is not augmented."""
    batch = Batch(
        *(np.zeros(1, np.int64),) * 3,
        np.zeros((1, 4, 128), np.float32),
        np.ones((1, 4), np.bool_),
        np.zeros((1, 128), np.float32),
        np.full((1, 1, 1, 20, 40, 3), 60, np.uint8),
        np.ones((1, 1, 1), np.bool_),
    )
    transforms = Transforms(LIBERO_VELOCITY, 3, 40, augmented=1.0)
    out = transforms(batch, np.zeros(128), np.zeros((1, 128)), CPU).pictures[0, 0, 0]
    assert (out[:10] == 127).all() and (out[30:] == 127).all()
    assert (out[10:30] != 60).any()
