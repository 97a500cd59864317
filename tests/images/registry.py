"""Debian's ``docker-registry`` on a free port of this machine, with its storage in a directory."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from launcher.core.job import die_with_parent
from tests.cluster.processes import wait_until

PROGRAM = "docker-registry"
ATTEMPTS = 5  # another program may take the port between choosing it and listening there
START_SECONDS = 20.0


def unavailable() -> str | None:
    """Why no registry can be started here, or None: a reason to skip."""
    return None if shutil.which(PROGRAM) else f"the package {PROGRAM} is not installed"


@contextmanager
def registry() -> Iterator[str]:
    """Address ("localhost:41234", plain HTTP, no login) of a new and empty registry.

    It ends with the block, and also when this program is killed. Raises
    RuntimeError, with the words of the registry, when it does not start.
    """
    with tempfile.TemporaryDirectory(prefix="rdtl-registry-") as folder:
        process, address = _start(Path(folder))
        try:
            yield address
        finally:
            process.kill()
            process.wait()


def _start(folder: Path) -> tuple[subprocess.Popen[bytes], str]:
    log = folder / "log"
    for _ in range(ATTEMPTS):
        port = _free_port()
        config = {
            "version": 0.1,
            "storage": {"filesystem": {"rootdirectory": str(folder / "storage")}},
            "http": {"addr": f"127.0.0.1:{port}"},
        }
        (folder / "config.yml").write_text(json.dumps(config))  # JSON is YAML
        with log.open("wb") as output:
            process = subprocess.Popen(
                [PROGRAM, "serve", str(folder / "config.yml")],
                env={"PATH": os.environ["PATH"]},
                stdout=output,
                stderr=subprocess.STDOUT,
                preexec_fn=die_with_parent,
            )
        wait_until(lambda p=process, n=port: _ended_or_answers(p, n), START_SECONDS, PROGRAM)
        if process.poll() is None:
            return process, f"localhost:{port}"
    raise RuntimeError(f"{PROGRAM} does not start:\n{log.read_text()[-1000:]}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _ended_or_answers(process: subprocess.Popen[bytes], port: int) -> bool:
    if process.poll() is not None:
        return True
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/", timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, ConnectionError):
        return False
