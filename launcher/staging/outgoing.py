"""Results leave while a stage runs: ``python -m launcher.staging.outgoing RUN``, beside the job.

Checkpoints and the policy go as soon as they have their names; records, logs and the rest go as
they grow. What is proven to be in the store is written to ``RUN/uploads/NAME.json``, and only
what is written there may be deleted here. A box that dies loses what was made after the last
round. The process ends when its standard input does: with its node task, however that ended.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import sys
import tempfile
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from launcher.core import files, retention
from launcher.core.errors import RdtlError, RefusedError
from launcher.core.runs import RunDir
from launcher.staging import engine, failures, locks, own_copy, results, send, stores
from launcher.staging import uri as uris
from launcher.staging.store import Listing
from launcher.staging.uri import Uri

POLL_S = 2.0
"""How soon a new checkpoint is noticed."""
MARK = "uploads/owner.json"
"""By this file a run knows its own place in a store: written once, whatever its plan becomes."""

WORD = "ended"
"""Left in RUN/uploads by a task that has ended while another one uploads."""


@dataclass
class Outgoing:
    """Everything of one run that leaves for ``uri``."""

    run: RunDir
    uri: Uri
    delete: bool = False
    sent: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Length and time of every file of the rest, as it was when it was proven there."""
    claimed: bool = False

    def units(self) -> list[Path]:
        """Folders that got their names when they were whole, the oldest first."""
        folder = self.run.checkpoints
        steps = [retention.place(folder, step) for step in retention.steps(folder)]
        return [*steps, *([self.run.policy] if self.run.policy.is_dir() else [])]

    def waiting(self) -> list[Path]:
        """Units that are not proven to be in the store as they are here."""
        return [unit for unit in self.units() if not self._is_proven(unit)]

    def round(self) -> None:
        """Upload and prove what is new. Raises what :func:`launcher.staging.send.send` raises."""
        self._claim()
        for unit in self.waiting():
            self._send_unit(unit)
        if self.delete:
            self._delete()  # first: what grows is copied before it is sent, and needs room
        self._send_rest()

    def _claim(self) -> None:
        """The place is empty or this run's; RefusedError RDTL-G045 for another run's, RDTL-G046
        for the run's directory itself."""
        if self.claimed:
            return
        own_copy.require_other(self.run.root, self.uri, ())
        mark = self.run.root / MARK
        files.publish_once(mark, {"id": uuid.uuid4().hex})
        there = self._there([MARK]) or self._there()  # all of it only where it has no mark
        if there is None:
            self._send_paths([MARK])
        else:
            marked = any(entry.path == MARK for entry in there.entries)
            theirs = engine.ask(there.remote.at(MARK), "cat") if marked else ""
            if theirs != mark.read_text(encoding="utf-8"):
                raise _taken(self.uri, "another run" if marked else "something else")
        self.claimed = True

    def _there(self, names: list[str] | None = None) -> Listing | None:
        """What lies at the place, of ``names`` or at all; None when nothing does."""
        try:
            return stores.store_for(self.uri.scheme).list(self.uri, names)
        except RdtlError as error:
            if error.problem.code not in send.ABSENT:
                raise
            return None

    def _send_unit(self, unit: Path) -> None:
        name = str(unit.relative_to(self.run.root))
        identity = results.identity(unit)
        with results.held(unit, self.run.uploads) as folder:
            if folder is None:
                return  # training has replaced it by a newer one meanwhile
            place = replace(self.uri, path=f"{self.uri.path}/{name}")
            parcel = send.Parcel(folder, place, replace=True, say=say)
            own_copy.require_other(unit, place, ())
            before = own_copy.trace(unit)
            sent = send.send(parcel)
            if own_copy.trace(unit) not in (before, None):  # None: training has removed it
                raise own_copy.refusal(unit, place)
        facts = {"uri": str(place), "digest": sent.manifest.digest, "bytes": sent.manifest.size}
        proven = {**facts, "files": len(sent.manifest.files), "identity": identity}
        files.write_json(self._record(unit), {**proven, "at": time.time()})
        say(f"{name}: {proven['files']} files, {proven['bytes']} bytes, proven at {place}")

    def _send_rest(self) -> None:
        found = {str(p.relative_to(self.run.root)): p for p in results.rest(self.run.root)}
        facts = {
            path: (s.st_size, s.st_mtime_ns) for path, p in found.items() if (s := results.stat(p))
        }
        changed = [path for path in facts if self.sent.get(path) != facts[path]]
        if changed:
            self._send_paths(changed)
            self.sent |= {path: facts[path] for path in changed}

    def _send_paths(self, paths: list[str]) -> None:
        """Files that still grow go as they are now: a copy cannot change on its way."""
        self.run.uploads.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".now-", dir=self.run.uploads) as folder:
            for path in paths:
                target = Path(folder, path)
                target.parent.mkdir(parents=True, exist_ok=True)
                with suppress(FileNotFoundError):  # gone meanwhile
                    shutil.copy2(self.run.root / path, target)
            send.send(send.Parcel(Path(folder), self.uri, paths=paths, say=say))

    def _delete(self) -> None:
        """Checkpoints that are proven to be in the store, but those that are kept for good."""
        train = files.read_json(self.run.plan)["config"].get("train") or {}
        kept = (train.get("keep_every"), train.get("keep_best"))
        for step in retention.spare(self.run.checkpoints, *kept):
            unit = retention.place(self.run.checkpoints, step)
            if self._is_proven(unit):
                retention.discard(unit)
                say(f"{unit.name}: deleted here, proven there")

    def _is_proven(self, unit: Path) -> bool:
        try:
            return bool(files.read_json(self._record(unit))["identity"] == results.identity(unit))
        except FileNotFoundError:
            return False

    def _record(self, unit: Path) -> Path:
        return self.run.uploads / f"{'.'.join(unit.relative_to(self.run.root).parts)}.json"


