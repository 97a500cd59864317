"""The runner's command line on a box: ``python3 runner.pyz VERB RUN …``.

::

    start RUN [--graph] [--secrets PATH|-]
                                    detach and run; says "running" when one is at work already
    run RUN [--secrets PATH|-]      run here
    follow RUN [--after N]          events as they come, one JSON object a line
    status RUN                      what there is
    plan RUN [--graph] [--secrets PATH|-]
                                    what would run and what be skipped, and why
    verify RUN [STEP …]             the deep proofs, again
    stop RUN                        end all steps, and wait for it
    check NAME …                    a verification program (:mod:`launcher.core.box_checks`)

Secrets are KEY=VALUE lines; with ``-`` they come by stdin and never lie in a file. With
``--graph`` the first line of stdin is the graph, instead of what lies in RUN/dag.json.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from launcher.core import dag, dag_look, dag_reading, dag_runner, errors
from launcher.core.dag_files import BoxRun
from launcher.core.dag_follow import follow
from launcher.core.errors import EXIT_FAILED, EXIT_OK, EXIT_REMOTE, RdtlError, RefusedError

RUNNER_OUT = "runner.out"
"""What a detached runner says besides its events: nothing, unless it is broken."""
STOP_WAIT_S = 30.0
LOCKED_S = 5.0
"""A runner that has the lock tells within this time which process it is."""


def main(argv: list[str] | None = None) -> int:
    """Returns the exit status; errors are one JSON object on stderr."""
    words = sys.argv[1:] if argv is None else argv
    if words[:1] == ["check"]:
        from launcher.core import box_checks  # the others need not wait for it

        return box_checks.main(words[1:])
    try:
        return _verb(_parser().parse_args(words))
    except RdtlError as error:
        told = error
    except OSError as error:
        told = errors.file_system(error, "running a recipe")
    print(json.dumps(told.to_dict()), file=sys.stderr)
    return told.exit_status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="runner.pyz", description="Runs the steps of a recipe.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    for name in ("start", "run", "follow", "status", "plan", "verify", "stop"):
        verb = verbs.add_parser(name)
        verb.add_argument("run", type=lambda text: BoxRun(Path(text).resolve()))
        if name in ("start", "run", "plan", "verify"):
            verb.add_argument("--secrets", default="")
        if name in ("start", "plan"):
            verb.add_argument("--graph", action="store_true")
        if name == "verify":
            verb.add_argument("steps", nargs="*")
        if name == "follow":
            verb.add_argument("--after", type=int, default=0)
    return parser


def _verb(asked: argparse.Namespace) -> int:
    run: BoxRun = asked.run
    if asked.verb == "run":
        return dag_runner.run(run, read_secrets(asked.secrets))
    if asked.verb == "start":
        brought = read_graph() if asked.graph else None
        return _start(run, read_secrets(asked.secrets), brought)
    if asked.verb == "follow":
        return _follow(run, asked.after)
    if asked.verb == "stop":
        return _stop(run)
    if asked.verb == "verify":
        return _verify(run, asked.steps, read_secrets(asked.secrets))
    if asked.verb == "plan":
        graph = read_graph() if asked.graph else run.load()
        return _say(dag_look.plan(run, graph, read_secrets(asked.secrets)))
    return _say(dag_look.status(run))


def _say(data: Any) -> int:
    print(json.dumps(data, ensure_ascii=False), flush=True)
    return EXIT_OK


def read_graph() -> dag.Graph:
    """The graph in the first line of stdin."""
    return dag_reading.from_dict(json.loads(sys.stdin.readline()))


def read_secrets(place: str) -> dict[str, str]:
    """KEY=VALUE lines of a file that only its owner can read, or of stdin (``-``)."""
    if not place:
        return {}
    if place != "-" and Path(place).stat().st_mode & 0o077:
        raise RefusedError(
            "RDTL-B052",
            "others may read the file with the secrets",
            where=place,
            why="what others could read is no secret any more",
            fix=f"chmod 600 {place}; if the machine has other users, renew the secrets",
        )
    text = sys.stdin.read() if place == "-" else Path(place).read_text(encoding="utf-8")
    pairs = (line.partition("=") for line in text.splitlines() if line.strip())
    return {name.strip(): value for name, _, value in pairs}


def _start(run: BoxRun, secrets: Mapping[str, str], brought: dag.Graph | None) -> int:
    """Detach a runner from this session, unless one is at work; its first word says whether."""
    if brought is None:
        run.load()
    if owner := run.owner():
        return _say({"state": "running", "pid": owner.pid})
    ear, mouth = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(ear)
        _detach(run, secrets, mouth, brought)
    os.close(mouth)
    os.waitpid(child, 0)
    with os.fdopen(ear) as said:
        word = json.loads(said.readline() or "null")
    if word is None:
        out = (run.root / RUNNER_OUT).read_text(encoding="utf-8", errors="replace")
        print(out[-4000:], file=sys.stderr)
        return EXIT_REMOTE
    if "code" not in word:
        return _say(word)
    if word["code"] == "RDTL-B050" and (pid := _faster(run)):
        return _say({"state": "running", "pid": pid})
    raise errors.from_dict(word)


def _faster(run: BoxRun) -> int | None:
    """The process of another start that got the lock a moment before."""
    deadline = time.monotonic() + LOCKED_S
    while time.monotonic() < deadline:
        if owner := run.owner():
            return owner.pid
        time.sleep(0.05)
    return None


def _detach(
    run: BoxRun, secrets: Mapping[str, str], mouth: int, brought: dag.Graph | None
) -> NoReturn:
    """In the child: become a process of nobody, run, and never return."""
    os.setsid()
    if os.fork():
        os._exit(0)
    out = os.open(run.root / RUNNER_OUT, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    for number, descriptor in ((0, os.open(os.devnull, os.O_RDONLY)), (1, out), (2, out)):
        os.dup2(descriptor, number)

    def say(word: Any) -> None:
        # Nobody listens where the start was killed, or has had its word: that ends no run.
        with contextlib.suppress(OSError):
            os.write(mouth, json.dumps(word).encode() + b"\n")
            os.close(mouth)

    rc = EXIT_FAILED
    try:
        started = {"state": "started", "pid": os.getpid()}
        rc = dag_runner.run(run, secrets, lambda: say(started), brought)
    except RdtlError as error:
        say(error.to_dict())
    except OSError as error:
        say(errors.file_system(error, "running a recipe").to_dict())
    except BaseException:  # beyond this line lies the parent's own work
        traceback.print_exc()
    os._exit(rc)


def _follow(run: BoxRun, after: int) -> int:
    last = {}
    for event in follow(run, after):
        last = event
        print(json.dumps(event, ensure_ascii=False), flush=True)
    return EXIT_REMOTE if last.get("event") == "gone" else EXIT_OK


def _stop(run: BoxRun) -> int:
    """End the runner and with it all steps; also those of one that was killed."""
    owner = run.owner()
    if owner is None:
        return _say({"state": "not running", "ended": dag_runner.end_strays(run, run.load())})
    os.kill(owner.pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_WAIT_S
    while owner.alive():
        if time.monotonic() > deadline:
            raise RdtlError(
                "RDTL-B059",
                f"the runner (process {owner.pid}) does not end",
                where=str(run.root),
                why="a step hangs in the kernel, or the disk does not answer",
                fix=f"look at it with ps; kill -9 {owner.pid} is safe, the next start cleans up",
            )
        time.sleep(0.05)
    return _say({"state": "stopped"})


def _verify(run: BoxRun, names: list[str], secrets: Mapping[str, str]) -> int:
    good = True
    for step, failure in dag_look.verify(run, names, secrets):
        good = good and failure is None
        _say({"step": step, "good": failure is None, "why": failure.reason if failure else ""})
    return EXIT_OK if good else EXIT_FAILED
