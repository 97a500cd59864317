"""The sentences say what the counts allow, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from launcher.core import files
from launcher.core.runs import RunDir
from launcher.output import Output
from launcher.report import compare, evidence, load, tables
from launcher.report.aggregate import Report
from rdt.spec import chunks
from tests.report import runs


def outcomes(tmp_path: Path, **by_policy: str) -> RunDir:
    """A run with these outcomes, S, F, E or a dot per initial state."""
    count = max(map(len, by_policy.values()))
    run = runs.new_run(tmp_path, policies=list(by_policy), init_states=(30, 30 + count))
    for policy, text in by_policy.items():
        runs.add_outcomes(run, policy, text)
    return run


def test_the_verdict_has_count_rate_and_interval(tmp_path: Path) -> None:
    run = outcomes(tmp_path, expert="S" * 20, rdt="S" * 14 + "F" * 6)
    assert evidence.verdict(load(run)) == (
        "rdt succeeded in 14 of 20 episodes: 70.0 % (95 % interval 48.1 to 85.5 %)."
    )


def test_the_verdict_without_a_finished_episode_gives_no_rate(tmp_path: Path) -> None:
    run = outcomes(tmp_path, rdt="EE", zero="FF")
    assert "no success rate" in evidence.verdict(load(run))


@pytest.mark.parametrize(
    ("rdt", "replay", "expected"),
    [
        ("S" * 12, "F" * 12, "Above blind replay"),
        ("F" * 12, "S" * 12, "Below blind replay"),
        ("SSSSSFFFFF", "SSSSFSFFFF", "Not distinguishable from blind replay"),
        ("S" * 20, "S" * 20, "Not distinguishable from blind replay"),
        ("SSSSS", "FFFFF", "no exact test tells two apart"),
    ],
)
def test_the_policy_is_set_against_blind_replay(
    tmp_path: Path, rdt: str, replay: str, expected: str
) -> None:
    (sentence,) = evidence.comparisons(load(outcomes(tmp_path, rdt=rdt, replay=replay)))
    assert expected in sentence


def test_only_pairs_without_errors_are_compared(tmp_path: Path) -> None:
    run = outcomes(tmp_path, rdt="SSSSE.F", replay="FFFFFFE")
    (sentence,) = evidence.comparisons(load(run))
    assert "of 4 pairs" in sentence
    assert "rdt alone succeeded in 4 and replay alone in 0" in sentence
    assert "p = 0.125" in sentence
    # Newcombe's interval of 4, 0, 0, 0 discordant pairs, by his method 10
    assert "that is +100.0 points, 95 % interval +30.7 to +100.0" in sentence


@pytest.mark.parametrize(
    ("rdt", "zero", "expected"),
    [("SSSSSSFF", "FFFFFFFF", "Better than"), ("SFFFFFFF", "FFFFFFFF", "Not shown to be better")],
)
def test_the_policy_is_set_against_doing_nothing(
    tmp_path: Path, rdt: str, zero: str, expected: str
) -> None:
    sentence, unknown = evidence.comparisons(load(outcomes(tmp_path, rdt=rdt, zero=zero)))
    assert unknown.startswith("Blind replay was not run")
    assert sentence.startswith(expected)


def repeated(tmp_path: Path, reset: str) -> Report:
    """rdt succeeds in its first trial of each of four states alone; the references as ever."""
    asked: dict[str, Any] = {"init_states": (30, 34), "trials": 5, "reset": reset}
    run = runs.new_run(tmp_path, policies=["rdt", "zero", "replay", "expert"], **asked)
    for trial in range(5):
        ends = {"rdt": "fail" if trial else "success", "zero": "fail", "replay": "fail"}
        for policy, status in {**ends, "expert": "success"}.items():
            again = (
                runs.record(run, policy, state, status, trial=trial) for state in range(30, 34)
            )
            runs.add(run, again)
    return load(run)


def test_copies_of_an_episode_are_no_further_evidence(tmp_path: Path) -> None:
    """With exact resets a trial differs from the next by a network's noise alone."""
    report = repeated(tmp_path, "exact")
    zero, replay, expert = evidence.comparisons(report)
    assert "4/4 against 0/4" in zero
    assert "of 4 pairs" in replay and "rdt alone succeeded in 4" in replay
    assert "succeeded in 4 of 4" in expert
    (said,) = evidence.caveats(report)
    assert said.startswith("The 5 trials of each initial state begin in the same scene")
    (pair,) = compare.compare([report, report], [])
    assert compare.caveats(pair) == [f"{pair.second_name}: {said}"]


def test_trials_in_scenes_of_their_own_all_count(tmp_path: Path) -> None:
    report = repeated(tmp_path, "openvla-sequential")
    zero, replay, _ = evidence.comparisons(report)
    assert "4/20 against 0/20" in zero and "of 20 pairs" in replay
    assert evidence.caveats(report) == []


