"""A user of this machine with a recipe of two steps."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import yaml

from tests.cli.run_rdtl import rdtl

CANARY = "canary_9f27c1e0b4"
RUN = [sys.executable, "-P", "-m", "launcher", "recipe", "run", "here.yaml"]
STEPS = {
    "one": {
        "script": 'echo x >> "$work/one.runs"; printf %s "$TOKEN" | wc -c > "$work/size"',
        "secrets": ["TOKEN"],
        "outputs": ["${work}/size"],
        "verify": {"cheap": 'test -s "$work/size"', "deep": 'test "$(cat "$work/size")" = 17'},
        "timeout": "10s",
    },
    "two": {
        "needs": ["one"],
        "script": 'echo x >> "$work/two.runs"; until [ -e "$work/go" ]; do sleep 0.05; done',
        "verify": {"cheap": "true"},
        "timeout": "1m",
    },
}


class Here:
    """A user of this machine with a home and a recipe."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.work = folder, folder / "work"
        self.work.mkdir()
        parameters = {"work": {"about": "folder", "default": str(self.work)}}
        made = {"name": "here", "about": "a test", "parameters": parameters, "steps": STEPS}
        profiles = {"old": {"about": "as it was", "flaws": {"RDTL-T016": "each GPU alone"}}}
        made |= {"secrets": {"TOKEN": "t"}, "profiles": profiles}
        (folder / "here.yaml").write_text(yaml.safe_dump(made))
        self.env = {"HOME": str(folder / "home"), "TOKEN": CANARY}

    def __call__(self, verb: str, *words: str) -> subprocess.CompletedProcess[str]:
        return rdtl("recipe", verb, "here.yaml", *words, cwd=self.folder, env=self.env)

    def planned(self) -> list[dict[str, str]]:
        steps: list[dict[str, str]] = json.loads(self("plan", "--json").stdout)["steps"]
        return steps

    def runs(self, step: str) -> int:
        path = self.work / f"{step}.runs"
        return len(path.read_text().split()) if path.exists() else 0

    def let_go(self) -> None:
        (self.work / "go").touch()
