"""Two hosts with sshd for the tests of sites of kind hosts."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.ssh_hosts import SshHosts, ssh_hosts


@pytest.fixture(scope="module")
def network() -> Iterator[SshHosts]:
    with ssh_hosts(Path(tempfile.mkdtemp(prefix="rdtl-hosts-"))) as made:
        yield made


@pytest.fixture
def hosts(network: SshHosts) -> Iterator[SshHosts]:
    """Nothing of an earlier test runs; a test starts the hosts as it needs them."""
    yield network
    for name in network.cluster.node_names:
        network.kill(name)


@pytest.fixture
def both(hosts: SshHosts) -> SshHosts:
    for name in hosts.cluster.node_names:
        hosts.start(name)
    return hosts
