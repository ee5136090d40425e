"""Codes as the search kernel reads them: blocks of 128 items, by falling scale."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hashlgn._kernel import compiled
from hashlgn.scoring.codes import Bytes

if TYPE_CHECKING:
    from hashlgn._kernel import kernel
else:
    kernel = compiled()

__all__ = ["BLOCK", "Blocks", "Places", "kernel"]

BLOCK = 128
_ROW = 64
_FEW = 1 << 18  # in a catalogue so small, every item's place is kept: seen items are left out from the start
Places = npt.NDArray[np.uint32]


@dataclass(frozen=True, eq=False)
class Blocks:
    """Some items of a catalogue, cut into lists, each of whole blocks, with its items by falling scale.

    The *place* of an item is ``128 · block + position``. Places after the last item of a list hold nothing.

    Attributes:
        rows: ``(blocks, M, 64)``; byte j of row m holds word m of item j in its low half, of item j + 64 in its high.
        starts: first block of each list.
        counts: items of each list.
        first: number of the first item.
        order: item at each place; None where it is ``first + place``.
        scale: scale at each place, or None.
        largest: largest scale in each block, or None.
        smallest: smallest scale in each block, or None.
    """

    rows: Bytes
    starts: Places
    counts: Places
    first: int
    order: Places | None = None
    scale: npt.NDArray[np.floating[Any]] | None = None
    largest: npt.NDArray[np.float32] | None = None
    smallest: npt.NDArray[np.float32] | None = None

    @classmethod
    def build(
        cls,
        packed: Bytes,
        scale: npt.NDArray[np.floating[Any]] | None,
        first: int = 0,
        lists: npt.NDArray[np.int64] | None = None,
        n_lists: int = 1,
    ) -> Blocks:
        """Arrange codes ``(n, bits / 8)``; ``lists`` names the list of each item."""
        n = len(packed)
        packed = np.ascontiguousarray(packed)
        belongs = np.zeros(n, np.int64) if lists is None else lists
        counts = np.bincount(belongs, minlength=n_lists)
        ends = np.cumsum(-(-counts // BLOCK))
        starts = ends - -(-counts // BLOCK)
        rows = _aligned((max(1, int(ends[-1])), 2 * packed.shape[1], _ROW))
        whole = starts.astype(np.uint32), counts.astype(np.uint32)
        if scale is None and lists is None:
            kernel.pack(packed, None, rows)
            return cls(rows, *whole, first)
        by_scale = np.arange(n) if scale is None else np.argsort(-scale.astype(np.float64), kind="stable")
        items = by_scale if lists is None else by_scale[np.argsort(belongs[by_scale], kind="stable")]
        # Places that hold nothing repeat the item before them: it is not looked at there, but bounds scales.
        filled = np.zeros(BLOCK * len(rows), np.bool_)
        filled[_places(starts, counts)] = True
        order = (items if n else np.zeros(1, np.int64))[np.maximum(np.cumsum(filled) - 1, 0)].astype(np.uint32)
        if n:
            kernel.pack(packed, order, rows)
        if scale is None:
            return cls(rows, *whole, first, order + np.uint32(first))
        held = scale[order] if n else np.ones(BLOCK, scale.dtype)
        bounds = held.reshape(-1, BLOCK).astype(np.float64)
        return cls(
            rows, *whole, first, order + np.uint32(first), held, _up(bounds.max(axis=1)), -_up(-bounds.min(axis=1))
        )

    def __len__(self) -> int:
        return int(self.counts.sum(dtype=np.int64))

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        arrays = (self.rows, self.starts, self.counts, self.order, self.scale, self.largest, self.smallest)
        return sum(array.nbytes for array in arrays if array is not None)

    @cached_property
    def part(self) -> kernel.Part:
        """The same for the kernel, which checks it once."""
        return kernel.Part(
            self.rows,
            self.starts,
            self.counts,
            self.first,
            self.order,
            self.scale,
            self.largest,
            self.smallest,
            self.places if self.order is not None and len(self) <= _FEW else None,
        )

    def packed(self) -> tuple[Bytes, npt.NDArray[np.floating[Any]] | None]:
        """Codes ``(n, bits / 8)`` and scales ``(n,)`` in the order of the items, as ``build`` took them."""
        places = self.places
        codes = np.empty((BLOCK * len(self.rows), self.rows.shape[1] // 2), np.uint8)
        kernel.unpack(self.rows, 0, codes)
        return codes[places], None if self.scale is None else np.asarray(self.scale)[places]

    @cached_property
    def places(self) -> Places:
        """The place of each item, ``(n,)``; built when first asked."""
        if self.order is None:
            return np.arange(len(self), dtype=np.uint32)
        held = _places(self.starts.astype(np.int64), self.counts.astype(np.int64))
        places = np.empty(len(self), np.uint32)
        places[self.order[held] - np.uint32(self.first)] = held
        return places


def _places(starts: npt.NDArray[np.int64], counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The places of lists, one after the other, without those that hold nothing."""
    before = np.cumsum(counts) - counts
    places: npt.NDArray[np.int64] = np.arange(int(counts.sum())) + np.repeat(BLOCK * starts - before, counts)
    return places


def _aligned(shape: tuple[int, ...]) -> Bytes:
    """Zeros that begin at a multiple of 64 bytes: a row is one line of the cache."""
    size = int(np.prod(shape))
    room = np.zeros(size + _ROW, np.uint8)
    start = -room.ctypes.data % _ROW
    return room[start : start + size].reshape(shape)


def _up(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """Float32 values that are not smaller."""
    near = values.astype(np.float32)
    return np.where(near < values, np.nextafter(near, np.float32(np.inf)), near)
