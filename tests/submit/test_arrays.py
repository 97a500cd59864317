"""Cutting arrays, and who may send a part."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from launcher import arrays, owner
from launcher.arrays import Part, Submissions, cut, spans
from launcher.core.runs import Ledger

indices = st.lists(st.integers(0, 100_000), unique=True, max_size=200).map(sorted)


@given(indices, st.integers(1, 50))
def test_parts_hold_every_task_once_in_order_and_are_as_few_as_possible(
    tasks: list[int], size: int
) -> None:
    parts = cut("a", 1, tasks, size)
    assert [i for part in parts for i in part.indices] == tasks
    assert len(parts) == math.ceil(len(tasks) / size)
    assert all(0 < len(part.indices) <= size for part in parts)
    assert len({part.tag for part in parts}) == len(parts)


def test_without_a_limit_there_is_one_part() -> None:
    (part,) = cut("a", 3, list(range(5)), None)
    assert part == Part("a", 3, (0, 1, 2, 3, 4))
    assert part.tag == "a3"
    assert [p.tag for p in cut("a", 3, [0, 1], 1)] == ["a3.c0", "a3.c1"]


@given(indices)
def test_spans_say_the_same_numbers(tasks: list[int]) -> None:
    found: list[int] = []
    for span in spans(tasks).split(","):
        first, _, last = span.partition("-")
        found += range(int(first), int(last or first) + 1) if span else []
    assert found == tasks


def test_of_two_launchers_one_decides_what_an_attempt_holds(tmp_path: Path) -> None:
    one, two = Submissions(Ledger(tmp_path)), Submissions(Ledger(tmp_path))
    first = one.claim("a", 0, [0, 1, 2], 2)
    assert two.claim("a", 0, [0, 1], None) == first
    assert [part.indices for part in first] == [(0, 1), (2,)]


def test_of_two_launchers_one_sends(tmp_path: Path) -> None:
    one, two = Submissions(Ledger(tmp_path)), Submissions(Ledger(tmp_path))
    (part,) = one.claim("a", 0, [0], None)
    seen = one.newest(part).number, two.newest(part).number
    assert seen == (0, 0)
    assert one.begin(part, 0)
    assert not two.begin(part, 0), "what it knew is no longer true"


def test_a_try_of_a_living_process_is_busy_of_a_dead_one_unclear(tmp_path: Path) -> None:
    record = Submissions(Ledger(tmp_path))
    (part,) = record.claim("a", 0, [0], None)
    code = (
        "import sys, time; from pathlib import Path; from launcher.core.runs import Ledger;"
        "from launcher.arrays import Submissions;"
        "s = Submissions(Ledger(Path(sys.argv[1]))); (p,) = s.parts('a', 1);"
        "s.begin(p, 0); print('began', flush=True); time.sleep(60)"
    )
    argv = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as other:
        assert other.stdout and other.stdout.readline()
        assert record.newest(part).state == "busy"
        other.kill()
    newest = record.newest(part)
    assert (newest.number, newest.state) == (1, "unclear")
    assert time.time() - newest.at < 60


def test_a_try_on_another_machine_is_busy_until_its_lease_ends(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    record = Submissions(ledger)
    (part,) = record.claim("a", 0, [0], None)
    elsewhere = {**owner.me(), "boot": "another machine"}
    ledger.publish("sending.a.a1.t1", owner=elsewhere)
    assert record.newest(part).state == "busy"
    old = tmp_path / "sending.a.a1.t2.json"
    text = (tmp_path / "sending.a.a1.t1.json").read_text()
    at = ledger.read("sending.a.a1.t1")["at"]  # type: ignore[index]
    old.write_text(text.replace(str(at), str(at - arrays.LEASE_S - 1)))
    assert (record.newest(part).number, record.newest(part).state) == (2, "unclear")


def test_a_process_that_took_over_a_pid_is_another_one() -> None:
    me = owner.me()
    assert not owner.is_gone(me)
    assert owner.is_gone({**me, "start": me["start"] - 1})
    with subprocess.Popen(["true"]) as ended:
        ended.wait()
    assert owner.is_gone({**me, "pid": ended.pid})
    assert not owner.is_gone({**me, "pid": os.getppid(), "namespace": "another"})


def test_what_was_sent_is_known_to_everybody(tmp_path: Path) -> None:
    one, two = Submissions(Ledger(tmp_path)), Submissions(Ledger(tmp_path))
    part = one.claim("a", 0, [0, 1, 2], 2)[1]
    assert two.ids(part) is None
    one.sent(part, ["17"])
    assert two.ids(part) == ["17"]
    assert Ledger(tmp_path).read("submitted.a.a1.c1")["indices"] == [2]  # type: ignore[index]
