"""Pieces of files that were used last, up to 256 MB: their neighbours are often wanted next."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Any, Generic, TypeVar

Piece = TypeVar("Piece")
"""An array with ``nbytes``."""
KEPT_BYTES = 256 << 20


class Kept(Generic[Piece]):
    """Pieces by their key. Several threads may ask: training and validation read the same store.

    A pickled one comes out empty.
    """

    def __init__(self) -> None:
        self._pieces: OrderedDict[Hashable, Any] = OrderedDict()
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[Kept[Piece]], tuple[()]]:
        return type(self), ()

    def get(self, key: Hashable) -> Piece | None:
        """The piece, if it is still there; it has been used last, then."""
        with self._lock:
            if key not in self._pieces:
                return None
            self._pieces.move_to_end(key)
            piece: Piece = self._pieces[key]
            return piece

    def put(self, key: Hashable, piece: Piece) -> None:
        """Keep a piece, and let go of those that were not used for longest."""
        with self._lock:
            self._pieces[key] = piece
            while len(self._pieces) > 1 and self.nbytes > KEPT_BYTES:
                self._pieces.popitem(last=False)

    @property
    def nbytes(self) -> int:
        """Bytes of all that is kept."""
        return sum(piece.nbytes for piece in self._pieces.values())
