"""What differs between a run and this installation now: code, versions, image."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher import create, snapshot
from launcher.core import files
from launcher.core.runs import RunDir

LONGEST = 80
"""Lines of differences that are shown; more are counted."""
WORK = "copied into the run"
"""Of a run of ``rdtl run``: it is compared with the git tree around the current directory."""


@dataclass(frozen=True)
class Difference:
    """Facts as (name, then, now), and the unified diff of the code."""

    facts: list[tuple[str, str, str]]
    files: list[str]
    diff: list[str]
    code: Path

    def lines(self) -> list[str]:
        """For a person: facts first, then the diff, cut when it is long."""
        width = max(len(name) for name, _, _ in self.facts)
        said = [
            f"  {name:<{width}}  {then}" + ("" if then == now else f"  (now {now})")
            for name, then, now in self.facts
        ]
        if not self.files:
            return ["", *said, "", "RDT Launcher's code that ran is that of now"]
        head = f"{len(self.files)} file(s) of the code differ: {', '.join(self.files[:8])}"
        left = len(self.diff) - LONGEST
        more = [f"… {left} more lines: diff -ru {self.code} {_source()}"] if left > 0 else []
        return ["", *said, "", head, *self.diff[:LONGEST], *more]

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        facts = {name: {"then": then, "now": now} for name, then, now in self.facts}
        return {"facts": facts, "files": self.files, "diff": self.diff}


def of(run: RunDir) -> Difference:
    """Compare ``run`` with this installation; reads every file of the code once."""
    lock = files.read_json(run.lock)
    names = sorted(_names(run.code) | _names(_source()))
    diffs = {name: _file(run.code / name, _source() / name, name) for name in names}
    changed = [name for name, lines in diffs.items() if lines]
    text = [line for name in changed for line in diffs[name]]
    return Difference(_facts(run, lock), changed, text, run.code)


def _source() -> Path:
    return Path(__file__).parent.parent


def _names(root: Path) -> set[str]:
    return {
        str(path.relative_to(root))
        for package in snapshot.PACKAGES
        for path in (root / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def _file(then: Path, now: Path, name: str) -> list[str]:
    before, after = (_lines(path) for path in (then, now))
    if before == after:
        return []
    return list(difflib.unified_diff(before, after, f"then/{name}", f"now/{name}", lineterm=""))


def _lines(path: Path) -> list[str]:
    if not path.exists():
        return []
    return path.read_text(encoding="utf-8", errors="replace").splitlines()


def _facts(run: RunDir, lock: dict[str, Any]) -> list[tuple[str, str, str]]:
    git = snapshot.git_state(_source())
    whole = snapshot.code_digest(run.code) == lock["code_sha256"]
    facts = [
        ("created", lock["created"], lock["created"]),
        ("commit", _commit(lock["git"]), _commit(git)),
        ("snapshot", lock["code_sha256"][:12], lock["code_sha256"][:12] if whole else "changed!"),
    ]
    if run.work.exists():
        newer = snapshot.newer_work(run.work, Path.cwd())
        listed = ", ".join(newer[:8]) + (", …" if len(newer) > 8 else "")
        now = f"{len(newer)} file(s) differ: {listed}" if newer else WORK
        facts.append(("working tree", WORK, now))
    if lock["image"]:
        reference, sha256 = lock["image"]["reference"], lock["image"]["sha256"]
        there = Path(reference).exists() or lock["image"]["runtime"] != "apptainer"
        said = f"{lock['image']['name']} {sha256[:12]} ({lock['image']['runtime']})"
        facts.append(("image", said, said if there else f"{reference} is gone"))
    else:
        versions = {name: create.version(name) or "not installed" for name in lock["packages"]}
        facts += [(name, then, versions[name]) for name, then in sorted(lock["packages"].items())]
    return facts


def _commit(state: dict[str, Any] | None) -> str:
    if state is None:
        return "no git"
    return f"{state['commit'][:12]}{' and uncommitted changes' if state['dirty'] else ''}"
