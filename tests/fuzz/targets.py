"""What reads bytes of others: each target takes any bytes, and fails where the product does.

Good outcomes are a value that means what it says, and one of our errors. Everything else
(an exception of Python's, time or memory out of proportion) is a finding. The same targets
serve hypothesis (test_targets.py, in every run of the tests) and atheris (`make fuzz`).
"""

from __future__ import annotations

import contextlib
import io
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from launcher import config, diagnose
from launcher.core import manifest, redaction, signatures
from launcher.core.dag_execute import Log
from launcher.core.errors import RdtlError
from launcher.core.runs import RunDir
from launcher.dag import lint, load, resolve
from launcher.report import reading
from rdt.data import tfrecord
from rdt.data.ranges import ByteFile
from rdt.serve import codec, exact, openpi
from rdt.spec.planned import Planned

LINE_S = 1.5
"""CPU seconds for one line of 64 KB, whoever wrote it; quadratic patterns took 3 to 40."""
SECRET = "canary-7c1f0e-canary"
PATTERNS = signatures.Patterns(diagnose.known())
PLANNED = Planned(("rdt",), (("libero_spatial", 0), ("libero_spatial", 1)), range(3), 2)


@contextlib.contextmanager
def refusing(*letters: str) -> Iterator[None]:
    """Our own errors of these areas are good outcomes."""
    try:
        yield
    except RdtlError as error:
        assert error.problem.code[len("RDTL-")] in letters, error
        assert error.problem.what and error.problem.where, error


def run_config(data: bytes, folder: Path) -> None:
    """A run configuration: a YAML file of anybody."""
    path = folder / "config.yaml"
    path.write_bytes(data)
    with refusing("U"):
        made = config.load_run_config(path, [], [])
        assert config.validate(type(made), config.parse_yaml(config.to_yaml(made), "again"), "")


def setting(data: bytes, folder: Path) -> None:
    """The value of a ``--set``."""
    with refusing("U"):
        config.apply_settings({}, [f"train.steps={data.decode('utf-8', 'replace')}"])


def recipe(data: bytes, folder: Path) -> None:
    """A recipe, from the file to what lint says of it."""
    path = folder / "recipe.yaml"
    path.write_bytes(data)
    with refusing("U", "B"):
        loaded = load.load(str(path))
        lint.findings(loaded, resolve.resolve(loaded, "/run"))


def staged(data: bytes, folder: Path) -> None:
    """A manifest: no path of it leaves the folder."""
    with refusing("G"):
        for file in manifest.parse(data, "a store").files:
            inside = os.path.normpath(f"/top/{file.path}")
            assert inside == f"/top/{file.path}" and "\0" not in inside


def records_of_rlds(data: bytes, folder: Path) -> None:
    """A TFRecord shard: as a file, and as the message in a whole record."""
    (folder / "shard").write_bytes(data)
    file = ByteFile(folder / "shard")
    with refusing("D"):
        for found in tfrecord.records(file):
            assert 0 <= found.start <= found.end <= file.size
    with refusing("D"):
        for feature in tfrecord.features(file, tfrecord.Extent(0, file.size)).values():
            assert 0 <= feature.start <= feature.end <= file.size
            for values in (tfrecord.floats, tfrecord.blobs):
                with refusing("D"):
                    values(file, feature)


def message(data: bytes, folder: Path) -> None:
    """A frame that a client of the policy server sends, or a server that we ask."""
    try:
        found = codec.unpack(data)
    except ValueError as error:
        assert "no message" in str(error)
        return
    with contextlib.suppress(ValueError):  # what is nested deepest can be read, but not written
        assert len(codec.pack(found)) <= 64 * (len(data) + 1)  # nothing made of a declared size
    if isinstance(found, dict):
        for read in (exact.from_wire, openpi.Session("fuzz", eats_joints=True).read):
            with refusing("E"):
                read(found)


def episodes(data: bytes, folder: Path) -> None:
    """A file of records, as JSON and as CSV."""
    run = RunDir(folder / "run")
    run.records.mkdir(parents=True, exist_ok=True)
    for name in ("part-0.jsonl", "part-0.csv"):
        path = run.records / name
        path.write_bytes(data)
        with refusing("E"):
            found = reading.episodes(run, PLANNED)
            assert sum(1 for _ in found.recorded()) <= len(PLANNED)
        path.unlink()


def line(data: bytes, folder: Path) -> None:
    """A line of a log: patterns, redaction and the runner's own splitting take bounded time."""
    allowed = LINE_S * max(1, len(data) / 65536)
    took = _looked_at(data, folder)
    if took >= allowed:  # or the machine is slow now: then a quarter of the line is slow, too
        part = _looked_at(data[: len(data) // 4], folder)  # the square would be 16 times as much
        assert took < min(8 * part, 10 * allowed), f"{len(data)} bytes: {data[:60]!r}"


def _looked_at(data: bytes, folder: Path) -> float:
    """The CPU seconds that it took."""
    text = data.decode("utf-8", "replace")
    began = time.thread_time()
    list(PATTERNS.of(text))
    hidden = redaction.Redaction([SECRET])(f"{text} {SECRET}")
    assert SECRET not in hidden
    log, taken = Log(folder / "log", redaction.Redaction([SECRET])), io.StringIO()
    for begin in range(0, len(data), 1 << 14):
        log.add(data[begin : begin + (1 << 14)], taken.write)
    log.close(taken.write)
    assert SECRET not in taken.getvalue()
    return time.thread_time() - began


TARGETS: dict[str, Callable[[bytes, Path], None]] = {
    "config": run_config,
    "setting": setting,
    "recipe": recipe,
    "manifest": staged,
    "tfrecord": records_of_rlds,
    "message": message,
    "records": episodes,
    "line": line,
}
