"""A private Docker engine, a base image and a builder file: ``python -m tests.images.engine up``.

Everything that images need on a plain Debian machine without a registry: an
engine of its own in one directory, a Debian base archive made by mmdebstrap,
Apptainer in a prefix, and ``configs/builders/local.yaml`` that names them. The
engine lives in its own process and mount namespace, so when its first process
ends, daemons, containers and mounts end with it, whatever was killed and when.

Exit status: 0 done, 1 failed (for ``status``: not up), 2 this machine cannot.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from launcher.core import files
from tests.cluster import processes
from tests.cluster.layout import REPOSITORY, ClusterError, require_own, tag_of
from tests.images import provision

DEFAULT_ROOT = Path(tempfile.gettempdir()) / f"rdtl-engine-{os.getuid()}"
CLIENT = "/usr/bin/docker"  # of the engine's own package: another one may lack BuildKit
PROGRAMS = {
    "dockerd": "docker.io",
    CLIENT: "docker.io",
    "runc": "runc",
    "mmdebstrap": "mmdebstrap",
    "apt-get": "apt",
    "unshare": "util-linux",
}
LOCK = Path("/run/rdtl-engine.lock")  # one for all engines: they share the base archive
MARK = "engine.json"  # says "this directory belongs to a test engine", and whether it was ready
START_SECONDS = 60.0
# A shell is process 1 of the namespace because it reaps the orphans that dockerd leaves. What the
# engine keeps outside its own directory goes to memory that ends with the namespace.
FIRST_PROCESS = """
for folder in /run/containerd /run/runc; do
    mkdir -p $folder
    mount -t tmpfs tmpfs $folder
done
dockerd "$@" &
wait
"""
PATH = os.environ.get("PATH", "/usr/bin:/bin") + ":/usr/local/sbin:/usr/sbin:/sbin"


@contextmanager
def exclusive() -> Iterator[int]:
    """Hold the lock and yield its descriptor; commands that inherit it keep it when we die."""
    descriptor = os.open(LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def builder_file(root: Path) -> Path:
    """The builder called ``local`` for the default engine, else a private file."""
    if root == DEFAULT_ROOT:
        return REPOSITORY / "configs" / "builders" / "local.yaml"
    return root / "builder.yaml"


def docker_host(root: Path) -> str:
    """Address of the engine in ``root``, as in DOCKER_HOST."""
    return f"unix://{root}/d.sock"


def environment(root: Path) -> dict[str, str]:
    """Environment of the daemon and of its client: of the caller's only PATH."""
    return {"PATH": PATH, "HOME": str(root), "DOCKER_HOST": docker_host(root)}


def _client(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [CLIENT, *arguments], env=environment(root), capture_output=True, text=True, check=False
    )


def up(root: Path) -> None:
    """Bring everything up, or leave it when it is up; remains of a crash are removed first."""
    _check_machine()
    with exclusive() as lock:
        began = time.monotonic()
        was_up = _is_up(root)
        if not was_up:
            _remove(root)
            _start(root)
        if not provision.base_archive().exists():
            provision.make_base([CLIENT], environment(root), root / "tmp", lock)
        builder = provision.builder_text(CLIENT, docker_host(root), provision.apptainer(lock))
        files.write_text(builder_file(root), builder)
        words = "already up" if was_up else f"up in {time.monotonic() - began:.1f} s"
        print(f"{words}: {docker_host(root)}\n  builder {builder_file(root)}")


def down(root: Path) -> None:
    """Stop the engine in ``root`` and remove all of it; the caches (base, Apptainer) stay."""
    _check_root()
    with exclusive():
        print("down" if _remove(root) else "not up")


def status(root: Path) -> dict[str, Any]:
    """State ("up", "broken", "down"), addresses, caches and the engine's versions."""
    state = "up" if _is_up(root) else "broken" if (root / MARK).exists() else "down"
    builder, base = builder_file(root), provision.base_archive()
    return {
        "state": state,
        "docker_host": docker_host(root),
        "builder": str(builder) if builder.exists() else None,
        "base": str(base) if base.exists() else None,
        "apptainer": provision.found_apptainer(),
    }


