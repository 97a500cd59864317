"""The same command on a cluster's login node: ``--site`` of a site that has ``ssh``.

The working tree goes there by rsync (into a directory named by its digest), the
site file goes with it, and ``rdtl`` of that side does the rest: ledger, logs and
submission lie where the cluster can see them. A cut connection is opened again and
the command repeated: it attaches to what it has submitted.
"""

from __future__ import annotations

import datetime
import itertools
import subprocess
import sys
import time
from pathlib import Path

import yaml

from launcher import snapshot
from launcher.core.errors import EXIT_REMOTE, RemoteError, UsageError
from launcher.sites import Site, load
from launcher.ssh import LOST, Connection, lost

TRIES = 5
PAUSE_S = 3.0
LOCAL_ONLY = ("ssh", "ssh_options", "remote_directory", "remote_rdtl")


def site_of(argv: list[str]) -> tuple[str, Site] | None:
    """The site that ``argv`` names when it is reached over ssh, else None."""
    words = argv[: argv.index("--")] if "--" in argv else argv
    if words[:2] in (["runs", "fetch"], ["cloud", "hosts"]):
        return None  # one copies to this machine, the other writes the site
    names = [b for a, b in itertools.pairwise(words) if a == "--site"]
    names += [word.removeprefix("--site=") for word in words if word.startswith("--site=")]
    if not names or "--help" in words:
        return None
    site = load(names[-1])
    return (names[-1], site) if site.ssh else None


def forward(argv: list[str], name: str, site: Site) -> int:
    """Run ``rdtl ARGV`` on the login node; returns its exit status."""
    assert site.ssh is not None
    reuse_only = "--reuse-only" in argv
    argv = named([word for word in argv if word != "--reuse-only"])
    connection = Connection(site.ssh, tuple(site.ssh_options), reuse_only)
    connection.require_master()
    directory = upload(connection, name, site)
    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    rdtl = [*site.remote_rdtl, *argv]
    root = remote_directory(site)
    command = ["env", "-C", directory, f"RDTL_RUNS={root}/runs", *rdtl]
    for attempt in range(TRIES):
        code = subprocess.run(connection.argv(command, terminal=terminal), check=False).returncode
        if code != LOST:
            return code
        print(f"connection to {site.ssh} lost; trying again", file=sys.stderr, flush=True)
        time.sleep(PAUSE_S * attempt)
    print(lost(site.ssh, ""), file=sys.stderr)
    return EXIT_REMOTE


def named(argv: list[str]) -> list[str]:
    """``argv`` in which a new run has a name, so that a repeated command means the same run."""
    if argv[:1] != ["run"] or "--name" in argv[: argv.index("--") if "--" in argv else None]:
        return argv
    stamp = datetime.datetime.now(datetime.UTC).strftime("run-%Y%m%d-%H%M%S-%f")
    return ["run", "--name", stamp, *argv[1:]]


def remote_directory(site: Site) -> str:
    """Directory of this tool on the login node; must be absolute there."""
    if site.remote_directory is None:
        raise UsageError(
            "RDTL-U032",
            "a site with ssh needs remote_directory",
            where="the site file",
            why="runs and code lie there, where the nodes see them",
            fix="remote_directory: /scratch/me/rdtl",
        )
    return site.remote_directory


def upload(connection: Connection, name: str, site: Site) -> str:
    """Bring working tree and site file to the login node; returns the directory there."""
    top, listed = snapshot.working_files(Path.cwd())
    digest = snapshot.digest(top, listed)[:16]
    target = f"{remote_directory(site)}/trees/{digest}"
    below = Path.cwd().resolve().relative_to(top.resolve())
    site_file = below / "configs" / "sites" / f"{name}.yaml"
    connection.run(["mkdir", "-p", f"{target}/{site_file.parent}"])
    if listed:
        connection.upload(top, [str(path) for path in listed], target)
    kept = site.model_dump(mode="json", exclude_defaults=True, exclude=set(LOCAL_ONLY))
    _write(connection, f"{target}/{site_file}", yaml.safe_dump(kept))
    sent = sorted({*listed, site_file})
    _write(connection, f"{target}/{snapshot.SENT}", "".join(f"{path}\0" for path in sent))
    return target if str(below) == "." else f"{target}/{below}"


def _write(connection: Connection, file: str, text: str) -> None:
    """Replace ``file`` of the login node as a whole."""
    script = 'cat >"$1.part" && mv "$1.part" "$1"'
    connection.run(["sh", "-c", script, "sh", file], stdin=text)


def require(argv: list[str]) -> int | None:
    """Forward ``argv`` when its site is remote; None when it is to be run here."""
    found = site_of(argv)
    if found is None:
        if "--reuse-only" in argv:
            raise UsageError(
                "RDTL-U033",
                "--reuse-only is for sites that are reached over ssh",
                fix="leave it out, or set `ssh` in the site file",
            )
        return None
    try:
        return forward(argv, *found)
    except FileNotFoundError as error:
        raise RemoteError(
            "RDTL-S038", f"{error.filename} is not installed here", fix="install ssh and rsync"
        ) from error
