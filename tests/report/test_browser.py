"""The page in a real browser: it fits, says nothing to the network, and its videos play."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import launcher.report
from launcher.report import compare
from tests.report import runs
from tests.report.browser import CHROMIUM, DRIVER, Browser, browser

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists() or not DRIVER.exists(), reason="needs Chromium"),
]

PLAY = """
const done = arguments[arguments.length - 1], videos = [...document.querySelectorAll('video')];
Promise.all(videos.map(video => new Promise((resolve, reject) => {
  video.ontimeupdate = () => { if (video.currentTime > 0.3) resolve(
    {width: video.videoWidth, height: video.videoHeight, at: video.currentTime,
     ready: video.readyState, duration: video.duration}); };
  video.onerror = () => reject(video.error.message);
  video.play().catch(reject);
}))).then(done, error => done(String(error)));
"""
PIXELS = """
const video = document.querySelector('video'), canvas = document.createElement('canvas');
canvas.width = canvas.height = 64;
const context = canvas.getContext('2d');
context.drawImage(video, 0, 0, 64, 64);
return new Set(context.getImageData(0, 0, 64, 64).data).size;
"""


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One browser that shows the page of a full run."""
    root = tmp_path_factory.mktemp("run")
    run = runs.full_run(root)
    launcher.report.build(run.root)
    with browser(tmp_path_factory.mktemp("profile")) as session:
        session.open(run.report / "index.html")
        yield session


def test_both_videos_decode_and_advance(shown: Browser) -> None:
    states = shown.run_async(PLAY)
    assert isinstance(states, list), states
    assert [(s["width"], s["height"]) for s in states] == [(256, 256)] * 2
    assert all(s["at"] > 0.3 and s["ready"] >= 2 for s in states)
    assert [round(s["duration"]) for s in states] == [1, 2]
    assert shown.run(PIXELS) > 20  # a picture, not a black or grey field


@pytest.mark.parametrize("width", [1200, 900, 420])
def test_the_page_never_scrolls_sideways(shown: Browser, width: int, tmp_path: Path) -> None:
    shown.screenshot(tmp_path / "page.png", width)
    script = "return [innerWidth, document.documentElement.scrollWidth]"
    assert shown.run(script) == [width, width]
    if width >= 900:  # and nothing is cut off or scrolls inside either
        cut = (
            "return [...document.querySelectorAll('.wide')].map(e => e.scrollWidth - e.clientWidth)"
        )
        assert max(shown.run(cut)) <= 0


def test_dark_mode_changes_the_colours_and_keeps_the_contrast(shown: Browser) -> None:
    script = "const s = getComputedStyle(document.body); return [s.color, s.backgroundColor]"
    for scheme in ("light", "dark"):
        shown.prefer(scheme)
        ink, paper = (_luminance(colour) for colour in shown.run(script))
        assert (ink < paper) == (scheme == "light")
        assert (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05) > 7


def test_the_console_is_silent_and_nothing_is_fetched(shown: Browser) -> None:
    assert shown.log("browser") == []
    assert (
        shown.run(
            "return performance.getEntriesByType('resource').map(e => e.name)"
            ".filter(name => !name.startsWith('data:'))"
        )
        == []
    )


@pytest.mark.parametrize("width", [1280, 390])
def test_a_comparison_fits_a_desk_and_a_phone(
    tmp_path_factory: pytest.TempPathFactory, width: int, shown: Browser
) -> None:
    root = tmp_path_factory.mktemp("pair")
    one, other = runs.full_run(root / "first", video=False), runs.new_run(root / "a-longer-name")
    runs.add_outcomes(other, "rdt", "SFFSSFFSFFFFSSFFSFSS")
    reports = [launcher.report.build(run.root) for run in (one, other)]
    page = launcher.report.build_comparison(compare.compare(reports, []))
    shown.open(page)
    shown.screenshot(root / "page.png", width)
    assert shown.run("return [innerWidth, document.documentElement.scrollWidth]") == [width, width]
    outside = (
        "return [...document.querySelectorAll('svg text')].filter(t => { const r = "
        "t.getBoundingClientRect(), s = t.closest('svg').getBoundingClientRect(); "
        "return r.left < s.left - 1 || r.right > s.right + 1; }).map(t => t.textContent)"
    )
    assert shown.run(outside) == []
    smallest = (
        "return Math.min(...[...document.querySelectorAll('svg text')].map("
        "t => t.getBoundingClientRect().height))"
    )
    assert shown.run(smallest) > 10
    assert shown.log("browser") == []


def _luminance(colour: str) -> float:
    """Relative luminance in [0, 1] of ``rgb(r, g, b)``."""
    channels = [int(c) / 255 for c in colour.removeprefix("rgb(").rstrip(")").split(",")]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
