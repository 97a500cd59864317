"""Pictures that lie raw and in one piece in their files, copied by whole batches.

For what is in memory: copying from a map costs little more than the copy itself when each
of a batch's pieces needs only two small Python steps. Hence addresses are computed for all
at once, and the places of a buffer are cut out once and kept. While a disk is `busy` the
store's own way, which announces and reads, is the faster one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from rdt.data.ranges import Disk
from rdt.data.recording import RawPlaces

Ints = NDArray[np.int64]
Pictures = NDArray[np.uint8]
Pieces = list[Pictures]
"""Places of one sample's pictures by camera, each (moments, S·S·3), in a batch."""


class RawPictures:
    """The pictures at ``places``, of ``picture_size`` pixels squared.

    ``moments`` following ones are one piece. ``disk`` is to be asked before and told after
    each batch.
    """

    def __init__(self, places: RawPlaces, picture_size: int, moments: int) -> None:
        self._bytes, self._files, self._offsets = places
        self._moments = moments
        self._size = picture_size**2 * 3
        self._windows: dict[int, Pictures] = {}
        self.disk = Disk()

    def read(self, episodes: Ints, rows: Ints, targets: Sequence[Pieces]) -> None:
        """Fill the n ``targets`` with the pieces that end with ``rows`` (n,) of ``episodes`` (n,).

        Each must begin in its episode. Raises RdtlError RDTL-D013 when a file
        has become shorter.
        """
        firsts = self._offsets[:, episodes] + (rows - (self._moments - 1)) * self._size
        pieces = firsts.T.tolist()
        files = self._files[episodes].tolist()
        for number in set(files):
            self._bytes[number].require_whole()
        for number, starts, target in zip(files, pieces, targets, strict=True):
            windows = self._windows.get(number)
            if windows is None:
                windows = self._window(number)
            for start, place in zip(starts, target, strict=True):
                place[:] = windows[start]

    def _window(self, number: int) -> Pictures:
        """Of a file: (bytes, moments, S·S·3), the piece that begins at each of its bytes."""
        data, length = self._bytes[number].mapped(), self._moments * self._size
        shape = (len(data) - length + 1, self._moments, self._size)
        self._windows[number] = as_strided(data, shape, (1, self._size, 1), writeable=False)
        return self._windows[number]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_windows": {}}


def pieces(pictures: Pictures, cameras: Sequence[int]) -> list[Pieces]:
    """The places in ``pictures`` (B, m, c, S, S, 3) of the numbered cameras, by sample."""
    flat = pictures.view()
    flat.shape = (*pictures.shape[:3], -1)  # unlike `reshape` never copies
    return [[sample[:, camera] for camera in cameras] for sample in flat]
