"""What a person sees of a data set: the same in every layout, upright, with nothing hidden."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
from numpy.typing import NDArray

from jobs.inspect_data import look
from launcher.inspection import charts, page, words
from rdt.data import contact_sheet, inspection
from rdt.data.store import EpisodeStore, open_store
from tests.cli.run_rdtl import rdtl
from tests.data import writers
from tests.docs import pages
from tests.report.browser import CHROMIUM, DRIVER, Browser, browser
from tests.report.test_build import tags


def inspect(path: Path, pictures: bool = True, **changes: Any) -> dict[str, Any]:
    """The answer of the job, through JSON as it travels."""
    request = {
        "path": str(path),
        "contract": "libero-velocity",
        "tasks": [],
        "demos": [],
        "gripper_open": -1,
        "alignment": None,
        "pictures": pictures,
    }
    found: dict[str, Any] = json.loads(json.dumps(look(request | changes)))
    return found


def regenerated(
    demos: list[writers.Demo], folder: Path, change: Any = None, steps: int | None = None
) -> Path:
    """The demonstrations in HDF5; ``change`` gets the first one's actions."""
    first = demos[0].part(steps) if steps else demos[0]
    actions = first.arrays["actions"].copy()
    if change:
        change(actions)
    folder.mkdir()
    changed = replace(first, arrays=first.arrays | {"actions": actions})
    return writers.write_regenerated([changed, *demos[1:]], folder)


def picture(strip: dict[str, Any], place: int) -> NDArray[np.int16]:
    """One of a strip's three pictures."""
    shown = simplejpeg.decode_jpeg(base64.b64decode(strip["jpeg"]))
    side = shown.shape[0]
    assert shown.shape == (side, 3 * side + 2 * contact_sheet.GAP, 3)
    left = place * (side + contact_sheet.GAP)
    return np.asarray(shown[:, left : left + side], np.int16)


def test_copies_look_the_same(
    demos: list[writers.Demo], rlds: Path, lerobot2: Path, lerobot3: Path, tmp_path: Path
) -> None:
    """But for the layout, what is declared of the pictures, and rounding to float32."""
    first, *others = (
        inspect(path) for path in (regenerated(demos, tmp_path / "a"), rlds, lerobot2, lerobot3)
    )
    assert (first["episodes"], first["steps"]) == (2, sum(map(len, demos)))
    for found in others:
        for key in ("episodes", "steps", "samples", "lengths", "coverage", "picture_size"):
            assert found[key] == first[key]
        assert [t["steps"] for t in found["tasks"]] == [t["steps"] for t in first["tasks"]]
        assert (first["rotation"], found["rotation"]) == ("raw", "180")
        for ours, theirs in zip(first["actions"], found["actions"], strict=True):
            assert ours["counts"] == theirs["counts"]
            assert theirs["quantiles"] == pytest.approx(ours["quantiles"], abs=1e-6)
        for sheet, other in zip(first["sheets"], found["sheets"], strict=True):
            for ours, theirs in zip(sheet["strips"], other["strips"], strict=True):
                for place in range(3):
                    assert np.abs(picture(ours, place) - picture(theirs, place)).mean() < 3


def test_pictures_stand_upright(collected: Path, demos: list[writers.Demo]) -> None:
    """Row 0 of the file is the floor: it must come last. Left stays left."""
    found = inspect(collected)
    assert [sheet["camera"] for sheet in found["sheets"]] == ["agentview", "eye_in_hand"]
    strip = found["sheets"][0]["strips"][1]
    raw = demos[1].arrays["obs/agentview_rgb"]
    for place, step in enumerate(strip["steps"]):
        assert np.abs(picture(strip, place) - raw[step][::-1]).mean() < 4
        assert np.abs(picture(strip, place) - raw[step][::-1, ::-1]).mean() > 8
    sampled = np.flatnonzero(demos[1].arrays["obs/frame_step"] == np.arange(len(demos[1])))
    assert (strip["steps"][0], strip["steps"][2]) == (0, sampled[-1])


def test_large_pictures_are_averaged() -> None:
    shown = np.arange(2 * 300 * 300 * 3, dtype=np.uint32).reshape(2, 300, 300, 3).astype(np.uint8)
    small = contact_sheet._smaller(shown)
    assert small.shape == (2, 100, 100, 3)
    assert small[1, 7, 9, 2] == round(float(shown[1, 21:24, 27:30, 2].mean()))


def test_key_windows(collected: Path) -> None:
    store = open_store(collected)
    windows = inspection.key_windows(store)
    assert windows["all"].all()
    assert windows["ending"].sum() == 2 * inspection.ENDING
    assert windows["ending"][[store.ends[0] - 20, store.ends[0] - 1]].all()
    assert not windows["ending"][[store.ends[0] - 21, store.ends[0]]].any()
    for start, end in zip(store.starts, store.ends, strict=True):
        closing = start + int(np.flatnonzero(store.actions[start:end, 6] > 0)[0])
        near = windows["grasp"][start:end]
        assert near.sum() == 2 * inspection.AROUND_GRASP + 1
        assert windows["grasp"][closing - 10 : closing + 11].all()


