"""Runs against each other and together: pairs, intervals, refusals, exports."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

import launcher.report
from launcher.cli.app import main
from launcher.core import files
from launcher.core.errors import RdtlError, RefusedError, UsageError
from launcher.core.runs import RunDir
from launcher.report import averages, compare, comparison_page, load, merge, page, tables
from launcher.report.intervals import paired_difference
from tests.report import runs
from tests.report.test_build import tags


def a_run(root: Path, outcomes: str, task: dict[str, Any] | None = None, **evaluate: Any) -> RunDir:
    """A run of rdt on as many initial states as ``outcomes`` has letters."""
    values = {"policies": ["rdt"], "init_states": (30, 30 + len(outcomes)), **evaluate}
    run = runs.new_run(root, task, **values)
    plan = files.read_json(run.plan)
    own = [
        runs.record(
            run, "rdt", 30 + i, {"S": "success", "F": "fail", "E": "env_error", "T": "timeout"}[c],
            suite=plan["config"]["task"]["suite"], task_id=plan["config"]["task"]["task_id"],
        )
        for i, c in enumerate(outcomes) if c != "."
    ]  # fmt: skip
    runs.add(run, own)
    return run


def pair(a: RunDir, b: RunDir, *across: str) -> compare.Pair:
    (found,) = compare.compare([load(a), load(b)], across)
    return found


def test_newcombes_published_example() -> None:
    # Newcombe 1998, method 10, the table 36, 12, 2, 0: 0.2000 (0.0569 to 0.3404)
    low, high = paired_difference(36, 12, 2, 0)
    assert (round(low, 4), round(high, 4)) == (0.0569, 0.3404)
    assert paired_difference(10, 0, 10, 0).high < 0
    low, high = paired_difference(20, 0, 0, 0)
    assert low == -high < 0  # no disagreement is no certainty


def test_pairs_are_counted_and_errors_in_both_ways(tmp_path: Path) -> None:
    found = pair(a_run(tmp_path / "a", "SSSSFFE.S"), a_run(tmp_path / "b", "SSFFSFSST"))
    c, e = found.finished, found.errors_as_failures
    assert (c.both, c.only_first, c.only_second, c.neither) == (2, 2, 1, 1)
    assert (e.both, e.only_first, e.only_second, e.neither) == (2, 3, 2, 1)
    assert c.difference == pytest.approx(-1 / 6)
    assert c.p == 1.0
    assert "not distinguishable" in compare.sentence(found)
    assert "fewer than 6 disagreements" in compare.sentence(found)
    assert "2 pairs of a and b left out for an error" in compare.caveats(found)[0]


def test_a_clear_difference_is_said_with_its_direction(tmp_path: Path) -> None:
    found = pair(a_run(tmp_path / "a", "F" * 8 + "S"), a_run(tmp_path / "b", "S" * 9))
    assert compare.sentence(found).startswith("b is better than a: over 9 pairs")
    assert found.finished.p == pytest.approx(2 / 2**8)
    assert "+88.9 points" in compare.sentence(found)


def test_another_protocol_is_refused_until_it_is_named_and_then_shown(tmp_path: Path) -> None:
    a = a_run(tmp_path / "a", "SF")
    b = a_run(tmp_path / "b", "SF", execution_horizon=16)
    with pytest.raises(RefusedError) as caught:
        pair(a, b)
    problem = caught.value.problem
    assert problem.code == "RDTL-E060"
    assert problem.where == "execution_horizon 8 in a, 16 in b"
    assert "--across execution_horizon" in problem.fix
    assert "execution_horizon 8 against 16" in compare.sentence(pair(a, b, "execution_horizon"))
    with pytest.raises(UsageError) as unknown:
        pair(a, b, "horizon")
    assert unknown.value.problem.code == "RDTL-E061"


def test_runs_of_one_name_are_told_apart_by_their_path(tmp_path: Path) -> None:
    a, b = a_run(tmp_path / "here" / "demo", "S"), a_run(tmp_path / "there" / "demo", "S")
    assert f"{b.root} is not distinguishable from {a.root}" in compare.sentence(pair(a, b))


def test_pairs_of_another_scene_are_left_out(tmp_path: Path) -> None:
    a, b = a_run(tmp_path / "a", "SSS"), a_run(tmp_path / "b", "FF")
    runs.add(b, [runs.record(b, "rdt", 32, "fail", fixtures_sha256="moved")], "part-b.jsonl")
    plan = files.read_json(b.plan)
    plan["config"]["evaluate"]["init_states"] = [30, 33]
    files.write_json(b.plan, plan)
    found = pair(a, b)
    assert (found.finished.pairs, found.other_scene) == (2, 1)
    assert compare.caveats(found)[0].startswith("RDTL-E004: 1 pair of a and b began")


def test_runs_without_a_common_episode_have_no_comparison(tmp_path: Path) -> None:
    with pytest.raises(RdtlError) as caught:
        pair(a_run(tmp_path / "a", "SS"), a_run(tmp_path / "b", "EE"))
    assert caught.value.problem.code == "RDTL-E062"


def test_runs_of_several_tasks_are_one_result(tmp_path: Path) -> None:
    own = [
        load(a_run(tmp_path / f"{suite}{task}", outcome, {"suite": suite, "task_id": task}))
        for suite, task, outcome in (
            ("libero_object", 0, "SSSS"), ("libero_object", 1, "SF"), ("libero_goal", 0, "FFFF"),
            ("libero_90", 3, "SSSS"),
        )
    ]  # fmt: skip
    rows = merge.merge(own)
    found = {a.suite: a for a in averages.of(rows)}
    assert (found["libero_object"].rate, found["libero_object"].successes) == (0.75, 5)
    assert (found["ALL"].rate, found["ALL"].tasks, found["ALL"].episodes) == (0.375, 3, 10)
    assert "libero_object AVG" in [line[1] for line in tables.merged(rows).rows]
    with pytest.raises(RefusedError, match="do not add up"):
        merge.merge([own[0], own[0]])
    other = load(a_run(tmp_path / "x", "S", {"task_id": 5, "camera_size": 256}))
    with pytest.raises(RefusedError) as caught:
        merge.merge([own[0], other])
    assert caught.value.problem.code == "RDTL-E063"
    assert "camera_size 128 in" in caught.value.problem.where


def test_varied_suites_count_in_the_mean_over_suites(tmp_path: Path) -> None:
    """What LIBERO-PRO varies is what is asked beside the suite itself; libero_90 alone is not."""
    suites = {"libero_goal": "S", "libero_goal_swap": "F", "libero_90": "F"}
    rows = merge.merge([
        load(a_run(tmp_path / suite, outcome, {"suite": suite, "task_id": 0}))
        for suite, outcome in suites.items()
    ])  # fmt: skip
    found = {a.suite: (a.rate, a.tasks) for a in averages.of(rows)}
    assert found["ALL"] == (0.5, 2)


def test_a_task_without_a_record_is_no_other_network(tmp_path: Path) -> None:
    """Whether the run that lacks it comes first or last."""
    begun = runs.new_run(
        tmp_path / "begun", suites={"libero_goal": [0, 1]}, policies=["rdt"], init_states=(30, 31)
    )
    runs.add(begun, [runs.record(begun, "rdt", 30, "success", suite="libero_goal", task_id=1)])
    whole = a_run(tmp_path / "whole", "F")
    for own in ((begun, whole), (whole, begun)):
        rows = merge.merge([load(run) for run in own])
        assert sorted((r.suite, r.episodes, r.missing) for r in rows) == [
            ("libero_goal", 0, 1), ("libero_goal", 1, 0), ("libero_object", 1, 0),
        ]  # fmt: skip
    other = runs.new_run(tmp_path / "other", {"task_id": 5}, policies=["rdt"], init_states=(30, 31))
    done = {"task_id": 5, "checkpoint": "0ther"}
    runs.add(other, [runs.record(other, "rdt", 30, "env_error", **done)])
    with pytest.raises(RefusedError, match="RDTL-E064"):
        merge.merge([load(begun), load(other)])


def test_means_of_libero_plus_are_of_tasks(tmp_path: Path) -> None:
    """Its suites differ in size, and its published table weighs every task the same."""
    rows = merge.merge([
        load(a_run(tmp_path / f"{suite}{task}", outcome, {"suite": suite, "task_id": task}))
        for suite, task, outcome in (
            ("libero_object_plus_camera", 0, "S"), ("libero_object_plus_camera", 1, "S"),
            ("libero_object_plus_camera", 2, "S"), ("libero_goal_plus_camera", 0, "F"),
            ("libero_goal_plus_noise", 5, "F"),
        )
    ])  # fmt: skip
    found = {a.suite: (a.rate, a.tasks) for a in averages.of(rows)}
    assert (found["PLUS camera"], found["PLUS ALL"]) == ((0.75, 4), (0.6, 5))
    assert "ALL" not in found and found["PLUS noise"] == (0.0, 1)


def test_thousands_of_tasks_are_told_by_axis(tmp_path: Path) -> None:
    suites = {
        "libero_goal_plus_robot": [],
        "libero_10_plus_robot": [0],
        "libero_10_plus_light": [0],
    }
    run = runs.new_run(tmp_path, suites=suites, policies=["rdt"], init_states=(0, 1))
    planned = [("libero_goal_plus_robot", n) for n in range(409)]
    planned += [("libero_10_plus_robot", 0), ("libero_10_plus_light", 0)]
    outcomes = ("success", "fail")
    for suite, number in planned:
        done = {"suite": suite, "task_id": number}
        runs.add(run, [runs.record(run, "rdt", 0, outcomes[number % 2], **done)])
    report = load(run)
    said = "rdt in % of varied tasks: robot 50.2, light 100.0, ALL 50.4."
    assert said in tables.summary(report).sentences
    heat = page.heat({"rdt": report.tasks})
    means = ["PLUS robot AVG", "PLUS light AVG", "PLUS ALL AVG"]
    assert [name for name, *_ in heat.rows] == ["libero_goal_plus_robot AVG", *means]
    assert len(page.heat({"rdt": report.tasks[:300]}).rows) == 300 + 4


def test_a_task_keeps_its_words_beside_a_run_that_has_no_record_of_it(tmp_path: Path) -> None:
    """Such a task is no average either, nor is one of which nobody has a record."""
    asked: dict[str, Any] = {"suites": {"libero_goal": [0, 1, 2]}, "init_states": (30, 31)}
    own = []
    for name, tasks in (("whole", (0, 1)), ("begun", (0,))):
        run = runs.new_run(tmp_path / name, policies=["rdt"], **asked)
        done = [
            runs.record(run, "rdt", 30, "success", suite="libero_goal", task_id=n) for n in tasks
        ]
        runs.add(run, done)
        own.append(load(run))
    heat = page.heat({report.run.root.name: report.tasks for report in own})
    words = runs.TASK_NAME.replace("_", " ")
    assert [(row.name, row.words, row.average) for row in heat.rows] == [
        ("libero_goal 0", words, False), ("libero_goal 1", words, False),
        ("libero_goal 2", "", False), ("libero_goal AVG", "", True),
    ]  # fmt: skip
    text = comparison_page.render(compare.compare(own, []))
    assert text.count('class="average"') == 1


def test_tasks_csv_has_the_columns_of_published_evaluations(tmp_path: Path) -> None:
    run = a_run(tmp_path / "a", "SSFET")
    launcher.report.build(run.root)
    with (run.report / "tasks.csv").open(newline="") as handle:
        task, average = csv.DictReader(handle)
    assert list(task)[:9] == [
        "dataset_name", "task_id", "task_name", "instruction", "num_traj", "episode_done_count",
        "success_rate", "checkpoint_path", "video_dir",
    ]  # fmt: skip
    assert (task["num_traj"], task["episode_done_count"], task["success_rate"]) == (
        "3", "2", "0.666667",
    )  # fmt: skip
    assert task["instruction"] == "pick up the alphabet soup and place it in the basket"
    assert (task["errors"], task["timeouts"], task["rate_errors_as_failures"]) == (
        "2", "1", "0.400000",
    )  # fmt: skip
    assert (average["task_id"], average["success_rate"]) == ("AVG", task["success_rate"])


def test_the_page_holds_every_run_and_needs_nothing_from_outside(tmp_path: Path) -> None:
    a = a_run(tmp_path / "a", "SSFF")
    b = a_run(tmp_path / "b<script>", "SFSF", execution_horizon=16)
    c = a_run(tmp_path / "c", "SSSS")
    found = compare.compare([load(r) for r in (a, b, c)], ["execution_horizon"])
    text = comparison_page.render(found)
    elements = tags(text.replace("<circle ", "<rect "))
    assert not [tag for tag, _ in elements if tag in ("script", "img", "link", "iframe")]
    assert not [a for _, a in elements if "src" in a or "href" in a]
    assert "b&lt;script&gt;, horizon 16" in text
    differing = [a for tag, a in elements if tag == "tr" and a.get("class") == "differs"]
    assert len(differing) == 2  # fingerprint and execution_horizon
    # SSFF, SFSF, SSSS differ at the last three states: 1 + 1 + 2 failures, and one in the key
    assert text.count('class="mark fail"') == 5


def rdtl(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Exit status of ``rdtl report`` with these arguments."""
    monkeypatch.setattr("sys.argv", ["rdtl", "report", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = a_run(tmp_path / "a", "SSSF"), a_run(tmp_path / "b", "SFFF")
    assert rdtl(monkeypatch, a.root, b.root, "--compare", "--html", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert Path(said["page"]).is_file()
    (one,) = said["comparisons"]
    assert one["errors_left_out"]["only_first"] == 2
    assert rdtl(monkeypatch, a.root, "--compare") == 2
    assert rdtl(monkeypatch, a.root, b.root, "--html") == 2
    assert "RDTL-E065" in capsys.readouterr().err
    assert rdtl(monkeypatch, a.root, b.root) == 3  # the same task twice is no average
    assert "RDTL-E064" in capsys.readouterr().err
    named = ["a", "b", "--runs-dir", tmp_path]
    assert rdtl(monkeypatch, *named, "--compare", "--json") == 0
    assert json.loads(capsys.readouterr().out)["comparisons"] == said["comparisons"]
