"""What went wrong in a tool's log, in words that help: known signatures become their code."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from launcher.core.errors import RdtlError

TAIL_LINES = 12


@dataclass(frozen=True)
class Signature:
    """A pattern of a log, and what it means."""

    code: str
    pattern: str
    what: str
    fix: str


SIGNATURES = (
    Signature(
        "RDTL-G009",
        r"No space left on device|[Dd]isk quota exceeded|ENOSPC",
        "the disk is full",
        "free some space (`rdtl image list` shows the store) and run the same command again",
    ),
    Signature(
        "RDTL-C018",
        r"no mapping entry found in /etc/subuid|/etc/subuid: no such file",
        "Apptainer's --fakeroot needs a range of user ids for this user",
        "add a line such as USER:400000:65536 to /etc/subuid and /etc/subgid, or convert the "
        "Docker image: rdtl image build NAME --with apptainer --from docker",
    ),
    Signature(
        "RDTL-C019",
        r"CERTIFICATE_VERIFY_FAILED|self-signed certificate in certificate chain",
        "the package index has a certificate of a private authority",
        "name the bundle of certificates in the builder: ca: /etc/ssl/certs/ca-certificates.crt",
    ),
    Signature(
        "RDTL-C020",
        r"failed to solve with frontend dockerfile\.v0: failed to solve with frontend gateway",
        "a `# syntax=` line asks for a frontend from a registry",
        "remove that line; Dockerfiles of rdtl have none",
    ),
    Signature(
        "RDTL-C016",
        r"Requesting capability set \S+ while permitted capability set",
        "root lacks a capability that Apptainer asks for",
        "build as an ordinary user",
    ),
)
CAUSES = (
    (r"THESE PACKAGES DO NOT MATCH THE HASHES", "a package's file is not the one of the lock"),
    (r"No matching distribution found for", "the index does not have a locked version"),
    (r"Could not resolve host|Temporary failure (in name resolution|resolving)", "no network"),
    (r"Unable to locate package", "the base's archive lacks an apt package of the definition"),
    (r"AssertionError", "the image's self-test failed"),
    (r"pull access denied|manifest unknown|connection refused", "the base image cannot be fetched"),
)


def tail(log: Path, lines: int = TAIL_LINES) -> str:
    """The last lines of a log that hold something."""
    text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    return "\n".join([line for line in text.splitlines() if line.strip()][-lines:])


def build_failed(doing: str, status: int, log: Path) -> RdtlError:
    """The error for a tool that ended with ``status``; its log is searched for known causes."""
    text = tail(log, 400)
    for signature in SIGNATURES:
        if found := re.search(f"(?m)^.*(?:{signature.pattern}).*", text):
            return RdtlError(
                signature.code,
                signature.what,
                where=f"{doing}, {log}: {found[0].strip()[:300]}",
                fix=signature.fix,
            )
    causes = [cause for pattern, cause in CAUSES if re.search(pattern, text)]
    return RdtlError(
        "RDTL-C028",
        f"{doing} ended with status {status}" + (f": {causes[0]}" if causes else ""),
        where=f"{log}, its end:\n{tail(log)}",
        fix="repair the cause and run the same command again; finished steps are not repeated",
    )


def tool_missing(tool: str, why: str, fix: str) -> RdtlError:
    """RDTL-C029: a program that builds images is absent or cannot do it."""
    return RdtlError("RDTL-C029", f"{tool} cannot build or move images here", why=why, fix=fix)