def _start(root: Path) -> None:
    """Start the daemon; ready means that it answers."""
    files.write_json(root / MARK, {"ready": False})
    (root / "run").mkdir(exist_ok=True)
    engine = ["sh", "-euc", FIRST_PROCESS, "dockerd", *_daemon_options(root)]
    space = ["unshare", "--mount", "--propagation=slave", "--pid", "--kill-child", "--mount-proc"]
    log = root / "log"
    processes.start("engine", [*space, *engine], root / "run", log, environment(root))
    record = processes.recorded(root / "run")["engine"]

    def answers() -> bool:
        return not record.alive or _client(root, "info").returncode == 0

    processes.wait_until(answers, START_SECONDS, "answer of dockerd")
    if not record.alive:
        raise ClusterError(f"dockerd ended at once; its last words:\n{log.read_text()[-1500:]}")
    files.write_json(root / MARK, {"ready": True})


def _daemon_options(root: Path) -> list[str]:
    return [
        f"--data-root={root}/data",
        f"--exec-root={root}/exec",
        f"--pidfile={root}/exec/namespaced.pid",
        f"--host={docker_host(root)}",
        f"--cgroup-parent=/{tag_of(root)}",
        "--exec-opt=native.cgroupdriver=cgroupfs",
        "--storage-driver=overlay2",
        "--iptables=false",
        "--ip6tables=false",
        "--bridge=none",
        "--userland-proxy=false",
    ]


def _is_up(root: Path) -> bool:
    require_own(root)
    try:
        ready = files.read_json(root / MARK)["ready"]
    except FileNotFoundError:
        return False
    records = processes.recorded(root / "run").values()
    return ready and bool(records) and all(record.alive for record in records)


def _remove(root: Path) -> bool:
    """Remove whatever there is of the engine in ``root``; False when there was nothing."""
    require_own(root)
    builder_file(root).unlink(missing_ok=True)
    if not root.exists():
        return False
    ours = (root / MARK).exists() or all(p.name.startswith(f".{MARK}.") for p in root.iterdir())
    if not ours:  # the names are those of a mark that a killed start was writing
        raise ClusterError(f"{root} is not empty and holds no test engine", exit_status=2)
    # Process 1 of the namespace is in the session of the record: with it everything inside ends.
    processes.stop(processes.recorded(root / "run").values(), seconds=0)
    _remove_cgroups(root)
    for path in [path for path in root.iterdir() if path.name != MARK]:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    (root / MARK).unlink(missing_ok=True)  # last: a killed removal is continued by the next one
    root.rmdir()
    return True


def _remove_cgroups(root: Path) -> None:
    """Containers' groups are empty directories now; the deepest go first."""
    for top in Path("/sys/fs/cgroup").glob(f"**/{tag_of(root)}"):
        for folder in sorted([top, *(p for p in top.rglob("*") if p.is_dir())], reverse=True):
            folder.rmdir()


def _check_root() -> None:
    if os.geteuid() != 0:
        fix = f"sudo -E {sys.executable} -m tests.images.engine …"
        raise ClusterError(f"this needs root: dockerd mounts\n  fix: {fix}", exit_status=2)


def _check_machine() -> None:
    _check_root()
    missing = {pkg for program, pkg in PROGRAMS.items() if shutil.which(program, path=PATH) is None}
    if missing:
        raise ClusterError(
            f"not installed: {', '.join(sorted(missing))}\n"
            f"  fix: apt-get install -y --no-install-recommends {' '.join(sorted(missing))}",
            exit_status=2,
        )


def main(argv: list[str] | None = None) -> int:
    """Run one verb and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.images.engine", description=__doc__)
    parser.add_argument("verb", choices=["up", "down", "status"])
    parser.add_argument("--root", type=lambda text: Path(text).resolve(), default=DEFAULT_ROOT)
    arguments = parser.parse_args(argv)
    try:
        if arguments.verb == "status":
            state = status(arguments.root)
            print(json.dumps(state, indent=2))
            return 0 if state["state"] == "up" else 1
        (up if arguments.verb == "up" else down)(arguments.root)
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