def test_windows_stay_inside_their_episode(demos: list[writers.Demo], tmp_path: Path) -> None:
    """A command that closes on the last step, a short episode, and one that never closes."""

    def closes_last(actions: NDArray[np.float64]) -> None:
        actions[:, 6] = -1
        actions[-1, 6] = 1

    store = open_store(regenerated(demos[:1], tmp_path / "a", closes_last, steps=12))
    windows = inspection.key_windows(store)
    assert windows["ending"].all()  # shorter than the window
    assert windows["grasp"].tolist() == [False] + 11 * [True]
    store.actions[:, 6] = -1
    assert list(inspection.key_windows(store)) == ["all", "ending"]
    assert [row["window"] for row in inspection.shown(store)["rows"][::3]] == ["all", "ending"]


def test_coverage_of_the_three_orders(collected: Path) -> None:
    found = inspect(collected, pictures=False)
    assert found["sheets"] == []
    rows = {(row["order"], row["window"]): row for row in found["coverage"]["rows"]}
    for window in ("all", "ending", "grasp"):
        assert rows["enumerate", window]["seen"] == 1.0
    assert rows["random", "all"]["seen"] == pytest.approx(1 - np.exp(-1), abs=0.06)
    assert rows["tail-dropping", "ending"]["never"] == 1.0
    assert rows["tail-dropping", "all"]["never"] == pytest.approx(128 / found["steps"])


def test_numbers_that_are_none(demos: list[writers.Demo], tmp_path: Path) -> None:
    def spoil(actions: NDArray[np.float64]) -> None:
        actions[3, 1] = np.nan
        actions[5, 0] = 2.5

    found = inspect(regenerated(demos, tmp_path / "a", spoil))
    assert found["conventions"] == []
    assert [number["unfinite"] for number in found["actions"]] == [0, 1, 0, 0, 0, 0, 0]
    assert found["actions"][0]["edge"] == 2.5
    assert sum(found["actions"][1]["counts"]) == found["steps"] - 1
    assert words.verdict(found).endswith("do not train on these data.")
    text = page.render(found, "again")
    assert "1 NaN or infinite" in text
    assert "Nothing can be told from data with NaN" in text


def test_contradictions_stand_on_the_page(demos: list[writers.Demo], tmp_path: Path) -> None:
    def invert(actions: NDArray[np.float64]) -> None:
        actions[:, 6] *= -1

    found = inspect(regenerated(demos[:1], tmp_path / "a", invert))
    gripper = next(v for v in found["conventions"] if v["what"] == "gripper")
    assert (gripper["declared"], gripper["found"]) == ("-1 opens", "+1 opens")
    assert "RDTL-D016" in page.render(found, "again")
    declared = inspect(tmp_path / "a", gripper_open=1)
    assert not any(v["contradicts"] for v in declared["conventions"])


def test_a_picture_that_cannot_be_read_is_said(demos: list[writers.Demo], tmp_path: Path) -> None:
    episode = writers.rlds_episode(demos[0].part(30))
    episode["steps/observation/image"][29] = episode["steps/observation/image"][29][:200]
    folder = writers.write_rlds([episode], tmp_path / "set", shards=1)
    found = inspect(folder)
    outer, wrist = (sheet["strips"][0] for sheet in found["sheets"])
    assert outer["jpeg"] is None
    assert "cannot be decoded" in outer["error"]
    assert wrist["jpeg"]
    assert outer["error"].split(":")[0] in page.render(found, "again")


def test_which_episodes_are_shown(collected: Path) -> None:
    store = open_store(collected)
    assert contact_sheet.chosen(store) == [0, 1]
    many = _copies(store, tasks=30, each=5)
    assert len(contact_sheet.chosen(many)) == 30
    few = contact_sheet.chosen(_copies(store, tasks=2, each=9))
    assert few == [0, 3, 5, 8, 9, 12, 14, 17]


def _copies(store: EpisodeStore, tasks: int, each: int) -> EpisodeStore:
    """The first episode again and again, under other names."""
    store = open_store(store.path)
    length = store.episodes[0].length
    store.episodes = [
        replace(store.episodes[0], task=f"task {t}") for t in range(tasks) for _ in range(each)
    ]
    store.ends = np.arange(1, tasks * each + 1) * length
    store.starts = store.ends - length
    store.sampled = store.starts.copy()
    return store


