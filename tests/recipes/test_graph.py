"""The schedule, the tree and the page of a graph."""

from __future__ import annotations

import itertools
import json
import random
import subprocess
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from launcher.core.dag import Graph, Step
from launcher.dag import draw, page, schedule, tree, view
from tests.cli.run_rdtl import rdtl


def graph(*steps: Step, **tokens: int) -> Graph:
    return Graph("made", steps, "/", tokens)


def step(name: str, takes: float, *needs: str, **resources: int) -> Step:
    return Step(name, ("true",), needs=needs, expected_s=takes, resources=resources)


DIAMOND = graph(step("a", 2), step("b", 5, "a"), step("c", 3, "a"), step("d", 1, "b", "c"))


def test_needs_decide() -> None:
    times = schedule.plan(DIAMOND)
    assert times.begins == {"a": 0, "b": 2, "c": 2, "d": 7}
    assert (times.length, times.critical) == (8, ("a", "b", "d"))


def test_tokens_decide() -> None:
    made = graph(
        step("a", 4, net=1), step("b", 3, net=1), step("c", 2, net=1), step("d", 1, "c"), net=2
    )
    times = schedule.plan(made)
    assert times.begins == {"a": 0, "b": 0, "c": 3, "d": 5}
    assert times.critical == ("b", "c", "d")


def test_steps_that_take_no_time() -> None:
    times = schedule.plan(DIAMOND, {"a": 0, "b": 0, "c": 0, "d": 0})
    assert (times.length, len(times.begins)) == (0, 4)


def test_measured_durations_replace_expected_ones() -> None:
    assert schedule.plan(DIAMOND, {"c": 50.0}).critical == ("a", "c", "d")


@pytest.mark.parametrize("seed", range(20))
def test_no_schedule_breaks_a_rule_or_wastes_a_token(seed: int) -> None:
    draw_ = random.Random(seed)
    steps: list[Step] = []
    for number in range(draw_.randint(1, 25)):
        needs = [s.name for s in steps if draw_.random() < 0.2]
        wants = {"net": draw_.randint(0, 2)} if draw_.random() < 0.6 else {}
        steps.append(step(f"s{number}", draw_.randint(0, 9), *needs, **wants))
    made = graph(*steps, net=2)
    times = schedule.plan(made)
    for one in steps:
        assert all(times.ends[need] <= times.begins[one.name] for need in one.needs)
        at = times.begins[one.name]
        used = sum(
            s.resources.get("net", 0)
            for s in steps
            if times.begins[s.name] <= at < times.ends[s.name]
        )
        assert used <= 2
    moments = {0.0, *times.ends.values()}
    assert set(times.begins.values()) <= moments  # nothing waits for nothing
    chain = times.critical
    assert times.begins[chain[0]] == 0
    assert all(times.ends[a] == times.begins[b] for a, b in itertools.pairwise(chain))


def test_the_tree_stands_below_what_is_waited_for() -> None:
    times = schedule.plan(DIAMOND)
    found = tree.lines(DIAMOND, times, lambda name: name.upper())
    assert [line for _, line in found] == ["a        A", "├─ c     C", "└─ b     B", "   └─ d  D"]
    assert tree.others(DIAMOND, times, "d") == "  (and after c)"
    assert all(line.isascii() for _, line in tree.lines(DIAMOND, times, str, plain=True))


def test_the_page_stands_alone_and_says_what_the_graph_says(tmp_path: Path) -> None:
    hostile = Step("x", ("true",), about="<script>alert(1)</script>", outputs=("/<b>",))
    made = graph(*DIAMOND.steps, hostile)
    text = page.render(made, "about & more", schedule.plan(made), "again")
    assert "<script" not in text
    assert "http" not in text.replace("http-equiv", "")
    chart = ElementTree.fromstring(text[text.index("<svg") : text.index("</svg>") + 6])
    bars = [r for r in chart.iter("rect") if r.get("class") == "bar main"]
    assert len(bars) == 3
    assert all(0 <= float(r.get("x", "")) <= 760 for r in chart.iter("rect"))


