"""Runs where only openpi-client is: ``python openpi_client_side.py VERB URI OUT.npz``.

Nothing of this repository is imported here, and openpi_client only where it is there.
"""

from __future__ import annotations

import sys
import time

import numpy as np

SHAPES = ((256, 256, 3), (60, 90, 3), (300, 200, 3), (224, 224, 3), (97, 101, 3))


def picture(seed: int, shape: tuple[int, int, int] = (224, 224, 3)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def observation(seed: int, size: int = 224) -> dict:
    """What the LIBERO example sends."""
    shape = (size, size, 3)
    random = np.random.default_rng(seed)
    return {
        "observation/image": picture(seed, shape),
        "observation/wrist_image": picture(seed + 100, shape),
        "observation/state": random.standard_normal(8),
        "prompt": "pick up the soup",
    }


def connect(uri: str):
    """openpi's client, connected."""
    from openpi_client.websocket_client_policy import WebsocketClientPolicy

    return WebsocketClientPolicy(uri)


def talk(uri: str) -> dict:
    """Metadata, an answer, a refused request, the broker, pictures of many sizes."""
    from openpi_client.action_chunk_broker import ActionChunkBroker
    from openpi_client.image_tools import resize_with_pad

    client = connect(uri)
    reply = client.infer(observation(1))
    try:
        client.infer({"prompt": "go"})
        refused = ""
    except RuntimeError as error:
        refused = str(error)
    broker = ActionChunkBroker(connect(uri), action_horizon=5)
    steps = [broker.infer(observation(1 + step // 5))["actions"] for step in range(10)]
    return {
        "metadata": repr(client.get_server_metadata()),
        "actions": reply["actions"],
        "infer_ms": reply["server_timing"]["infer_ms"],
        "refused": refused,
        "after": client.infer(observation(2))["actions"],
        "broker": np.stack(steps),
        **{f"sized{i}": resize_with_pad(picture(i, s), 224, 224) for i, s in enumerate(SHAPES)},
    }


def wait(uri: str) -> dict:
    """An answer that takes long, with the keep-alive that the client has by default."""
    client = connect(uri)
    began = time.monotonic()
    actions = client.infer(observation(1))["actions"]
    return {"actions": actions, "seconds": time.monotonic() - began}


def again(uri: str) -> dict:
    """An answer; the server is killed and started again meanwhile; another answer."""
    first = connect(uri)
    size = first.get_server_metadata()["picture_size"]
    before = first.infer(observation(1, size))["actions"]
    print("answered", flush=True)
    sys.stdin.readline()
    try:
        first.infer(observation(1, size))
        broke = ""
    except Exception as error:
        broke = type(error).__name__
    after = connect(uri).infer(observation(1, size))["actions"]
    return {"before": before, "after": after, "broke": broke}


if __name__ == "__main__":
    verb, uri, out = sys.argv[1:]
    np.savez(out, **{"talk": talk, "wait": wait, "again": again}[verb](uri))
