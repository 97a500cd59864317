"""openpi's messages, byte for byte."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from rdt.serve import codec

GO = (
    "82a17884c40b5f5f6e6461727261795f5fc3c40464617461c408000000000000803fc4056474797065a33c6634c4"
    "0573686170659102a170a2676f"
)
"""What openpi's own packer makes of GO_MESSAGE."""
GO_MESSAGE = {"x": np.arange(2, dtype=np.float32), "p": "go"}


def test_the_bytes_are_openpis() -> None:
    assert codec.pack(GO_MESSAGE).hex() == GO
    there = codec.unpack(bytes.fromhex(GO))
    assert there["p"] == "go" and there["x"].tolist() == [0, 1] and there["x"].flags.writeable


@given(
    arrays.arrays(
        st.sampled_from(["<f8", "<f4", ">f4", "|u1", "<i8", "|b1", "<U3"]),
        arrays.array_shapes(min_dims=0, min_side=0, max_dims=4),
    )
)
def test_arrays_come_back(array: np.ndarray) -> None:
    for sent in (array, array.copy(order="F")):
        back = codec.unpack(codec.pack({"a": sent}))["a"]
        assert back.dtype == array.dtype and back.shape == array.shape
        assert back.tobytes() == array.tobytes()


def test_numbers_keep_their_type() -> None:
    back = codec.unpack(codec.pack([np.float32(0.1), np.int8(-3), np.bool_(True)]))
    assert back == [np.float32(0.1), np.int8(-3), np.bool_(True)]
    assert [type(value) for value in back] == [np.float32, np.int8, np.bool_]


@pytest.mark.parametrize("value", [np.array([object()]), np.zeros(2, complex), object(), {1, 2}])
def test_what_cannot_be_sent(value: Any) -> None:
    with pytest.raises(TypeError):
        codec.pack({"a": value})


def hostile(**changes: Any) -> bytes:
    """An array whose fields do not belong together."""
    good: dict[Any, Any] = {"data": bytes(8), "dtype": "<f4", "shape": [2]} | changes
    fields = {key.encode(): value for key, value in good.items() if value is not None}
    return codec.pack({"x": {codec.ARRAY: True, **fields}})


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        codec.pack(GO_MESSAGE)[:-1],
        codec.pack(GO_MESSAGE) + b"\x00",
        hostile(shape=[3]),
        hostile(shape=None),
        hostile(dtype="|O"),
        hostile(dtype="nonsense"),
        hostile(data="text"),
    ],
)
def test_what_is_no_message(data: bytes) -> None:
    with pytest.raises(ValueError, match="no message"):
        codec.unpack(data)


@given(st.binary(max_size=60))
def test_any_bytes_are_a_message_or_a_value_error(data: bytes) -> None:
    try:
        codec.unpack(data)
    except ValueError as error:
        assert "no message" in str(error)
