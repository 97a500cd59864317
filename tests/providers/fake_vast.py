"""A stand-in for vast.ai's API, for money's sake; the real SDK and CLI hold it to the real form.

It rents *boxes*: with :mod:`tests.providers.boxes` these are real machines to ssh. It keeps
account of what everything costs, so a test can ask whether a cap was passed.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol
from urllib.parse import parse_qs, urlsplit

KEY = "vast-canary-5e1f0c77"
OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "eq": lambda has, value: has == value,
    "neq": lambda has, value: has != value,
    "gt": lambda has, value: has > value,
    "gte": lambda has, value: has >= value,
    "lt": lambda has, value: has < value,
    "lte": lambda has, value: has <= value,
    "in": lambda has, value: has in value,
    "notin": lambda has, value: has not in value,
}
NO_FILTER = ("order", "limit", "type", "allocated_storage", "disable_bundling")


def _fits(has: Any, operator: str, value: Any) -> bool:
    """One filter. vast's own program sends numbers as texts."""
    if isinstance(value, str) and isinstance(has, int | float):
        value = float(value)
    return OPERATORS[operator](has, value)


class Machines(Protocol):
    """What boots behind an instance."""

    def boot(self, instance: dict[str, Any]) -> tuple[str, int]: ...
    def attach(self, instance: int, public_key: str) -> None: ...
    def off(self, instance: int) -> None: ...
    def remove(self, instance: int) -> None: ...


def offer(number: int, **changes: Any) -> dict[str, Any]:
    """An offer with the fields that the real service sends."""
    gpus = changes.get("num_gpus", 2)
    return {
        "id": number, "ask_contract_id": number, "machine_id": 1000 + number, "host_id": 7,
        "num_gpus": gpus, "gpu_name": "RTX PRO 6000 WS", "gpu_ram": 97887,
        "gpu_total_ram": 97887 * gpus, "gpu_frac": 1.0, "cpu_cores": 64, "cpu_name": "EPYC",
        "cpu_cores_effective": 64.0, "cpu_ghz": 3.0, "cpu_ram": 515000, "disk_space": 2000.0,
        "disk_bw": 3000.0, "inet_up": 900.0, "inet_down": 2500.0, "inet_up_cost": 0.002,
        "inet_down_cost": 0.002, "direct_port_count": 99, "dph_base": 2.0, "dph_total": 2.1,
        "min_bid": 1.0, "storage_cost": 0.15, "storage_total_cost": 0.05, "cuda_max_good": 12.8,
        "driver_version": "570.124.06", "driver_vers": 570124006, "reliability": 0.997,
        "reliability2": 0.997, "geolocation": "Norway, NO", "duration": 30 * 86400.0,
        "start_date": 1.7e9, "end_date": 1.9e9, "rentable": True, "rented": False,
        "verified": True, "verification": "verified", "external": False, "is_bid": False,
        "dlperf": 100.0, "dlperf_per_dphtotal": 50.0, "score": 200.0, "pcie_bw": 50.0,
        "public_ipaddr": "127.0.0.1", "hosting_type": 1, "static_ip": True, **changes,
    }  # fmt: skip


@dataclass
class Fault:
    """What happens to the next requests that match, ``times`` times."""

    method: str
    path: str
    status: int = 0
    """Answer with this status and do nothing."""
    after: bool = False
    """Carry the request out, then answer with ``status``, or close the connection without."""
    text: str = "later"
    """What the answer says instead of JSON of its form."""
    held: threading.Event | None = None
    """Wait for this first; the request goes on even if its sender is gone by then."""
    times: int = 1
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Contract:
    """What an instance is and what it has cost."""

    data: dict[str, Any]
    price: float
    storage: float
    booted: float
    since: float
    cost: float = 0.0
    stops: float | None = None
    """When a stop that was asked for takes place."""
    destroyed: bool = False

    def bill(self) -> None:
        """Count until now."""
        now = time.time()
        rate = self.price if self.data["intended_status"] == "running" else self.storage
        self.cost += rate * (now - self.since) / 3600
        self.since = now


