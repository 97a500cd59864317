"""A user, a market and a store: what tests of ``rdtl cloud`` share."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.cli.run_rdtl import rdtl
from tests.providers.boxes import Boxes
from tests.providers.fake_vast import KEY, FakeVast, offer, serve

ROOT = Path(__file__).parents[2]
SECRET = "canary-3b9d2f5e"
RECIPE = """
name: small
about: Counts, and uploads what it counted.
parameters:
  store: {about: Where results go}
  steps: {about: How far it counts, default: "3"}
secrets: {STORE_TOKEN: Opens the store}
machine: {gpus: 2, gpu: "RTX PRO 6000.*", vram_gb: 96, disk_gb: 0.1}
steps:
  prepare:
    script: |
      echo once >> "$store/../prepared.$(cat /proc/sys/kernel/random/boot_id)"
      touch ready
    outputs: [ready]
    verify: {cheap: test -e ready}
  train:
    needs: [prepare]
    script: |
      n=$(cat "$store/newest" 2>/dev/null || echo 0)
      echo "begins at $n" >> "$store/begins"
      while [ "$n" -lt "$steps" ]; do
        n=$((n + 1)); echo "step=$n loss=0.5"; echo "$n" > "$store/newest.part"
        mv "$store/newest.part" "$store/newest"; sleep 0.4
      done
      echo "$n" > result
    outputs: [result]
    verify: {cheap: test -s result}
    markers: [{name: step, pattern: 'step=(?P<step>\\d+)'}]
  upload:
    needs: [train]
    script: |
      [ -n "$STORE_TOKEN" ]
      cp result "$store/result" && cmp result "$store/result"
      echo "proven in $store"
    secrets: [STORE_TOKEN]
    always: true
    after_failure: true
    markers: [{name: uploaded, pattern: 'proven in (?P<proven>\\S+)'}]
"""


class Market:
    """A market, a user's home and a store for results."""

    def __init__(self, fake: FakeVast, boxes: Boxes, home: Path) -> None:
        self.fake, self.boxes, self.home = fake, boxes, home
        self.store = home / "store"
        self.store.mkdir(parents=True)
        (home / "small.yaml").write_text(RECIPE)
        self.env = {
            "VAST_URL": fake.url, "VAST_API_KEY": KEY, "HOME": str(home), "PYTHONPATH": str(ROOT),
            "XDG_STATE_HOME": str(home / "state"), "STORE_TOKEN": SECRET,
        }  # fmt: skip

    def words(self, *more: str) -> list[str]:
        return ["cloud", "up", "small.yaml", "--set", f"store={self.store}", "--max-price", "3",
                "--max-hours", "5", *more]  # fmt: skip

    def run(
        self, *words: str, env: dict[str, str] | None = None, timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        return rdtl(*words, cwd=self.home, env={**self.env, **(env or {})}, timeout=timeout)

    def edit(self, old: str, new: str) -> None:
        """Change the recipe."""
        path = self.home / "small.yaml"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))

    def popen(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "launcher", *words], cwd=self.home, text=True,
            env={**os.environ, **self.env}, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def ledger(self) -> list[dict[str, Any]]:
        path = self.home / "state" / "rdtl" / "cloud" / "ledger.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def age(self, seconds: float) -> None:
        """Let the ledger's lines be older."""
        path = self.home / "state" / "rdtl" / "cloud" / "ledger.jsonl"
        lines = [{**line, "time": line["time"] - seconds} for line in self.ledger()]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))

    def guard(self) -> int | None:
        """The process that watches this user's caps."""
        for path in Path("/proc").glob("[0-9]*"):
            try:
                words = (path / "cmdline").read_bytes().split(b"\0")
                mine = f"HOME={self.home}".encode() in (path / "environ").read_bytes().split(b"\0")
            except (OSError, ProcessLookupError):  # it has just ended
                continue
            if mine and words[-3:-1] == [b"cloud", b"guard"]:
                return int(path.name)
        return None

    def kill(self, process: int) -> None:
        """SIGKILL, and until it is gone."""
        os.kill(process, signal.SIGKILL)
        until(lambda: self.guard() != process)

    def events(self) -> list[str]:
        return [line["event"] for line in self.ledger()]


@contextmanager
def market(folder: Path) -> Iterator[Market]:
    """Three offers that fit, a home for a user, and an end to it all."""
    boxes = Boxes(folder / "boxes")
    fake = FakeVast(boxes)
    fake.offers = {n: offer(n, dph_total=2 + n / 10, min_bid=1 + n / 10) for n in (1, 2, 3)}
    with serve(fake):
        home = Path(tempfile.mkdtemp(prefix="rdtl-c-"))  # sockets have short paths
        yield Market(fake, boxes, home)
        for number in fake.alive:  # the guard ends with the last box
            fake.answer("DELETE", f"/api/v0/instances/{number}/", {}, None)
    boxes.close()
    shutil.rmtree(home)


def until(said: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not said():
        assert time.monotonic() < deadline
        time.sleep(0.05)