def test_the_command(collected: Path, tmp_path: Path) -> None:
    before = collected.stat()
    out = tmp_path / "look"
    for columns in ("80", "120"):
        done = rdtl(
            "data", "inspect", str(collected), "--out", str(out), cwd=Path.cwd(),
            env={"COLUMNS": columns},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        lines = done.stdout.splitlines()
        assert max(len(line) for line in lines if str(tmp_path.parent) not in line) <= int(columns)
    assert "  tail-dropping" in done.stdout
    assert "Verification finds no error." in done.stdout
    assert (out / "index.html").is_file()
    done = rdtl("data", "inspect", str(collected), "--json", cwd=Path.cwd())
    found = json.loads(done.stdout)
    assert (found["episodes"], "sheets" in found) == (2, False)
    assert collected.stat() == before
    inside = collected.parent / "look"
    done = rdtl("data", "inspect", str(collected.parent), "--out", str(inside), cwd=Path.cwd())
    assert (done.returncode, "RDTL-D075" in done.stderr, inside.exists()) == (2, True, False)
    done = rdtl("data", "inspect", str(collected), "--out", str(collected / "x"), cwd=Path.cwd())
    assert (done.returncode, "RDTL-D075" in done.stderr) == (2, True)
    (tmp_path / "file").write_text("")
    wrong = str(tmp_path / "file/look")
    done = rdtl("data", "inspect", str(collected), "--out", wrong, cwd=Path.cwd())
    assert (done.returncode, "RDTL-G018" in done.stderr) == (1, True)


HOSTILE = "<script>alert(1)</script> & \"quoted\" 'x' </title>"


def test_the_page_is_one_whole_file(collected: Path) -> None:
    found = inspect(collected)
    found["name"] = found["tasks"][0]["task"] = HOSTILE
    found["sheets"][0]["strips"][0] |= {"task": HOSTILE, "episode": HOSTILE}
    found["actions"][0]["name"] = HOSTILE
    text = page.render(found, "again")
    assert "<script" not in text
    assert "://" not in text
    found_tags = [tag for tag, _ in tags(text)]
    assert found_tags.count("img") == 4
    assert found_tags.count("svg") == 9  # seven numbers, lengths, coverage
    assert text == page.render(found, "again")


@pytest.mark.parametrize("lengths", [[3], [64, 64], [1, 2000], [100, 101, 505], [118, 119]])
def test_lengths_are_drawn_inside_their_frame(lengths: list[int]) -> None:
    own = np.asarray(lengths)
    found = {
        "lengths": inspection._spread(own) | {"histogram": inspection._length_histogram(own)},
        "coverage": {"horizon": 64},
    }
    assert sum(found["lengths"]["histogram"]["counts"]) == len(lengths)
    drawn = tags(charts.lengths(found))
    below = [one for tag, one in drawn if tag == "text" and one["y"] == "168.0"]
    places = sorted(float(one["x"] or "") for one in below)
    assert below
    assert all(b - a >= 40 for a, b in pairwise(places)), "numbers below the axis overlap"
    for box in [attributes for tag, attributes in drawn if tag == "rect"]:
        x, y, width, height = (float(box[key] or "") for key in ("x", "y", "width", "height"))
        assert 0 <= x <= x + width <= 760
        assert 0 <= y <= y + height <= 151


@pytest.fixture(scope="module")
def shown(rlds: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A browser that shows the page of a set."""
    path = tmp_path_factory.mktemp("page") / "index.html"
    path.write_text(page.render(inspect(rlds), "again"))
    with browser(tmp_path_factory.mktemp("profile")) as session:
        session.open(path)
        yield session


@pytest.mark.browser
@pytest.mark.skipif(not CHROMIUM.exists() or not DRIVER.exists(), reason="needs Chromium")
def test_in_a_real_browser(shown: Browser, tmp_path: Path) -> None:
    """Pictures decode, nothing scrolls sideways or leaves its chart, the console is silent."""
    pixels = "return [...document.images].map(i => [i.naturalWidth, i.naturalHeight])"
    assert shown.run(pixels) == [[3 * 64 + 4, 64]] * 4
    outside = """
        return [...document.querySelectorAll('svg')].flatMap(svg => {
          const frame = svg.getBoundingClientRect();
          return [...svg.querySelectorAll('text, rect')].filter(e => {
            const box = e.getBoundingClientRect();
            return box.left < frame.left - 1 || box.right > frame.right + 1;
          }).map(e => e.outerHTML);
        })"""
    for width in (1200, 900, 420):
        shown.screenshot(tmp_path / "page.png", width)
        assert shown.run("return document.documentElement.scrollWidth") == width
        assert shown.run(outside) == []
    assert shown.log("browser") == []


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.skipif(not CHROMIUM.exists() or not DRIVER.exists(), reason="needs Chromium")
def test_nothing_serious_keeps_anybody_out(
    rlds: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path / "index.html"
    path.write_text(page.render(inspect(rlds), "again"))
    with browser(tmp_path_factory.mktemp("profile")) as session:
        assert pages.trouble(session, path) == {}
