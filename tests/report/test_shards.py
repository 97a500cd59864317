"""Any number of shard files, torn, repeated, foreign or CSV, add up to the same counts."""

from __future__ import annotations

import random
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from launcher.core.errors import RdtlError
from launcher.core.runs import RunDir
from launcher.report import csv_files, load, reading, shards
from launcher.report.layouts import CSV, JSON, STATUSES
from rdt.spec import planned
from rdt.spec import record as records
from rdt.spec.record import Record
from tests.report import runs

TEXTS = st.sampled_from(["", 'lost "it", really', "a\\b, c", "plain", "ünï 😀", '"', "=1+1"])


def a_record(run: RunDir, state: int, status: str, error: str = "", **changes: object) -> Record:
    return runs.record(run, "rdt", 30 + state, status, error=error, **changes)


def small(root: Path) -> RunDir:
    return runs.new_run(root, policies=["rdt", "zero"], init_states=(30, 34), trials=2)


@settings(max_examples=40, deadline=None)
@given(
    lines=st.lists(
        st.tuples(
            st.integers(0, 5),
            st.integers(0, 2),
            st.sampled_from(STATUSES[1:]),
            TEXTS,
            st.integers(0, 3),
        ),
        max_size=30,
    )
)
def test_counts_are_those_of_reading_every_record(
    tmp_path_factory: pytest.TempPathFactory, lines: list[tuple[int, int, str, str, int]]
) -> None:
    run = small(tmp_path_factory.mktemp("run"))
    for number, (state, trial, status, text, part) in enumerate(lines):
        r = a_record(run, state, status, text, trial=trial, steps=number, host=f"n{text}")
        runs.add(run, [r], f"part-{part}.jsonl")
    asked = planned.from_config(reading.plan(run)["config"])
    found = shards.scan(run.records, asked)
    wanted = {r.key: r for r in records.read_folder(run.records)}
    wanted = {key: r for key, r in wanted.items() if asked.part(key._asdict()) is not None}
    assert {r.key: r for r in found.records(found.recorded())} == wanted
    kept = {asked.key(n): (STATUSES[found.status[n]], found.steps[n]) for n in found.recorded()}
    assert kept == {key: (r.status, r.steps) for key, r in wanted.items()}
    outside = sum(state > 3 or trial > 1 for state, trial, *_ in lines)
    assert (found.unplanned, found.duplicates) == (outside, len(lines) - outside - len(wanted))


def test_a_csv_of_another_run_counts_like_its_json_lines(tmp_path: Path) -> None:
    run = small(tmp_path / "a")
    runs.add_outcomes(run, "zero", "FFEF")
    own = [a_record(run, i, "env_error", t) for i, t in enumerate(['"q", x', "=cmd", "-", "ok"])]
    runs.add(run, own)
    before = load(run)
    other = small(tmp_path / "b")
    text = csv_files.episodes(before)
    (other.records / "part-from-elsewhere.csv").write_text(text, encoding="utf-8")
    after = load(other)
    assert after.rows == before.rows
    assert list(after.records()) == list(before.records())
    with (other.records / "part-from-elsewhere.csv").open("a") as handle:
        handle.write(text.splitlines()[1])  # whole but for its newline
    assert load(other).episodes.torn == ["part-from-elsewhere.csv"]


def test_both_patterns_fit_what_our_writers_write(tmp_path: Path) -> None:
    run = small(tmp_path)
    r = a_record(run, 0, "env_error", 'he said "no", twice\\')
    assert JSON.pattern.fullmatch(r.line().encode() + b"\n")
    runs.add(run, [r])
    _, line = csv_files.episodes(load(run)).splitlines(keepends=True)
    assert CSV.pattern.fullmatch(line.encode())
    assert JSON.parse(r.line().encode()) == CSV.parse(line.removesuffix("\n").encode()) == r


def test_foreign_files_are_named_and_not_read(tmp_path: Path) -> None:
    run = small(tmp_path)
    runs.add(run, [a_record(run, 0, "success")])
    (run.records / "part-x.csv").write_text("suite,success\nlibero_object,1\n")
    (run.records / "notes.txt").write_text("hello\n")
    (run.records / ".part-1.jsonl.part").write_text("being published")
    (run.records / "part-old").mkdir()
    found = load(run).episodes
    assert found.foreign == ["notes.txt", "part-old", "part-x.csv"]
    assert found.status.count(1) == 1


@pytest.mark.parametrize(
    "changes",
    [
        *({"status": "won"}, {"steps": -1}, {"steps": 1.5}, {"wall_s": "3"}, {"host": 7}),
        *({"trial": True}, {"attempt": "x"}, {"queries": None}),
    ],
)
def test_impossible_values_are_named(tmp_path: Path, changes: dict[str, object]) -> None:
    run = small(tmp_path)
    part = runs.add(run, [a_record(run, i, "success") for i in range(3)])
    runs.add(run, [replace(a_record(run, 3, "success"), **changes)])
    (name,) = changes
    with pytest.raises(RdtlError) as caught:
        load(run)
    assert caught.value.problem.code == "RDTL-E075"
    assert f"{part}:4: " in caught.value.problem.where
    assert name in caught.value.problem.where


def test_shards_shuffled_over_1_3_or_40_files_give_the_same_tables(tmp_path: Path) -> None:
    run = small(tmp_path / "0")
    own = [
        runs.record(run, policy, state, "success" if (state + trial) % 3 else "fail", trial=trial)
        for policy in ("rdt", "zero")
        for state in range(30, 34)
        for trial in range(2)
    ]
    tables = set()
    for files in (1, 3, 40):
        other = small(tmp_path / str(files))
        shuffled = random.Random(files).sample(own, len(own))
        for number, r in enumerate(shuffled):
            runs.add(other, [r], f"part-{number % files}.jsonl")
        report = load(other)
        tables.add(csv_files.summary(report) + csv_files.episodes(report))
        shutil.rmtree(other.root)
    assert len(tables) == 1


def test_blocks_end_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = small(tmp_path)
    own = [a_record(run, i, "success", trial=t) for i in range(4) for t in range(2)]
    runs.add(run, own)
    for block in (1, 7, 599, 5000):
        monkeypatch.setattr(shards, "BLOCK", block)
        found = load(run)
        assert list(found.records())[: len(own)] == own
        assert not found.episodes.torn
