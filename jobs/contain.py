"""What a node really starts for a stage: the bare command, or the command in its container.

Standard library only, like the node task that uses it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from launcher.core import runtime_errors, runtimes
from launcher.core.errors import RdtlError
from launcher.core.node_facts import architecture, mount_facts
from launcher.core.plan import Stage
from launcher.core.runs import RunDir
from launcher.core.runtimes import Container, Launch

FROM_OUTSIDE = ("PYTHONPATH", "PYTHONSAFEPATH", "PYTHONHOME")
TAIL_BYTES = 20_000


@contextmanager
def launch(
    run: RunDir,
    stage: Stage,
    variables: Mapping[str, str],
    tag: str,
    *,
    interactive: bool = False,
) -> Iterator[Launch]:
    """The process to start for ``stage`` here; its scratch directory lives as long as this.

    Raises RdtlError when the plan's image is not usable on this node
    (RDTL-C024, C025, C026).
    """
    argv = runtimes.patient(stage.argv) if stage.own_code else stage.argv
    outer = {k: v for k, v in os.environ.items() if k not in FROM_OUTSIDE}
    if stage.container is None:
        yield Launch(runtimes.activated(argv, stage.activate), {**outer, **variables})
        return
    runtime_errors.check_image(stage.container, architecture())
    full_tag = f"rdtl-{hashlib.sha256(str(run.root).encode()).hexdigest()[:8]}-{tag}"
    _remove_left_over(stage.container, full_tag)
    prefix = f"{full_tag}-"
    with tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True) as scratch:
        for name in ("home", "tmp"):
            Path(scratch, name).mkdir()
        yield runtimes.wrap(
            stage.container,
            argv,
            runtimes.inside(outer, variables, stage.container.passed),
            outer,
            mount_facts(stage.container.program),
            working_directory=stage.working_directory or str(run.root),
            scratch=scratch,
            tag=full_tag,
            interactive=interactive,
        )


def _remove_left_over(container: Container, tag: str) -> None:
    """What outlives a killed task goes with its next attempt: a container, which belongs to the
    engine, and the scratch directory."""
    if container.runtime == "docker":
        engine = {"DOCKER_HOST": container.engine} if container.engine else {}
        subprocess.run(
            [container.program, "rm", "--force", tag],
            env={**os.environ, **engine},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
    for left in Path(tempfile.gettempdir()).glob(f"{tag}-*"):
        shutil.rmtree(left, ignore_errors=True)  # follows no link


def own_failure(container: Container, code: int, log: Path, begin: int) -> RdtlError | None:
    """The error of a container that could not start; None when the program failed."""
    with log.open("rb") as handle:
        handle.seek(max(begin, log.stat().st_size - TAIL_BYTES))
        tail = handle.read().decode(errors="replace")
    return runtime_errors.explain(container, code, tail)
