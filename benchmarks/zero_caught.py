"""Which command catches each mistake of docs/why-zero-percent.md, really run.

``python -m benchmarks.zero_caught DATA POLICY OLD`` takes the demonstrations and the policy of a
finished `rdtl demo`, makes each mistake on data, policy or configuration, runs the command and
writes what it said to ``benchmarks/results/why-zero-caught.json``. OLD is a policy folder with a
card of another version.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks import harness, zero, zero_data

RESULT = harness.RESULTS / "why-zero-caught.json"
EXAMPLES = Path("examples/why-zero")
ROOT = Path(__file__).parents[1]


class Case(NamedTuple):
    """A mistake, how it is made, the code that it must have, and the arguments of `rdtl`.

    DATA, SPOILED, POLICY and OLD in them stand for paths.
    """

    mistake: str
    made: str
    code: str
    arguments: str
    mujoco: str = "3.3.2"


def _data(mistake: str, spoiled: str, code: str) -> Case:
    made = f"`python -m benchmarks.zero_data {spoiled} DATA SPOILED`"
    command = f"doctor {EXAMPLES}/data.yaml --set 'dataset.sets=[{{path: SPOILED}}]'"
    return Case(mistake, made, code, command)


def _file(mistake: str, name: str, code: str, arguments: str) -> Case:
    return Case(mistake, f"`examples/why-zero/{name}`", code, arguments.format(EXAMPLES / name))


VERIFY, TRAIN = "data verify DATA --statistics {}", "train {} --dry-run --site a100-node"
CASES = (
    _data("actions in metres, not LIBERO's units", "metres", "RDTL-D001"),
    _file("statistics of 15 numbers", "statistics-15d.json", "RDTL-D003", VERIFY),
    _file("proprioception of 7 numbers", "statistics-proprio-7.json", "RDTL-D004", VERIFY),
    _file(
        "a whole chunk executed unseen",
        "whole-chunk.yaml",
        "RDTL-E022",
        "doctor {} --checkpoint POLICY",
    ),
    _file("effective batch 32", "batch-32.yaml", "RDTL-T006", TRAIN),
    _file("warm-up of 0.1 %", "warm-up.yaml", "RDTL-T005", "doctor {}"),
    _data("tails of episodes never sampled", "dropped_tail", "RDTL-D008"),
    Case(
        "a checkpoint of another contract",
        "a card of an earlier version",
        "RDTL-T012",
        "doctor evaluate/demo --checkpoint OLD",
    ),
    Case("MuJoCo 3.17", "`pip install mujoco==3.17.0`", "RDTL-E003", "doctor", "3.17.0"),
    _data("gripper's sign reversed", "gripper", "RDTL-D016"),
    _data("pictures mirrored", "mirrored", "RDTL-E007"),
    _data("pictures turned by 180°", "turned", "RDTL-E007"),
    _data("observations one step late", "off_by_one", "RDTL-D027"),
)


def said(case: Case, places: dict[str, Path]) -> tuple[int, str]:
    """Exit status and output of the command."""
    arguments = case.arguments
    for name, path in places.items():
        arguments = arguments.replace(name, str(path))
    done = subprocess.run(
        [sys.executable, "-P", "-m", "launcher", *shlex.split(arguments)],
        cwd=ROOT,
        env={**zero.environment(case.mujoco), "NO_COLOR": "1", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def sentence(code: str, text: str) -> str:
    """What stands behind the first mention of the code as an error or a warning."""
    found = re.search(rf"^.*(?:fail|error|warn\w*)\s+{code}:?\s+(.*)$", text, re.M | re.I)
    return found[1].strip() if found else ""


def results(
    cases: Sequence[Case], data: Path, policy: Path, old: Path
) -> Iterator[dict[str, str | int]]:
    """One case after the other; a spoiled copy exists as long as its command needs it."""
    with tempfile.TemporaryDirectory() as folder:
        spoiled = Path(folder) / data.name
        places = {"DATA": data, "SPOILED": spoiled, "POLICY": policy, "OLD": old}
        for case in cases:
            if "SPOILED" in case.arguments:
                zero_data.spoil(case.made.split()[3], data, spoiled)
            status, text = said(case, places)
            words = sentence(case.code, text)
            print(case.mistake, status, words or f"NOT CAUGHT\n{text}", flush=True)
            yield {
                "mistake": case.mistake,
                "made": case.made,
                "command": f"rdtl {case.arguments}",
                "status": status,
                "code": case.code,
                "said": words,
            }


def main(data: str, policy: str, old: str, *mistakes: str) -> None:
    """Run all, or those mistakes, and write what was said beside what is there."""
    chosen = [case for case in CASES if case.mistake in (mistakes or [c.mistake for c in CASES])]
    there = json.loads(RESULT.read_text())["cases"] if mistakes else []
    found = {case["mistake"]: case for case in there}
    for case in results(chosen, *(Path(path).resolve() for path in (data, policy, old))):
        found[str(case["mistake"])] = case
    cases = [found[case.mistake] for case in CASES]
    command = "python -m benchmarks.zero_caught DATA POLICY OLD"
    text = json.dumps({"command": command, "cases": cases}, indent=2, ensure_ascii=False)
    RESULT.write_text(text + "\n")


def table() -> str:
    """The rows of the table in docs/why-zero-percent.md."""
    cases = json.loads(RESULT.read_text())["cases"]
    return "\n".join(
        f"| {c['mistake']} | {c['made']} | `{c['command']}` | {c['code']}, {c['status']} | "
        f"{c['said']} |"
        for c in cases
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
