"""Steps that fail: what is tried again, what a remedy is for, what ends at once."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.core.dag import Signature, Step
from tests.recipes.boxes import ALONE, Box, begun, ended_box, wait_for


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    with ended_box(tmp_path) as found:
        yield found


OOM = Signature(
    "RDTL-X004", "CUDA out of memory", "no room", "a smaller batch", remedy="halve-micro-batch"
)
TRAIN = (
    "echo $RDTL_MICRO_BATCH x $RDTL_ACCUMULATION >> batches; "
    'if test "$RDTL_MICRO_BATCH" -gt 4; then '
    "echo 'torch.OutOfMemoryError: CUDA out of memory' >&2; exit 1; fi"
)


@pytest.mark.parametrize(
    ("micro", "remedies", "tried"),
    [
        ("16", ("halve-micro-batch",), ["16 x 2", "8 x 4", "4 x 8"]),
        ("16", (), ["16 x 2"]),
        ("7", ("halve-micro-batch",), ["7 x 2"]),
    ],
)
def test_out_of_memory_halves_the_micro_batch_where_it_may(
    box: Box, micro: str, remedies: tuple[str, ...], tried: list[str]
) -> None:
    env = {"RDTL_MICRO_BATCH": micro, "RDTL_ACCUMULATION": "2"}
    more = {"retries": 3, "retry_wait_s": 0.0, "remedies": remedies, "signatures": (OOM,)}
    box.write(Step("train", script=TRAIN, env=env, **more))  # type: ignore[arg-type]
    good = tried[-1].startswith("4")
    assert box.call("run").returncode == (0 if good else 1)
    assert (box.work / "batches").read_text().splitlines() == tried
    assert len(box.events("remedy")) == len(tried) - 1
    if not good:
        assert box.events("step_fail")[0]["code"] == "RDTL-X004"


def test_unknown_failures_are_tried_again_and_known_ones_without_remedy_are_not(box: Box) -> None:
    known = Signature("RDTL-G014", "invalid_grant", "the token is too old", "log in again")
    again = {"retries": 2, "retry_wait_s": 0.0}
    box.write(
        Step("flaky", script=f"{ALONE}test $(wc -l < flaky.begun) -ge 3", **again),  # type: ignore[arg-type]
        Step("hopeless", script=f"{ALONE}echo invalid_grant; exit 1", signatures=(known,), **again),  # type: ignore[arg-type]
    )
    assert box.call("run").returncode == 1
    assert (begun(box, "flaky"), begun(box, "hopeless")) == (3, 1)
    assert [e["attempt"] for e in box.events("retry", "flaky")] == [1, 2]
    assert box.events("step_fail")[0]["code"] == "RDTL-G014"


def test_stop_does_not_wait_for_the_next_try(box: Box) -> None:
    box.write(Step("s", script=f"{ALONE}false", retries=5, retry_wait_s=600.0))
    box.start()
    wait_for(lambda: box.events("retry"))
    assert box.call("stop").returncode == 0
    assert begun(box, "s") == 1
    assert box.events("step_fail")[0]["reason"] == "stopped"


def test_a_recognised_error_ends_a_step_that_would_go_on_but_lets_it_finish_its_words(
    box: Box,
) -> None:
    nan = Signature("RDTL-X002", "loss=nan", "diverged", "lower the rate")
    box.write(Step("s", script="echo loss=nan; sleep 0.3; echo last; sleep 600", signatures=(nan,)))
    assert box.call("run").returncode == 1
    (failed,) = box.events("step_fail")
    assert (failed["code"], failed["last"]) == ("RDTL-X002", ["loss=nan", "last"])
    assert box.events("signature")[0]["number"] == 1


def test_a_step_that_stands_still_is_ended(box: Box) -> None:
    box.write(Step("s", script="echo on; sleep 600", stall_s=0.5))
    assert box.call("run").returncode == 1
    assert box.events("step_fail")[0]["code"] == "RDTL-B053"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("dpkg") is None, reason="not a Debian")
def test_the_lock_of_apt_is_waited_for(box: Box) -> None:
    """dpkg itself, with an administration of its own, while another process holds its lock."""
    admin = box.folder / "dpkg"
    (admin / "updates").mkdir(parents=True)
    (admin / "status").touch()
    (admin / "lock-frontend").touch()
    hold = (
        "import fcntl, sys, time; f = open(sys.argv[1], 'r+'); "
        "fcntl.lockf(f, fcntl.LOCK_EX); print(flush=True); time.sleep(600)"
    )
    held = Signature(
        "RDTL-B018", "frontend lock was locked", "apt works", "wait", remedy="wait-apt-lock"
    )
    step = Step(
        "apt",
        argv=("dpkg", "--configure", "--pending"),
        env={"DPKG_ADMINDIR": str(admin)},
        signatures=(held,),
        remedies=("wait-apt-lock",),
        retries=1,
        retry_wait_s=0.0,
    )
    box.write(step)
    argv = [box.python, "-c", hold, str(admin / "lock-frontend")]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        box.start()
        wait_for(lambda: box.events("remedy"))
        time.sleep(1.5)
        assert len(box.events("step_begin")) == 1, "it waits"
        other.kill()
    assert box.finished() == 0, box.events("step_fail")
    assert len(box.events("step_begin")) == 2