def test_a_step_that_outlasts_all_others_does_not_hide_them() -> None:
    made = graph(
        step("a", 10), step("b", 20, "a"), step("long", 100_000, "b"), step("c", 5, "long")
    )
    line = page.axis(schedule.plan(made))
    assert line.cut == pytest.approx(33)
    assert line.x(20) - line.x(10) > 100
    assert line.x(30) < line.x(100_030) < line.x(100_035)
    assert page.axis(schedule.plan(DIAMOND)).cut is None


def event(seq: int, kind: str, **more: object) -> dict[str, object]:
    return {"seq": seq, "at": 100.0 + seq, "event": kind, **more}


def test_the_view_of_a_run_and_of_the_next_one() -> None:
    found = view.of(["a", "b"])
    for one in [
        event(1, "start", name="made", steps=2),
        event(2, "step_begin", step="a", attempt=1, pid=1),
        event(3, "marker", step="a", name="step", values={"step": "3", "loss": "0.5", "eta": None}),
        event(4, "marker", step="a", name="checkpoint", values={"checkpoint": "/ck/3"}),
    ]:
        assert found.take(one)
    assert not found.take(event(3, "step_done", step="a", seconds=1))
    assert view.progress(found.steps["a"].values) == "step 3, loss 0.5"
    failed = {
        "rc": 1,
        "reason": "bad",
        "code": "RDTL-B058",
        "cause": "c",
        "fix": "f",
        "seconds": 2.0,
    }
    found.take(event(5, "step_fail", step="a", **failed))
    found.take(event(6, "blocked", step="b", by=["a"]))
    found.take(event(7, "end", rc=1))
    assert (found.steps["a"].state, found.steps["b"].state) == ("failed", "blocked")
    assert (found.ended, found.rc, found.checkpoint) == ("end", 1, "/ck/3")
    found.take(event(8, "start", name="made", steps=2))
    assert (found.ended, found.steps["a"].state) == ("", "waiting")


def test_frames_fit_their_terminal() -> None:
    found = view.of(s.name for s in DIAMOND.steps)
    found.take(event(1, "start", name="made", steps=4))
    found.take(event(2, "step_begin", step="a", attempt=2, pid=1))
    found.take(
        event(3, "marker", step="a", name="s", values={"step": "1\x1b[2J", "loss": "x" * 300})
    )
    for width in (20, 80):
        lines = draw.frame(DIAMOND, found, ["y" * 300], 110.0, width)
        assert max(line.cell_len for line in lines) <= width
        assert all(c.isprintable() for line in lines for c in line.plain)
    assert "try 2" in draw.frame(DIAMOND, found, [], 110.0, 80)[1].plain


def test_the_command(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(
        json.dumps(
            {"name": "own", "about": "a", "steps": {"one": {"argv": ["true"], "takes": "2m"}}}
        )
    )
    done = rdtl("recipe", "graph", "own.yaml", "--html", "g.html", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "one  *     2:00" in done.stdout
    assert (tmp_path / "g.html").read_text().startswith("<!doctype html>")
    found = json.loads(rdtl("recipe", "graph", "own.yaml", "--json", cwd=tmp_path).stdout)
    assert (found["seconds"], found["critical"]) == (120.0, ["one"])
    linted = rdtl("recipe", "lint", "own.yaml", cwd=tmp_path)
    assert (linted.returncode, "RDTL-U129" in linted.stdout) == (0, True)


@pytest.mark.browser
def test_the_page_in_a_browser(tmp_path: Path) -> None:
    target = tmp_path / "g.html"
    target.write_text(page.render(DIAMOND, "about", schedule.plan(DIAMOND), "again"))
    chromium = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    done = subprocess.run(
        [*chromium, target.as_uri()], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.count('class="bar main"') == 3
