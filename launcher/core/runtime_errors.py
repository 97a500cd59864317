"""From a container runtime's own failure to a code, a cause and a fix.

A program's exit code passes through every runtime. Apptainer's own failures are
255 with a ``FATAL`` line, or 1 when its starter may not take root's capabilities;
Docker's are 125 (engine), 126 and 127 (program).
"""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from launcher.core import files
from launcher.core.errors import RdtlError
from launcher.core.runtimes import Container


@dataclass(frozen=True)
class Signature:
    """Words of a runtime that are known, what they mean and what to do."""

    pattern: str
    code: str
    what: str
    why: str
    fix: str


SIGNATURES = (
    Signature(
        r"Requesting capability set",
        "RDTL-C016",
        "Apptainer may not take all capabilities of root here",
        "this machine withholds CAP_SYS_RESOURCE from root",
        "apptainer_options: [--no-privs] in the site file, or leave the key out: "
        "rdtl then chooses it",
    ),
    Signature(
        r"failed to open /dev/fuse|fuse: device not found|failed to mount squashfs",
        "RDTL-C017",
        "the image cannot be mounted by this user",
        "a SIF needs /dev/fuse to be openable, or an Apptainer that is installed setuid",
        "ask for chmod 666 /dev/fuse; or apptainer_options: [--unsquash] in the site file, "
        "which unpacks the image at every start",
    ),
    Signature(
        r"no mapping entry found in /etc/subuid|no mapping entry found in /etc/subgid",
        "RDTL-C018",
        "this user has no range of subordinate user ids",
        "--fakeroot maps the users of the image to such a range",
        "ask for the lines `NAME:400000:65536` in /etc/subuid and /etc/subgid, "
        "or set fakeroot: false in the builder file",
    ),
    Signature(
        r"image targets '?\S+'?, cannot run on|exec format error",
        "RDTL-C026",
        "the image was built for another processor",
        "its programs cannot run on this node",
        "build it on a machine of this kind, or choose nodes of the image's kind",
    ),
    Signature(
        r"could not open image .*no such file or directory",
        "RDTL-C024",
        "the image is not on this node",
        "every node must see the image under the same path",
        "put the image cache on a shared file system: `cache` in the builder file",
    ),
    Signature(
        r"image format not recognized|could not open image|while checking image|magic|"
        r"trying to read the squashfs image|unexpected EOF|superblock",
        "RDTL-C025",
        "the image file is damaged",
        "it was cut short or changed after it was built",
        "rdtl image inspect NAME says what is there; rdtl image build NAME makes it again",
    ),
    Signature(
        r"mount source .* doesn't exist|bind source path does not exist",
        "RDTL-C031",
        "a directory that the job needs does not exist on this node",
        "every directory of a stage must be visible on every node under the same path",
        "correct `binds` in the site file, or put the data below a shared directory",
    ),
    Signature(
        r"Cannot connect to the Docker daemon|permission denied while trying to connect",
        "RDTL-C029",
        "no Docker engine answers",
        "containers are started by the engine, not by the client",
        "start it, or name its socket: docker_host in the builder file",
    ),
    Signature(
        r"No such image|Unable to find image",
        "RDTL-C024",
        "the engine does not have this image",
        "images are built or pulled before a run, never by its tasks",
        "rdtl image build NAME --with docker",
    ),
)

OWN_WORDS = {
    ("apptainer", 255): "FATAL",
    ("apptainer", 1): "Requesting capability set",
    **{("docker", code): r"^docker: |^\[FATAL tini" for code in (125, 126, 127)},
}


def explain(container: Container, exit_code: int, log_tail: str) -> RdtlError | None:
    """The runtime's own failure as an error, or None when the program itself failed."""
    pattern = OWN_WORDS.get((container.runtime, exit_code))
    fatal = [line for line in log_tail.splitlines() if pattern and re.search(pattern, line)]
    if not fatal:
        return None
    words = " ".join(fatal[-1].split())
    for known in SIGNATURES:
        if re.search(known.pattern, log_tail):
            return RdtlError(known.code, known.what, where=words, why=known.why, fix=known.fix)
    return RdtlError(
        "RDTL-C023",
        f"{container.runtime} could not start the program (exit code {exit_code})",
        where=words,
        why=f"image {container.name}: {container.image}",
        fix="rdtl doctor --site SITE says what its nodes can do",
    )


def check_image(container: Container, architecture: str) -> None:
    """RdtlError when the plan's image is not here, not that file, or not for this processor.

    The file is hashed only when size or time differ from what the plan recorded.
    """
    if container.architecture and container.architecture != architecture:
        raise RdtlError(
            "RDTL-C026",
            f"image {container.name} is for {container.architecture}, this node is {architecture}",
            where=container.image,
            fix="build it on a machine of this kind, or choose nodes of the image's kind",
        )
    if container.runtime != "apptainer":
        return
    path = Path(container.image)
    try:
        status = path.stat()
    except FileNotFoundError:
        raise RdtlError(
            "RDTL-C024",
            f"image {container.name} is not on this node",
            where=container.image,
            why="every node must see the image under the same path",
            fix="put the image cache on a shared file system: `cache` in the builder file",
        ) from None
    with contextlib.suppress(OSError):  # `rdtl image clean` keeps what is in use
        os.utime(path.with_name("image.json"))
    if (status.st_size, status.st_mtime_ns) == (container.size_bytes, container.mtime_ns):
        return
    if files.sha256(path) != container.sha256:
        raise RdtlError(
            "RDTL-C025",
            f"image {container.name} is not the file that the plan names",
            where=f"{path}: {status.st_size} bytes, expected {container.size_bytes}",
            why="results of another image would be counted as this run's",
            fix=f"rdtl image build {container.name} --with apptainer makes it again",
        )