def attend(outgoing: Outgoing, every_s: float) -> int:
    """Of the tasks of a run one uploads; another takes over when that one ends.

    A task that ends while another one uploads leaves word and goes: the other begins a round
    after it found the word, and looks for one once more when it has let go of the lock.
    """
    word = outgoing.run.uploads / WORD
    code, ended = 0, False
    while not ended or word.exists():
        with locks.held(outgoing.run.uploads / "lock", say, wait=False) as lock:
            if lock != "busy":
                code, ended = follow(outgoing, every_s), True
        if lock == "busy":
            if ended:
                return code
            ended = _input_ends(POLL_S)
            if ended:
                word.touch()
    return code


def follow(outgoing: Outgoing, every_s: float) -> int:
    """Rounds until standard input ends, and a last one; 1 when something could not be uploaded."""
    ended, next_round = False, time.monotonic()
    while not ended:
        ended = _input_ends(POLL_S)
        if not ended and (outgoing.waiting() or time.monotonic() >= next_round):
            done = _tried(outgoing)
            next_round = time.monotonic() + every_s
            if not done:
                ended = _input_ends(min(every_s, 30.0))
                next_round = time.monotonic()
    return 0 if _last_round(outgoing) else 1


def _last_round(outgoing: Outgoing) -> bool:
    """Tried for some seconds: a store that is just being started again must not cost a run."""
    for seconds in (0.0, *failures.WAITS):
        time.sleep(seconds)
        if _tried(outgoing):
            return True
    return False


def _tried(outgoing: Outgoing) -> bool:
    """One round; what fails is said and left for the next one: the job goes on."""
    failure: RdtlError | OSError | None = None
    try:
        (outgoing.run.uploads / WORD).unlink(missing_ok=True)  # what it is about goes now
        outgoing.round()
    except (RdtlError, OSError) as found:
        failure = found
    with suppress(OSError):  # a full disk takes neither state nor log, and may have room again
        _note(outgoing, failure)
    return failure is None


def _note(outgoing: Outgoing, failure: RdtlError | OSError | None) -> None:
    """What became of a round, for whoever looks at the run."""
    error: dict[str, Any] | None = None
    if failure:
        error = failure.to_dict() if isinstance(failure, RdtlError) else {"what": str(failure)}
    behind = [str(unit.relative_to(outgoing.run.root)) for unit in outgoing.waiting()]
    state = {"at": time.time(), "behind": behind, "error": error, "uri": str(outgoing.uri)}
    files.write_json(outgoing.run.upload_state, state)
    if failure:
        say(str(failure))


def _input_ends(seconds: float) -> bool:
    """Wait; True when the other end of standard input is closed."""
    ready, _, _ = select.select([0], [], [], seconds)
    return bool(ready) and not os.read(0, 4096)


def _taken(place: Uri, what: str) -> RefusedError:
    return RefusedError(
        "RDTL-G045",
        f"{what} lies where this run's results are to go",
        where=str(place),
        why="the results of two runs would be mixed, and one would replace the other's",
        fix="set upload.uri to another place, or give the run another name",
    )


def say(text: str) -> None:
    """A line of RUN/logs/upload.log."""
    print(f"{time.strftime('%Y-%m-%dT%H:%M:%S')} {text}", flush=True)


def main(root: str) -> int:
    """Upload what the plan's configuration says, while the stage runs."""
    for number in (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # they are for the job, which now saves its state
    run = RunDir(Path(root).resolve())
    asked = files.read_json(run.plan)["config"]["upload"]
    base = uris.parse(asked["uri"], "upload.uri")
    place = replace(base, path=f"{base.path.rstrip('/')}/{run.root.name}".lstrip("/"))
    if base.path.startswith("/"):
        place = replace(place, path=f"/{place.path}")
    return attend(Outgoing(run, place, asked["delete"]), asked["every_seconds"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
