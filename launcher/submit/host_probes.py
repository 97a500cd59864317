"""Asks the hosts of a list what they are and whom they reach, all at once, over ssh."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from jobs.host_probe import MARK
from launcher.core import files
from launcher.core.job import die_with_parent
from launcher.hosts import Host
from launcher.sites import Site
from launcher.ssh import Connection

PATIENCE_S = 90.0
"""For all that one host has to say; a cold file system may need long to start Python."""
Result = TypeVar("Result")


@dataclass(frozen=True)
class Answer:
    """What one host said. ``facts`` is None when it did not get that far."""

    host: Host
    facts: dict[str, Any] | None
    wrote: bool = False
    """Whether the file that it wrote is seen here."""
    reached: set[tuple[int, str]] = field(default_factory=set)
    """(number of the other host, its address) of all that answered it."""
    exit_code: int | None = None
    words: str = ""
    """What ssh and the host printed as errors, in one line."""

    @property
    def last_words(self) -> str:
        """The end of it."""
        return self.words[-300:]


def connection(site: Site, host: Host) -> Connection:
    """A connection of its own to one host of the site."""
    return Connection(host.host, tuple(site.ssh_options), alone=True)


def python(code: Path, module: str, *arguments: str) -> list[str]:
    """The command that runs a module of the snapshot ``code`` with this interpreter."""
    own = ["env", f"PYTHONPATH={code}", "PYTHONSAFEPATH=1"]
    return [*own, sys.executable, "-P", "-m", module, *arguments]


class Probe:
    """The program ``jobs.host_probe`` on one host."""

    def __init__(self, site: Site, number: int, root: Path, nonce: str) -> None:
        self._host = site.hosts[number]
        activate = site.activate.get("train", site.activate.get("default", ""))
        words = [str(root), nonce, str(number), activate]
        command = python(root / "code", "jobs.host_probe", *words)
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  closed in end()
        self._process = subprocess.Popen(
            connection(site, self._host).argv(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            process_group=0,
            preexec_fn=die_with_parent,
        )
        self._limit = threading.Timer(PATIENCE_S, self._process.kill)
        self._limit.start()
        self._written = root / f"{nonce}.{number}.json"
        self.facts: dict[str, Any] | None = None
        self._reached: set[tuple[int, str]] = set()

    def learn(self) -> None:
        """Wait for the facts."""
        self.facts = self._line()

    def ask(self, targets: list[dict[str, Any]]) -> None:
        """Let the host try ``targets`` and wait for the outcome."""
        if self.facts is None or self._process.stdin is None:
            return
        try:
            self._process.stdin.write(json.dumps(targets) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:  # it died meanwhile; the exit code will say so
            return
        outcome = self._line() or []
        pairs = zip(targets, outcome, strict=False)
        self._reached = {(t["number"], t["address"]) for t, reached in pairs if reached}

    def _line(self) -> Any:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(MARK):
                return json.loads(line.removeprefix(MARK))
        return None

    def end(self) -> Answer:
        """Let the program go and put together what is known."""
        try:
            self._process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._limit.cancel()
        self._errors.seek(0)
        words = " ".join(self._errors.read().decode(errors="replace").split())
        self._errors.close()
        return Answer(
            self._host,
            self.facts,
            self._written.exists(),
            self._reached,
            self._process.returncode,
            words,
        )


def ask(site: Site, root: Path) -> list[Answer]:
    """One answer for each host, in the order of the site.

    ``root`` holds a snapshot of the code in ``code``; the hosts must see it there.
    """
    nonce = f".hosts-{uuid.uuid4().hex[:8]}"
    files.write_json(root / f"{nonce}.json", {})
    # Here, not in the pool: the kernel ties die_with_parent to the thread that starts a process.
    probes = [Probe(site, number, root, nonce) for number in range(len(site.hosts))]
    try:
        _at_once(Probe.learn, probes)
        targets = [t for i, probe in enumerate(probes) for t in _targets(i, nonce, probe.facts)]
        _at_once(
            lambda pair: pair[1].ask([t for t in targets if t["number"] != pair[0]]),
            list(enumerate(probes)),
        )
    finally:
        answers = _at_once(Probe.end, probes)
        for left in root.glob(f"{nonce}*.json"):
            left.unlink()
    return answers


def _targets(number: int, nonce: str, facts: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Every address under which host ``number`` may be reached."""
    if facts is None:
        return []
    common = {"number": number, "name": f"{nonce}.{number}", "port": facts["port"]}
    return [{**common, "address": one["address"]} for one in facts["interfaces"].values()]


def _at_once(do: Callable[[Any], Result], items: list[Any]) -> list[Result]:
    with ThreadPoolExecutor(max_workers=len(items)) as pool:
        return list(pool.map(do, items))
