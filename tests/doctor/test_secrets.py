"""Secrets that lie open or are missing are told, closed by --fix, and never shown."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from launcher.doctor import fixing
from launcher.doctor.secrets import secrets
from tests.doctor.conftest import subject

ROOT = Path(__file__).parents[2]
TOKEN = "hf_CanaryCanaryCanaryCanaryCanary1234"


def test_nothing_is_found_where_all_is_well(home: Path) -> None:
    assert [found.severity for found in secrets(subject(home))] == ["ok"]


def open_file(home: Path, mode: int = 0o755) -> Path:
    """rclone's file as somebody copied it there, in a home that others may enter."""
    path = home / ".config/rclone/rclone.conf"
    path.parent.mkdir(parents=True, mode=0o755)
    for folder in (home, *home.parents):
        if folder.stat().st_mode & 0o077 == 0:
            folder.chmod(mode)
        if folder.name.startswith("pytest-of"):
            break
    path.write_text(f"[store]\ntoken = {TOKEN}\n")
    path.chmod(0o644)
    return path


def test_a_file_that_others_can_read_is_told_and_closed(home: Path) -> None:
    path = open_file(home)
    (found,) = secrets(subject(home))
    assert (found.code, found.severity) == ("RDTL-W002", "warning")
    assert found.where == f"{path}: mode 644"
    reader = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "cat", str(path)]
    assert TOKEN in subprocess.run(reader, capture_output=True, text=True).stdout, "they really can"
    (repaired,) = [one for one in fixing.repair(subject(home)) if one.code == "RDTL-W002"]
    assert (repaired.before, repaired.after) == ("mode 644", "mode 600")
    assert subprocess.run(reader, capture_output=True).returncode != 0
    assert fixing.repair(subject(home)) == [], "a second time there is nothing to do"
    assert [found.severity for found in secrets(subject(home))] == ["ok"]


def test_a_file_in_a_closed_folder_is_not_open(home: Path) -> None:
    path = open_file(home)
    path.parent.chmod(0o700)
    assert [found.severity for found in secrets(subject(home))] == ["ok"]


def by_nobody(what: Path, code: str) -> str:
    """What these lines say to somebody who is not root."""
    as_nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    lines = f"from launcher.doctor.secrets import *; from pathlib import Path; print({code})"
    done = subprocess.run(
        [*as_nobody, sys.executable, "-c", lines], capture_output=True, text=True,
        env={**os.environ, "HOME": str(what), "PYTHONPATH": str(ROOT)}, check=False,
    )  # fmt: skip
    return done.stdout.strip() or done.stderr


def test_a_closed_folder_ends_nothing(home: Path) -> None:
    open_file(home)
    (home / ".config").chmod(0o700)
    assert by_nobody(home, "own_files()") == "[]"


def test_a_group_of_one_is_nobody_else(home: Path) -> None:
    """Many systems give each user a group of its own, and all files group permissions."""
    path = open_file(home)
    path.chmod(0o660)
    assert [found.severity for found in secrets(subject(home))] == ["ok"]
    os.chown(path, 0, 54321)
    assert [found.code for found in secrets(subject(home))] == ["RDTL-W002"]
    home.chmod(0o750)  # by which only root's group enters
    assert [found.severity for found in secrets(subject(home))] == ["ok"]


def test_a_token_that_a_group_shares_is_told_and_left(home: Path) -> None:
    path = home / "shared"
    open_file(home).chmod(0o600)
    path.write_text(TOKEN)
    path.chmod(0o640)
    os.chown(path, 0, 54321)
    server = {"policies": ["server"], "server": "ws://host:1", "server_token": str(path)}
    what = subject(home, evaluate=server)
    (found,) = secrets(what)
    assert (found.code, found.severity) == ("RDTL-W002", "warning")
    assert "--fix" not in found.fix
    fixing.repair(what)
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_token_of_a_cluster_need_not_lie_here(home: Path) -> None:
    server = {"policies": ["server"], "server": "ws://host:1", "server_token": "/gone/token"}
    for site, severity in (("local", "error"), ("slurm", "warning")):
        (found,) = secrets(subject(home, {"kind": site}, evaluate=server))
        assert (found.code, found.severity) == ("RDTL-E057", severity)


def test_a_secret_in_a_configuration(home: Path) -> None:
    site = {"environment": {"HF_TOKEN": "x", "GLOO_SOCKET_IFNAME": "eth0"}, "account": TOKEN}
    found = secrets(subject(home, site))
    assert [(one.code, one.severity) for one in found] == [("RDTL-W002", "error")] * 2
    assert [one.where for one in found] == [
        "site here: account", "site here: environment.HF_TOKEN",
    ]  # fmt: skip
    assert not any(TOKEN in str(one.to_dict()) for one in found)
    (told,) = secrets(subject(home, train={"wandb_entity": TOKEN}))
    assert told.severity == "error" and TOKEN not in str(told.to_dict())
    assert told.where == "the configuration: train.wandb_entity"


def test_what_only_sounds_like_a_secret_is_none(home: Path) -> None:
    environment = {
        "TOKENIZERS_PARALLELISM": "false", "HF_TOKEN_PATH": "/run/token", "MAX_TOKENS": "512",
        "AWS_WEB_IDENTITY_TOKEN_FILE": "token", "SECRET": "~/secret", "USE_TOKEN": "True",
        "NEXT_TOKEN": "7", "DATA": "/data/hf_datasets_of_the_laboratory/2026",
    }  # fmt: skip
    train = {"wandb_project": "hf_finetunes", "vision": "/data/hf_OpenVLAFinetunedLibero10"}
    named = {"account": "ghs_laboratory_7", "environment": environment}
    told = secrets(subject(home, named, train=train, dataset={"sets": [{"path": "/x"}]}))
    assert [found.severity for found in told] == ["ok"]


@pytest.mark.parametrize(
    ("address", "told"),
    [(f"https://{TOKEN}@host/x.git", 1), ("https://me:word@host/x.git", 1),
     ("https://me@host/x.git", 0), ("ssh://git@host:22/x.git", 0), ("git@host:me/x.git", 0)],
)  # fmt: skip
def test_a_password_in_the_address_of_a_remote(home: Path, address: str, told: int) -> None:
    subprocess.run(["git", "init", "-q", "."], check=True)
    subprocess.run(["git", "remote", "add", "origin", address], check=True)
    found = [one for one in secrets(subject(home)) if one.severity != "ok"]
    assert [one.code for one in found] == ["RDTL-W001"] * told


def test_what_a_run_needs_and_nobody_has_set(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    what = subject(
        home,
        {"pass_environment": ["MY_TOKEN"]},
        train={"wandb": "online"},
        evaluate={
            "policies": ["server"], "server": "ws://host:1", "server_token": str(home / "t"),
        },
    )  # fmt: skip
    assert [one.code for one in secrets(what)] == ["RDTL-U136", "RDTL-E057", "RDTL-W006"]
    monkeypatch.setenv("MY_TOKEN", TOKEN)
    (home / ".netrc").write_text(f"machine api.wandb.ai login user password {TOKEN}\n")
    (home / "t").write_text(TOKEN)
    for name in (".netrc", "t"):
        (home / name).chmod(0o600)
    assert [one.severity for one in secrets(what)] == ["ok"]