class FakeVast:
    """The account of one customer, and the market."""

    def __init__(self, machines: Machines | None = None) -> None:
        self.machines = machines
        self.offers: dict[int, dict[str, Any]] = {}
        self.contracts: dict[int, Contract] = {}
        self.faults: list[Fault] = []
        self.requests: list[tuple[str, str, str]] = []
        self.account_keys: list[str] = []
        self.loading_s = 0.2
        self.deaf_filters = False
        """Answer searches with everything, as a query that lost its filters does."""
        self.price_at_rent: dict[int, float] = {}
        self.stuck: set[int] = set()
        """Machines that never leave ``loading``."""
        self.lost_keys: set[int] = set()
        """Machines on which an attached key never arrives."""
        self.stop_s = 0.0
        """So long a box goes on after it was told to stop."""
        self.offline: set[int] = set()
        """Instances whose machine has lost its network."""
        self.hidden: dict[int, int] = {}
        """By instance: so many listings are without it."""
        self.relay_only = False
        """The address that is said to lead to a box directly is shut."""
        self.lock = threading.RLock()
        self.url = ""

    @property
    def alive(self) -> list[int]:
        """Instances that exist."""
        return [number for number, one in self.contracts.items() if not one.destroyed]

    def cost(self) -> float:
        """US dollars that everything has cost until now."""
        with self.lock:
            for one in self.contracts.values():
                if not one.destroyed:
                    one.bill()
            return sum(one.cost for one in self.contracts.values())

    def preempt(self, number: int) -> None:
        """Take a machine away, as for a higher bid."""
        with self.lock:
            self._state(number, "stopped", "exited")

    def resume(self, number: int) -> None:
        """Let it run again, because its bid wins again."""
        with self.lock:
            self._state(number, "running", "loading")

    # The API -----------------------------------------------------------------------------

    def answer(self, method: str, path: str, query: dict[str, str], body: Any) -> tuple[int, Any]:
        """Status and JSON of one request."""
        with self.lock:
            for verb, pattern, act in self._routes():
                if verb == method and (match := re.fullmatch(pattern, path)):
                    return act(query, body, *map(int, match.groups()))
        return 404, {"success": False, "error": "not_found", "msg": path}

    def _routes(self) -> list[tuple[str, str, Callable[..., tuple[int, Any]]]]:
        v0 = "/api/v0"
        return [
            ("POST", f"{v0}/bundles/", self._search),
            ("PUT", rf"{v0}/asks/(\d+)/", self._create),
            ("GET", "/api/v1/instances/", self._list),
            ("GET", rf"{v0}/instances/(\d+)/", self._show),
            ("PUT", rf"{v0}/instances/(\d+)/", self._change),
            ("DELETE", rf"{v0}/instances/(\d+)/", self._destroy),
            ("POST", rf"{v0}/instances/(\d+)/ssh/", self._attach),
            ("GET", f"{v0}/ssh/", lambda query, body: (200, self.account_keys)),
            ("GET", f"{v0}/gpu_names/unique/", lambda query, body: (200, {"gpu_names": []})),
            ("GET", f"{v0}/instances/filters/", lambda query, body: (200, {"filters": []})),
            ("GET", f"{v0}/users/current/?", lambda query, body: (200, {"id": 1, "credit": 50.0})),
        ]

    def _search(self, query: dict[str, str], body: dict[str, Any]) -> tuple[int, Any]:
        found = []
        for one in self.offers.values():
            has = {**one, "driver_version": one["driver_vers"], "rented": self._rented(one)}
            tests = [(n, o, v) for n, t in body.items() if n not in NO_FILTER for o, v in t.items()]
            if any(operator not in OPERATORS for _, operator, _ in tests):
                return 400, {"success": False, "error": "invalid_args", "msg": "unknown operator"}
            if self.deaf_filters or all(_fits(has.get(n), o, v) for n, o, v in tests):
                found.append(one)
        for column, direction in reversed(body.get("order", [])):
            found.sort(key=lambda one: one.get(column, 0), reverse=direction == "desc")
        return 200, {"offers": found[: int(body.get("limit", 64))]}

    def _rented(self, one: dict[str, Any]) -> bool:
        machine = one["machine_id"]
        held = [c for c in self.contracts.values() if not c.destroyed]
        return any(c.data["machine_id"] == machine for c in held)

    def _create(self, query: dict[str, str], body: dict[str, Any], number: int) -> tuple[int, Any]:
        one = self.offers.get(number)
        if one is None or self._rented(one):
            gone = {"success": False, "error": "no_such_ask", "msg": f"no_such_ask {number}"}
            return 404, gone
        if not body.get("image") and not body.get("template_hash_id"):
            return 400, {"success": False, "error": "invalid_args", "msg": "no image"}
        contract, price = 9000 + len(self.contracts), one["dph_total"]
        if body.get("price"):
            if body["price"] < one["min_bid"]:
                return 400, {"success": False, "error": "bid_too_low", "msg": "bid too low"}
            price = body["price"] + one["storage_total_cost"]
        environment = list((body.get("env") or {}).items())
        price, now = self.price_at_rent.get(number, price), time.time()
        data = {
            "id": contract, "machine_id": one["machine_id"], "host_id": one["host_id"],
            "actual_status": "loading", "cur_state": "running", "next_state": "running",
            "intended_status": "running", "status_msg": "pulling the image", "start_date": now,
            "end_date": now + 1e6, "duration": 1e6, "extra_env": environment,
            "image_uuid": body.get("image"), "image_runtype": body.get("runtype"),
            "onstart": body.get("onstart"), "label": body.get("label"), "dph_total": price,
            "dph_base": price, "gpu_name": one["gpu_name"], "num_gpus": one["num_gpus"],
            "gpu_ram": one["gpu_ram"], "disk_space": body.get("disk") or 8.0,
            "ssh_host": None, "ssh_port": None, "ssh_idx": "1", "public_ipaddr": None,
            "ports": {}, "local_ipaddrs": "10.0.0.2", "direct_port_start": -1,
            "direct_port_end": -1, "is_bid": bool(body.get("price")), "min_bid": one["min_bid"],
            "template_id": None, "gpu_util": None, "uptime_mins": 0,
        }  # fmt: skip
        self.contracts[contract] = Contract(
            data, price, one["storage_total_cost"], now + self.loading_s, now
        )
        return 200, {"success": True, "new_contract": contract, "instance_api_key": "xxxx"}

    def _list(self, query: dict[str, str], body: Any) -> tuple[int, Any]:
        after, limit = int(query.get("after_token", -1)), int(query.get("limit", 25))
        numbers = sorted(number for number in self.alive if number > after)
        page = numbers[: min(limit, 25)]
        token = page[-1] if len(numbers) > len(page) else None
        found = [self._seen(number) for number in page if not self._hide(number)]
        return 200, {"success": True, "instances": found, "next_token": token,
                     "total_instances": len(self.alive)}  # fmt: skip

    def _hide(self, number: int) -> bool:
        left = self.hidden.get(number, 0)
        self.hidden[number] = max(0, left - 1)
        return left > 0

    def _show(self, query: dict[str, str], body: Any, number: int) -> tuple[int, Any]:
        if number not in self.alive:
            return 404, {"success": False, "error": "no_such_instance", "msg": str(number)}
        return 200, {"instances": self._seen(number)}

    def _seen(self, number: int) -> dict[str, Any]:
        """The instance as it is now; booting takes its time."""
        one = self.contracts[number]
        if one.stops is not None and time.time() > one.stops:
            self._state(number, "stopped", "exited")
        if number in self.offline:
            return {**one.data, "actual_status": "offline"}
        stuck = one.data["machine_id"] in self.stuck
        if one.data["actual_status"] == "loading" and time.time() > one.booted and not stuck:
            one.data |= {"actual_status": "running", "status_msg": "success, running"}
            host, port = self.machines.boot(one.data) if self.machines else ("127.0.0.1", 9)
            direct = "9" if self.relay_only else str(port)
            one.data |= {
                "public_ipaddr": host,
                "ports": {"22/tcp": [{"HostIp": "0.0.0.0", "HostPort": direct}]},
            }
            if self.relay_only:
                one.data |= {"ssh_host": host, "ssh_port": port}
        return dict(one.data)

    def _change(self, query: dict[str, str], body: dict[str, Any], number: int) -> tuple[int, Any]:
        if number not in self.alive:
            return 404, {"success": False, "error": "no_such_instance", "msg": str(number)}
        if "label" in body:
            self.contracts[number].data["label"] = body["label"]
        if body.get("state") == "stopped" and self.stop_s:
            self.contracts[number].stops = time.time() + self.stop_s
        elif body.get("state") == "stopped":
            self._state(number, "stopped", "exited")
        elif body.get("state") == "running":
            self._state(number, "running", "loading")
        return 200, {"success": True}

    def _state(self, number: int, intended: str, actual: str) -> None:
        one = self.contracts[number]
        one.bill()
        one.stops = None
        one.booted = time.time() + self.loading_s
        one.data |= {"intended_status": intended, "actual_status": actual, "status_msg": actual}
        if self.machines and intended == "stopped":
            self.machines.off(number)

    def _destroy(self, query: dict[str, str], body: Any, number: int) -> tuple[int, Any]:
        if number not in self.alive:
            return 404, {"success": False, "error": "no_such_instance", "msg": str(number)}
        one = self.contracts[number]
        one.bill()
        one.destroyed = True
        if self.machines:
            self.machines.remove(number)
        return 200, {"success": True}

    def _attach(self, query: dict[str, str], body: dict[str, Any], number: int) -> tuple[int, Any]:
        if number not in self.alive or not body.get("ssh_key", "").startswith("ssh-"):
            return 400, {"success": False, "error": "invalid_args", "msg": "no key, no instance"}
        lost = self.contracts[number].data["machine_id"] in self.lost_keys
        if self.machines and not lost:
            self.machines.attach(number, body["ssh_key"])
        return 200, {"success": True, "msg": "key attached"}

    def fault(self, method: str, path: str) -> Fault | None:
        """The fault that this request meets."""
        with self.lock:
            for one in self.faults:
                if one.times and one.method == method and re.fullmatch(one.path, path):
                    one.times -= 1
                    return one
        return None


