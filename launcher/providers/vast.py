"""vast.ai over HTTP, without its SDK (36 packages, 200 MB, pins that clash with others)."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from launcher.core.box_facts import least_mebibytes
from launcher.core.errors import UsageError
from launcher.providers.http import Api, strange, unclear
from launcher.providers.provider import Box, GoneError, Order
from launcher.providers.wanted import MEMORY_SHARE, Offer, Wanted, version

URL = "https://console.vast.ai"
MOST_OFFERS = 1000
STATES = {"running": "running", "exited": "stopped", "stopped": "stopped", "offline": "stopped"}


class Vast:
    """The provider ``vast``."""

    name = "vast"

    def __init__(self, api: Api) -> None:
        self._api = api

    def search(self, wanted: Wanted, price: float, *, interruptible: bool) -> list[Offer]:
        """Offers, cheapest first. Filters go as a mapping: the string form loses some of them."""
        query = search_body(wanted, price, interruptible=interruptible)
        answer = self._api.call("POST", "/api/v0/bundles/", query)
        try:
            found = [_offer(entry, interruptible) for entry in answer["offers"]]
        except (KeyError, TypeError, ValueError) as error:
            raise strange("search", f"{type(error).__name__} {error}") from error
        return sorted(found, key=lambda offer: (offer.price, offer.id))

    def body(self, order: Order) -> dict[str, Any]:
        """The create request."""
        return {
            "client_id": "me",
            "image": order.image,
            "disk": order.disk_gb,
            "label": order.label,
            "env": {},
            "runtype": "ssh_direc ssh_proxy",
            "price": order.bid,
            "cancel_unavail": True,  # else an offer that is gone becomes a box that waits and costs
        }

    def create(self, offer: int, order: Order) -> int:
        """Rent ``offer``."""
        answer = self._api.call("PUT", f"/api/v0/asks/{offer}/", self.body(order), once=True)
        if isinstance(answer, dict) and answer.get("success") is False:
            words = str(answer.get("msg") or answer.get("error"))[:300]
            raise GoneError("RDTL-B062", "the provider does not rent it", where=words)
        if not isinstance(answer, dict) or not isinstance(answer.get("new_contract"), int):
            raise unclear(f"create: {str(answer)[:300]}")
        return int(answer["new_contract"])

    def boxes(self) -> list[Box]:
        """All machines of the account."""
        try:
            return [_box(entry) for entry in self._pages()]
        except (KeyError, TypeError, ValueError) as error:
            raise strange("list", f"{type(error).__name__} {error}") from error

    def attach_key(self, box: int, public_key: str) -> None:
        """Let this ssh key in."""
        self._api.call("POST", f"/api/v0/instances/{box}/ssh/", {"ssh_key": public_key})

    def start(self, box: int) -> None:
        """Let a stopped machine run again."""
        self._api.call("PUT", f"/api/v0/instances/{box}/", {"state": "running"})

    def stop(self, box: int) -> None:
        """End what costs by the hour; the disk stays."""
        self._api.call("PUT", f"/api/v0/instances/{box}/", {"state": "stopped"})

    def destroy(self, box: int) -> None:
        """Give the machine back with all that is on it."""
        self._api.call("DELETE", f"/api/v0/instances/{box}/", {})

    def _pages(self) -> Iterator[dict[str, Any]]:
        order = json.dumps([{"col": "id", "dir": "asc"}])
        query = {"select_filters": "{}", "order_by": order, "limit": "25"}
        while True:
            answer = self._api.call("GET", "/api/v1/instances/", query=query)
            yield from answer["instances"]
            if not (token := answer.get("next_token")):
                return
            query = {**query, "after_token": token}


def connect() -> Vast:
    """The account of VAST_API_KEY or of the key files of vast's own program; UsageError B061."""
    home = Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser()
    places = [home / "vastai" / "vast_api_key", Path("~/.vast_api_key").expanduser()]
    key = os.environ.get("VAST_API_KEY", "").strip()
    for place in places:
        if not key and place.is_file():
            key = place.read_text(encoding="utf-8").strip()
    if not key:
        raise UsageError(
            "RDTL-B061",
            "there is no key for vast.ai",
            where=", ".join(["VAST_API_KEY", *map(str, places)]),
            fix="make one at https://cloud.vast.ai/manage-keys/ and export VAST_API_KEY",
        )
    return Vast(Api(os.environ.get("VAST_URL") or URL, key))


