"""The interface on the way to another machine, asked of the kernel of this one."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from jobs import host_probe, network


def test_interfaces_are_those_that_the_kernel_lists() -> None:
    try:
        printed = subprocess.run(["ip", "-j", "-4", "addr"], capture_output=True, check=True)
    except FileNotFoundError:
        pytest.skip("iproute2 is not installed")  # a laptop; the cluster's tests need it anyway
    found = {name: one["address"] for name, one in network.interfaces().items()}
    listed = {
        device["ifname"]: address["local"]
        for device in json.loads(printed.stdout)
        for address in device["addr_info"][:1]
        if not address["local"].startswith("127.")
    }
    assert found == listed


def test_an_own_address_lies_on_its_interface() -> None:
    for name, one in network.interfaces().items():
        assert network.towards(one["address"]) == name
    assert network.towards("127.0.0.1") is None
    assert network.towards("no.such.host.invalid") is None


def test_what_somebody_chose_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    own = next((one["address"] for one in network.interfaces().values()), None)
    if own is None:
        pytest.skip("this machine has no network")  # then there is no interface to choose
    monkeypatch.delenv(network.GLOO, raising=False)
    assert list(network.variables(own, {})) == [network.GLOO]
    assert network.variables(own, {network.GLOO: "ib0"}) == {}
    monkeypatch.setenv(network.GLOO, "ib0")
    assert network.variables(own, {}) == {}


def test_a_gpu_without_memory_of_its_own_is_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """nvidia-smi has no number for the memory of a GPU that shares it with the machine."""
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho '0, [N/A], [N/A]'\necho '1, 4, 81559'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert host_probe.gpus() == [
        {"index": 0, "used_mb": 0, "total_mb": 0},
        {"index": 1, "used_mb": 4, "total_mb": 81559},
    ]
