"""Staged assets on a node's own disk: copied once per node, proven, seen under the same path.

A container sees the copy where the shared cache lies, so nothing that runs in it knows of
this. It is a help and no condition: where there is no room, or the node's disk refuses, the
shared cache is read. A copy is proven when it is made, and again byte by byte after the node
was started anew or when the file system says that anything in it was written to since.
Standard library only, like the node task that uses it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from launcher.core import files, manifest
from launcher.core.errors import RdtlError
from launcher.core.job import Stopped
from launcher.core.manifest import File, Manifest
from launcher.core.plan import Stage
from launcher.core.runtimes import Bind

Say = Callable[[str], object]
COPIERS = 4
SPARE = 1.05
"""A disk that is filled to the last byte stops others."""
BOOT = Path("/proc/sys/kernel/random/boot_id")
WAIT_S = 0.2


def placed(stage: Stage, config: dict[str, Any], say: Say, signals: Sequence[int] = ()) -> Stage:
    """``stage`` with this node's copies bound over the run's assets, as far as there is room.

    As it is without a container, without ``node_local`` in the plan, and before anything is
    staged. Raises RdtlError RDTL-G003 when the shared copy is not what its manifest says, and
    Stopped, between two files, once there is anything in ``signals``.
    """
    root = config.get("node_local")
    if not root or stage.container is None:
        return stage
    binds = []
    for asset in config["assets"]:
        link = Path(asset["target"])
        if not link.exists():
            continue
        contents = manifest.read(link.parent / "manifest.json")
        shared = Path(config["asset_cache"], "assets", contents.digest, "files")
        copy = bring(shared, contents, Path(root), say, signals)
        binds += [Bind(str(copy), str(shared))] if copy else []
    container = replace(stage.container, binds=(*stage.container.binds, *binds))
    return replace(stage, container=container)


def bring(
    source: Path, contents: Manifest, root: Path, say: Say, signals: Sequence[int] = ()
) -> Path | None:
    """A whole copy of ``source`` below ``root``; None, and a word, where there can be none.

    The first process of a node copies, the others wait for it and find the copy.
    """
    instead = "reading from the shared cache"
    try:
        folder = _own_folder(root)
        final = folder / contents.digest
        with _locked(folder / f"{contents.digest}.lock", signals):
            if _is_whole(final, contents, signals):
                return final
            free = shutil.disk_usage(folder).free
            if contents.size * SPARE > free:
                say(
                    f"{root} on {os.uname().nodename} has {free / 1e9:.1f} GB free, "
                    f"{contents.size / 1e9:.1f} GB are needed: {instead}"
                )
                return None
            _make(source, final, contents, signals)
            say(f"{contents.size} bytes of {source} copied to {final}")
            return final
    except Stopped as stopped:
        say(f"stopped by {stopped} before all assets lay on this node")
        raise
    except OSError as error:
        say(f"no copy in {root} on {os.uname().nodename}: {error}: {instead}")
        return None


def _make(source: Path, final: Path, contents: Manifest, signals: Sequence[int]) -> None:
    """Copy and prove everything; it gets its name when all of it is on the disk."""
    work = final.with_name(f"{final.name}.part")
    shutil.rmtree(work, ignore_errors=True)  # of a process that was killed

    def copy(file: File) -> None:
        _go_on(signals)
        _copy(source, work, file)

    try:
        with ThreadPoolExecutor(COPIERS) as pool:
            list(pool.map(copy, contents.files))
        files.sync_file_system(work)
        work.rename(final)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    files.write_text(_proof(final), _state(final))


def _copy(source: Path, target: Path, file: File) -> None:
    path = target / file.path
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(source / file.path, path)
    if files.sha256(path) != file.sha256:
        raise RdtlError(
            "RDTL-G003",
            "a copy on this node is not what the manifest says",
            where=f"{source / file.path} → {path} on {os.uname().nodename}",
            why="the shared copy was changed, or a disk or its file system is faulty",
            fix=f"rdtl stage verify {target.name[:12]} says which of both",
        )


def _is_whole(folder: Path, contents: Manifest, signals: Sequence[int]) -> bool:
    """Whether ``folder`` is the copy and untouched since its proof, or else proves right now.

    One that is not is removed.
    """
    proof = _proof(folder)
    if folder.is_dir():
        state = _state(folder)  # before the bytes: what is written meanwhile is seen next time
        if proof.exists() and proof.read_text() == state:
            return True
        if not _differs(folder, contents, signals):
            files.write_text(proof, state)
            return True
    shutil.rmtree(folder, ignore_errors=True)
    return False


def _differs(folder: Path, contents: Manifest, signals: Sequence[int]) -> bool:
    try:
        return bool(manifest.differences(folder, contents, lambda file: _go_on(signals)))
    except RdtlError:  # links in circles, a pipe: nothing that was copied
        return True


def _proof(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.proof")


def _state(folder: Path) -> str:
    """What becomes another one when the node starts anew, or anything below is written to.

    The time of the last change of a file (ctime) is the kernel's; no program can set it.
    """
    state = hashlib.sha256(BOOT.read_bytes())
    for top, folders, names, descriptor in os.fwalk(folder):
        folders.sort()
        for name in sorted(folders + names):
            facts = os.lstat(name, dir_fd=descriptor)
            entry = (top, name, facts.st_ino, facts.st_size, facts.st_ctime_ns)
            state.update(repr(entry).encode())
    return state.hexdigest()


def _go_on(signals: Sequence[int]) -> None:
    """Raise Stopped when a signal came: nothing has begun, so there is nothing to save."""
    if signals:  # USR2 wins: it says that the scheduler will let the job continue
        raise Stopped(signal.SIGUSR2 if signal.SIGUSR2 in signals else signals[0])


def _own_folder(root: Path) -> Path:
    """A folder that nobody else can fill; RdtlError RDTL-G005 when somebody took its name."""
    folder = root / f"rdtl-assets-{os.geteuid()}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    facts = folder.lstat()
    if folder.is_symlink() or facts.st_uid != os.geteuid() or facts.st_mode & 0o022:
        raise RdtlError(
            "RDTL-G005",
            "the folder for copies on this node belongs to somebody else, or others may write it",
            where=f"{folder} on {os.uname().nodename}",
            why="what lies in it could be anybody's",
            fix="remove it, or set node_local of the site to another directory",
        )
    return folder


@contextmanager
def _locked(path: Path, signals: Sequence[int]) -> Iterator[None]:
    with path.open("w") as handle:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                _go_on(signals)
                time.sleep(WAIT_S)
        yield