def test_references_alone_are_compared_with_nothing(tmp_path: Path) -> None:
    assert evidence.comparisons(load(outcomes(tmp_path, expert="SS", zero="FF", replay="SF"))) == []


def test_a_clean_run_has_no_caveats(tmp_path: Path) -> None:
    assert evidence.caveats(load(outcomes(tmp_path, rdt="SF", zero="FF"))) == []


def test_caveats_name_everything_odd(tmp_path: Path) -> None:
    run = outcomes(tmp_path, rdt="SE.S", zero="FFFF")
    moved = runs.record(run, "zero", 29, "fail")
    part = runs.add(run, [moved], "part-a2-s0-node2-7.jsonl")
    with part.open("a") as handle:
        handle.write('{"torn')
    text = " ".join(evidence.caveats(load(run)))
    assert "1 of 4 planned episodes missing" in text
    assert "1 episode ended in an error" in text
    assert "Always: lost the simulator." in text
    assert "counted as failures the rate is 66.7 %" in text
    assert "1 records that the plan does not name" in text
    assert "1 record file ends in a torn line" in text


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"init_states": (0, 50), "suites": {"libero_goal": [], "libero_10": []}}, []),
        ({"init_states": (0, 1), "suites": {"libero_goal_plus_robot": []}}, []),
        ({"suites": {"my_own_suite": [0]}}, []),
        (
            {"init_states": (0, 3), "suites": {"libero_goal": [0, 1, 2, 3, 4]}},
            ["RDTL-E020", "5 tasks, 15 planned", "stands on 500,", "a smoke test"],
        ),
        (
            {"init_states": (0, 20), "suites": {"libero_goal": [], "libero_10": []}},
            ["400 planned", "libero_10, libero_goal stands on 1,000,", "a part of the"],
        ),
        (
            {"init_states": (0, 10), "trials": 5, "suites": {"libero_goal": []}},
            ["10 tasks, 500 planned", "from 10 initial states", "stands on 500,", "a part of the"],
        ),
        ({"init_states": (0, 5), "trials": 10, "suites": {"libero_goal": []}}, ["a part of the"]),
        ({"init_states": (0, 4), "trials": 13, "suites": {"libero_goal": []}}, ["a smoke test"]),
    ],
)
def test_fewer_episodes_than_published_are_named_so(
    tmp_path: Path, asked: dict[str, Any], said: list[str]
) -> None:
    run = runs.new_run(tmp_path, {"max_steps": 600}, policies=["zero"], **asked)
    (suite, chosen), *_ = asked["suites"].items()
    first, one = asked.get("init_states", (30, 50))[0], (chosen or [0])[0]
    runs.add(run, [runs.record(run, "zero", first, "fail", suite=suite, task_id=one)])
    report = load(run)
    assert all(text in evidence.scope(report) for text in said)
    assert bool(evidence.scope(report)) == bool(said)
    printed = tables.summary(report).sentences
    assert any("RDTL-E020" in sentence for sentence in printed) == bool(said)


@pytest.mark.parametrize(
    ("learned", "foreign"),
    [
        ([runs.TASK_NAME], False),
        (["open the drawer", runs.TASK_NAME.replace("_", " ")], False),
        (["LIVING_ROOM_SCENE2_" + runs.TASK_NAME], False),
        (["open the drawer"], True),
        ([], False),  # adopted weights: nothing is known of them
    ],
)
def test_tasks_that_the_weights_never_saw_are_named(
    tmp_path: Path, learned: list[str], foreign: bool
) -> None:
    run = outcomes(tmp_path, rdt="FF", zero="FF")
    told = {"path": "p", "weights": "ema", "dtype": "float32", "origin": "trained"}
    files.write_json(run.records / "weights.json", {**told, "findings": [], "tasks": learned})
    said = evidence.caveats(load(run))
    assert [sentence[:9] for sentence in said] == ["RDTL-E029"] * foreign
    assert not foreign or "1 of 1 evaluated tasks are not among those" in said[0]


def test_what_a_server_is_warned_of_is_a_caveat(tmp_path: Path) -> None:
    """Its file stands among the records by right."""
    run = outcomes(tmp_path, rdt="SF")
    warned = [one.to_dict() for one in chunks.replanning(8, 10, "ws://here")]
    files.write_json(run.records / "server.json", {"findings": warned})
    (said,) = evidence.caveats(load(run))
    assert said.startswith("RDTL-E022: 8 of the 10 actions of each chunk are executed")


def test_free_batches_are_a_caveat(tmp_path: Path) -> None:
    """Servers of several tasks are added up; their folder is no foreign file."""
    run = outcomes(tmp_path, rdt="SF")
    for number, equal in enumerate((2, 5)):
        told = {"looked": 10, "equal": equal, "largest": 1e-6 * equal}
        files.write_json(run.records / "agreement" / f"a0-s{number}-server0.json", told)
    (said,) = evidence.caveats(load(run))
    assert "7 of 20 answers looked at (35.0 %)" in said
    assert "largest difference 5.0e-06" in said


