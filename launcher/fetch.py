"""The results of a run, copied whole or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from launcher.core import files
from launcher.core.errors import UsageError
from launcher.core.runs import RunDir
from launcher.remote import remote_directory
from launcher.sites import Site
from launcher.ssh import Connection

RESULTS = ("report", "records", "cells", "policy")
WHAT_RAN = ("run.yaml", "lock.json", "plan.json")


def fetch(run: RunDir, destination: Path) -> list[str]:
    """Copy report, records, policy and what says how they were made to ``destination``.

    Names of what was copied. The copy gets its name last, so a destination that exists is
    complete. Raises UsageError RDTL-U025 when it exists or there is nothing yet.
    """
    present = [name for name in RESULTS if (run.root / name).is_dir()]
    if not present:
        raise _nothing_yet(str(run.root))
    with _whole(destination) as temporary:
        for name in present:
            ignored = shutil.ignore_patterns(".*.part")  # somebody is writing them right now
            shutil.copytree(run.root / name, temporary / name, ignore=ignored)
        for name in WHAT_RAN:
            shutil.copy2(run.root / name, temporary / name)
    return [*present, *WHAT_RAN]


def fetch_from(site: Site, site_name: str, name: str, destination: Path) -> list[str]:
    """As :func:`fetch`, of a run that lies on a cluster over ssh: NAME or NAME-SITE.

    Also raises RemoteError RDTL-S037 when the connection breaks, S038 when rsync fails otherwise.
    """
    assert site.ssh is not None
    connection = Connection(site.ssh, tuple(site.ssh_options))
    connection.require_master()
    named = f"{remote_directory(site)}/runs/{name}"
    look = 'cd "$1" 2>/dev/null || cd "$2" && pwd && ls'
    answer = connection.run(["sh", "-c", look, "sh", f"{named}-{site_name}", named])
    root, *present = answer.splitlines()
    if not set(RESULTS).intersection(present):
        raise _nothing_yet(f"{site.ssh}:{root}")
    wanted = [entry for entry in (*RESULTS, *WHAT_RAN) if entry in present]
    with _whole(destination) as temporary:
        connection.download(root, wanted, temporary)
    return wanted


@contextmanager
def _whole(destination: Path) -> Iterator[Path]:
    """A directory that becomes ``destination`` in the end, and is removed after an error."""
    if destination.exists():
        raise UsageError(
            "RDTL-U025",
            "the destination exists",
            where=str(destination),
            why="results of two runs would be mixed",
            fix="name a directory that does not exist yet",
        )
    with files.whole_folder(destination) as temporary:
        yield temporary


def _nothing_yet(where: str) -> UsageError:
    return UsageError(
        "RDTL-U025",
        "this run has no results yet",
        where=f"none of {', '.join(RESULTS)} in {where}",
        fix="rdtl runs show says how far it is",
    )
