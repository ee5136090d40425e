"""Distinct ids of one type in order of arrival, with arrays that find an id again: built once, stored, mapped."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from hashlgn._kernel import compiled
from hashlgn.data.arrays import Int64s
from hashlgn.errors import ArgumentError, DataError

__all__ = ["Integers", "Texts"]

_compiled: Any = compiled()
_UInt64s = npt.NDArray[np.uint64]
_Search = tuple[npt.NDArray[Any], npt.NDArray[np.integer] | None]  # sorted keys, and the position of each
_BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2^64
_MASK = (1 << 64) - 1
_BLOCK = 1 << 16  # bytes of text hashed at a time
_TWICE = "an id must occur once in a catalogue (some occur twice)"


class Integers:
    """Distinct integers, ``(n,)`` int64; found by bisection over the same integers in ascending order."""

    def __init__(self, values: Int64s, search: _Search | None = None) -> None:
        """Take distinct integers, and the same in ascending order with their positions where these are known."""
        self.values = values
        if search is not None:
            self.__dict__["search"] = search

    @cached_property
    def search(self) -> _Search:
        """The integers, ascending, and the position of each (None: they ascend as they are)."""
        if (self.values[1:] > self.values[:-1]).all():
            return self.values, None
        order = np.argsort(self.values, kind="stable")
        return self.values[order], _narrow(order)

    @cached_property
    def _first(self) -> int:
        return int(self.values[0])

    @cached_property
    def _gapless(self) -> bool:
        """Whether the integers are ``first, first + 1, …``."""
        ordered, order = self.search
        return order is None and len(ordered) > 0 and int(ordered[-1]) - self._first == len(ordered) - 1

    def __len__(self) -> int:
        return len(self.values)

    def check_distinct(self) -> None:
        """Raise ArgumentError where an id occurs twice."""
        ordered, _ = self.search
        if (ordered[1:] <= ordered[:-1]).any():
            raise ArgumentError(_TWICE)

    def find(self, wanted: pa.Array) -> Int64s:
        """Positions of integers, −1 where an integer is not here."""
        numbers = wanted.to_numpy(zero_copy_only=False)
        ordered, order = self.search
        if not len(ordered) or not len(numbers):
            return np.full(len(numbers), -1, np.int64)
        if self._gapless:  # a difference
            inside = (numbers >= ordered[0]) & (numbers <= ordered[-1])
            return np.where(inside, numbers - ordered[0], -1)
        place = np.minimum(np.searchsorted(ordered, numbers), len(ordered) - 1)
        known = ordered[place] == numbers
        return np.where(known, place if order is None else order[place], np.int64(-1))

    @cached_property
    def held(self) -> Any:
        """The same for the kernel; None where there is none, or too many ids for it."""
        ordered, order = self.search
        fits = _compiled is not None and (order is None or order.dtype == np.int32)
        return _compiled.Integers(self.values, ordered, order) if fits else None

    def __getstate__(self) -> dict[str, Any]:
        """The arrays; what the kernel holds is made again."""
        return {name: value for name, value in self.__dict__.items() if name != "held"}

    def find_one(self, wanted: int) -> int:
        """Position of one integer of 64 bits, or −1."""
        ordered, order = self.search
        if self._gapless:
            place = wanted - self._first
            return place if 0 <= place < len(ordered) else -1
        place = int(ordered.searchsorted(np.int64(wanted)))
        if place == len(ordered) or ordered[place] != wanted:
            return -1
        return place if order is None else int(order[place])

    def to_arrow(self) -> pa.Array:
        """All ids in order, without a copy."""
        return pa.array(self.values)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """``ints``; where they do not ascend, also the same ``ascending``, and the ``order`` of these."""
        ordered, order = self.search
        return {"ints": self.values} | ({} if order is None else {"ascending": ordered, "order": order})

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]], full: bool) -> Integers:
        """What ``arrays`` gave; ``full`` looks at every value."""
        values, order = arrays["ints"], arrays.get("order")
        _check(values, "ints", np.int64, len(values))
        if order is None:
            found = cls(values, (values, None))  # only ascending integers are stored without an order
        else:
            if "ascending" not in arrays:
                raise DataError("a catalogue of integers with an order needs the array ascending")
            _check(arrays["ascending"], "ascending", np.int64, len(values))
            _check_order(order, len(values))
            found = cls(values, (arrays["ascending"], order))
        if full:
            ordered = found.search[0]
            if (ordered[1:] <= ordered[:-1]).any() or (order is not None and not (values[order] == ordered).all()):
                raise DataError("ints of ids must ascend in their order, each once")
        return found


class Texts:
    """Distinct strings as UTF-8 from end to end; found by bisection over ascending 64-bit hashes.

    The hash of the bytes ``b_0 … b_{n−1}`` is ``Σ_j (b_j + 1) · P^(n−1−j) mod 2^64``. Equal hashes are told apart by
    the bytes, so a collision costs time and nothing else.
    """

    def __init__(self, texts: pa.LargeStringArray, search: _Search | None = None) -> None:
        """Take distinct strings, and their hashes and order where these are known."""
        self.texts = texts
        if search is not None:
            self.__dict__["search"] = search

    @cached_property
    def search(self) -> _Search:
        """The hashes, ascending, and the position of the string of each."""
        hashes = _hashes(*self.buffers)
        order = np.argsort(hashes, kind="stable")
        return hashes[order], _narrow(order)

    @cached_property
    def buffers(self) -> tuple[Int64s, npt.NDArray[np.uint8]]:
        """Offsets ``(n + 1,)`` and bytes, without a copy; offsets start at 0."""
        _, places, text = self.texts.buffers()
        if not len(self.texts):
            return np.zeros(1, np.int64), np.empty(0, np.uint8)
        offsets = np.frombuffer(places, np.int64)[self.texts.offset :][: len(self.texts) + 1]
        utf8 = np.empty(0, np.uint8) if text is None else np.frombuffer(text, np.uint8)[offsets[0] : offsets[-1]]
        return (offsets - offsets[0] if offsets[0] else offsets), utf8

    def __len__(self) -> int:
        return len(self.texts)

    def check_distinct(self) -> None:
        """Raise ArgumentError where an id occurs twice."""
        if pc.count_distinct(self.texts).as_py() < len(self.texts):
            raise ArgumentError(_TWICE)

    def find(self, wanted: pa.Array) -> Int64s:
        """Positions of strings, −1 where a string is not here."""
        codes = np.full(len(wanted), -1, np.int64)
        hashes, order = self.search
        assert order is not None
        sought = _hashes(*Texts(wanted).buffers)
        place = np.searchsorted(hashes, sought)
        rows = np.arange(len(wanted))
        while True:  # once, but for strings whose hashes are equal
            rows = rows[place[rows] < len(hashes)]
            rows = rows[hashes[place[rows]] == sought[rows]]
            if not len(rows):
                return codes
            found = order[place[rows]]
            texts = wanted if len(rows) == len(wanted) else wanted.take(pa.array(rows))
            same = pc.equal(texts, self.texts.take(pa.array(found))).to_numpy(zero_copy_only=False)
            codes[rows[same]] = found[same]
            rows = rows[~same]
            place[rows] += 1

    @cached_property
    def held(self) -> Any:
        """The same for the kernel; None where there is none, or too many ids for it."""
        hashes, order = self.search
        if _compiled is None or order is None or order.dtype != np.int32:
            return None
        offsets, utf8 = self.buffers
        return _compiled.Texts(utf8, offsets, hashes, order, _BASE)

    def __getstate__(self) -> dict[str, Any]:
        """The strings; what the kernel holds is made again."""
        return {name: value for name, value in self.__dict__.items() if name != "held"}

    def find_one(self, wanted: str) -> int:
        """Position of one string, or −1."""
        raw = wanted.encode("utf-8", "surrogatepass")
        value = 0
        for byte in raw:
            value = (value * _BASE + byte + 1) & _MASK
        hashes, order = self.search
        assert order is not None
        place = int(hashes.searchsorted(np.uint64(value)))
        offsets, utf8 = self.buffers
        while place < len(hashes) and int(hashes[place]) == value:
            code = int(order[place])
            if utf8[offsets[code] : offsets[code + 1]].tobytes() == raw:
                return code
            place += 1
        return -1

    def to_arrow(self) -> pa.Array:
        """All ids in order, without a copy."""
        return self.texts

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """``utf8`` and ``offsets`` of all strings, their ``hashes`` ascending, and the ``order`` of these."""
        offsets, utf8 = self.buffers
        hashes, order = self.search
        assert order is not None
        return {"utf8": utf8, "offsets": offsets, "hashes": hashes, "order": order}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]], full: bool) -> Texts:
        """What ``arrays`` gave; ``full`` looks at every value."""
        utf8, offsets, hashes, order = (arrays[key] for key in ("utf8", "offsets", "hashes", "order"))
        n = len(offsets) - 1
        _check(utf8, "utf8", np.uint8, len(utf8))
        _check(offsets, "offsets", np.int64, n + 1)
        if n < 0 or offsets[0] != 0 or offsets[-1] != len(utf8) or (offsets[1:] < offsets[:-1]).any():
            raise DataError(f"offsets of ids must rise from 0 to {len(utf8)}, the length of utf8")
        _check(hashes, "hashes", np.uint64, n)
        _check_order(order, n)
        texts = pa.LargeStringArray.from_buffers(n, pa.py_buffer(offsets), pa.py_buffer(utf8))
        found = cls(texts, (hashes, order))
        if full:
            try:
                texts.validate(full=True)
            except pa.ArrowInvalid as error:
                raise DataError(f"ids are not valid UTF-8: {error}") from error
            told = cls(texts)
            if not (_hashes(*told.buffers)[order] == hashes).all() or (hashes[1:] < hashes[:-1]).any():
                raise DataError("hashes of ids must be those of the strings, in ascending order")
            if pc.count_distinct(texts).as_py() < n:
                raise DataError("ids must occur once in a catalogue (some occur twice)")
        return found


def _check(array: npt.NDArray[Any], name: str, dtype: npt.DTypeLike, length: int) -> None:
    if array.dtype != dtype or array.shape != (length,) or not array.flags.c_contiguous:
        raise DataError(
            f"{name} of ids must be a contiguous array ({length},) {np.dtype(dtype)} (got {array.shape} {array.dtype})"
        )


def _check_order(order: npt.NDArray[np.integer], n: int) -> None:
    _check(order, "order", np.int32 if n < 2**31 else np.int64, n)
    if n and (order.min() < 0 or order.max() >= n):
        raise DataError(f"order of ids must lie in 0 … {n - 1} (got {order.min()} … {order.max()})")


def _narrow(order: Int64s) -> npt.NDArray[np.integer]:
    return order.astype(np.int32) if len(order) < 2**31 else order


@lru_cache(maxsize=2)
def _powers(size: int) -> tuple[_UInt64s, _UInt64s]:
    """``P^(j−1)`` and ``P^(−j)`` modulo 2^64 for j = 0 … size."""
    inverse = pow(_BASE, -1, 1 << 64)
    up, down = np.full(size + 1, _BASE, np.uint64), np.full(size + 1, inverse, np.uint64)
    up[0], down[0] = inverse, 1
    return np.cumprod(up, dtype=np.uint64), np.cumprod(down, dtype=np.uint64)


def _hashes(offsets: Int64s, utf8: npt.NDArray[np.uint8]) -> _UInt64s:
    """The hash of every string, by differences of one running sum a block."""
    hashes, first, n = np.empty(len(offsets) - 1, np.uint64), 0, len(offsets) - 1
    while first < n:
        start = int(offsets[first])
        last = max(first + 1, int(np.searchsorted(offsets, start + _BLOCK, "right")) - 1)
        text = utf8[start : offsets[last]].astype(np.uint64)
        up, down = _powers(max(len(text), _BLOCK))
        text += np.uint64(1)
        text *= down[: len(text)]
        sums = np.zeros(len(text) + 1, np.uint64)
        np.cumsum(text, out=sums[1:])
        edges = offsets[first : last + 1] - start
        hashes[first:last] = (sums[edges[1:]] - sums[edges[:-1]]) * up[edges[1:]]
        first = last
    return hashes
