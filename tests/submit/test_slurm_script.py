"""The sbatch script: golden files, and names that would break a careless one."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from launcher.core.errors import UsageError
from launcher.submit.script import Request, directive, printable, render

GOLDEN = Path(__file__).parent / "golden"
SINGLE = Request(
    title="Stage dataset of run demo-cluster, attempt 1: task 0 of 1.",
    job_name="rdtl-0a1b2c3d-dataset-a1",
    folder=Path("/scratch/me/runs/demo-cluster/slurm/dataset/attempt_1"),
    code=Path("/scratch/me/runs/demo-cluster/code"),
    python="/home/me/venv/bin/python",
    nodes=1,
    cpus=1,
    memory_mb=2000,
    minutes=30,
    partition="a100",
)
KINDS = {
    "single": SINGLE,
    "multi-node": replace(
        SINGLE,
        title="Stage train of run demo-cluster, attempt 1: task 0 of 1.",
        job_name="rdtl-0a1b2c3d-train-a1",
        nodes=2,
        cpus=16,
        memory_mb=400_000,
        minutes=1440,
        gpus_per_node=8,
        account="vision",
        qos="long",
    ),
    "array": replace(
        SINGLE,
        title="Stage evaluate of run demo-cluster, attempt 2, part 3 of 10: "
        "tasks 2002-3002 of 10000.",
        job_name="rdtl-0a1b2c3d-evaluate-a2.c2",
        folder=Path("/scratch/me/runs/demo-cluster/slurm/evaluate/attempt_2/part_2"),
        array=1001,
        at_once=50,
        after=("4711",),
    ),
    "dependent": replace(
        SINGLE,
        title="Stage report of run demo-cluster, attempt 1: task 0 of 1.",
        job_name="rdtl-0a1b2c3d-report-a1",
        after=("4711", "4712"),
        after_any=True,
    ),
}
NASTY = Path("""/tmp/it's a "test" $HOME `id` 100% ü 漢 #;&|<>*?[]{}!~""")
# What a path may hold and sbatch's line-by-line reading can carry.
names = st.text(
    st.characters(blacklist_categories=("Cc", "Cs", "Zl", "Zp"), blacklist_characters="/\\"),
    min_size=1,
    max_size=40,
)
shell_words = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\0"))


@pytest.mark.parametrize("kind", KINDS)
def test_the_script_of_each_kind_is_the_one_that_was_looked_at(kind: str) -> None:
    path = GOLDEN / f"{kind}.sh"
    text = render(KINDS[kind])
    if os.environ.get("RDTL_WRITE_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text()


@pytest.mark.parametrize("kind", KINDS)
def test_bash_can_read_it_and_it_shows_no_secrets(kind: str) -> None:
    text = render(KINDS[kind])
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)
    assert "set -x" not in text and "--export" not in text
    assert all(line.startswith("#") or "#SBATCH" not in line for line in text.splitlines())


def commands_of(request: Request) -> str:
    """The part of the script that bash executes, with srun replaced by something that tells."""
    lines = render(request).splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith("export "))
    tell = 'srun() { for word in "$@"; do printf "%s\\0" "$word"; done; }\n'
    after = '\nprintf "%s\\0" "$PYTHONPATH"\n'
    return tell + "\n".join(lines[start:]) + after


@settings(max_examples=40, deadline=None)
@given(names, names)
@example(str(NASTY), "-n")
@example("'", '"')
def test_bash_hands_every_path_on_unchanged(folder: str, code: str) -> None:
    request = replace(SINGLE, folder=Path("/r") / folder.lstrip("/"), code=Path("/c") / code)
    done = subprocess.run(
        ["bash", "--norc"], input=commands_of(request).encode(), capture_output=True, check=True
    )
    words = [os.fsdecode(word) for word in done.stdout.split(b"\0")]
    assert str(request.folder) in words
    assert words[-2] == str(request.code)
    log = words[words.index("--output") + 1]
    assert log.replace("%%", "\0").count("%") == 2  # %j and %t, nothing of the path
    assert log.replace("%%", "%").startswith(str(request.folder))


@settings(max_examples=100)
@given(names)
@example("a b'c\"d\\e#f")
def test_a_directive_is_one_line_that_reads_back(value: str) -> None:
    line = directive("comment", value)
    assert line.count("\n") == 0
    assert shlex.split(line.removeprefix("#SBATCH ")) == [f"--comment={value}"]


@given(shell_words)
def test_a_directive_never_spans_lines(value: str) -> None:
    try:
        line = directive("output", value)
    except UsageError as error:
        assert error.problem.code == "RDTL-U024"
        assert re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", value)
    else:
        assert len(line.splitlines()) == 1


def test_a_backslash_in_a_path_is_refused() -> None:
    with pytest.raises(UsageError, match="backslash"):
        render(replace(SINGLE, folder=Path("/a\\b")))


@given(shell_words)
def test_a_title_stays_a_comment(text: str) -> None:
    lines = render(replace(SINGLE, title=text)).splitlines()
    assert lines[1].startswith("# ") or not printable(text)
    assert lines[2] == "# Written by rdtl for one sbatch."
