"""TFRecord and the wire format: what protobuf writes is read, what it never writes is refused."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from launcher.core.errors import RdtlError
from rdt.data import tfrecord
from rdt.data.ranges import ByteFile
from rdt.data.tfrecord import Extent
from tests.data import writers


def saved(path: Path, data: bytes) -> ByteFile:
    path.write_bytes(data)
    return ByteFile(path)


def read(file: ByteFile) -> list[bytes]:
    return [file.read(e.start, e.end - e.start) for e in tfrecord.records(file, verify=True)]


def caught(file: ByteFile, code: str, *, verify: bool = False) -> str:
    with pytest.raises(RdtlError) as error:
        list(tfrecord.records(file, verify=verify))
    assert error.value.problem.code == code
    assert str(file.path) in error.value.problem.where
    return error.value.problem.where


def test_the_checksum_is_crc32c_masked() -> None:
    """The check value of CRC-32C is that of RFC 3720; the mask is turned and shifted back."""
    rotated = (tfrecord.masked_crc(b"123456789") - 0xA282EAD8) % 2**32
    assert (rotated << 15 | rotated >> 17) & 0xFFFFFFFF == 0xE3069283


def test_records_come_back(tmp_path: Path) -> None:
    parts = [b"", b"a", bytes(range(256)) * 100]
    file = saved(tmp_path / "a", b"".join(map(writers.frame, parts)))
    assert read(file) == parts
    assert read(saved(tmp_path / "b", b"")) == []


def test_every_cut_is_found_with_its_offset(tmp_path: Path) -> None:
    whole = writers.frame(b"first") + writers.frame(b"second")
    second = len(writers.frame(b"first"))
    for size in range(1, len(whole)):
        if size == second:
            continue  # between two records: rlds.py counts them
        where = caught(saved(tmp_path / "a", whole[:size]), "RDTL-D013")
        assert f"at offset {0 if size < second else second}" in where


def test_every_flipped_bit_is_found(tmp_path: Path) -> None:
    whole = writers.frame(b"first") + writers.frame(b"second")
    for place in range(8 * len(whole)):
        broken = bytearray(whole)
        broken[place // 8] ^= 1 << place % 8
        caught(saved(tmp_path / "a", bytes(broken)), "RDTL-D030", verify=True)


def test_a_length_of_exabytes_with_a_good_checksum(tmp_path: Path) -> None:
    length = struct.pack("<Q", 2**63)
    head = length + struct.pack("<I", tfrecord.masked_crc(length))
    caught(saved(tmp_path / "a", head + b"data"), "RDTL-D013")


def feature(file: ByteFile, name: str) -> Extent:
    return tfrecord.features(file, Extent(0, file.size))[name]


def test_an_example_of_protobuf(tmp_path: Path) -> None:
    values = {
        "floats": np.linspace(-1, 1, 300, dtype=np.float32),
        "pictures": [b"x" * n for n in (0, 1, 127, 128, 600, 70_000, 3, 511, 512, 20_000, 5)],
        "whole": [1, -1, 2**40],
        "one": [b"text"],
    }
    file = saved(tmp_path / "a", writers.example(values))
    assert set(tfrecord.features(file, Extent(0, file.size))) == set(values)
    np.testing.assert_array_equal(tfrecord.floats(file, feature(file, "floats")), values["floats"])
    offsets, sizes = tfrecord.blobs(file, feature(file, "pictures"))
    found = [file.read(int(o), int(s)) for o, s in zip(offsets, sizes, strict=True)]
    assert found == values["pictures"]
    with pytest.raises(RdtlError):
        tfrecord.floats(file, feature(file, "one"))


def field(number: int, data: bytes) -> bytes:
    size, varint = len(data), b""
    while size > 127:
        varint, size = varint + bytes([size & 127 | 128]), size >> 7
    return bytes([number << 3 | 2]) + varint + bytes([size]) + data


def test_parts_in_another_order_and_floats_one_by_one(tmp_path: Path) -> None:
    """Protobuf allows both: the value before the name, packed runs and single values mixed."""
    single = b"".join(b"\x0d" + struct.pack("<f", value) for value in (1.5, -2.0))
    packed = field(1, struct.pack("<3f", 3.0, 4.0, 5.0))
    value = field(2, single + packed + field(1, b""))
    entry = field(2, value) + field(1, b"name")
    file = saved(tmp_path / "a", field(1, field(1, entry)))
    found = tfrecord.floats(file, feature(file, "name"))
    assert found.tolist() == [1.5, -2.0, 3.0, 4.0, 5.0]


def test_an_empty_list(tmp_path: Path) -> None:
    file = saved(tmp_path / "a", field(1, field(1, field(1, b"name") + field(2, field(1, b"")))))
    offsets, sizes = tfrecord.blobs(file, feature(file, "name"))
    assert len(offsets) == len(sizes) == 0


ENDLESS = b"\x80" * 11
ENTRY = field(1, b"name") + field(2, field(1, b""))
BAD = {
    "endless number": b"\x0a" + ENDLESS,
    "cut number": b"\x0a\x80",
    "past its message": b"\x0a\x05ab",
    "group": b"\x0b",
    "no map": b"",
    "two maps": field(1, b"") * 2,
    "name twice": field(1, field(1, ENTRY) * 2),
    "no name": field(1, field(1, field(2, b""))),
    "no text": field(1, field(1, field(1, b"\xff\xfe") + field(2, b""))),
    "other field": field(1, field(2, ENTRY)),
}


@pytest.mark.parametrize("name", BAD)
def test_bytes_that_are_no_example(name: str, tmp_path: Path) -> None:
    file = saved(tmp_path / "a", BAD[name])
    with pytest.raises(RdtlError) as error:
        tfrecord.features(file, Extent(0, file.size))
    assert error.value.problem.code == "RDTL-D030"
    assert f"{file.path}: offset" in error.value.problem.where


@pytest.mark.parametrize(
    "listed", [b"\x0a" + ENDLESS, b"\x0a\x7f" + b"x", b"\x12\x01x", b"\x0a\x01x\x80", b"\x08\x01"]
)
def test_lists_of_bytes_that_are_none(listed: bytes, tmp_path: Path) -> None:
    example = field(1, field(1, field(1, b"name") + field(2, field(1, listed))))
    file = saved(tmp_path / "a", example)
    with pytest.raises(RdtlError) as error:
        tfrecord.blobs(file, feature(file, "name"))
    assert error.value.problem.code == "RDTL-D030"
