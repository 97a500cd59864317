"""``https://HOST/PATH``: a file, a folder whose server shows what is in it, or files by name.

Nobody can write there, and the server knows no checksums: what comes from it is proven by the
digests of an asset or a manifest, or not at all. A login and password for a host stand in
``~/.netrc``, as for curl.
"""

from __future__ import annotations

import base64
import csv
import io
import netrc
from collections.abc import Sequence
from pathlib import Path

from launcher.core.errors import RefusedError
from launcher.staging.store import ALONE, Move, RcloneStore, Remote
from launcher.staging.uri import Uri

NAME = "RCLONE_CONFIG_RDTLWEB_"
OPTIONS = (
    "--no-gzip-encoding",  # with it the length that a server names is not the file's
    "--no-traverse",  # files are asked for by name: most servers do not show a folder
)


class WebStore(RcloneStore):
    """A web server."""

    def remote(self, uri: Uri) -> Remote:
        """rclone sends the headers to this host alone, not where it is redirected to."""
        host = f"[{uri.host}]" if ":" in uri.host else uri.host
        address = f"{uri.scheme}://{host}" + (f":{uri.port}" if uri.port else "") + "/"
        return web(address, uri.path, headers=credentials(uri.host))

    def upload(self, uri: Uri, folder: Path, paths: Sequence[str], move: Move) -> None:
        """RefusedError RDTL-G022: a web server takes nothing."""
        raise RefusedError(
            "RDTL-G022",
            "nothing can be written to a web server",
            where=str(uri),
            fix="name a bucket, a remote of rclone, hf://, ssh:// or file:// to write to",
        )


def web(address: str, path: str, headers: Sequence[str] = (), no_head: bool = False) -> Remote:
    """rclone's remote for a web address that ends with /; ``headers``: name, value, name, value."""
    values = {"TYPE": "http", "URL": address, "NO_HEAD": str(no_head).lower()}
    if headers:
        line = io.StringIO()
        csv.writer(line, lineterminator="").writerow(headers)
        values["HEADERS"] = line.getvalue()
    settings = {NAME + key: value for key, value in values.items()}
    return Remote(f"rdtlweb:{path}", {**ALONE, **settings}, OPTIONS)


def credentials(host: str) -> list[str]:
    """The header for a host that stands in ~/.netrc, only for its own entry; else nothing."""
    path = Path("~/.netrc").expanduser()
    try:
        entry = netrc.netrc(path).hosts.get(host) if path.is_file() else None
    except (netrc.NetrcParseError, OSError):
        return []  # curl goes on without it too; a server that wants a login says so
    if entry is None:
        return []
    login, _, password = entry
    word = base64.b64encode(f"{login}:{password}".encode()).decode()
    return ["Authorization", f"Basic {word}"]


def store() -> WebStore:
    """The adapter."""
    return WebStore()
