"""Lines against patterns: failures, healthy marks, ranges, order, pace."""

from __future__ import annotations

import pytest

from launcher.core.dag import Limit, Marker, Signature, Step
from launcher.core.redaction import HIDDEN, Redaction
from launcher.core.signatures import Watch, matches

LOSS = r"step=(?P<step>\d+) loss=(?P<loss>\S+)"
OOM = Signature("RDTL-X001", "CUDA out of memory", "no room", "halve", remedy="halve-micro-batch")
HIGH = Signature("RDTL-X002", LOSS, "diverged", "", limit=Limit("loss", above=8.0, from_step=50))


@pytest.mark.parametrize(
    ("line", "shows"),
    [
        ("step=49 loss=11.5", False),
        ("step=50 loss=8.0", False),
        ("step=50 loss=8.1", True),
        ("step=60 loss=nan", True),
        ("step=60 loss=inf", True),
        ("step=60 loss=?", False),
    ],
)
def test_a_limit_looks_at_the_number_and_the_step(line: str, shows: bool) -> None:
    assert bool(list(matches([HIGH], [line]))) is shows


def test_finished_logs_give_numbers_of_lines() -> None:
    found = list(matches([OOM, HIGH], ["fine", "torch: CUDA out of memory", "step=51 loss=9"]))
    assert found == [(2, OOM), (3, HIGH)]


def test_case_counts_unless_said() -> None:
    soft = Signature("RDTL-X018", "could not get lock", "", "", ignore_case=True)
    hard = Signature("RDTL-X018", "could not get lock", "", "")
    assert list(matches([soft, hard], ["E: Could not get LOCK"])) == [(1, soft)]


def watch(*markers: Marker, **more: object) -> Watch:
    return Watch(Step("s", argv=("x",), markers=markers, **more), 0.0)  # type: ignore[arg-type]


def test_an_error_ends_and_a_warning_tells_once() -> None:
    warning = Signature("RDTL-X", "slow", "c", "f", severity="warning")
    watching = watch(signatures=(warning, OOM))
    assert [name for name, _ in watching.line("slow", 1) + watching.line("slow", 2)] == [
        "signature"
    ]
    assert watching.failure is None
    ((_, fields),) = watching.line("CUDA out of memory", 3)
    assert fields["number"] == 3
    assert watching.failure is not None and watching.failure.remedy == "halve-micro-batch"


def test_what_also_stands_in_healthy_logs_only_explains() -> None:
    killed = Signature("RDTL-X009", "Killed", "c", "f", only_after_failure=True)
    watching = watch(signatures=(killed,))
    assert watching.line("Killed", 1) == []
    assert watching.failure is None
    assert watching.explanation is not None and watching.explanation.code == "RDTL-X009"


@pytest.mark.parametrize(
    ("line", "odd"),
    [
        ("Loaded 811 weight tensors, skipped 1", {}),
        ("Loaded 810 weight tensors, skipped 1", {"loaded": ["810", 811]}),
        ("Loaded 811 weight tensors, skipped 5", {"skipped": ["5", [0, 1]]}),
    ],
)
def test_values_that_a_marker_expects(line: str, odd: dict[str, object]) -> None:
    marker = Marker(
        "weights",
        r"Loaded (?P<loaded>\d+) weight tensors, skipped (?P<skipped>\d+)",
        expect={"loaded": 811, "skipped": [0, 1]},
    )
    watching = watch(marker)
    ((_, fields),) = watching.line(line, 1)
    assert fields.get("unexpected", {}) == odd
    assert (watching.failure is not None) is bool(odd)


def test_marks_come_in_order() -> None:
    marks = (Marker("data", "data", 1), Marker("weights", "weights", 2), Marker("go", "go", 3))
    healthy = watch(*marks)
    for line in ("data", "data", "weights", "go"):
        healthy.line(line, 1)
    assert healthy.failure is None
    odd = watch(*marks)
    odd.line("data", 1)
    ((_, fields),) = odd.line("go", 2)
    assert fields["missing"] == ["weights"]
    assert odd.failure is not None and odd.failure.code == "RDTL-B056"


def test_a_marker_of_severity_warning_ends_nothing() -> None:
    watching = watch(Marker("loss", LOSS, expect={"loss": [0, 1]}, severity="warning"))
    assert "unexpected" in watching.line("step=0 loss=5", 1)[0][1]
    assert watching.failure is None


def test_lines_of_all_ranks_are_told_once_and_steps_at_most_each_second() -> None:
    watching = watch(Marker("step", LOSS))
    told = [watching.line(f"step={n} loss=1", n * 0.4) for n in (0, 0, 1, 2, 3)]
    assert [len(events) for events in told] == [1, 0, 0, 0, 1]


def test_pace_comes_from_the_times_of_arrival() -> None:
    watching = watch(Marker("step", LOSS))
    watching.line("step=0 loss=1", 100)
    ((_, fields),) = watching.line("step=5 loss=1", 170)
    assert fields["values"]["pace_s"] == 14


def test_hanging_before_the_first_step_and_between_two() -> None:
    watching = watch(Marker("step", LOSS), start_s=90, stall_s=210)
    watching.line("reading data", 80)
    assert watching.late(90) is None
    late = watching.late(91)
    assert late is not None and late.code == "RDTL-B053"
    watching.line("step=0 loss=1", 91)
    assert watching.late(300) is None
    watching.line("step=0 loss=1", 300)  # another rank, the same step
    assert watching.late(302) is not None


def test_without_steps_any_output_counts() -> None:
    watching = watch(stall_s=10)
    watching.line("a", 1)
    watching.line("b", 9)
    assert watching.late(18) is None and watching.late(20) is not None


@pytest.mark.parametrize(
    "text",
    ["wandb_v1_abc123", "hf_abcdefghijkl", "ghp_0123456789", "github_pat_11AA22", "ya29.a0Af-x",
     "AKIAABCDEFGHIJKLMNOP", "my own secret"],
)  # fmt: skip
def test_secrets_are_hidden_whole(text: str) -> None:
    hidden = Redaction(["my own secret"])(f"key {text} end")
    assert hidden == f"key {HIDDEN} end"


def test_every_line_of_a_secret_is_hidden_and_a_place_keeps_its_host() -> None:
    redact = Redaction(["first line\nsecond line"])
    assert redact("second line") == HIDDEN
    assert redact("https://user:token@host/x") == f"https://{HIDDEN}@host/x"


def test_the_last_values_are_told_when_the_process_has_ended() -> None:
    seen = watch(Marker("step", r"step=(?P<step>\d+)"))
    told = [event for n in range(10) for event in seen.line(f"step={n}", 0.01 * n)]
    assert [fields["values"]["step"] for _, fields in told] == ["0"]
    assert [fields["values"]["step"] for _, fields in seen.rest()] == ["9"]
    seen.line("step=10", 5.0)
    assert seen.rest() == []