class _Handler(BaseHTTPRequestHandler):
    fake: FakeVast

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        text = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        self.fake.requests.append((self.command, self.path, text))
        if self.headers.get("Authorization") != f"Bearer {KEY}":
            refused = {"success": False, "error": "auth_error", "msg": "Invalid user key"}
            self._send(401, json.dumps(refused))
            return
        fault = self.fake.fault(self.command, parts.path)
        if fault and fault.held:
            fault.held.wait()
        if fault and not fault.after:
            if fault.status:
                self._send(fault.status, fault.text, fault.headers)
            return
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        status, answer = self.fake.answer(
            self.command, parts.path, query, json.loads(text) if text else None
        )
        if not fault:
            self._send(status, json.dumps(answer))
        elif fault.status:
            self._send(fault.status, fault.text)

    def _send(self, status: int, words: str, headers: dict[str, str] | None = None) -> None:
        text = words.encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST = do_PUT = do_DELETE = _serve  # noqa: N815

    def log_message(self, *_: Any) -> None:
        """Tests read ``requests`` instead."""


@contextmanager
def serve(fake: FakeVast) -> Iterator[FakeVast]:
    """The fake on a port of this machine while the block runs; its address is ``fake.url``."""
    handler = type("Handler", (_Handler,), {"fake": fake})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        fake.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield fake
        finally:
            server.shutdown()
            thread.join()
