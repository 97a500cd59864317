"""A hub in small, held to huggingface_hub's real client: listing, redirects, commits."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

LARGE = 1000
"""Files of this size and more are kept apart (LFS), behind a redirect."""
TOKEN = "hf_canary0123456789"


@dataclass
class Hub:
    """Repositories by "datasets/OWNER/NAME" or "models/…": path → content of the newest commit."""

    url: str = ""
    store_url: str = ""
    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    private: set[str] = field(default_factory=set)
    large: dict[str, bytes] = field(default_factory=dict)
    commits: list[str] = field(default_factory=list)
    leaks: list[str] = field(default_factory=list)
    """Requests to the store for large files that brought the hub's token along."""

    def page(self, name: str) -> str:
        return f"{self.url}/{name.removeprefix('models/')}"

    def commit(self, name: str) -> str:
        files = self.repositories[name]
        text = json.dumps({path: hashlib.sha1(data).hexdigest() for path, data in files.items()})
        return hashlib.sha1(text.encode()).hexdigest()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def hub(self) -> Hub:
        return self.server.hub  # type: ignore[attr-defined,no-any-return]

    def reply(self, status: int, data: Any = b"", **headers: str) -> None:
        body = data if isinstance(data, bytes) else json.dumps(data).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if not isinstance(data, bytes):
            self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            found = b""
            while size := int(self.rfile.readline(), 16):
                found += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return found
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def log_message(self, format: str, *words: object) -> None:
        return


class Front(Handler):
    """What huggingface.co answers."""

    def do_GET(self) -> None:
        parts = unquote(urlsplit(self.path).path).strip("/").split("/")
        if parts[0] == "api":
            name, rest = "/".join(parts[1:4]), parts[4:]
            if self.known(name):
                self.facts(name, rest)
            return
        parts = parts if parts[0] == "datasets" else ["models", *parts]
        name, path = "/".join(parts[:3]), "/".join(parts[5:])
        if not self.known(name):
            return
        data = self.hub.repositories[name].get(path)
        if data is None or parts[4] != self.hub.commit(name):
            self.reply(404, X_Error_Code="EntryNotFound")
        elif len(data) >= LARGE:
            digest = hashlib.sha256(data).hexdigest()
            self.hub.large[digest] = data
            self.reply(302, Location=f"{self.hub.store_url}/{digest}?sig=x")
        else:
            self.reply(200, data)

    do_HEAD = do_GET  # noqa: N815

    def known(self, name: str) -> bool:
        known = name in self.hub.repositories
        if known and name in self.hub.private:
            known = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if not known:
            self.reply(404, {"error": "Repository Not Found"}, X_Error_Code="RepoNotFound")
        return known

    def facts(self, name: str, rest: list[str]) -> None:
        files, commit = self.hub.repositories[name], self.hub.commit(name)
        revision = rest[1] if len(rest) > 1 else "main"
        if revision not in ("main", commit):
            self.reply(404, {"error": "Invalid rev"}, X_Error_Code="RevisionNotFound")
        elif rest[:1] == ["tree"]:
            below = "".join(f"{part}/" for part in rest[2:])
            found = [_facts(path, data) for path, data in files.items() if path.startswith(below)]
            if found or not below:
                self.reply(200, found)
            else:
                self.reply(404, {"error": "Entry not found"}, X_Error_Code="EntryNotFound")
        else:
            siblings = [{"rfilename": path} for path in files]
            self.reply(200, {"id": "/".join(name.split("/")[1:]), "sha": commit,
                             "siblings": siblings, "tags": []})  # fmt: skip

    def do_POST(self) -> None:
        body, parts = self.body(), unquote(urlsplit(self.path).path).strip("/").split("/")
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.reply(401, {"error": "Invalid username or password."})
            return
        name = "/".join(parts[1:4])
        if parts[:3] == ["api", "repos", "create"]:
            asked = json.loads(body)
            made = f"{asked.get('type', 'model')}s/{asked['organization']}/{asked['name']}"
            if made in self.hub.repositories:
                self.reply(409, {"error": "exists", "url": self.hub.page(made)})
                return
            self.hub.repositories[made] = {".gitattributes": b""}
            if asked.get("private") or asked.get("visibility") == "private":
                self.hub.private.add(made)
            self.reply(200, {"url": self.hub.page(made)})
        elif parts == ["api", "validate-yaml"]:
            self.reply(200, {"errors": [], "warnings": []})
        elif "paths-info" in parts:
            files = self.hub.repositories[name]
            wanted = parse_qs(body.decode())["paths"]
            self.reply(200, [_facts(path, files[path]) for path in wanted if path in files])
        elif "preupload" in parts:
            modes = [{"path": one["path"], "shouldIgnore": False, "oid": None,
                      "uploadMode": "lfs" if one["size"] >= LARGE else "regular"}
                     for one in json.loads(body)["files"]]  # fmt: skip
            self.reply(200, {"files": modes})
        elif parts[-3:] == ["lfs", "objects", "batch"]:
            address = self.hub.store_url
            objects = [{**one, "actions": {"upload": {"href": f"{address}/{one['oid']}"}}}
                       for one in json.loads(body)["objects"]]  # fmt: skip
            self.reply(200, {"transfer": "basic", "objects": objects})
        else:
            self.take(name, [json.loads(line) for line in body.splitlines() if line])

    def take(self, name: str, lines: list[dict[str, Any]]) -> None:
        files = self.hub.repositories[name]
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                self.hub.commits.append(value["summary"])
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.large[value["oid"]]
        url = f"{self.hub.page(name)}/commit/{self.hub.commit(name)}"
        self.reply(200, {"commitUrl": url, "commitOid": self.hub.commit(name), "success": True})


class Store(Handler):
    """Where the hub redirects to: addresses that are signed for one method."""

    def do_GET(self) -> None:
        if "Authorization" in self.headers:
            self.hub.leaks.append(self.path)
        data = self.hub.large.get(urlsplit(self.path).path.strip("/"))
        self.reply(404 if data is None else 200, data or b"")

    def do_HEAD(self) -> None:
        self.reply(403)

    def do_PUT(self) -> None:
        if "Authorization" in self.headers:
            self.hub.leaks.append(self.path)
        data = self.body()
        digest = hashlib.sha256(data).hexdigest()
        assert digest == urlsplit(self.path).path.strip("/")
        self.hub.large[digest] = data
        self.reply(200)


def _facts(path: str, data: bytes) -> dict[str, Any]:
    blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    found: dict[str, Any] = {"type": "file", "path": path, "size": len(data), "oid": blob}
    if len(data) >= LARGE:
        digest = hashlib.sha256(data).hexdigest()
        found["lfs"] = {"oid": digest, "size": len(data), "pointerSize": 130}
    return found


@contextmanager
def running() -> Iterator[Hub]:
    """The hub and its store of large files while the block runs."""
    hub = Hub()
    front = ThreadingHTTPServer(("127.0.0.1", 0), Front)
    store = ThreadingHTTPServer(("127.0.0.2", 0), Store)  # another host, as the hub's is
    hub.url = f"http://127.0.0.1:{front.server_port}"
    hub.store_url = f"http://127.0.0.2:{store.server_port}"
    for server in (front, store):
        server.daemon_threads = True
        server.hub = hub  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield hub
    finally:
        for server in (front, store):
            server.shutdown()
            server.server_close()
