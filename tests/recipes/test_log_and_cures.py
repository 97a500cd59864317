"""The log of a step on disk, and which remedy a failure has: what recipes rarely reach."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from launcher.core import dag_execute, dag_remedies
from launcher.core.dag import Step
from launcher.core.dag_execute import LONGEST_LINE, Log
from launcher.core.redaction import Redaction
from launcher.core.signatures import LOOKED_AT, Failure, Patterns, Signature

MICRO, ACCUMULATION = dag_remedies.MICRO_BATCH, dag_remedies.ACCUMULATION


def test_lines_are_cut_out_of_any_pieces(tmp_path: Path) -> None:
    """Ends of all kinds, split anywhere, also between \\r and \\n; the last line needs none."""
    text = b"one\ntwo\r\n\r\nthree\rfour\r\r\nfive"
    for size in range(1, len(text) + 1):
        log, taken = Log(tmp_path / f"log{size}", Redaction()), list[str]()
        for begin in range(0, len(text), size):
            log.add(text[begin : begin + size], taken.append)
        log.close(taken.append)
        assert taken == ["one", "two", "three", "four", "five"], size


def test_output_without_a_line_end_costs_no_more_than_with(tmp_path: Path) -> None:
    """256 KB of dots took minutes of the runner's one core."""
    log, taken = Log(tmp_path / "log", Redaction()), list[str]()
    began = time.process_time()
    for _ in range(64):
        log.add(b"." * 4096, taken.append)
    assert time.process_time() - began < 1
    log.close(taken.append)
    assert "".join(taken) == "." * (64 * 4096)
    assert all(LONGEST_LINE < len(line) <= LONGEST_LINE + 4096 for line in taken[:-1])


def test_a_progress_bar_is_kept_now_and_then_and_looked_at_always(tmp_path: Path) -> None:
    log, taken = Log(tmp_path / "log", Redaction()), list[str]()
    log.shown = time.monotonic() - 10
    log.add(b"1 %\r2 %\r3 %\rdone\n", taken.append)
    log.close(taken.append)
    assert taken == ["1 %", "2 %", "3 %", "done"]
    assert (tmp_path / "log").read_text() == "1 %\ndone\n"


def test_a_log_stays_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dag_execute, "LOG_BYTES", 100)
    log = Log(tmp_path / "log", Redaction())
    for number in range(30):
        log.add(b"line %d\n" % number, lambda _: None)
    log.close(lambda _: None)
    assert (tmp_path / "log.1").stat().st_size + (tmp_path / "log").stat().st_size < 220
    assert (tmp_path / "log").read_text().endswith("line 29\n")


def test_a_full_disk_ends_the_log_and_not_the_step(tmp_path: Path) -> None:
    (tmp_path / "log").symlink_to("/dev/full")
    log, taken = Log(tmp_path / "other", Redaction()), list[str]()
    log.handle.close()
    log.handle = (tmp_path / "log").open("ab", buffering=0)
    log.add(b"a\nb\n", taken.append)
    assert log.full and taken == ["a", "b"] and log.last == ["a", "b"]


@pytest.mark.parametrize(
    ("code", "remedy", "allowed", "variables", "expected"),
    [
        (next(iter(dag_remedies.UNKNOWN)), None, (), {}, "retry"),
        ("RDTL-G011", "retry", ("retry",), {}, "retry"),
        ("RDTL-G011", "retry", (), {}, None),
        ("RDTL-B018", "wait-apt-lock", ("wait-apt-lock",), {}, "wait-apt-lock"),
        ("RDTL-T001", "halve-micro-batch", ("halve-micro-batch",), {}, None),
        ("RDTL-T001", "halve-micro-batch", ("halve-micro-batch",),
         {MICRO: "4", ACCUMULATION: "2"}, "halve-micro-batch"),
        ("RDTL-T001", "halve-micro-batch", ("halve-micro-batch",),
         {MICRO: "3", ACCUMULATION: "2"}, None),
        ("RDTL-T001", "halve-micro-batch", ("halve-micro-batch",),
         {MICRO: "1", ACCUMULATION: "2"}, None),
        ("RDTL-T001", "halve-micro-batch", ("halve-micro-batch",),
         {MICRO: "many", ACCUMULATION: "2"}, None),
    ],
)  # fmt: skip
def test_the_remedy_of_a_failure(
    code: str, remedy: str | None, allowed: tuple[str, ...], variables: dict[str, str],
    expected: str | None,
) -> None:  # fmt: skip
    """Only what the step allows; a batch that cannot be halved without changing it stays."""
    failure = Failure(code, "it failed", remedy=remedy)
    cure = dag_remedies.cure(Step("s", argv=("true",), remedies=allowed), failure, variables)
    assert (cure and cure.name) == expected
    if expected == "halve-micro-batch":
        assert cure is not None and cure.changed == {MICRO: "2", ACCUMULATION: "4"}


def test_a_lock_that_is_not_there_or_not_ours_to_ask_is_not_waited_for(tmp_path: Path) -> None:
    began = time.monotonic()
    for lock in (None, tmp_path / "absent", tmp_path):
        dag_remedies.Cure("wait-apt-lock", lock=lock).wait(threading.Event())
    assert time.monotonic() - began < 0.9


def test_all_of_a_long_line_is_looked_at() -> None:
    """Also what two pieces share; the beginning of a piece is not that of the line."""
    patterns = Patterns([Signature("RDTL-G009", "No space left", "full", "free some")])
    middle = [(at, 3 * LOOKED_AT) for at in range(2 * LOOKED_AT - 20, 2 * LOOKED_AT + 20)]
    for before, after in ((10, 10), (0, 10**6), (10**6, 0), (10**5, 10**5), *middle):
        assert list(patterns.of("x" * before + "No space left" + "y" * after))
    begins = Patterns([Signature("RDTL-G009", "^No space left", "full", "free some")])
    assert not list(begins.of("x" * LOOKED_AT + "No space left" + "y" * 3 * LOOKED_AT))
