"""Where fuzzing starts: bytes that are right, and bytes that were findings once."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from rdt.policy.policy import Observation
from rdt.serve import codec, exact, openpi
from rdt.spec.record import Record
from tests.data import writers

CONFIGS = Path(__file__).parent.parent.parent / "configs"
RECORD = Record(
    "rdt", "libero_spatial", 1, "put it there", 2, 1, "success", 12, 3, 6, 3.25, 0.25, "p" * 16,
    "5eed", "a" * 64, "f1", "5" * 64, 1, 0, "node1",
)  # fmt: skip


def _yaml(*kinds: str) -> list[bytes]:
    return [
        path.read_bytes() for kind in kinds for path in sorted((CONFIGS / kind).rglob("*.yaml"))
    ]


def _observation() -> Observation:
    pictures = {name: np.zeros((2, 2, 3), np.uint8) for name in openpi.PICTURES}
    numbers = [np.zeros(3), np.array([0.0, 0.0, 0.0, 1.0]), np.zeros(2), np.zeros(7)]
    return Observation(pictures, *numbers, "go", None)


def array(**changes: Any) -> bytes:
    """A message with an array of two numbers, and with these fields instead."""
    fields = {"data": bytes(8), "dtype": "<f4", "shape": [2]} | changes
    return codec.pack({"x": {codec.ARRAY: True, **{k.encode(): v for k, v in fields.items()}}})


def scalar(data: Any, dtype: Any) -> bytes:
    """A message with a single number of NumPy's."""
    return codec.pack({"x": {codec.SCALAR: True, b"data": data, b"dtype": dtype}})


def row(**changes: Any) -> bytes:
    """A line of records with these fields instead."""
    return json.dumps(asdict(RECORD) | changes, sort_keys=True).encode() + b"\n"


EXAMPLE = writers.example({"f": np.zeros(3, np.float32), "b": [b"x", b"y" * 200], "i": [1, -1]})
ALIASES = "\n".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9) if i else 1}]" for i in range(12)
).encode()
ODD_YAML = [
    b"a: 2001-13-45", b"a: !!int foo", b"a: !!timestamp x", b"a: !!bool maybe", b"a: !!int ''",
    b"a: 0x_", b"a: " + b"9" * 5000, b"[" * 500, b"{" * 500, b"a: &x [*x]", ALIASES,
    b"a: !!python/object/apply:os.system ['touch HERE']", b"\xff\xfe\x00", b"a: =", b"<<: 1",
    b"1: 2", b"? [1]\n: 2", b"task: !!set {suite}", b"train: !!pairs [steps: 1]", b"train: .nan",
]  # fmt: skip

SEEDS: dict[str, list[bytes]] = {
    "config": [*_yaml("demo", "train", "evaluate", "pipelines")[:6], *ODD_YAML],
    "setting": [b"8", *(text.removeprefix(b"a: ") for text in ODD_YAML)],
    "recipe": [
        *_yaml("recipes/rdt")[:1], *ODD_YAML,
        b"name: a\nabout: b\nsteps:\n  one: {script: 'echo $x', env: {A: '${run}'}}\n",
        b"name: a\nabout: b\nsteps:\n  one: 5\n", b"name: a\nabout: b\nsteps: {one: {argv: [a]}}\n"
        b"signatures:\n- {code: RDTL-T001, pattern: '(', cause: c, fix: d}\n",
        b"name: a\nabout: b\nextends: a\nsteps: {}\n", b"extends: 5\n",
        b"name: a\nabout: b\nextends: recipe\nsteps: {}\n", b"extends: [a]\n",
        b"name: a\nabout: b\nmachine: {1: {2: 3}}\nsteps: {a: {argv: [x], needs: [a]}}\n",
        b"name: a\nabout: b\nsteps: {a: {argv: [x], takes: 9999999999999d}}\n",
        b"name: a\nabout: b\nsteps: {a: {argv: [x], outputs: ['a\\0b', '']}}\nfiles: ['\\0']\n",
    ],
    "manifest": [
        json.dumps({"format": "rdtl-manifest-1",
                    "files": [{"path": path, "size": 1, "sha256": "0" * 64}]}).encode()
        for path in ("a/b", "../a", "/etc/passwd", "a\0b")
    ] + [b"[" * 100_000],
    "tfrecord": [writers.frame(EXAMPLE), EXAMPLE, writers.frame(b"")],
    "message": [
        codec.pack(exact.to_wire(exact.Asked(_observation(), "e", 0))),
        codec.pack(openpi.to_wire(_observation())),
        array(), array(shape=[2**62, 4]), array(dtype="V8"), array(dtype="M8[s]", shape=[1]),
        array(dtype=[["a", "<f4"]]), array(dtype=None), array(dtype=",u1"),
        array(dtype="f4,f4", shape=[1]),
        scalar(300, "i1"), scalar(-1, "u8"), scalar(10**9, "V"), scalar(10**9, "S"),
        scalar([1], "O"), scalar(5, "M8"), scalar("x", "<U1"), scalar(b"x", "S1"),
        b"\x91" * 5000, b"\xdf\xff\xff\xff\xff", b"\xc7\x0c\xff" + b"\xff" * 12,
        codec.pack(openpi.to_wire(_observation()) | {
            "observation/image": np.zeros((0, 0, 3), np.float32)}),
    ],
    "records": [
        row(), row() * 2, row(steps=2**40), row(fixtures_sha256=5), row(policy=["rdt"]),
        row(suite={}), row(status="won"), row(wall_s=1e400), row(wall_s="nan"), b"[" * 1500 + b"\n",
        b"{" * 5 + b"\n", b'{"a":' * 1500 + b"\n", b"\xff\n", b"null\n", row()[:-9],
        ",".join(asdict(RECORD)).encode() + b"\n"
        + ",".join(map(str, asdict(RECORD).values())).encode() + b"\n",
        ",".join(asdict(RECORD)).encode() + b'\n"a\n', ",".join(asdict(RECORD)).encode() + b"\n,\n",
    ],
    "line": [
        b"step=3/10 loss=nan\n", b"x" * 65536, b"\r" * 65536, b"\r\n" * 30000,
        b"dial tcp" * 8192, b"Permission denied: '" * 3277, b"fakeroot" * 8192,
        b"mount source " * 5041, b"://" * 21845, b"hf_" * 21845, b"canary-7c1f0e-" * 4681,
    ],
}  # fmt: skip
