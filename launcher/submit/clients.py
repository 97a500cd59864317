"""Slurm's command-line programs: asked in a clean environment, and with patience.

A controller that restarts or is overloaded is silent for a while; jobs go on
meanwhile. So a question without an answer is asked again, less and less often,
and only after a long silence it becomes an error.
"""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from launcher.core.errors import RemoteError
from launcher.core.job import die_with_parent

INHERITED = ("SLURM_", "SLURMD_", "SRUN_", "SBATCH_", "SUBMITIT_", "PMI", "SPANK_")
KEPT = ("SLURM_CONF",)
PREFERRED = ("SQUEUE_", "SCANCEL_", "SINFO_", "SACCT_", "SCONTROL_")
"""A user's own taste: it hides jobs from our questions, or makes scancel ask unseen."""
SBATCH_TIMEOUT_S = 60.0
FIRST_PAUSE_S = 2.0
LONGEST_PAUSE_S = 60.0
PATIENCE_S = 30 * 60.0
"""How long the cluster may be silent before the launcher gives up looking."""

SILENT = re.compile(
    r"unable to contact slurm controller|socket timed out|zero bytes were transmitted"
    r"|connection (refused|timed out|reset)|communication connection failure"
    r"|connect failure|transport endpoint|temporarily unable|try again|resource temporarily"
    r"|backup controller in standby|unexpected message|controller not responding"
    r"|(send|receive) failure|incomplete",
    re.IGNORECASE,
)
"""Words of Slurm's programs that mean "nobody answered", not "no"."""


@dataclass(frozen=True)
class Reply:
    """What a program said; ``code`` is None when it did not end in time."""

    code: int | None
    out: str
    err: str

    @property
    def silent(self) -> bool:
        """Whether nobody answered, so that it is not known whether anything was done."""
        return self.code is None or (self.code != 0 and bool(SILENT.search(self.err)))

    @property
    def words(self) -> str:
        """What it complained of, in one line."""
        return " ".join(self.err.split())[:400]


def clean_environment(current: Mapping[str, str], site: dict[str, str]) -> dict[str, str]:
    """``current`` without what an enclosing job left and the user prefers, plus the site's.

    A job that inherits SLURM_* from the job in which it was submitted reads the
    wrong node list and array index; inherited PMI* makes its ranks join the wrong
    process group.
    """
    dropped = (*INHERITED, *PREFERRED)
    kept = {k: v for k, v in current.items() if k in KEPT or not k.startswith(dropped)}
    return {**kept, **site}


class Clients:
    """Runs Slurm's programs; remembers silence and spares the controller meanwhile."""

    def __init__(
        self,
        environment: dict[str, str],
        say: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        # Without SLURM_BITSTR_LEN squeue cuts array expressions at 64 characters.
        self.environment = {**environment, "SLURM_BITSTR_LEN": "0"}
        self.calls = 0
        self._say = say
        self._clock = clock
        self._silent_since: float | None = None
        self._pause = 0.0
        self._not_before = 0.0

    def run(self, argv: list[str], timeout_s: float = 30) -> Reply:
        """Run one program, which dies with this process; never raises for what it says."""
        self.calls += 1
        try:
            done = subprocess.run(
                argv,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
                timeout=timeout_s,
                preexec_fn=die_with_parent,  # a killed launcher's sbatch must not go in later
            )
        except subprocess.TimeoutExpired as late:
            words = (late.stderr or b"").decode(errors="replace").strip()
            return Reply(None, "", words or f"no answer within {timeout_s:g} s")
        return Reply(done.returncode, done.stdout, done.stderr)

    def ask(self, argv: list[str], timeout_s: float = 30) -> str | None:
        """What a question printed; None while the cluster is silent (not asked too often then)."""
        if self.resting:
            return None
        reply = self.run(argv, timeout_s)
        if reply.code == 0:
            self.answered()
            return reply.out
        self.unanswered(argv[0], reply)
        return None

    @property
    def resting(self) -> bool:
        """Whether it is too early to ask a silent cluster again."""
        return self._clock() < self._not_before

    def answered(self) -> None:
        """The cluster spoke."""
        if self._silent_since is not None:
            self._say("the cluster answers again")
        self._silent_since, self._pause, self._not_before = None, 0.0, 0.0

    def unanswered(self, program: str, reply: Reply) -> None:
        """Note a silence; RemoteError RDTL-S032 when it has lasted too long."""
        now = self._clock()
        if self._silent_since is None:
            self._silent_since = now
            self._say(f"the cluster does not answer ({reply.words}); jobs go on, asking again")
        elif now - self._silent_since > PATIENCE_S:
            minutes = (now - self._silent_since) / 60
            raise gave_up(f"{program} has not answered for {minutes:.0f} minutes", reply)
        self._pause = min(LONGEST_PAUSE_S, max(FIRST_PAUSE_S, 2 * self._pause))
        self._not_before = now + self._pause


def gave_up(what: str, reply: Reply) -> RemoteError:
    """RDTL-S032: ``what`` says for how long nobody answered."""
    return RemoteError(
        "RDTL-S032",
        what,
        where=reply.words,
        why="what was submitted goes on",
        fix="check the cluster (sinfo), then run the same command again: it continues",
    )
