"""Whose something is, who does something right now, and whether that process is certainly gone."""

from __future__ import annotations

import functools
import os
import pwd
import socket
from pathlib import Path
from typing import Any


@functools.cache
def _place() -> tuple[str, str]:
    """Boot of this machine and process namespace: a pid means something only within both."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return boot, str(Path("/proc/self/ns/pid").readlink())


def account(uid: int) -> str:
    """The login name of a user, or the number where the account was removed."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def me() -> dict[str, Any]:
    """This process, so that another one can tell later whether it still lives."""
    boot, namespace = _place()
    return {
        "host": socket.gethostname(),
        "boot": boot,
        "namespace": namespace,
        "pid": os.getpid(),
        "start": _start(os.getpid()),
    }


def is_gone(who: dict[str, Any]) -> bool:
    """True only if ``who`` has certainly ended; on another machine nobody can say."""
    if (who.get("boot"), who.get("namespace")) != _place():
        return False
    return bool(_start(who["pid"]) != who["start"])


def _start(pid: int) -> int | None:
    """Start of a process in clock ticks since boot; None when there is none, or a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text[text.rindex(")") + 2 :].split()  # the name before it may hold anything
    return None if fields[0] == "Z" else int(fields[19])
