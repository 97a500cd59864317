"""What rclone says when something fails, as errors with a code and a fix. Never with a secret."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from launcher.core.errors import RdtlError, RemoteError

WAITS = (1.0, 4.0, 10.0)
"""Seconds before another try when the last one brought nothing; after them it is given up."""
QUERY = re.compile(r"\?[^\s\"']+")
CREDENTIALS = re.compile(r"://[^/\s@\"]+@")
HIDDEN = "[hidden]"
NOT_SECRET = ("_TYPE", "_PROVIDER", "_ENDPOINT", "_URL", "_HOST", "_PORT", "_REGION", "_VENDOR")

KINDS: tuple[tuple[str, str], ...] = (
    (
        "RDTL-G009",
        r"no space left on device|remaining disk space|disk quota exceeded|file too large",
    ),
    ("RDTL-G005", r"(open|mkdir|rename|remove|unlink)\w* /\S.*: (permission denied|read-only)"),
    ("RDTL-G023", r"too many levels of symbolic links|symlink: stat"),
    ("RDTL-G027", r"x509: |CERTIFICATE_VERIFY_FAILED|certificate verify failed"),
    ("RDTL-G028", r"RequestTimeTooSkewed|RequestExpired|iat and exp values"),
    (
        "RDTL-G014",
        r"didn't find section in config file|invalid_grant|invalid_client|empty token|"
        r"couldn't fetch token|failed to (decrypt|load) config|unable to authenticate|"
        r"knownhosts|SignatureDoesNotMatch|InvalidAccessKeyId|AccessDenied|Unauthorized|Forbidden|"
        r"status ?code: 40[13]|HTTP error 40[13]|Error 40[13]|40[13] (Unauth|Forb)|"
        r"no valid credential|failed to refresh cached credentials|get identity",
    ),
    (
        "RDTL-G002",
        r"directory not found|object not found|NoSuchBucket|NoSuchKey|status ?code: 404|"
        r"HTTP error 404|404 Not Found",
    ),
    (
        "RDTL-G011",
        r"connection refused|no such host|network is unreachable|no route to host|i/o timeout|"
        r"context deadline exceeded|timeout awaiting response|TLS handshake timeout|"
        r"server misbehaving|connection (reset|timed out)|broken pipe|unexpected EOF|use of closed",
    ),
)
WORDS: dict[str, tuple[str, str, str]] = {
    "RDTL-G009": (
        "the disk is full",
        "what had arrived whole is kept for the next try; nothing half is visible",
        "free some space (rdtl stage clean), or name another place (`assets` of the site, or "
        "rdtl stage --cache), and run the same command again",
    ),
    "RDTL-G005": (
        "the destination cannot be written",
        "bytes that cannot be stored are not fetched",
        "name a folder of yours (ls -ld shows who may write)",
    ),
    "RDTL-G023": (
        "a link there leads nowhere, or in a circle",
        "nothing may be left out silently",
        "remove the link, or name a folder without it",
    ),
    "RDTL-G027": (
        "the store's certificate is not trusted here",
        "somebody else may answer under its name, it has expired, or this machine's clock is wrong",
        "compare `date` with another clock; for a server with a certificate of your own: "
        "export SSL_CERT_FILE=/path/to/ca.pem",
    ),
    "RDTL-G028": (
        "the store refuses requests of another time",
        "a request is signed with the time, and this machine's clock differs by minutes",
        "set the clock (timedatectl set-ntp true), then run the same command again",
    ),
    "RDTL-G014": (
        "the store refuses the credentials, or the remote's name is unknown",
        "nobody can tell what lies there",
        "for rclone: `rclone listremotes` shows the names, `rdtl stage login REMOTE` renews a "
        "token; for s3, gs, hf and ssh: check the credentials of this machine",
    ),
    "RDTL-G002": (
        "there is nothing to stage",
        "a missing folder must not be taken for an empty one",
        "correct the URI",
    ),
    "RDTL-G011": (
        "the store does not answer",
        "the network is cut, or the address is wrong; every try was bounded",
        "check the address, the proxy and the network, then run the same command again; what had "
        "arrived whole is kept",
    ),
    "RDTL-G012": (
        "what staging needs is not installed",
        "without it nothing reaches this store, whatever the store says",
        "pip install 'rdt-launcher[staging]'",
    ),
    "RDTL-G024": (
        "the store answered with errors",
        "several tries ended the same way",
        "run the same command again later; what had arrived whole is kept",
    ),
}
HERE = ("RDTL-G002", "RDTL-G005", "RDTL-G009", "RDTL-G012", "RDTL-G023")
"""Codes of what is wrong with this machine or the URI; the others are the store's."""
TRANSIENT = ("RDTL-G011", "RDTL-G024")
"""Codes of failures that another try may overcome."""


def from_log(messages: Iterable[str], where: str, environment: Mapping[str, str]) -> RdtlError:
    """The error for what rclone logged as errors; ``where`` names the place."""
    texts = list(messages)
    code = next(
        (code for code, pattern in KINDS if any(re.search(pattern, t, re.I) for t in texts)),
        "RDTL-G024",
    )
    pattern = dict(KINDS).get(code, "")
    told = next((t for t in texts if re.search(pattern, t, re.I)), "rclone ended without a word")
    return make(code, where, redact(told, environment)[:400])


def make(code: str, where: str, detail: str = "") -> RdtlError:
    """The error of a code of this table."""
    what, why, fix = WORDS[code]
    kind = RdtlError if code in HERE else RemoteError
    return kind(code, what, where=f"{where}: {detail}" if detail else where, why=why, fix=fix)


def brief(error: RdtlError | None) -> str:
    """One line for a try that is followed by another one."""
    if error is None:
        return "contents differ"
    return f"{error.problem.what} ({error.problem.code}): {error.problem.where}"[:200]


def redact(text: str, environment: Mapping[str, str]) -> str:
    """``text`` without the values of a remote's environment, passwords and queries of addresses."""
    for name, value in environment.items():
        if len(value) >= 4 and not name.endswith(NOT_SECRET):
            text = text.replace(value, HIDDEN)
    return QUERY.sub(f"?{HIDDEN}", CREDENTIALS.sub(f"://{HIDDEN}@", text))