def test_a_file_that_does_not_belong_there_is_a_caveat(tmp_path: Path) -> None:
    run = outcomes(tmp_path, rdt="SF")
    for number in range(7):
        (run.records / f"notes-{number}.txt").touch()
    (said,) = evidence.caveats(load(run))
    assert said.endswith(
        "records/notes-0.txt, notes-1.txt, notes-2.txt, notes-3.txt, notes-4.txt and 2 more."
    )


def test_most_errors_have_one_cause(tmp_path: Path) -> None:
    """The query and the place in brackets do not make two causes of one."""
    run = runs.new_run(tmp_path, policies=["rdt"], init_states=(30, 34))
    said = ["query 0: RDTL-E055: not finite (here). Fix.", "query 3: RDTL-E055: not finite (there)"]
    for state, error in enumerate([*said, "lost the simulator"], 30):
        runs.add(run, [runs.record(run, "rdt", state, "policy_error", error=error)])
    _, errors = evidence.caveats(load(run))
    assert errors.endswith("Most often: RDTL-E055: not finite.")


def test_different_fixtures_at_one_initial_state_are_reported(tmp_path: Path) -> None:
    run = outcomes(tmp_path, rdt="SS", zero="F.")
    runs.add(run, [runs.record(run, "zero", 31, "fail", fixtures_sha256="elsewhere")])
    report = load(run)
    assert report.episodes.differing_fixtures() == [("libero_object", 0, 31)]
    assert any("RDTL-E004" in sentence for sentence in evidence.caveats(report))


def test_trials_of_one_initial_state_may_begin_in_scenes_of_their_own(tmp_path: Path) -> None:
    """With openvla-sequential each is another reset, the same for every policy."""
    policies = ["rdt", "zero"]
    asked: dict[str, Any] = {"init_states": (30, 31), "trials": 2, "reset": "openvla-sequential"}
    run = runs.new_run(tmp_path, policies=policies, **asked)
    for policy in policies:
        for trial in range(2):
            moved = {"trial": trial, "fixtures_sha256": f"reset {trial}"}
            runs.add(run, [runs.record(run, policy, 30, "success", **moved)])
    report = load(run)
    assert not report.episodes.differing_fixtures()
    assert not [said for said in evidence.caveats(report) if "RDTL-E004" in said]
    other = runs.new_run(tmp_path / "other", policies=["rdt"], **asked)
    for trial, scene in enumerate(("reset 0", "elsewhere")):
        moved = {"trial": trial, "fixtures_sha256": scene}
        runs.add(other, [runs.record(other, "rdt", 30, "success", **moved)])
    (pair,) = compare.compare([report, load(other)], [])
    assert (pair.finished.pairs, pair.other_scene) == (1, 1)
    moved = {"trial": 1, "fixtures_sha256": "elsewhere"}
    again = runs.new_run(tmp_path / "again", policies=policies, **asked)
    runs.add(again, [runs.record(again, "rdt", 30, "fail", trial=1)])
    runs.add(again, [runs.record(again, "zero", 30, "fail", **moved)])
    assert load(again).episodes.differing_fixtures() == [("libero_object", 0, 30)]


def test_the_table_fits_80_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = load(runs.full_run(tmp_path, video=False))
    table = tables.summary(report)
    Output().table(table.title, table.columns, table.rows)
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 80
    assert printed == (
        f"\nlibero_object task 0, protocol {report.protocol.fingerprint()}\n"
        "  policy  successes  rate %  95 % interval  mean steps  errors  missing\n"
        "  ─────────────────────────────────────────────────────────────────────\n"
        "  rdt         14/18    77.8      54.8–91.0         186       1        1\n"
        "  expert      20/20   100.0     83.9–100.0         160       0        0\n"
        "  zero         0/20     0.0       0.0–16.1         280       0        0\n"
        "  replay      18/20    90.0      69.9–97.2         171       0        0\n"
    )


def test_errors_and_missing_have_no_column_when_there_are_none(tmp_path: Path) -> None:
    table = tables.summary(load(outcomes(tmp_path, rdt="SF", zero="FF")))
    assert table.columns == ("policy", "successes", "rate %", "95 % interval", "mean steps")


def test_the_document_is_json_and_keeps_fractions(tmp_path: Path) -> None:
    run = outcomes(tmp_path, rdt="SF", zero="..")
    path = tmp_path / "document.json"
    files.write_json(path, tables.document(load(run)))
    data: dict[str, Any] = files.read_json(path)
    rdt, zero = data["policies"]
    assert (rdt["policy"], rdt["rate"], rdt["successes"]) == ("rdt", 0.5, 1)
    assert rdt["interval"] == pytest.approx([0.0945, 0.9055], abs=1e-4)
    assert (zero["rate"], zero["interval"], zero["missing"]) == (None, None, 2)
    assert data["protocol"]["fingerprint"] == runs.protocol_of(run).fingerprint()
