"""Columns on their way in: ids numbered, ratings and times checked, and no more memory held than needed."""

from __future__ import annotations

import mmap
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from hashlgn.errors import DataError

__all__ = [
    "WEIGHTS",
    "WEIGHT_RULE",
    "Arrivals",
    "Int32s",
    "Int64s",
    "decoded",
    "finite",
    "is_weight",
    "move",
    "pages",
    "positive",
    "remainders",
    "whole",
]

Int64s = npt.NDArray[np.int64]
Int32s = npt.NDArray[np.int32]
_BLOCK = 1 << 18  # rows handled at a time
# Of an interaction. Histories are sums in float32 whose squares must be finite, and which are normalised: only the
# ratios of weights count.
WEIGHTS = 1e-6, 1e12
WEIGHT_RULE = "from 1e-6 to 1e12 (only ratios count: divide all by one number)"


def pages(length: int, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """An array in memory pages of its own, which go back to the system when it is dropped; malloc would keep them."""
    size = np.dtype(dtype).itemsize * length
    return np.frombuffer(mmap.mmap(-1, size), dtype) if size else np.empty(0, dtype)


class Arrivals:
    """A column that comes in chunks, each with a dictionary of its own; numbers its values in order of arrival."""

    def __init__(self, kind: pa.DataType) -> None:
        """Start a column of values of a type, int64 or string."""
        self._words = pa.array([], kind)
        self._pending: list[pa.DictionaryArray] = []
        self._codes: list[Int32s] = []

    @property
    def kind(self) -> pa.DataType:
        """The type of the values."""
        return self._words.type

    def add(self, chunk: pa.DictionaryArray) -> None:
        """Take a chunk, dictionary-encoded int32 → value."""
        self._pending.append(chunk)
        # Folding goes through all values: doing it only when there may be twice as many keeps the sum in proportion.
        if sum(len(c.dictionary) for c in self._pending) > max(len(self._words), 1 << 16):
            self._fold()

    def finish(self) -> tuple[pa.Array, list[Int32s]]:
        """The distinct values in order of first arrival, and the number of every row, chunk by chunk."""
        self._fold()
        return self._words, self._codes

    def _fold(self) -> None:
        start = pa.DictionaryArray.from_arrays(pa.array([], pa.int32()), self._words)
        known, *chunks = pa.chunked_array([start, *self._pending]).unify_dictionaries().chunks
        self._pending.clear()
        pa.default_memory_pool().release_unused()
        self._words = known.dictionary
        for chunk in chunks:
            self._codes.append(pages(len(chunk), np.int32))
            self._codes[-1][:] = chunk.indices.to_numpy()


def decoded(array: pa.DictionaryArray) -> pa.Array:
    """The values of a dictionary-encoded column, row by row."""
    values = array.dictionary
    if values.type == pa.string_view():  # Polars' categories; Arrow takes no rows from views
        values = values.cast(pa.large_string())
    return values.take(array.indices)


def move(values: Int64s, keep: npt.NDArray[np.bool_]) -> int:
    """Move ``values[keep]`` to the front of the same memory, and say how many they are."""
    filled = 0
    for start in range(0, len(values), _BLOCK):
        block = values[start : start + _BLOCK][keep[start : start + _BLOCK]]
        values[filled : filled + len(block)] = block
        filled += len(block)
    return filled


def remainders(keys: Int64s, n: int, width: int) -> Int32s:
    """``keys[:n] % width``, in the memory of ``keys``, of which the other half is given back.

    No view of ``keys`` may be in use, then or after.
    """
    narrow = keys.view(np.int32)
    for start in range(0, n, _BLOCK):
        stop = min(start + _BLOCK, n)
        narrow[start:stop] = keys[start:stop] % width
    del narrow
    if keys.base is not None:  # a view cannot give back what it does not own
        return keys.view(np.int32)[:n].copy()
    keys.resize(-(-n // 2), refcheck=False)
    return keys.view(np.int32)[:n]


def _column(name: str, values: npt.ArrayLike, n: int) -> npt.NDArray[Any]:
    """A column of n values.

    Raises:
        DataError: another length, or some are masked.
    """
    column = np.asarray(values)
    if column.shape != (n,):
        raise DataError(f"{name} must have one value per row, shape ({n},) (got {column.shape})")
    masked = np.ma.getmaskarray(values) if isinstance(values, np.ma.MaskedArray) else np.zeros(n, np.bool_)
    if masked.any():
        raise DataError(f"{name} must have no missing values (row {int(np.flatnonzero(masked)[0])} is masked)")
    return column


def finite(ratings: npt.ArrayLike, n: int) -> npt.NDArray[np.float32]:
    """A column of n ratings.

    Raises:
        DataError: another length, no numbers, or not finite in float32.
    """
    return _floats("ratings", ratings, n, np.isfinite, "finite")


def positive(weights: npt.ArrayLike, n: int) -> npt.NDArray[np.float32]:
    """A column of n weights.

    Raises:
        DataError: another length, no numbers, or one outside of ``WEIGHTS``.
    """
    return _floats("weights", weights, n, is_weight, WEIGHT_RULE)


def _floats(name: str, values: npt.ArrayLike, n: int, good: Callable[[Any], Any], rule: str) -> npt.NDArray[np.float32]:
    column = _column(name, values, n)
    if column.dtype.kind not in "fiu":
        raise DataError(f"{name} must be numbers (got dtype {column.dtype})")
    with np.errstate(over="ignore", under="ignore"):  # what is too large for float32 becomes infinite
        narrow = column.astype(np.float32, copy=False)
    wrong = ~good(narrow)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise DataError(f"{name} must be {rule} (row {row} is {column[row]})")
    return narrow


def is_weight(values: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Which of the values lie in ``WEIGHTS``, rounded to float32 as they are."""
    return (values >= np.float32(WEIGHTS[0])) & (values <= np.float32(WEIGHTS[1]))


def whole(times: npt.ArrayLike, n: int) -> Int64s:
    """A column of n times.

    Raises:
        DataError: another length, or no integers of 64 bits.
    """
    column = _column("times", times, n)
    if not n:
        return np.empty(0, np.int64)
    if column.dtype.kind not in "iu":
        raise DataError(f"times must be integers (got dtype {column.dtype})")
    if column.dtype == np.uint64 and column.max() >= 2**63:
        raise DataError(f"times must fit into 64 signed bits (got {column.max()})")
    return column.astype(np.int64, copy=False)
