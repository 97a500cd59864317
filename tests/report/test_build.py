"""The three files: complete, the same every time, and safe with hostile text."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

import launcher.report
from launcher.core import files
from launcher.core.errors import UsageError
from launcher.core.runs import RunDir
from launcher.html import svg
from launcher.report import charts, evidence, page, sources
from rdt.spec import planned
from tests.report import runs

HOSTILE = "=cmd|'/c calc'!A1 \"quoted\", <script>alert(1)</script> & </title> ￾ ünï 😀"


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


class Tags(HTMLParser):
    """Collects start tags with attributes, and checks that tags are closed in order."""

    VOID = ("meta", "line", "rect", "polyline", "img", "br", "wbr")

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def tags(text: str) -> list[tuple[str, dict[str, str | None]]]:
    parser = Tags()
    parser.feed(text)
    parser.close()
    assert parser.open == []
    return parser.found


def test_build_writes_three_whole_files(tmp_path: Path) -> None:
    run = runs.full_run(tmp_path, video=False)
    report = launcher.report.build(run.root)
    assert sorted(p.name for p in run.report.iterdir()) == [
        "episodes.csv", "eval_info.json", "index.html", "summary.csv", "tasks.csv",
        "vla_eval.json",
    ]  # fmt: skip
    assert len(read_csv(run.report / "episodes.csv")) == len(list(report.records())) == 79


def test_the_summary_has_counts_rates_and_protocol(tmp_path: Path) -> None:
    run = runs.full_run(tmp_path, video=False)
    launcher.report.build(run.root)
    rdt, _, zero, _ = read_csv(run.report / "summary.csv")
    assert rdt["policy"] == "rdt"
    assert [rdt[k] for k in ("episodes", "successes", "errors", "missing")] == [
        "18",
        "14",
        "1",
        "1",
    ]
    assert (rdt["rate"], rdt["ci_low"], rdt["ci_high"]) == ("0.777778", "0.547854", "0.909991")
    assert rdt["rate_errors_as_failures"] == "0.736842"
    assert (rdt["fingerprint"], rdt["mujoco"]) == (runs.protocol_of(run).fingerprint(), "3.3.2")
    horizon = str(runs.protocol_of(run).execution_horizon)
    assert [rdt[k] for k in ("horizon", "max_steps", "settle")] == [horizon, "280", "10"]
    assert zero["mean_success_steps"] == ""


def test_two_builds_give_the_same_bytes(tmp_path: Path) -> None:
    run = runs.full_run(tmp_path, video=False)
    launcher.report.build(run.root)
    first = {p.name: p.read_bytes() for p in run.report.iterdir()}
    for part in run.records.glob("part-*"):  # another order of the files on disk
        part.rename(part.with_name(part.name.replace("part-a1", "part-a0")))
    run.ledger.publish("claim.report.a1", indices=[0])
    launcher.report.build(run.root)
    assert {p.name: p.read_bytes() for p in run.report.iterdir()} == first


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    run = runs.new_run(tmp_path, policies=["rdt"], init_states=(30, 32))
    runs.add(
        run,
        [
            runs.record(run, "rdt", 30, "env_error", error=HOSTILE + "\x00\n\x1b[2J"),
            runs.record(run, "rdt", 31, "success", task_name=HOSTILE, host="@sum"),
        ],
    )
    runs.add_loss(run, [])
    files.write_json(run.lock, {"</table><script>": {"<img src=x onerror=alert(1)>": HOSTILE}})
    run.videos.mkdir()
    (run.videos / "x.mp4").write_bytes(b"x")
    entry = {"file": "../videos/x.mp4", "key": '"><script>', "policy": HOSTILE, "status": "fail"}
    entry |= {"suite": HOSTILE, "task_id": 0, "trial": 0, "problem": HOSTILE}
    files.write_json(run.videos / "index.0.json", [{**entry, "steps": 1, "init_state": 1}])
    launcher.report.build(run.root)
    text = (run.report / "index.html").read_text()
    assert not [tag for tag, _ in tags(text) if tag in ("script", "img", "iframe", "link")]
    assert "&lt;script&gt;alert(1)" in text
    errored, named = read_csv(run.report / "episodes.csv")
    assert errored["error"].startswith("'" + HOSTILE[:20])
    assert '"quoted", <script>' in errored["error"]
    assert (named["task_name"][:2], named["host"]) == ("'=", "'@sum")
    assert all(ord(c) >= 32 or c == "\n" for c in (run.report / "episodes.csv").read_text())


def test_a_replay_that_is_not_the_episode_is_said_and_not_shown(tmp_path: Path) -> None:
    run = runs.full_run(tmp_path)
    index = run.videos / "index.1.json"
    (entry,) = files.read_json(index)
    files.write_json(index, [{**entry, "problem": "it ended in another state"}])
    launcher.report.build(run.root)
    text = (run.report / "index.html").read_text()
    assert text.count("data:video/mp4") == 1
    assert "it ended in another state" in text
    said = evidence.caveats(launcher.report.load(run))
    assert f"RDTL-E041: 1 chosen episode cannot be shown. {entry['key']}: it ended" in said[-1]
    (run.videos / "rdt-libero_object-t0-i30-n0.mp4").unlink()
    assert "2 chosen episodes cannot" in evidence.caveats(launcher.report.load(run))[-1]


def test_the_page_needs_nothing_from_outside(tmp_path: Path) -> None:
    run = runs.full_run(tmp_path)
    launcher.report.build(run.root)
    found = tags((run.report / "index.html").read_text())
    sources_used = [v for _, a in found for k, v in a.items() if k in ("src", "href", "srcset")]
    assert len(sources_used) == 2
    assert all(str(v).startswith("data:video/mp4;base64,") for v in sources_used)
    policy = next(a["content"] for _, a in found if "content-security-policy" in str(a).lower())
    assert str(policy).startswith("default-src 'none'")


def test_the_grid_shows_every_planned_episode(tmp_path: Path) -> None:
    run = runs.new_run(tmp_path, policies=["rdt", "zero"], init_states=(0, 30), trials=2)
    runs.add(run, [runs.record(run, "rdt", 27, "success", trial=1)])
    report = launcher.report.load(run)
    first, second = page.grid(report)
    assert (list(first.init_states), list(second.init_states)) == (
        list(range(25)), list(range(25, 30)),
    )  # fmt: skip
    assert second.rows[0][1][2] == ["missing", "success"]
    marks = [a for tag, a in tags(page.render(report)) if tag == "span" and "aria-label" in a]
    assert len(marks) == 2 * 30 * 2
    assert sum(a["aria-label"] == "missing" for a in marks) == 119


def test_the_page_says_what_is_absent(tmp_path: Path) -> None:
    run = runs.new_run(tmp_path, policies=["rdt"], init_states=(30, 32))
    runs.add_outcomes(run, "rdt", "SS")
    text = page.render(launcher.report.load(run))
    assert "Nothing to show: rdt has none." in text
    assert "has no lock.json" in text
    assert "<h2>Training</h2>" not in text
    assert "<h2>Data</h2>" not in text


def test_wide_runs_are_not_called_a_check_of_the_road(tmp_path: Path) -> None:
    for wide_mm, expected in ((0, "A check of the road"), (60, "up to 60 mm from")):
        run = runs.new_run(tmp_path / str(wide_mm), {"wide_mm": wide_mm}, init_states=(30, 31))
        runs.add_outcomes(run, "rdt", "S")
        text = page.render(launcher.report.load(run))
        assert expected in " ".join(text.split())
        assert ("check of the road" in text) == (wide_mm == 0)


def test_without_jinja2_the_tables_are_written_and_the_error_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = runs.full_run(tmp_path, video=False)
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(UsageError) as caught:
        launcher.report.build(run.root)
    assert caught.value.problem.code == "RDTL-U015"
    assert "rdt-launcher[report]" in caught.value.problem.fix
    assert not (run.report / "index.html").exists()
    assert len(list(run.report.iterdir())) == 5


def test_a_run_of_several_tasks_has_a_heat_map_averages_and_a_grid_of_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = runs.new_run(tmp_path, policies=["rdt", "zero"], init_states=(30, 32))
    tasks = (("libero_object", 0), ("libero_object", 7), ("libero_goal", 2))
    asked = planned.Planned(("rdt", "zero"), tasks, range(30, 32), 1)
    monkeypatch.setattr(planned, "from_config", lambda config: asked)
    for (suite, task_id), outcomes in zip(tasks, ("SS", "SF", "FF"), strict=True):
        own = [
            runs.record(run, "rdt", 30 + i, "success" if c == "S" else "fail",
                        suite=suite, task_id=task_id, fixtures_sha256=f"{suite}{task_id}{i}")
            for i, c in enumerate(outcomes)
        ]  # fmt: skip
        runs.add(run, own)
    report = launcher.report.build(run.root)
    row = report.row("rdt")
    assert row
    assert (row.successes, row.episodes, row.suite) == (3, 6, "libero_object, libero_goal")
    heat = page.heat({"rdt": [r for r in report.tasks if r.policy == "rdt"]})
    words = runs.TASK_NAME.replace("_", " ")
    assert heat.rows == [
        ("libero_object 0", words, [(1.0, "2/2")], False),
        ("libero_object 7", words, [(0.5, "1/2")], False),
        ("libero_goal 2", words, [(0.0, "0/2")], False),
        ("libero_object AVG", "", [(0.75, "3/4")], True),
        ("ALL AVG", "", [(0.375, "3/6")], True),
    ]
    text = (run.report / "index.html").read_text()
    assert text.count("<h3>libero_") == 3
    assert '<h1 class="task">3 tasks of' in text  # and not the words of the first one
    lines = [
        (r["dataset_name"], r["task_id"], r["success_rate"])
        for r in read_csv(run.report / "tasks.csv") if r["policy"] == "rdt"
    ]  # fmt: skip
    assert lines[3:] == [
        ("libero_object", "AVG", "0.750000"), ("libero_goal", "AVG", "0.000000"),
        ("ALL", "AVG", "0.375000"),
    ]  # fmt: skip
    assert not report.episodes.odd


def test_importing_the_report_imports_no_template_engine() -> None:
    code = (
        "import sys, launcher.report, launcher.report.page, launcher.report.tables\n"
        "print([m for m in ('jinja2', 'matplotlib', 'torch', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_loss_record_keeps_the_last_reading_of_a_step(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    assert sources.loss(run) is None
    runs.add_loss(run, [(10, 1.0), (20, 0.5), (30, float("nan")), (20, 0.4), (40, 0.0)])
    with (run.checkpoints / "metrics.jsonl").open("a") as handle:
        handle.write('garbage\n{"step": 50, "train/loss": 0.3}')  # unreadable, then torn
    loss = sources.loss(run)
    assert loss == sources.Loss(((10, 1.0), (20, 0.4)), 3)


def test_times_are_of_the_work_and_not_of_the_report(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    assert sources.when(run) is None
    for name, at in (
        ("claim.collect.a1", 0),
        ("finished.x.i0.n0.a1", 3600),
        ("claim.report.a1", 1e6),
    ):
        files.write_json(tmp_path / "events" / f"{name}.json", {"at": at})
    assert sources.when(run) == ("1970-01-01 00:00 UTC", "1970-01-01 01:00 UTC")


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.04, 0.9, [0.05, 0.1, 0.2, 0.5]),
        (1e-6, 10, [1e-6, 1e-5, 1e-4, 1e-3, 0.01, 0.1, 1, 10]),
        (0.3, 0.4, [0.3, 0.4]),
    ],
)
def test_log_ticks_are_round_and_inside(low: float, high: float, expected: list[float]) -> None:
    assert charts.log_ticks(low, high) == expected


@pytest.mark.parametrize("end", [1, 3, 7, 80, 99, 1500, 123456])
def test_step_ticks_are_few_and_inside(end: int) -> None:
    ticks = charts.linear_ticks(end)
    assert ticks[0] == 0
    assert ticks[-1] <= end
    assert 2 <= len(ticks) <= 9


def test_the_loss_curve_is_drawn_inside_its_frame() -> None:
    drawn = charts.loss_curve([(1, 5.0), (10, 0.001), (20, 0.001), (500, 80.0)])
    for points in re.findall(r'points="([^"]+)"', drawn):
        for pair in points.split():
            x, y = map(float, pair.split(","))
            assert 0 <= x <= svg.WIDTH
            assert 0 <= y <= 250
    assert charts.loss_curve([(1, 1.0), (2, 1.0)]).count("<polyline") == 2


def test_whiskers_of_the_bars_stand_at_the_interval(tmp_path: Path) -> None:
    run = runs.new_run(tmp_path, policies=["rdt", "zero"], init_states=(30, 40))
    runs.add_outcomes(run, "rdt", "S" * 5 + "F" * 5)
    found = tags(charts.bars(launcher.report.load(run).rows, "rdt"))
    (bar,) = [a for tag, a in found if tag == "rect"]
    assert float(str(bar["width"])) == pytest.approx(0.5 * (650 - 84), abs=0.1)
    whisker = next(a for tag, a in found if tag == "line" and a["class"] == "whisker")
    assert float(str(whisker["x1"])) == pytest.approx(84 + 0.2366 * 566, abs=0.2)
    assert float(str(whisker["x2"])) == pytest.approx(84 + 0.7634 * 566, abs=0.2)


def test_names_in_a_chart_stay_text(tmp_path: Path) -> None:
    run = runs.new_run(tmp_path, policies=["rdt"], init_states=(30, 31))
    runs.add_outcomes(run, "rdt", "S")
    row = replace(launcher.report.load(run).rows[0], policy='"><script>alert(1)</script>')
    assert {tag for tag, _ in tags(charts.bars([row], "rdt"))} == {"svg", "line", "rect", "text"}


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("policy seed, episode, query, batches of 4, cuda", True),
        ("policy seed, episode, query, batches of whoever asks", False),
        ("the server's own", False),
    ],
)
def test_the_page_says_that_noise_repeats_only_where_it_does(
    tmp_path: Path, rule: str, said: bool
) -> None:
    run = runs.new_run(tmp_path, policies=["rdt"], init_states=(30, 31))
    runs.add_outcomes(run, "rdt", "S")
    report = launcher.report.load(run)
    asked = replace(report, protocol=replace(report.protocol, policy_seed_rule=rule))
    assert ("Who runs it does not matter" in page.render(asked)) == said
