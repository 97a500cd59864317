"""``python -m tests.fuzz TARGET SECONDS``: atheris on one target, guided by coverage.

Findings are bytes: put them among the seeds, mend the product, run the tests.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["launcher", "rdt", "yaml"]):
    from tests.fuzz.targets import TARGETS

from tests.fuzz.seeds import SEEDS


def main() -> None:
    """Fuzz one target; libFuzzer ends the process, with 77 after a finding."""
    name, seconds = sys.argv[1:]
    folder = Path(tempfile.mkdtemp(prefix=f"fuzz-{name}-"))
    corpus = folder / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(SEEDS[name]):
        (corpus / f"seed-{number}").write_bytes(seed)
    found = Path("runs/fuzz").resolve()
    found.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    target = TARGETS[name]
    options = [f"-max_total_time={seconds}", "-max_len=20000", "-timeout=20", "-rss_limit_mb=3000"]
    atheris.Setup(
        [sys.argv[0], *options, f"-artifact_prefix={found}/{name}-", str(corpus)],
        lambda data: target(data, folder),
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main()
