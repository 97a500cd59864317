"""What the scheduler says, asked seldom: one squeue for everything, one sacct for what is gone.

A controller serves the whole cluster, so the answer is kept in a file for half a
minute and shared by every ``rdtl`` of the same user, whichever run it looks at.
An error is kept too, longer each time, up to five minutes. What the answer means
for a run is decided in :mod:`launcher.status`.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from launcher.core import files

HOLD_S = 30.0
LONGEST_HOLD_S = 300.0
TIMEOUT_S = 30
SQUEUE = "--format=%F|%K|%T|%r|%S|%N|%j"
SACCT = "--format=JobID,State,ExitCode,End"


@dataclass(frozen=True)
class Row:
    """One line of squeue: a job, or the tasks of an array that share a state."""

    job: str
    tasks: str
    """Array indices as squeue writes them (``5-99%4``); ``N/A`` for a job that is no array."""
    state: str
    reason: str
    start: str
    """When it started or is expected to, as squeue writes it; ``N/A`` when it cannot say."""
    nodes: str
    name: str


@dataclass(frozen=True)
class Snapshot:
    """One answer of the scheduler."""

    at: float = 0.0
    """Seconds since 1970 just before the question; 0 when it never answered."""
    asked: float = 0.0
    """When it was last asked, with or without an answer."""
    rows: tuple[Row, ...] = ()
    error: str = ""
    failures: int = 0
    ended: dict[str, list[str]] = field(default_factory=dict)
    """State, exit code and end of jobs that left the queue, by JOB or JOB_TASK (sacct)."""
    accounting: bool = True

    def stale(self, now: float) -> bool:
        """Whether it may be asked again."""
        doubled = min(self.failures, 10)  # far beyond the longest hold; there are failures by day
        hold = min(HOLD_S * 2.0**doubled, LONGEST_HOLD_S)
        return now - self.asked >= hold


class Controller:
    """Asks squeue and sacct in ``environment`` on behalf of ``user`` (empty: me)."""

    def __init__(
        self,
        environment: Mapping[str, str],
        folder: Path,
        user: str = "",
        clock: Callable[[], float] = time.time,
    ) -> None:
        # 0: squeue writes array indices in full instead of cutting them at 64 characters.
        self.environment = {**environment, "SLURM_BITSTR_LEN": "0"}
        self._user = user
        self._clock = clock
        # One home may serve several clusters, where SLURM_CONF is the same path or not set at all.
        named = sorted(f"{k}={v}" for k, v in environment.items() if k.startswith("SLURM_"))
        cluster = "|".join([*named, socket.gethostname(), user, str(os.geteuid())])
        self.key = hashlib.sha256(cluster.encode()).hexdigest()[:12]
        """The same for two controllers that get the same answer."""
        self._file = folder / f"queue-{self.key}.json"

    def snapshot(self, *, fresh: bool = False) -> Snapshot:
        """The kept answer while it is young, else a new one. ``fresh``: ask in any case.

        Whoever is about to change something must not act on an old answer.
        """
        known = self._load()
        if not fresh and not known.stale(self._clock()):
            return known
        with _lock(self._file.with_suffix(".lock")):
            known = self._load()  # another process may have asked while we waited
            if not fresh and not known.stale(self._clock()):
                return known
            answer = self._ask(known)
            self._store(answer)
            return answer

    def with_ends(self, known: Snapshot, jobs: set[str], since: float) -> Snapshot:
        """``known`` and how ``jobs`` ended, as far as accounting can say.

        One sacct, and none within half a minute of the last. ``since`` (seconds since 1970) is
        needed: without a start time sacct looks at today only.
        """
        missing = {job for job in jobs if not _covers(known, job)}
        if not missing or not known.accounting or known.error:
            return known
        with _lock(self._file.with_suffix(".lock")):
            rows = self._sacct(missing, since)
            asked = {f"{job}?": [str(self._clock())] for job in missing}
            answer = replace(
                known,
                ended={**known.ended, **asked, **(rows or {})},
                accounting=rows is not None,
            )
            self._store(answer)
            return answer

    def forget(self) -> None:
        """Drop the kept answer: the caller has just changed what it says."""
        with contextlib.suppress(OSError):
            self._file.unlink(missing_ok=True)

    def _ask(self, known: Snapshot) -> Snapshot:
        now = self._clock()
        whom = f"--user={self._user}" if self._user else "--me"
        done = self.call(["squeue", whom, "--noheader", SQUEUE])
        if isinstance(done, str):
            return replace(known, asked=now, error=done, failures=known.failures + 1)
        return Snapshot(
            at=now,
            asked=now,
            rows=tuple(parse(done.stdout)),
            ended=_final(known),
            # A cluster seldom gets accounting; ask again when nobody has looked for an hour.
            accounting=known.accounting or now - known.asked > 3600,
        )

    def _sacct(self, jobs: set[str], since: float) -> dict[str, list[str]] | None:
        """Ends by job; empty when the database does not answer, None when there is none."""
        start = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(since - 60))
        command = ["sacct", "-X", "--parsable2", "--noheader", SACCT, f"--starttime={start}"]
        done = self.call([*command, f"--jobs={','.join(sorted(jobs))}"])
        if isinstance(done, str):
            return None if "accounting storage is disabled" in done else {}
        lines = [line.split("|") for line in done.stdout.splitlines()]
        # A row that still runs is only late: the job has left the queue already.
        late = ("RUNNING", "PENDING", "REQUEUED", "COMPLETING", "RESIZING", "SUSPENDED")
        return {x[0]: x[1:4] for x in lines if len(x) >= 4 and not x[1].startswith(late)}

    def call(
        self, command: list[str], timeout_s: float = TIMEOUT_S
    ) -> subprocess.CompletedProcess[str] | str:
        """The finished command, or why there is no answer."""
        try:
            done = subprocess.run(
                command,
                env=self.environment,
                capture_output=True,
                text=True,
                errors="replace",  # a job may be called anything
                check=False,
                timeout=timeout_s,
                stdin=subprocess.DEVNULL,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return str(error)
        return done if done.returncode == 0 else done.stderr.strip()[:300] or f"{command[0]} failed"

    def _load(self) -> Snapshot:
        try:
            data = files.read_json(self._file)
            rows = tuple(Row(**row) for row in data.pop("rows"))
            return Snapshot(rows=rows, **data)
        except (FileNotFoundError, json.JSONDecodeError, TypeError, KeyError):
            return Snapshot()  # never asked, or written by another version of this program

    def _store(self, answer: Snapshot) -> None:
        # A full home directory must not keep anybody from looking: then every look asks.
        with contextlib.suppress(OSError):
            files.write_json(self._file, asdict(answer))


def _covers(known: Snapshot, job: str) -> bool:
    """Whether accounting was asked about this job since the queue was last asked."""
    asked = known.ended.get(f"{job}?")
    return asked is not None and float(asked[0]) >= known.at


def _final(known: Snapshot) -> dict[str, list[str]]:
    """Ends that can never change any more; they need no second question."""
    return {job: end for job, end in known.ended.items() if not job.endswith("?")}


def parse(text: str) -> Iterator[Row]:
    """Rows of ``squeue --format=%F|%K|%T|%r|%S|%N|%j``; a job name may hold the separator."""
    for line in text.splitlines():
        parts = line.split("|", 6)
        if len(parts) == 7:
            yield Row(*parts)


def indices(expression: str) -> list[int | None]:
    """Array indices of a squeue expression: ``1,3,5-7%2`` → 1, 3, 5, 6, 7; no array → [None].

    A step is written ``0-8:2``.
    """
    if expression in ("N/A", ""):
        return [None]
    found: list[int | None] = []
    for part in expression.partition("%")[0].split(","):
        span, _, step = part.partition(":")
        first, _, last = span.partition("-")
        found += range(int(first), int(last or first) + 1, int(step or 1))
    return found


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """One question at a time among processes of one machine; only politeness depends on it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = path.open("a")
    except OSError:
        yield
        return
    with handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def cache_folder() -> Path:
    """Where answers are kept: the user's own cache, as runs of others cannot be written to."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "rdtl"
