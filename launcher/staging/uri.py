"""URIs: where bytes come from and go to. Parsed once, here; everything else holds a :class:`Uri`.

What cannot be meant is refused before anything is asked: relative paths, ``..``,
control characters, and secrets (a URI is written into manifests and logs).
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Literal, cast, get_args
from urllib.parse import quote, unquote, urlsplit

from launcher.core.errors import UsageError

Scheme = Literal["gs", "s3", "rclone", "hf", "https", "http", "ssh", "file"]
SCHEMES = get_args(Scheme)
FORMS = (
    "gs://BUCKET/PATH, s3://BUCKET/PATH, rclone:REMOTE:PATH, hf://datasets/OWNER/NAME[/PATH], "
    "https://HOST/PATH, ssh://[USER@]HOST[:PORT]/PATH, file:///PATH"
)
LOOPBACK = ("localhost", "127.0.0.1", "::1")
REMOTE = re.compile(r"[\w.+@][\w.+@ -]*(?<! )")
"""Names of remotes as rclone takes them: no option of its command line, nor of a connection string
(``NAME,KEY=VALUE:``), can come in as one."""


@dataclass(frozen=True)
class Uri:
    """One place in one store."""

    scheme: Scheme
    host: str
    """Bucket, remote's name, ``datasets`` or ``models``, server; empty for file."""
    path: str
    """Decoded; without slashes at its ends. May be empty. An absolute path for file and ssh;
    rclone's may begin with a slash: on sftp and on disks that is not below the home directory."""
    user: str | None = None
    port: int | None = None

    def __str__(self) -> str:
        """The canonical text: equal places have equal texts; it never holds a secret."""
        if self.scheme == "rclone":
            return f"rclone:{self.host}:{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        place = f"{self.user}@{host}" if self.user else host
        place += f":{self.port}" if self.port else ""
        # Buckets, remotes and ssh take a name as it is; % is a letter there.
        path = quote(self.path) if self.scheme in ("https", "http", "file") else self.path
        return f"{self.scheme}://{place}/{path.lstrip('/')}"

    @property
    def name(self) -> str:
        """The last part: what a copy of it is called."""
        return self.path.rstrip("/").rpartition("/")[2] or self.host or "root"


def is_uri(text: str) -> bool:
    """Whether a configured place is a URI and not a path."""
    return "://" in text or text.startswith("rclone:")


def parse(text: str, where: str = "") -> Uri:
    """The place that ``text`` names; UsageError RDTL-G019 for anything that is none.

    ``where`` says in the error what held the text (a key, an option).
    """
    if _unprintable(text):  # urlsplit would drop some of them silently
        raise _bad(text, where, "it holds a control character")
    found = _remote(text, where) if text.startswith("rclone:") else _url(text, where)
    if _unprintable(found.host + found.path):
        raise _bad(text, where, "it holds a control character")
    if any(part in (".", "..") for part in found.path.split("/")):
        raise _bad(text, where, "it holds . or .., which stores take for names or for other places")
    return found


def _unprintable(text: str) -> bool:
    return any(unicodedata.category(letter) in ("Cc", "Cs") for letter in text)


def _remote(text: str, where: str) -> Uri:
    _, name, *rest = text.split(":", 2)
    if not rest or not REMOTE.fullmatch(name):
        raise _bad(text, where, "a remote of rclone is written rclone:REMOTE:PATH")
    root = "/" if rest[0].startswith("/") else ""
    return Uri("rclone", name, root + rest[0].strip("/"))


def _url(text: str, where: str) -> Uri:
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise _bad(text, where, str(error)) from error
    if parts.scheme not in SCHEMES or "://" not in text:
        raise _bad(text, where, "it has none of the forms that a place is written in")
    scheme = cast(Scheme, parts.scheme)
    if parts.password is not None or (parts.username and scheme != "ssh"):
        raise _bad(text, where, "it holds a name or a password, which would be written into logs")
    if scheme in ("https", "http"):
        return _web(text, where, scheme, port)
    # ? and # are letters of a name in a bucket or a folder; urlsplit has taken them away.
    path = text.split("://", 1)[1].partition("/")[2]
    host = parts.hostname or "" if scheme == "ssh" else parts.netloc
    if scheme == "file":
        if host not in ("", "localhost"):
            raise _bad(text, where, "a file has no host: file:///ABSOLUTE/PATH")
        return Uri("file", "", "/" + unquote(path).strip("/"))
    if not host:
        raise _bad(text, where, "it has none of the forms that a place is written in")
    if scheme == "ssh":
        return Uri("ssh", host, "/" + path.strip("/"), user=parts.username, port=port)
    return Uri(scheme, host, path.strip("/"))


def _web(text: str, where: str, scheme: Scheme, port: int | None) -> Uri:
    parts = urlsplit(text)
    host = parts.hostname or ""
    if not host:
        raise _bad(text, where, "it names no server")
    if parts.query or parts.fragment:
        raise _bad(text, where, "what follows ? is often a key, and it would be written into logs")
    if scheme == "http" and host not in LOOPBACK:
        raise _bad(text, where, "http can be changed by whoever stands between; say https")
    return Uri(scheme, host, unquote(parts.path).strip("/"), port=port)


def _bad(text: str, where: str, why: str) -> UsageError:
    # A password must not get out through the refusal either.
    shown = text if "@" not in text and "?" not in text else text.split(":", 1)[0] + ":…"
    return UsageError(
        "RDTL-G019",
        f"{shown!r} names no place to stage from or to",
        where=where,
        why=why,
        fix=f"file://{text}" if text.startswith("/") else f"write it as one of {FORMS}",
    )
