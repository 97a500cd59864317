"""Whether what a run needs of the network answers. Connections only: nothing is asked or sent."""

from __future__ import annotations

import os
import queue
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from launcher.core.checks import Finding, NothingToLookAtError
from launcher.core.errors import UsageError
from launcher.doctor.subject import Subject
from launcher.staging import remotes, uri
from launcher.staging.stores.s3 import ENDPOINTS

PATIENCE_S = 4.0
"""For all connections together, and the look-up of their names."""
PORTS = {"https": 443, "wss": 443, "http": 80, "ws": 80}


@dataclass(frozen=True)
class Needed:
    """``address`` is a URL; ``code`` what it is called when nobody answers there."""

    key: str
    address: str
    code: str
    optional: bool = False

    def target(self) -> tuple[str, int]:
        """Host and port to connect to: a proxy's, where one is set for this address."""
        parts = urlsplit(_proxy(self.address) or self.address)
        return parts.hostname or "", parts.port or PORTS.get(parts.scheme, 443)


def network(subject: Subject) -> list[Finding]:
    """Stores, policy server and Weights & Biases that the configuration names."""
    findings, needed = [], list(_services(subject))
    for key, text in subject.uris():
        try:
            found = _store(key, uri.parse(text, key))
        except UsageError as error:
            found = Finding.of(error)
        if isinstance(found, Needed):
            needed.append(found)
        elif found:
            findings.append(found)
    if not needed and not findings:
        raise NothingToLookAtError("nothing that it names is reached over the network")
    return findings + connected(needed)


def connected(needed: list[Needed]) -> list[Finding]:
    """A finding for each, within :data:`PATIENCE_S` whatever the network does."""
    answers: queue.Queue[tuple[int, str]] = queue.Queue()
    for number, one in enumerate(needed):
        # Daemons: looking up a name knows no time limit, and must not hold up the end.
        arguments = (number, one.target(), answers)
        threading.Thread(target=_connect, args=arguments, daemon=True).start()
    said: dict[int, str] = {}
    until = time.monotonic() + PATIENCE_S
    while len(said) < len(needed):
        try:
            number, words = answers.get(timeout=max(0.0, until - time.monotonic()))
        except queue.Empty:
            break
        said[number] = words
    silence = f"no answer in {PATIENCE_S:g} s"
    return [_told(one, said.get(number, silence)) for number, one in enumerate(needed)]


def _connect(number: int, target: tuple[str, int], answers: queue.Queue[tuple[int, str]]) -> None:
    try:
        socket.create_connection(target, PATIENCE_S).close()
    except OSError as error:
        answers.put((number, str(error)))
    else:
        answers.put((number, ""))


def _told(one: Needed, words: str) -> Finding:
    host, port = one.target()
    if not words:
        return Finding(one.code, "ok", f"{host}:{port} answers ({one.key})")
    return Finding(
        one.code,
        "warning" if one.optional else "error",
        f"nobody answers at {host}:{port}",
        where=f"{one.key} = {one.address}: {words}",
        why="the run goes on without it" if one.optional else "the run would end when it needs it",
        fix="check the address, the proxy (HTTPS_PROXY) and the network of this machine",
    )


def _services(subject: Subject) -> Iterator[Needed]:
    if server := (subject.section("evaluate") or {}).get("server"):
        yield Needed("evaluate.server", server, "RDTL-E051")
    if (subject.section("train") or {}).get("wandb") == "online":
        address = os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai"
        yield Needed("train.wandb", address, "RDTL-W006", optional=True)


def _store(key: str, place: uri.Uri) -> Needed | Finding | None:
    """The address of a store; a finding where this machine tells already. ssh: only ssh knows."""
    if place.scheme == "rclone":
        return _remote(key, place.host)
    if place.scheme == "file":
        here = Path(place.path).exists() or key == "upload.uri"
        where = f"{key}: {place}"
        return None if here else Finding("RDTL-G002", "error", "there is nothing to stage", where)
    address = _endpoint(place, os.environ)
    return Needed(key, address, "RDTL-G011") if address else None


def _endpoint(place: uri.Uri, environment: Mapping[str, str]) -> str:
    if place.scheme == "gs":
        named = environment.get("STORAGE_EMULATOR_HOST", "")
        named = named if "://" in named or not named else f"http://{named}"
        return named or "https://storage.googleapis.com"
    if place.scheme == "s3":
        named = next((environment[name] for name in ENDPOINTS if environment.get(name)), "")
        return named or "https://s3.amazonaws.com"
    if place.scheme == "hf":
        return environment.get("HF_ENDPOINT") or "https://huggingface.co"
    if place.scheme in ("https", "http"):
        return f"{place.scheme}://{place.host}" + (f":{place.port}" if place.port else "")
    return ""


def _remote(key: str, name: str) -> Finding | None:
    """Whether rclone has such a remote; how it is reached stands in its file."""
    path = remotes.config_file().expanduser()
    known = list(remotes.sections(remotes.read(path)))
    if name in known or f"RCLONE_CONFIG_{name.upper()}_TYPE" in os.environ:
        return None
    return Finding(
        "RDTL-G014",
        "error",
        f"rclone knows no remote {name}",
        where=f"{key}; {path} has {', '.join(known) or 'none'}",
        why="nothing could be staged from or to it",
        fix=f"rdtl stage login {name}, or rclone config",
    )


def _proxy(address: str) -> str:
    """The proxy for an address, as every client here takes it from the environment."""
    from urllib.request import getproxies, proxy_bypass

    parts = urlsplit(address)
    scheme = {"wss": "https", "ws": "http"}.get(parts.scheme, parts.scheme)
    if proxy_bypass(parts.hostname or ""):
        return ""
    named = getproxies()
    proxy = named.get(scheme) or named.get("all", "")
    return proxy if "://" in proxy or not proxy else f"http://{proxy}"
