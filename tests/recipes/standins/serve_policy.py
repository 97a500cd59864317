"""Stands in for openpi's server of a policy: its options, its wire, ``/healthz``, no network.

The policy stands still. It tells what it was started with, so that a test can look.
"""

import argparse
import http
import json
import sys
from pathlib import Path

# The environment that uv made holds stand-ins of packages; what the wire needs lies here.
sys.path[:0] = Path(__file__).with_name("paths").read_text().split("\n")

import msgpack  # noqa: E402
import numpy as np  # noqa: E402
from websockets.exceptions import ConnectionClosed  # noqa: E402
from websockets.sync.server import serve  # noqa: E402


def plain(value):
    kind = {b"dtype": value.dtype.str, b"shape": list(value.shape)}
    return {b"__ndarray__": True, b"data": value.tobytes("C"), **kind}


def health(connection, request):
    if request.path == "/healthz":
        return connection.respond(http.HTTPStatus.OK, "OK\n")
    return None


def talk(connection):
    connection.send(msgpack.packb({"asked": "nothing"}))
    try:
        for data in connection:
            assert msgpack.unpackb(data, strict_map_key=False)
            actions = np.zeros((10, 7), np.float32)
            actions[:, 6] = -1  # an open gripper
            connection.send(msgpack.packb({"actions": actions}, default=plain))
    except ConnectionClosed:
        pass


words = argparse.ArgumentParser()
words.add_argument("--port", type=int)
words.add_argument("policy", choices=["policy:checkpoint"])
words.add_argument("--policy.config", dest="config")
words.add_argument("--policy.dir", dest="folder")
chosen = words.parse_args()
assert (Path(chosen.folder) / "params/_METADATA").is_file()
Path(chosen.folder).with_suffix(".served").write_text(json.dumps(vars(chosen)))
with serve(talk, "127.0.0.1", chosen.port, process_request=health, max_size=None) as listening:
    listening.serve_forever()
