"""Secrets that are missing, lie open, or stand where they do not belong. Shows no value, ever."""

from __future__ import annotations

import grp
import netrc
import os
import pwd
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from launcher.core import redaction
from launcher.core.checks import Finding
from launcher.doctor.subject import Subject
from launcher.staging import remotes

NAMES = re.compile(
    r"(?:^|_)(?:TOKEN|SECRET(?:_KEY)?|PASSWD|API_?KEY|ACCESS_KEY)$|PASSWORD$", re.IGNORECASE
)
"""Variables with such a name hold a secret."""
NO_SECRET = re.compile(r"[/~.].*|\d+(?:\.\d+)?|true|false", re.IGNORECASE)
"""A path, a number or a switch, whatever the name of its variable."""


def secrets(subject: Subject) -> list[Finding]:
    """Everything about secrets that this machine and the run's files tell."""
    found = [*_open(subject), *_written(subject), *_remote(), *_missing(subject)]
    return found or [Finding("RDTL-W002", "ok", "no secret lies open, none that is named is gone")]


def private_files(subject: Subject) -> list[Path]:
    """Files that exist and hold secrets of this user."""
    token = (subject.section("evaluate") or {}).get("server_token")
    places = [*_of_programs(), *([Path(token)] if token else [])]
    return [place for place in places if _is_file(place)]


def own_files() -> list[Path]:
    """Those that surely nobody shares: of programs, in this user's home."""
    below = [place for place in _of_programs() if place.is_relative_to(Path.home())]
    return [place for place in below if _is_file(place)]


def _of_programs() -> list[Path]:
    home = Path.home()
    hub = Path(os.environ.get("HF_HOME") or home / ".cache" / "huggingface") / "token"
    config = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
    return [
        remotes.config_file().expanduser(),
        Path(os.environ.get("NETRC") or home / ".netrc"),
        Path(os.environ.get("HF_TOKEN_PATH") or hub),
        Path(os.environ.get("AWS_SHARED_CREDENTIALS_FILE") or home / ".aws" / "credentials"),
        config / "vastai" / "vast_api_key",
        home / ".vast_api_key",
    ]


def _is_file(path: Path) -> bool:
    """False too where a folder above is closed: what cannot be read is not there for a run."""
    try:
        return path.is_file()
    except OSError:
        return False


def others_read(path: Path) -> bool:
    """Whether somebody besides its owner and root can read a file, through all its folders."""
    try:
        folders = [folder.stat() for folder in path.resolve().parents]
        return _lets(path.stat(), 0o044) and all(_lets(folder, 0o011) for folder in folders)
    except OSError:  # gone meanwhile, or in a folder that is closed
        return False


def _lets(status: os.stat_result, bits: int) -> bool:
    """Whether others have one of these bits, or a group that is not the owner's alone."""
    group = 0 if _private(status) else 0o070
    return bool(status.st_mode & bits & (0o007 | group))


def _private(status: os.stat_result) -> bool:
    """The group that many systems make for each user, by the user's name."""
    try:
        owner, group = pwd.getpwuid(status.st_uid), grp.getgrgid(status.st_gid)
    except KeyError:
        return status.st_uid == status.st_gid
    named = owner.pw_gid == status.st_gid and owner.pw_name == group.gr_name
    return named and set(group.gr_mem) <= {owner.pw_name}


def _open(subject: Subject) -> Iterator[Finding]:
    own = own_files()
    for path in private_files(subject):
        if others_read(path):
            mend = ", or rdtl doctor --fix" if path in own else " if nobody shares it with you"
            yield Finding(
                "RDTL-W002",
                "warning",
                "others can read a file that holds a secret",
                where=f"{path}: mode {path.stat().st_mode & 0o777:o}",
                why="whoever has an account on this machine has the secret",
                fix=f"chmod 600 {path}{mend}; withdraw it if others work here",
            )


def _written(subject: Subject) -> Iterator[Finding]:
    """In files that are copied into runs and scripts: configuration, site, its environment."""
    site = f"site {subject.site_name}"
    texts = [*_texts(subject.site.model_dump(mode="json"), site)]
    if subject.config is not None:
        texts += _texts(subject.config, str(subject.source or "the configuration"))
    for where, text in texts:
        if redaction.TOKENS.search(text):
            yield _in_the_open(where, "something that looks like a secret")
    for name, value in subject.site.environment.items():
        if NAMES.search(name) and value and not NO_SECRET.fullmatch(value):
            yield _in_the_open(f"{site}: environment.{name}", "a secret")


def _texts(value: Any, where: str, sign: str = ": ") -> Iterator[tuple[str, str]]:
    """Every text below a value, and the key at which it stands."""
    if isinstance(value, str):
        yield where, value
    elif isinstance(value, list):
        value = dict(enumerate(value))
    for key, below in value.items() if isinstance(value, dict) else ():
        yield from _texts(below, f"{where}{sign}{key}", ".")


def _in_the_open(where: str, what: str) -> Finding:
    return Finding(
        "RDTL-W002",
        "error",
        f"{what} stands in a configuration",
        where=where,
        why="it is copied into run directories, job scripts and reports, which others read",
        fix="withdraw it; export the new one and name only its variable (pass_environment)",
    )


def _remote() -> Iterator[Finding]:
    words = ["git", "config", "--get-regexp", r"^remote\..*url$"]
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, errors="replace", check=False, timeout=5
        )
    except (OSError, subprocess.TimeoutExpired):
        return  # no git, so no remotes
    if redaction.TOKENS.search(done.stdout):
        yield Finding(
            "RDTL-W001",
            "warning",
            "a password stands in the address of a remote of this folder",
            where="git config --get-regexp 'remote.*url'",
            why="everybody who may read this folder has it, and so has every copy of it",
            fix="withdraw it; git remote set-url NAME an address without it, and a credential "
            "helper (git help credentials)",
        )


def _missing(subject: Subject) -> Iterator[Finding]:
    for name in subject.site.pass_environment:
        if not os.environ.get(name):
            yield _gone(name, f"site {subject.site_name}: pass_environment")
    token = (subject.section("evaluate") or {}).get("server_token")
    if token and not _is_file(Path(token)):
        yield Finding(
            "RDTL-E057",
            # Nodes of a cluster may see what this machine does not.
            "error" if subject.site.kind == "local" else "warning",
            "the file with the server's token is not there",
            where=f"evaluate.server_token: {token}",
            why="the server would refuse every episode",
            fix="correct the path; the file holds one line and has mode 600",
        )
    if (subject.section("train") or {}).get("wandb") == "online":
        yield from _tracking()


def _gone(name: str, where: str) -> Finding:
    return Finding(
        "RDTL-U136",
        "warning",
        f"the variable {name} is not set here",
        where=where,
        why="jobs would start without it",
        fix=f"export {name}, or take it out there",
    )


def _tracking() -> Iterator[Finding]:
    if os.environ.get("WANDB_API_KEY") or _netrc_key():
        return
    yield Finding(
        "RDTL-W006",
        "warning",
        "there is no key for Weights & Biases",
        where="WANDB_API_KEY, ~/.netrc",
        why="training would go on and send nothing; its record stays on disk",
        fix="export WANDB_API_KEY, or train.wandb: offline",
    )


def _netrc_key() -> str:
    try:
        found = netrc.netrc(os.environ.get("NETRC")).authenticators("api.wandb.ai")
    except (OSError, netrc.NetrcParseError):
        return ""
    return (found[2] or "") if found else ""
