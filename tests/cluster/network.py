"""Network namespaces of the nodes and the switch between them (iproute2, root).

The bridge lives in a namespace of its own: firewall rules that other software
puts on the machine for bridged traffic (Docker does) cannot cut node from node.
The machine itself sees one device, the host's end of a cable to that switch.
"""

from __future__ import annotations

import ipaddress
import json
import shutil
import socket
from pathlib import Path

from tests.cluster import lock
from tests.cluster.layout import Cluster, ClusterError, hosts_file, tag_of, write_whole

ETC_NETNS = Path("/etc/netns")  # `ip netns exec NAME` binds the files of NAME/ over /etc
RUN_NETNS = Path("/run/netns")
SWITCH = "switch"
# 10.77.N.0/24, and for machines that route all of 10/8 the block reserved for network tests.
CANDIDATES = [f"{block}.{n}" for block in ("10.77", "198.18") for n in range(100)]
FIRST_PORT = 17000


def _ip(*arguments: str) -> str:
    done = lock.command(["ip", *arguments])
    if done.returncode != 0:
        raise ClusterError(
            f"`ip {' '.join(arguments)}` failed: {done.stderr.strip()}\n"
            "  why: nodes are network namespaces; making them needs root with CAP_NET_ADMIN and "
            "CAP_SYS_ADMIN\n"
            "  fix: use a virtual machine or a container started with --privileged",
            exit_status=2,
        )
    return done.stdout


def _used_networks() -> list[ipaddress.IPv4Network]:
    """Every IPv4 network that this machine has an address in or a route to."""
    routes = json.loads(_ip("-j", "-4", "route", "show", "table", "all") or "[]")
    found = [route["dst"] for route in routes if route["dst"] != "default"]
    for device in json.loads(_ip("-j", "-4", "addr", "show") or "[]"):
        found += [f"{a['local']}/{a['prefixlen']}" for a in device.get("addr_info", [])]
    return [ipaddress.IPv4Network(text, strict=False) for text in found]


def _port_is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


def choose() -> tuple[str, int]:
    """A free network ("10.77.3") and the first of two free ports for it.

    Call it under the lock of :mod:`tests.cluster.minislurm`; raises ClusterError
    when the machine's own networks or ports leave nothing.
    """
    used = _used_networks()
    for index, network in enumerate(CANDIDATES):
        subnet = ipaddress.IPv4Network(f"{network}.0/24")
        port = FIRST_PORT + 2 * index
        if any(subnet.overlaps(other) for other in used):
            continue
        if _port_is_free(port) and _port_is_free(port + 1):
            return network, port
    raise ClusterError(
        "no free network for the nodes: this machine has addresses in, or routes to, all of "
        f"{CANDIDATES[0]}.0/24 … {CANDIDATES[-1]}.0/24, or the ports {FIRST_PORT}–"
        f"{FIRST_PORT + 2 * len(CANDIDATES)} are taken\n"
        "  fix: look at `ip -4 route show table all` and `ss -ltn`; run `down` for clusters that "
        "are no longer needed",
        exit_status=2,
    )


def create(cluster: Cluster) -> None:
    """Make the switch, the machine's cable to it, and one namespace per node."""
    switch, host = cluster.namespace(SWITCH), _host_device(cluster.root)
    _ip("netns", "add", switch)
    _ip("-n", switch, "link", "add", "bridge", "type", "bridge")
    _ip("-n", switch, "link", "set", "bridge", "up")
    _ip("link", "add", host, "type", "veth", "peer", "name", "host", "netns", switch)
    _ip("-n", switch, "link", "set", "host", "master", "bridge", "up")
    _ip("addr", "add", f"{cluster.host_address}/24", "dev", host)
    _ip("link", "set", host, "up")
    for node in cluster.node_names:
        _add_node(cluster, node)


def _add_node(cluster: Cluster, node: str) -> None:
    switch, namespace = cluster.namespace(SWITCH), cluster.namespace(node)
    etc = ETC_NETNS / namespace
    etc.mkdir(parents=True, exist_ok=True)
    write_whole(etc / "hosts", hosts_file(cluster))
    _ip("netns", "add", namespace)
    _ip("-n", switch, "link", "add", node, "type", "veth", "peer", "eth0", "netns", namespace)
    _ip("-n", switch, "link", "set", node, "master", "bridge", "up")
    _ip("-n", namespace, "addr", "add", f"{cluster.node_address(node)}/24", "dev", "eth0")
    _ip("-n", namespace, "link", "set", "eth0", "up")
    _ip("-n", namespace, "link", "set", "lo", "up")


def _host_device(root: Path) -> str:
    return f"{tag_of(root)}h"


def namespaces(root: Path) -> list[str]:
    """Namespaces of the cluster in ``root`` that exist now."""
    if not RUN_NETNS.is_dir():
        return []
    return sorted(path.name for path in RUN_NETNS.glob(f"{tag_of(root)}-*"))


def processes_in(namespace: str) -> list[int]:
    """Process ids of everything that lives in ``namespace``."""
    try:
        wanted = (RUN_NETNS / namespace).stat()
    except FileNotFoundError:
        return []
    found = []
    for link in Path("/proc").glob("[0-9]*/ns/net"):
        try:
            status = link.stat()
        except OSError:  # the process ended while we looked
            continue
        if (status.st_dev, status.st_ino) == (wanted.st_dev, wanted.st_ino):
            found.append(int(link.parts[2]))
    return found


def remove(root: Path) -> None:
    """Remove every namespace, device and file in /etc/netns of the cluster in ``root``."""
    if (Path("/sys/class/net") / _host_device(root)).exists():
        _ip("link", "del", _host_device(root))
    for namespace in namespaces(root):
        _ip("netns", "del", namespace)
    if ETC_NETNS.is_dir():
        for directory in ETC_NETNS.glob(f"{tag_of(root)}-*"):
            shutil.rmtree(directory)
        if not any(ETC_NETNS.iterdir()):
            ETC_NETNS.rmdir()
