"""Which records count, and what is refused."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from launcher.core import files
from launcher.core.errors import RdtlError, RefusedError, UsageError
from launcher.core.runs import RunDir
from launcher.report import load
from tests.report import runs


def small(tmp_path: Path, **evaluate: Any) -> RunDir:
    """Two policies on four initial states."""
    values = {"policies": ["rdt", "zero"], "init_states": (30, 34), **evaluate}
    return runs.new_run(tmp_path / "run", **values)


def test_counts_rates_and_means_of_each_policy(tmp_path: Path) -> None:
    run = small(tmp_path)
    runs.add_outcomes(run, "rdt", "SFS.")
    runs.add_outcomes(run, "zero", "FFEF")
    rdt, zero = load(run).rows
    assert (rdt.policy, rdt.successes, rdt.episodes, rdt.errors, rdt.missing) == ("rdt", 2, 3, 0, 1)
    assert rdt.rate == pytest.approx(2 / 3)
    assert rdt.mean_steps == pytest.approx((150 + 280 + 152) / 3)
    assert rdt.mean_success_steps == pytest.approx(151)
    assert (rdt.mean_wall_s, rdt.mean_policy_s) == (3.25, 0.25)
    assert (zero.successes, zero.episodes, zero.errors, zero.missing) == (0, 3, 1, 0)


def test_errors_are_outside_the_rate_and_in_the_second_rate(tmp_path: Path) -> None:
    run = small(tmp_path)
    runs.add_outcomes(run, "rdt", "SSEE")
    row = load(run).rows[0]
    assert (row.rate, row.rate_errors_as_failures) == (1.0, 0.5)


def test_a_policy_without_finished_episode_has_no_rate(tmp_path: Path) -> None:
    run = small(tmp_path)
    runs.add_outcomes(run, "rdt", "EEE.")
    rdt, zero = load(run).rows
    assert (rdt.rate, rdt.interval, rdt.mean_steps) == (None, None, None)
    assert rdt.rate_errors_as_failures == 0.0
    assert (zero.rate, zero.rate_errors_as_failures, zero.missing) == (None, None, 4)


def test_missing_episodes_are_named(tmp_path: Path) -> None:
    run = small(tmp_path, trials=2)
    runs.add(run, [runs.record(run, "rdt", 31, "success", trial=1)])
    report = load(run)
    assert len(report.missing()) == 2 * 4 * 2 - 1
    assert ("rdt", "libero_object", 0, 31, 0) in report.missing()
    assert ("rdt", "libero_object", 0, 31, 1) not in report.missing()


def test_a_torn_line_does_not_count_even_if_it_parses(tmp_path: Path) -> None:
    run = small(tmp_path)
    part = runs.add(run, [runs.record(run, "rdt", 30, "success")])
    with part.open("a") as handle:
        handle.write(runs.record(run, "rdt", 31, "success").line())  # whole but for its newline
    report = load(run)
    assert report.rows[0].episodes == 1
    assert report.episodes.torn == [part.name]


def test_a_repeated_episode_counts_once_and_replaces_only_an_error(tmp_path: Path) -> None:
    run = small(tmp_path)
    lost = runs.record(run, "rdt", 30, "env_error", error="lost")
    runs.add(run, [lost, runs.record(run, "rdt", 31, "fail")], "part-a1-s0-node1-1.jsonl")
    again = [runs.record(run, "rdt", i, "success", attempt=2) for i in (30, 31)]
    runs.add(run, again, "part-a2-s0-node1-2.jsonl")
    report = load(run)
    row = report.rows[0]
    assert (row.episodes, row.successes, row.errors) == (2, 1, 0)
    assert list(report.statuses("rdt").values()) == ["success", "fail"]
    assert report.episodes.duplicates == 2


def test_records_outside_the_plan_are_left_out_and_counted(tmp_path: Path) -> None:
    run = small(tmp_path)
    runs.add(run, [runs.record(run, "rdt", i, "success") for i in (29, 30, 34)])
    report = load(run)
    assert (report.rows[0].episodes, report.episodes.unplanned) == (1, 2)


def test_two_protocols_are_refused_and_the_foreign_files_named(tmp_path: Path) -> None:
    run = small(tmp_path)
    other = replace(runs.protocol_of(run), max_steps={"libero_object": 720}).fingerprint()
    runs.add(run, [runs.record(run, "rdt", 30, "success")])
    for n in range(4):
        foreign = runs.record(run, "rdt", 31, "success", protocol=other)
        runs.add(run, [replace(foreign, init_state=31 + n)], f"part-foreign-{n}.jsonl")
    with pytest.raises(RefusedError) as caught:
        load(run)
    assert caught.value.problem.code == "RDTL-E021"
    own, names = runs.protocol_of(run).fingerprint(), [f"part-foreign-{n}.jsonl" for n in range(3)]
    assert caught.value.problem.where.endswith(
        f"1 episodes of {own} (protocol.json); 3 of {other}, in {', '.join(names)}"
    )


def test_two_checkpoints_under_one_policy_are_refused(tmp_path: Path) -> None:
    run = small(tmp_path)
    runs.add(
        run,
        [
            runs.record(run, "rdt", 30, "success"),
            runs.record(run, "rdt", 31, "success", checkpoint="0ther"),
        ],
    )
    with pytest.raises(RefusedError) as caught:
        load(run)
    assert caught.value.problem.code == "RDTL-E038"
    assert "0ther, 5eed5eed5eed" in caught.value.problem.where


def test_records_without_their_protocol_are_refused(tmp_path: Path) -> None:
    run = small(tmp_path)
    runs.add(run, [runs.record(run, "rdt", 30, "success")])
    (run.records / "protocol.json").unlink()
    with pytest.raises(RefusedError) as caught:
        load(run)
    assert caught.value.problem.code == "RDTL-E021"


@pytest.mark.parametrize("delete_folder", [True, False])
def test_an_empty_run_names_the_next_step(tmp_path: Path, delete_folder: bool) -> None:
    run = small(tmp_path)
    if delete_folder:
        shutil.rmtree(run.records)
    with pytest.raises(RdtlError) as caught:
        load(run)
    problem = caught.value.problem
    assert (problem.code, caught.value.exit_status) == ("RDTL-E037", 1)
    assert "0 of 8" in problem.where
    assert "repeat the command" in problem.fix


@pytest.mark.parametrize("config", [{"command": ["ls"]}, {"task": {}, "evaluate": None}])
def test_a_run_that_evaluates_nothing_says_so(tmp_path: Path, config: dict[str, Any]) -> None:
    run = RunDir(tmp_path)
    files.write_json(run.plan, {"name": "x", "site": "local", "stages": [], "config": config})
    with pytest.raises(RdtlError, match="evaluates nothing") as caught:
        load(run)
    assert "rdtl evaluate" in caught.value.problem.fix


def test_a_directory_that_is_no_run_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no run"):
        load(RunDir(tmp_path))


@pytest.mark.parametrize("line", ["{not json", '{"policy": "rdt"}', "[]", "\0\0\0"])
def test_an_unreadable_record_is_named_by_file_and_line(tmp_path: Path, line: str) -> None:
    run = small(tmp_path)
    part = runs.add(run, [runs.record(run, "rdt", 30, "success")])
    with part.open("a") as handle:
        handle.write(line + "\n")
    with pytest.raises(RdtlError) as caught:
        load(run)
    assert caught.value.problem.code == "RDTL-E075"
    assert f"{part}:2: " in caught.value.problem.where


def test_hostile_text_becomes_one_printable_line(tmp_path: Path) -> None:
    run = small(tmp_path)
    text = "a\x1b[31mred\x00\r\nsecond\ud800 line\u202e"
    runs.add(run, [runs.record(run, "rdt", 30, "env_error", error=text)])
    error = load(run).errors()[0].error
    assert error == "a\ufffd[31mred\ufffd  second\ufffd line\ufffd"
    error.encode("utf-8")
