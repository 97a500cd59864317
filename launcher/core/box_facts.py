"""What a machine says of itself: GPUs, driver, memory, disk, network.

Also runs by itself on a rented box, as ``python3 -`` over ssh, and prints it all as JSON. Hence
standard library of old Python versions only; the arguments are a directory whose disk counts and,
if wanted, an address whose download is timed.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request

QUERY = ["--query-gpu=name,memory.total,driver_version", "--format=csv,noheader,nounits"]
GIGABYTE, MEBIBYTE = 1e9, 1 << 20
PATIENCE_S = 60.0
TIMED_S = 5.0


def least_mebibytes(gigabytes: float) -> float:
    """The least that nvidia-smi shows of a GPU that is sold with so many GB of memory.

    10^9 bytes each: what is more than that is the driver's, or ECC's (23,028 MiB of 24 GB).
    """
    return gigabytes * GIGABYTE / MEBIBYTE


def gpus() -> list[tuple[str, int, str]]:
    """Name, memory in MiB (0 where it has no number) and driver of each GPU.

    OSError with the reason where nvidia-smi is not there or knows none.
    """
    rows = [line.split(",") for line in _nvidia_smi(QUERY).splitlines() if line.count(",") == 2]
    parts = [[part.strip() for part in row] for row in rows]
    return [(name, int(size) if size.isdigit() else 0, driver) for name, size, driver in parts]


def cuda() -> str:
    """The newest CUDA version that the driver knows; OSError as :func:`gpus`."""
    found = re.search(r"CUDA Version:\s*([\d.]+)", _nvidia_smi([]))
    return found.group(1) if found else ""


def _nvidia_smi(words: list[str]) -> str:
    try:
        done = subprocess.run(
            ["nvidia-smi", *words], capture_output=True, timeout=PATIENCE_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise OSError("nvidia-smi does not answer") from None
    if done.returncode:
        said = (done.stderr or done.stdout).decode("utf-8", "replace")
        raise OSError("nvidia-smi says: " + said.strip()[:200])
    return done.stdout.decode("utf-8", "replace")


def memory_gb() -> float:
    """Memory of the machine, or what a container may use of it."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            with open(path, encoding="ascii") as handle:  # noqa: PTH123
                pages = min(pages, int(handle.read()))
        except (OSError, ValueError):  # no such file, or the word max
            continue
    return pages / 1e9


def download_mbps(address: str, seconds: float = TIMED_S) -> float:
    """Megabits a second of a download of some seconds; OSError with the reason when it fails."""
    begun, size = time.monotonic(), 0
    if not address.startswith(("https://", "http://")):
        raise OSError("the address begins with neither https:// nor http://")
    try:
        with urllib.request.urlopen(address, timeout=30) as answer:
            while True:
                block = answer.read(1 << 20)
                size += len(block)
                if not block or time.monotonic() - begun >= seconds:
                    break
    except (ValueError, http.client.HTTPException) as error:  # no address, or half an answer
        raise OSError(str(error) or type(error).__name__) from error
    return size * 8 / 1e6 / max(time.monotonic() - begun, 1e-3)


def main(directory: str, address: str) -> None:
    """Print the facts; of the disk on which ``directory`` is or will be."""
    directory = os.path.abspath(os.path.expanduser(directory))  # noqa: PTH100, PTH111
    while not os.path.isdir(directory):  # noqa: PTH112
        directory = os.path.dirname(directory)  # noqa: PTH120
    found, newest = [], ""
    with contextlib.suppress(OSError):  # none: whoever asks compares that with what was ordered
        found = gpus()
        newest = cuda()
    speed, failed = None, ""
    try:
        speed = download_mbps(address) if address else None
    except OSError as error:
        failed = " ".join(str(error).split())[:200]
    facts = {
        "gpus": [[name, memory / 1000] for name, memory, _ in found],
        "driver": found[0][2] if found else "",
        "cuda": newest,
        "disk_gb": shutil.disk_usage(directory).free / 1e9,
        "memory_gb": memory_gb(),
        "cpus": len(os.sched_getaffinity(0)),
        "download_mbps": speed,
        "download_failed": failed,
    }
    print(json.dumps(facts))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "")
