"""The ways in which a stage's program can be started in a container on this machine."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from launcher.core import runtimes
from launcher.core.node_facts import NodeFacts
from launcher.core.runtimes import Bind, Container
from tests.cluster.layout import REPOSITORY
from tests.images import engine
from tests.images.ordinary_user import User

# A machine whose root may raise limits is made like one whose root may not.
WITHOUT_LIMITS = ("setpriv", "--bounding-set=-sys_resource", "--inh-caps=-sys_resource")
TAG = f"rdtl-test-{os.getpid()}-"  # begins the name of every container that is started here
_number = itertools.count()


@dataclass(frozen=True)
class Way:
    """One runtime as one caller sees it; ``prefix`` comes before the program that is started."""

    container: Container
    facts: NodeFacts
    folder: Path
    user: User | None = None
    prefix: tuple[str, ...] = field(default=())

    def popen(
        self,
        *argv: str,
        variables: Mapping[str, str] | None = None,
        outer: Mapping[str, str] | None = None,
        binds: tuple[Bind, ...] = (),
        options: tuple[str, ...] = (),
    ) -> subprocess.Popen[str]:
        """Start ``argv`` as a node task does, with its output in pipes."""
        scratch = self._scratch()
        seen = {"PATH": engine.PATH, "HOME": str(scratch), **(outer or {})}
        launch = runtimes.wrap(
            replace(self.container, binds=binds, options=options),
            argv,
            runtimes.inside(seen, variables or {}),
            seen,
            self.facts,
            working_directory="/",
            scratch=str(scratch),
            tag=f"{TAG}{next(_number)}",
        )
        return subprocess.Popen(
            self.user.argv(*launch.argv) if self.user else [*self.prefix, *launch.argv],
            env=launch.environment,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(
        self, *argv: str, seconds: float = 60, **given: Any
    ) -> subprocess.CompletedProcess[str]:
        """As :meth:`popen`, to its end."""
        with self.popen(*argv, **given) as process:
            try:
                out, err = process.communicate(timeout=seconds)
            except BaseException:
                process.kill()
                raise
        return subprocess.CompletedProcess(argv, process.returncode, out, err)

    def _scratch(self) -> Path:
        """Home and /tmp of one start, on a path that the caller can reach."""
        scratch = Path(tempfile.mkdtemp(dir=self.user.home if self.user else self.folder))
        for path in (scratch, scratch / "home", scratch / "tmp"):
            path.mkdir(exist_ok=True)
            if self.user:
                os.chown(path, self.user.uid, self.user.uid)
        return scratch


@contextmanager
def open_folder() -> Iterator[Path]:
    """A directory that every user can reach, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="rdtl-images-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def facts_of(program: str, prefix: tuple[str, ...] = (), user: User | None = None) -> NodeFacts:
    """What :mod:`launcher.core.node_facts` says when it runs as that caller."""
    command = ["-m", "launcher.core.node_facts", program]
    if user is None:
        done = subprocess.run(
            [*prefix, sys.executable, *command],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
    else:  # the repository may be closed to users, and so may this Python
        for part in ("__init__.py", "core"):
            source, target = REPOSITORY / "launcher" / part, user.folder / "code" / "launcher"
            target.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if source.is_dir() else shutil.copy)(source, target / part)
        done = user.run("/usr/bin/python3", *command, cwd=user.folder / "code")
        done.check_returncode()
    return NodeFacts(**json.loads(done.stdout))
