"""What ``rdtl run`` needs beside a plan: where it runs and what it prints."""

from __future__ import annotations

import datetime
from pathlib import Path

import yaml

from launcher import snapshot
from launcher.core.plan import Stage
from launcher.core.runs import RunDir
from launcher.drive import StageView
from launcher.output import Output


def directory(runs_dir: Path, name: str | None, site: str) -> RunDir:
    """A new directory for each call, unless a name says which run to continue."""
    stamp = datetime.datetime.now(datetime.UTC).strftime("run-%Y%m%d-%H%M%S-%f")
    return RunDir((runs_dir / f"{name or stamp}-{site}").resolve())


def older_code(run: RunDir, start: Path) -> str:
    """That a run goes on with the copy it has while files here differ from it; else nothing."""
    if not run.plan.exists() or not (run.work).exists():
        return ""
    changed = snapshot.newer_work(run.work, start)
    if not changed:
        return ""
    more = ", …" if len(changed) > 3 else ""
    return (
        f"the command runs in this run's copy of the code, from which {len(changed)} file(s) here "
        f"differ ({', '.join(changed[:3])}{more}); another --name takes them as they are now"
    )


def as_yaml(command: list[str]) -> str:
    """run.yaml of a plain command."""
    return yaml.safe_dump({"command": command}, sort_keys=False)


class LogTail:
    """Prints the logs of all nodes as they grow; with several nodes each line names its node."""

    def __init__(self, run: RunDir, stage: Stage, output: Output) -> None:
        self._run = run
        self._stage = stage
        self._output = output
        self._offsets: dict[int, int] = {}

    def _path(self, node: int) -> Path:
        attempt = self._run.ledger.current_attempt(self._stage.name)
        return self._run.log(self._stage.name, attempt, 0, node)

    def __call__(self, views: list[StageView]) -> None:
        """Print the whole lines that are new since the last look."""
        self._print(whole_lines=True)

    def rest(self) -> None:
        """Print what is left, also a last line without newline."""
        self._print(whole_lines=False)

    def _print(self, *, whole_lines: bool) -> None:
        for node in range(self._stage.nodes):
            path = self._path(node)
            if not path.exists():
                continue
            data = path.read_bytes()[self._offsets.get(node, 0) :]
            if whole_lines:
                data = data[: data.rfind(b"\n") + 1]
            self._offsets[node] = self._offsets.get(node, 0) + len(data)
            prefix = f"[{node}] " if self._stage.nodes > 1 else ""
            for line in data.decode(errors="replace").splitlines():
                self._output.text(f"{prefix}{line}")

    def read(self) -> dict[str, str]:
        """Whole logs by node."""
        paths = {str(node): self._path(node) for node in range(self._stage.nodes)}
        return {n: p.read_text(errors="replace") for n, p in paths.items() if p.exists()}
