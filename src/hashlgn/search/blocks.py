"""Codes as the search kernel reads them: blocks of 128 items, by falling scale."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hashlgn._kernel import compiled
from hashlgn.errors import ArgumentError
from hashlgn.scoring.codes import Bytes, pack_subcodes, unpack_subcodes
from hashlgn.utils.tensors import Arrays

if TYPE_CHECKING:
    from hashlgn._kernel import kernel
else:
    kernel = compiled()

__all__ = ["BLOCK", "FIELDS", "Blocks", "Ints", "Scale", "Slots", "kernel"]

BLOCK = 128
_HALF = 64
# The arrays of a file → those of ``Blocks``
FIELDS = {name: name for name in ("starts", "counts", "order", "scale", "largest", "smallest")} | {"codes": "rows"}
_COMPILED = compiled() is not None
_MADE = "segment", "slots", "by_item"  # of the arrays, when first asked or beside them
Ints = npt.NDArray[np.int64]
Slots = npt.NDArray[np.uint32]
Scale = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, eq=False)
class Blocks:
    """Some items of a catalogue, cut into lists, each of whole blocks, with its items by falling scale.

    The *slot* of an item is ``128 · block + position``. Slots after the last item of a list hold nothing. The items are
    consecutive ones, or those that ``numbers`` names; some of them may have moved to another part of the catalogue.

    Attributes:
        rows: ``(blocks, M, 64)`` uint8; byte j of row m holds sub-code m of item j in its low half, of item j + 64 in
            its high half.
        starts: first block of each list, uint32.
        counts: items of each list, uint32.
        first: number of the first item.
        order: item at each slot, uint32; None where it is ``first + slot``.
        scale: scale at each slot, float16 or float32, positive and finite, or None.
        largest: largest scale in each block, float32, or None.
        smallest: smallest scale in each block, float32, or None.
        numbers: the items, ascending, where they are not consecutive, or None.
        holes: a bit per slot, ``(16 · blocks,)`` uint8, set where the item has moved; None where none has.
    """

    rows: Bytes
    starts: Slots
    counts: Slots
    first: int
    order: Slots | None = None
    scale: Scale | None = None
    largest: npt.NDArray[np.float32] | None = None
    smallest: npt.NDArray[np.float32] | None = None
    numbers: Ints | None = None
    holes: Bytes | None = None

    @classmethod
    def build(
        cls,
        packed: Bytes,
        scale: Scale | None,
        first: int = 0,
        lists: Ints | None = None,
        n_lists: int = 1,
        *,
        numbers: Ints | None = None,
    ) -> Blocks:
        """Arrange codes ``(n, bits / 8)`` of the items from ``first`` on, or of the items ``numbers``, ascending;
        ``lists`` names the list of each item.
        """
        n = len(packed)
        if numbers is not None and n:
            first = int(numbers[0])
            numbers = None if int(numbers[-1]) - first == n - 1 else numbers
        packed = np.ascontiguousarray(packed)
        if lists is None and scale is not None and n and _COMPILED:
            return cls._by_scale(packed, scale, first, numbers)
        counts = np.array([n]) if lists is None else np.bincount(lists, minlength=n_lists)
        blocks = -(-counts // BLOCK)
        ends = np.cumsum(blocks)
        starts = ends - blocks
        rows = _aligned((max(1, int(ends[-1])), 2 * packed.shape[1], _HALF))
        whole = starts.astype(np.uint32), counts.astype(np.uint32)
        if scale is None and lists is None and numbers is None:
            _pack(packed, None, rows)
            return cls(rows, *whole, first)
        by_scale = np.arange(n) if scale is None else np.argsort(-scale.astype(np.float32), kind="stable")
        items = by_scale if lists is None else by_scale[np.argsort(lists[by_scale], kind="stable")]
        order = np.empty(BLOCK * len(rows), np.uint32)
        # Slots that hold nothing repeat the item before them: no search reads it there, but it bounds scales.
        if lists is None:
            order[:n], order[n:] = items, items[-1] if n else 0
        else:
            filled = np.zeros(len(order), np.bool_)
            filled[_slots(starts, counts)] = True
            order[:] = (items if n else np.zeros(1, np.int64))[np.maximum(np.cumsum(filled) - 1, 0)]
        if n:
            _pack(packed, order, rows)
        named = order + np.uint32(first) if numbers is None else numbers[order].astype(np.uint32)
        if scale is None:
            return cls(rows, *whole, first, named, numbers=numbers)
        held = scale[order] if n else np.ones(BLOCK, scale.dtype)
        return cls(rows, *whole, first, named, held, *_bounds(held), numbers)

    @classmethod
    def _by_scale(cls, packed: Bytes, scale: Scale, first: int, numbers: Ints | None) -> Blocks:
        """The same of one list of items that have scales, compiled."""
        n = len(packed)
        rows = _aligned((-(-n // BLOCK), 2 * packed.shape[1], _HALF))
        order, slots, held = (
            np.empty(size, kind)
            for size, kind in ((BLOCK * len(rows), np.uint32), (n, np.uint32), (BLOCK * len(rows), scale.dtype))
        )
        kernel.arrange(packed, np.ascontiguousarray(scale), rows, order, slots, held)
        named = order + np.uint32(first) if numbers is None else numbers[order].astype(np.uint32)
        whole = np.zeros(1, np.uint32), np.array([n], np.uint32)
        made = cls(rows, *whole, first, named, held, *_bounds(held), numbers)
        if n <= BLOCK:  # the next change is likely to arrange them anew
            made.__dict__.update(slots=slots, by_item=(packed.copy(), scale.copy()))  # the caller may write over theirs
        return made

    def __len__(self) -> int:
        return self._size

    @cached_property
    def _size(self) -> int:
        return int(self.counts.sum(dtype=np.int64))

    def __getstate__(self) -> dict[str, Any]:
        """The arrays; what the kernel holds is made again."""
        return {name: value for name, value in self.__dict__.items() if name not in _MADE}

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(array.nbytes for array in self.arrays().values())

    def arrays(self) -> Arrays:
        """The arrays that there are, by the names that a file gives them."""
        held = {name: getattr(self, field) for name, field in FIELDS.items()}
        return {name: array for name, array in held.items() if array is not None}

    @cached_property
    def segment(self) -> kernel.Segment:
        """The same for the kernel, which checks it once."""
        return kernel.Segment(
            self.rows,
            self.starts,
            self.counts,
            self.first,
            self.order,
            self.scale,
            self.largest,
            self.smallest,
            self.holes,
        )

    def live(self) -> tuple[Ints, Bytes, Scale | None]:
        """The items that are here, ascending, with their codes ``(n, bits / 8)`` and scales ``(n,)``."""
        numbers, slots = self._numbered, self.slots
        packed, scale = self.__dict__.get("by_item") or self._by_item()
        if self.holes is None:
            return numbers, packed, scale
        here = ~self._moved(slots)
        return numbers[here], packed[here], None if scale is None else scale[here]

    def _by_item(self) -> tuple[Bytes, Scale | None]:
        """Codes and scales in the order of the items, those of items that have moved too."""
        return self.codes(self.slots), None if self.scale is None else np.asarray(self.scale)[self.slots]

    def find(self, items: Ints) -> Ints:
        """The slot of each of some items, −1 where it is not here."""
        if _COMPILED:
            found: Ints = kernel.find(self.numbers, self.first, self.slots, self.holes, items)
            return found
        if self.numbers is None:
            places = items - self.first
            inside = (places >= 0) & (places < len(self))
        else:
            places = self.numbers.searchsorted(items)
            inside = self.numbers.take(places, mode="clip") == items
        if not inside.any():
            return np.full(len(items), -1)
        slots = self.slots.take(places, mode="clip")
        if self.holes is not None:
            inside &= ~self._moved(slots)
        return np.where(inside, slots, np.int64(-1))

    def _moved(self, slots: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.bool_]:
        """Whether the items at some slots have moved."""
        assert self.holes is not None
        return np.asarray(self.holes[slots >> 3] >> (slots & 7) & 1, np.bool_)

    def codes(self, slots: npt.NDArray[np.integer[Any]]) -> Bytes:
        """Codes at some slots, ``(n, bits / 8)``."""
        if _COMPILED:
            packed = np.empty((len(slots), self.rows.shape[1] // 2), np.uint8)
            kernel.unpack(self.rows, slots.astype(np.uint32, copy=False), packed)
            return packed
        halves = self.rows[slots // BLOCK, :, slots % _HALF]
        return pack_subcodes(np.where((slots % BLOCK < _HALF)[:, None], halves & 15, halves >> 4))

    def without(self, slots: Ints) -> Blocks:
        """The same arrays, with holes at some slots."""
        holes = np.zeros(BLOCK // 8 * len(self.rows), np.uint8) if self.holes is None else self.holes.copy()
        for slot in slots.tolist():
            holes[slot >> 3] |= 1 << (slot & 7)
        left = object.__new__(Blocks)
        left.__dict__.update(self.__dict__, slots=self.slots, holes=holes)
        left.__dict__.pop("segment", None)
        return left

    @property
    def _numbered(self) -> Ints:
        return np.arange(self.first, self.first + len(self)) if self.numbers is None else self.numbers

    @cached_property
    def slots(self) -> Slots:
        """The slot of each item, ``(n,)``, of one that has moved any; built when first asked.

        Raises:
            ArgumentError: ``order`` does not hold every item once: it is not what ``build`` made.
        """
        if self.order is None:
            return np.arange(len(self), dtype=np.uint32)
        held = _slots(self.starts.astype(np.int64), self.counts.astype(np.int64))
        numbers = self.order[held]
        none = np.uint32(0xFFFFFFFF)  # no catalogue has so many items
        slots = np.full(len(self), none, np.uint32)
        places = numbers - np.uint32(self.first) if self.numbers is None else np.searchsorted(self.numbers, numbers)
        slots[places] = held
        if (slots == none).any():
            raise ArgumentError("order must hold every item once")
        return slots

    def check(self, bits: int) -> None:
        """Check arrays that come from a file, so that nothing reads outside of them.

        Types, shapes, lists, the range of ``order`` and of scales are checked; the codes and what repeats in ``order``
        are not read.

        Raises:
            ArgumentError: they do not fit together.
        """
        blocks, n = len(self.rows), len(self)
        slots = BLOCK * blocks
        kinds = {"codes": ("u1", (blocks, bits // 4, _HALF)), "order": ("u4", (slots,))}
        kinds |= dict.fromkeys(("starts", "counts"), ("u4", (self.starts.size,)))
        kinds |= dict.fromkeys(("largest", "smallest"), ("f4", (blocks,)))
        arrays = self.arrays()
        scale = arrays.pop("scale", None)
        for name, array in arrays.items():
            dtype, shape = kinds[name]
            if array.dtype != np.dtype(dtype) or array.shape != shape:
                raise ArgumentError(f"{name} must be {dtype} {shape} (got {array.dtype} {array.shape})")
        ends = self.starts.astype(np.int64) + -(-self.counts.astype(np.int64) // BLOCK)
        if not len(ends) or ends.max() > blocks or n + self.first >= 2**32 - 1:
            raise ArgumentError("lists must lie inside the blocks")
        if self.order is None:
            if len(ends) > 1 or self.starts[0]:
                raise ArgumentError("order must be given where there are several lists")
        elif n and (self.order.min() < self.first or self.order.max() >= self.first + n):
            raise ArgumentError("order must hold item numbers of the catalogue")
        if len({scale is None, self.largest is None, self.smallest is None}) > 1:
            raise ArgumentError("scale, largest and smallest must come together")
        if scale is None or self.largest is None or self.smallest is None:
            return
        if scale.dtype not in (np.float16, np.float32) or scale.shape != (slots,):
            raise ArgumentError(f"scale must be float16 or float32 ({slots},) (got {scale.dtype} {scale.shape})")
        if not all(map(_positive, (scale, self.largest, self.smallest))):
            raise ArgumentError("scale must be positive and finite for every item")


def _positive(values: Scale) -> bool:
    """Whether all are positive and finite: their bits, read as integers, lie between zero's and infinity's."""
    bits = values.view(f"u{values.itemsize}")
    return not bits.size or (bits.min() > 0 and bits.max() < np.array(np.inf, values.dtype).view(bits.dtype))


def _bounds(scale: Scale) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """The largest and the smallest scale in each block, where scales fall."""
    return scale[::BLOCK].astype(np.float32), scale[BLOCK - 1 :: BLOCK].astype(np.float32)


def _pack(packed: Bytes, order: Slots | None, rows: Bytes) -> None:
    """Fill blocks with codes, those in ``order`` or all."""
    if _COMPILED:
        kernel.pack(packed, order, rows)
        return
    subcodes = np.zeros((BLOCK * len(rows), rows.shape[1]), np.uint8)
    chosen = unpack_subcodes(packed if order is None else packed[order])
    subcodes[: len(chosen)] = chosen
    halves = subcodes.reshape(len(rows), 2, _HALF, rows.shape[1]).transpose(1, 0, 3, 2)
    rows[:] = halves[0] | halves[1] << 4


def _slots(starts: Ints, counts: Ints) -> Ints:
    """The slots of lists, one after the other, without those that hold nothing."""
    if len(starts) == 1:
        return np.arange(BLOCK * int(starts[0]), BLOCK * int(starts[0]) + int(counts[0]))
    slots: Ints = np.arange(int(counts.sum())) + np.repeat(BLOCK * starts - np.cumsum(counts) + counts, counts)
    return slots


def _aligned(shape: tuple[int, ...]) -> Bytes:
    """Zeros that begin at a multiple of 64 bytes: a row is one line of the cache."""
    size = math.prod(shape)
    memory = np.zeros(size + _HALF, np.uint8)
    start = -memory.__array_interface__["data"][0] % _HALF  # `ctypes.data` takes ten times as long
    return memory[start : start + size].reshape(shape)
