"""A policy server as a child of the evaluation task whose workers ask it; see :mod:`jobs.serve`."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from launcher.core import files
from launcher.core.errors import RdtlError, from_dict
from launcher.core.job import die_with_parent

LISTENING = "listening on "
DEATHS = 3
"""How often one server may die before its task gives up."""
ENDS_WITHIN_S = 10.0


class PolicyServer:
    """One server on this machine's loopback. It dies with this process and hears no scheduler.

    ``options`` are those of :class:`jobs.serve.Options` without host and port; everything that
    it prints is appended to ``log``.
    """

    def __init__(self, options: dict[str, Any], log: Path) -> None:
        self._options, self._log, self._port = options, log, 0
        self._error = log.with_suffix(".error.json")
        self._deaths = 0
        self._start()

    def uri(self) -> str | None:
        """Where it listens, once it is warm; None while it loads.

        Raises the error that it ended with, or RdtlError RDTL-E067.
        """
        if not self.alive():
            raise self._died()
        uri = self._said()
        if uri is not None:
            self._port = int(uri.rpartition(":")[2])
        return uri

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def alive(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None

    def keep_alive(self) -> None:
        """Start it again in the same place if it died; clients are patient meanwhile.

        Raises the error that it ended with, or RdtlError RDTL-E067 when it dies too often.
        """
        if self.alive():
            return
        self._deaths += 1
        died = self._died()
        if self._error.exists() or self._deaths >= DEATHS:
            raise died
        print(f"{died}\nit is started again", file=sys.stderr, flush=True)
        self._start()

    def end(self) -> None:
        """End it, after the answers that it computes now if that is soon."""
        if self.alive() and self._said():  # one that still loads has nothing to finish
            self._process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(ENDS_WITHIN_S)
        self._process.kill()
        self._process.wait()

    def _said(self) -> str | None:
        """The address that this start of it has printed."""
        with self._log.open("rb") as log:
            log.seek(self._begin)
            lines = log.read().decode(errors="replace").splitlines(keepends=True)
        whole = [line for line in lines if line.startswith(LISTENING) and line.endswith("\n")]
        return whole[0].removeprefix(LISTENING).strip() if whole else None

    def _start(self) -> None:
        self._log.parent.mkdir(parents=True, exist_ok=True)
        self._error.unlink(missing_ok=True)
        with self._log.open("ab") as log:
            self._begin = log.tell()
            told = json.dumps({**self._options, "host": "127.0.0.1", "port": self._port})
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "jobs.serve", told],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "RDTL_ERROR_FILE": str(self._error)},
                preexec_fn=_in_the_shade,
            )
        self._began = time.monotonic()

    def _died(self) -> RdtlError:
        if self._error.exists():
            return from_dict(files.read_json(self._error))
        seconds = time.monotonic() - self._began
        return RdtlError(
            "RDTL-E067",
            f"the policy server of this task ended with code {self._process.returncode} "
            f"after {seconds:.0f} s",
            where=f"{self._options['device']}, log {self._log}",
            why="nobody asked it to; -9 is often the kernel, when memory ran out",
            fix="look into the log; raise evaluate.policy_memory_mb if memory ran out, and run "
            "the same command again",
        )


def _in_the_shade() -> None:
    """Slurm signals every process of a task; workers that finish an episode still need this one."""
    die_with_parent()
    for number in (signal.SIGTERM, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
