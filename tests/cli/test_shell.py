"""Which job `rdtl shell --into` means, and what its shell gets from it."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs import shell
from launcher.core import dag_processes, files
from launcher.core.errors import UsageError
from launcher.core.plan import Plan, Stage
from launcher.core.runs import RunDir
from launcher.shell import find_stages


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    made = RunDir(tmp_path / "runs" / "r-s")
    made.root.mkdir(parents=True)
    made.plan.write_text("{}")
    made.ledger.publish("submitted.train.a1", ids=["7"])
    made.ledger.publish("submitted.evaluate.a1.c0", ids=["8"])
    return made


def test_a_run_names_all_its_jobs_the_newest_first(run: RunDir) -> None:
    found = find_stages(run.root.parent, "r-s")
    assert found == (run, {"8": "evaluate", "7": "train"})
    assert list(found[1]) == ["8", "7"]


def test_a_job_or_array_task_names_its_stage_only(run: RunDir) -> None:
    assert find_stages(run.root.parent, "7") == (run, {"7": "train"})
    assert find_stages(run.root.parent, "8_3") == (run, {"8": "evaluate"})


def test_what_nobody_submitted_is_refused(run: RunDir) -> None:
    with pytest.raises(UsageError, match="no run and no submitted job"):
        find_stages(run.root.parent, "99")


def test_a_shell_does_not_count_as_what_a_task_has_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it is opened from inside of a task: it would be ended with that one."""
    stage = Stage("run", ("true",), own_code=False, working_directory=str(tmp_path))
    files.write_json(tmp_path / "plan.json", Plan("p", "local", (stage,), {}).to_dict())
    monkeypatch.setenv(dag_processes.TASK, "another run's")
    sees = 'printf "%s" "$RDTL_STAGE ${RDTL_TASK-nothing}" >sees'
    assert shell.main([str(tmp_path), "run", "sh", "-c", sees]) == 0
    assert (tmp_path / "sees").read_text() == "run nothing"
