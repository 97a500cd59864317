"""Running a built image's own tests here, with our code bound in for the picture."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

from launcher.core import node_facts, runtimes
from launcher.core.errors import RdtlError
from launcher.images import context
from launcher.images.builder import Builder
from launcher.images.definition import Definition
from launcher.images.store import BuiltImage

CODE = "/opt/rdtl/build/code"  # as during the build
# numba keeps what robosuite makes it compile, and refuses to begin without a place for it.
VARIABLES = {"PYTHONPATH": CODE, "NUMBA_CACHE_DIR": "/tmp/numba"}


def run(image: BuiltImage, wanted: Definition, builder: Builder) -> list[str]:
    """Lines that the tests of definition ``wanted`` print in ``image``.

    The image is started as jobs will be. Raises RdtlError RDTL-C028 when a test fails.
    """
    argv = ("/opt/venv/bin/python", "/opt/rdtl/selftest.py", *wanted.self_tests())
    with tempfile.TemporaryDirectory(prefix="rdtl-") as scratch:
        for name in ("home", "tmp", "code"):
            Path(scratch, name).mkdir(mode=0o700)
        context.write_code(Path(scratch, "code"))
        container = _container(image, wanted, builder, Path(scratch, "code"))
        launch = runtimes.wrap(
            container,
            argv,
            VARIABLES,
            os.environ,
            node_facts.mount_facts(builder.apptainer),
            working_directory="/",
            scratch=scratch,
            tag=f"rdtl-test-{os.getpid()}",
        )
        done = subprocess.run(
            launch.argv, env=launch.environment, capture_output=True, text=True, check=False
        )
    if done.returncode != 0:
        raise RdtlError(
            "RDTL-C028",
            f"the self-test of {image.name} failed (status {done.returncode})",
            where=f"{image.reference}:\n{(done.stdout + done.stderr)[-1500:].rstrip()}",
            fix="rdtl image build makes it again; a driver or CPU may also lack what it needs",
        )
    return [line for line in done.stdout.splitlines() if line.startswith("self-test")]


def _container(
    image: BuiltImage, wanted: Definition, builder: Builder, code: Path
) -> runtimes.Container:
    docker = image.kind == "docker"
    return runtimes.Container(
        runtime=image.kind,
        image=image.reference,
        name=image.name,
        sha256=image.sha256,
        lock_sha256=image.lock_sha256,
        architecture=image.architecture,
        program=builder.docker if docker else builder.apptainer,
        engine=builder.docker_host if docker else None,
        gpu=wanted.gpu and Path("/dev/nvidiactl").exists(),
        binds=(runtimes.Bind(str(code), CODE),),
    )
