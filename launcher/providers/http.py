"""JSON over HTTPS with a key: tries, waits, and never shows the key."""

from __future__ import annotations

import http.client
import json
import re
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode, urlsplit

from launcher.core.errors import RemoteError, UsageError
from launcher.providers.provider import GoneError, UnclearError

PASSING = (429, 502, 503, 504)
"""Answers that mean: later."""
LONGEST_WAIT_S = 60.0
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the key to another place."""

    def redirect_request(self, *_: Any) -> None:
        return None


@dataclass(frozen=True)
class Api:
    """One service. ``key`` goes into a header and nowhere else."""

    url: str
    key: str = field(repr=False)
    waits: tuple[float, ...] = (0.5, 2.0, 5.0)
    """Seconds before the second and later tries."""
    timeout_s: float = 60.0

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme != "https" and parts.hostname not in LOOPBACK:
            raise UsageError(
                "RDTL-B061",
                "the address of the provider is not https",
                where=self.url,
                why="the key of the account would travel in clear",
                fix="unset VAST_URL, or give an https address",
            )
        if not re.fullmatch("[!-~]*", self.key):  # else the error of a header would quote it
            raise UsageError(
                "RDTL-B061",
                "the provider's key has lines, spaces or signs that no key has",
                why="only its end is cut off by itself; the key is not shown here",
                fix="put the key alone into VAST_API_KEY or its file, as one line",
            )

    def call(
        self, method: str, path: str, body: Any = None, *, query: Any = None, once: bool = False
    ) -> Any:
        """The JSON answer of one request.

        ``once``: the request is not repeated where it may have been carried out already, which it
        certainly was not only after an answer 4xx or a refused connection: UnclearError
        RDTL-B065 then. GoneError RDTL-B062: no such thing. RemoteError: RDTL-B060 no answer after
        several tries, B061 the key is refused, B068 an answer nobody understands.
        """
        for wait in (*self.waits, None):
            try:
                return self._send(method, path, body, query)
            except urllib.error.HTTPError as error:
                words = self._words(error)
                if once and not 400 <= error.code < 500:
                    raise unclear(f"{method} {path}: {error.code} {words}") from error
                if error.code not in PASSING:
                    raise _refused(error.code, f"{method} {path}: {words}") from error
                if wait is None:
                    raise _silent(self.url, f"{error.code} {words}") from error
                time.sleep(max(wait, _asked_wait(error)))
            except (OSError, http.client.HTTPException) as error:
                if once and not isinstance(getattr(error, "reason", error), ConnectionRefusedError):
                    raise unclear(f"{method} {path}: {error}") from error
                if wait is None:
                    raise _silent(self.url, str(error)) from error
                time.sleep(wait)
            except ValueError as error:
                if once:
                    raise unclear(f"{method} {path}: {self._hide(str(error))}") from error
                raise strange(f"{method} {path}", self._hide(str(error))) from error
        raise AssertionError("the last try returns or raises")

    def _send(self, method: str, path: str, body: Any, query: Any) -> Any:
        address = self.url.rstrip("/") + path + (f"?{urlencode(query)}" if query else "")
        headers = {"Authorization": f"Bearer {self.key}", "Accept": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        if data is not None:
            headers["Content-Type"] = "application/json"
        request = urllib.request.Request(address, data, headers, method=method)
        opener = urllib.request.build_opener(_NoRedirect)
        with opener.open(request, timeout=self.timeout_s) as answer:
            text = answer.read()
        try:
            return json.loads(text)
        except ValueError:
            raise ValueError(text.decode("utf-8", "replace")) from None

    def _words(self, error: urllib.error.HTTPError) -> str:
        try:
            return self._hide(error.read(2000).decode("utf-8", "replace"))
        except (OSError, http.client.HTTPException):  # the status is there, the words are not
            return ""

    def _hide(self, text: str) -> str:
        return " ".join(text.replace(self.key, "…").split())[:300]


def strange(where: str, words: str) -> RemoteError:
    """RDTL-B068: an answer that does not have its form."""
    return RemoteError(
        "RDTL-B068",
        "the provider gave an answer that nobody understands",
        where=f"{where}: {words}",
        why="its interface may have changed",
        fix="look at the provider's own page; `rdtl cloud status` later",
    )


def _asked_wait(error: urllib.error.HTTPError) -> float:
    try:
        return min(float(error.headers.get("Retry-After", "0")), LONGEST_WAIT_S)
    except ValueError:
        return 0.0


def _silent(url: str, words: str) -> RemoteError:
    return RemoteError(
        "RDTL-B060",
        "the provider does not answer",
        where=f"{url}: {words}",
        why="nothing is known about the boxes until it does",
        fix="run the same command again; it continues",
    )


def unclear(where: str) -> UnclearError:
    """RDTL-B065."""
    return UnclearError(
        "RDTL-B065",
        "it is unclear whether a box was rented",
        where=where,
        why="the request went out, and no answer came back that says what became of it",
        fix="rdtl cloud status looks for it by its label; nothing else is rented before that",
    )


def _refused(status: int, words: str) -> RemoteError:
    if status in (404, 410):
        return GoneError("RDTL-B062", "the provider knows no such offer or box", where=words)
    if status in (401, 403):
        return RemoteError(
            "RDTL-B061",
            "the provider refuses the key",
            where=words,
            fix="make a key in the provider's console and put it into VAST_API_KEY",
        )
    return strange(f"status {status}", words)