def search_body(wanted: Wanted, price: float, *, interruptible: bool) -> dict[str, Any]:
    """The search request for ``wanted``; what it cannot say is checked in the answers."""
    least = {
        "gpu_ram": least_mebibytes(wanted.vram_gb),
        "disk_space": wanted.rented_disk_gb,
        "cpu_ram": wanted.memory_gb * MEMORY_SHARE * 1000,
        "cpu_cores_effective": wanted.cpus,
        "inet_down": wanted.download_mbps,
        "reliability": wanted.reliability,
        "cuda_max_good": float(wanted.cuda or 0),
        "driver_version": _driver_number(wanted.min_driver),
        "direct_port_count": 1,
    }
    query: dict[str, Any] = {name: {"gte": value} for name, value in least.items() if value}
    if wanted.gpus:
        query["num_gpus"] = {"eq": wanted.gpus}
    for name, value in (("verified", True), ("rentable", True), ("rented", False)):
        query[name] = {"eq": value}
    if not interruptible:  # what a bid comes to is known after the answer
        query["dph_total"] = {"lte": price}
    return query | {
        "external": {"eq": False},
        "type": "bid" if interruptible else "on-demand",
        "order": [["dph_total", "asc"]],
        "limit": MOST_OFFERS,
        "allocated_storage": wanted.rented_disk_gb,
    }


def _driver_number(text: str | None) -> int:
    """``570.86.15`` as vast compares it: 570086015."""
    numbers = (*version(text or ""), 0, 0, 0)[:3]
    return (numbers[0] * 1000 + numbers[1]) * 1000 + numbers[2]


def _offer(entry: dict[str, Any], interruptible: bool) -> Offer:
    storage = float(entry.get("storage_total_cost") or 0)
    # a bid is for the machine alone, the price of an hour includes the disk
    price = entry["min_bid"] + storage if interruptible else entry["dph_total"]
    return Offer(
        id=int(entry["id"]),
        machine=int(entry["machine_id"]),
        gpu=str(entry["gpu_name"]),
        gpus=int(entry["num_gpus"]),
        vram_gb=float(entry["gpu_ram"]) / 1000,
        disk_gb=float(entry["disk_space"]),
        memory_gb=float(entry.get("cpu_ram") or 0) / 1000,
        cpus=float(entry.get("cpu_cores_effective") or 0),
        price=float(price),
        storage_price=storage,
        download_price=float(entry.get("inet_down_cost") or 0),
        download_mbps=float(entry.get("inet_down") or 0),
        driver=str(entry.get("driver_version") or ""),
        cuda=str(entry.get("cuda_max_good") or ""),
        reliability=float(entry.get("reliability") or 0),
        place=str(entry.get("geolocation") or ""),
        hours=float(entry.get("duration") or 0) / 3600,
    )


def _box(entry: dict[str, Any]) -> Box:
    state = STATES.get(str(entry.get("actual_status")), "loading")
    words = " ".join(str(entry.get("status_msg") or "").split())[:200]
    return Box(
        id=int(entry["id"]),
        label=str(entry.get("label") or ""),
        state=state,
        price=float(entry.get("dph_total") or 0),
        addresses=tuple(_addresses(entry)),
        words=words,
    )


def _addresses(entry: dict[str, Any]) -> Iterator[tuple[str, int]]:
    """Directly, then through the provider's relay."""
    direct = (entry.get("ports") or {}).get("22/tcp") or []
    host = str(entry.get("public_ipaddr") or "").strip()
    places = [(host, port.get("HostPort")) for port in direct]
    places.append((str(entry.get("ssh_host") or ""), entry.get("ssh_port")))
    for name, port in places:
        # a name goes into an argv of ssh: what does not look like one is no address
        if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.:-]*", name) and str(port or "").isdigit():
            yield name, int(port)
