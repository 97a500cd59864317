"""A real S3 server, a proxy before it that can break things, and an empty cache."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from launcher.staging import failures, transfer, uri
from launcher.staging.cache import Cache
from tests.staging import faults, servers

KEY, SECRET = "AKACCESS", "CANARY-s3cret-do-not-tell"


@dataclass
class S3:
    """Bucket ``bkt`` of a real server behind a proxy, as the remote ``t``."""

    root: Path
    server: servers.Server
    proxy: faults.Proxy

    def put(self, **files: bytes) -> None:
        """Lay files into the bucket, behind the server's back."""
        servers.write_tree(self.root / "bkt", files)

    def forget(self) -> None:
        """Start the server anew: it has kept listings of what was changed behind its back."""
        self.server.kill()
        self.server.start()

    def fetched(self) -> dict[str, int]:
        """How often each object of the bucket was fetched."""
        return {path.removeprefix("/bkt/"): count for path, count in self.proxy.gets.items()}


@pytest.fixture
def s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    """A bucket on this machine; the server sees what is put behind its back."""
    root = tmp_path / "store"
    (root / "bkt").mkdir(parents=True)
    for name in [name for name in os.environ if name.startswith("RCLONE_")]:
        monkeypatch.delenv(name)
    auth = ["--auth-key", f"{KEY},{SECRET}"]
    with ExitStack() as stack:
        server = stack.enter_context(servers.serve("s3", root, tmp_path / "server", *auth))
        proxy = stack.enter_context(faults.before(server.port))
        for name, value in {
            "RCLONE_CONFIG": str(tmp_path / "rclone.conf"),
            "RCLONE_CONFIG_T_TYPE": "s3",
            "RCLONE_CONFIG_T_PROVIDER": "Rclone",
            "RCLONE_CONFIG_T_ACCESS_KEY_ID": KEY,
            "RCLONE_CONFIG_T_SECRET_ACCESS_KEY": SECRET,
            "RCLONE_CONFIG_T_ENDPOINT": proxy.url,
        }.items():
            monkeypatch.setenv(name, value)
        yield S3(root, server, proxy)


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tries follow each other quickly; their number stays."""
    monkeypatch.setattr(failures, "WAITS", (0.05, 0.05, 0.05))


def order(path: str, **more: object) -> transfer.Order:
    """What is below ``path`` of the bucket."""
    return transfer.Order(uri.parse(f"rclone:t:bkt/{path}"), **more)  # type: ignore[arg-type]


def tree(folder: Path) -> dict[str, bytes]:
    """All files below a folder, by path."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
