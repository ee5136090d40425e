"""External ids, and the dense internal numbers that stand for them.

A catalogue holds ids of one type, integers (of 64 signed bits) or strings. The internal number of an id is its place
in order of arrival: later ids get the next numbers, and no number ever changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from hashlgn.data.arrays import Int64s
from hashlgn.data.lookup import Integers, Texts
from hashlgn.data.values import IdValues, read_ids
from hashlgn.errors import ArgumentError, DataError, UnknownIdError, choose

__all__ = ["Ids"]

_UNKNOWN = {"raise": False, "mark": True}
_SMALL = 512  # ids of two segments that are joined, however much the second is smaller
_SHOWN = 5  # how many unknown ids an error names
# So few ids are found one by one: the machinery for columns takes longer than their look-up.
_FEW = {"int": 4, "str": 128}
_KINDS: dict[str, tuple[type, pa.DataType]] = {"int": (int, pa.int64()), "str": (str, pa.large_string())}


class Ids:
    """A catalogue of external ids, immutable; the internal number of an id is its position.

    The ids stand in segments, each with what finds an id in it. ``add`` appends a segment and merges small ones, so
    that n additions of one id cost O(n log n) and the segments of a large catalogue are shared.
    """

    __slots__ = ("_segments", "_starts", "_type")

    def __init__(self, values: Any = (), id_type: str | None = None) -> None:
        """Make a catalogue of distinct ids, in the order given.

        Args:
            values: a NumPy array, a list, a pyarrow array or any column with the Arrow interface.
            id_type: ``"int"`` or ``"str"``; that of the values where None (see ``from_values``).

        Raises:
            ArgumentError: an id occurs twice.
            DataError: as ``from_values``.
        """
        column = read_ids(values, "values").typed(id_type)
        segment = _segment(column.array)
        segment.check_distinct()
        self._set((segment,) if len(segment) else (), column.id_type)

    def _set(self, segments: tuple[Integers | Texts, ...], id_type: str) -> None:
        self._segments, self._type = segments, id_type
        self._starts = np.array([0, *accumulate(map(len, segments))])

    @classmethod
    def _of(cls, segments: tuple[Integers | Texts, ...], id_type: str) -> Ids:
        ids = cls.__new__(cls)
        ids._set(segments, id_type)
        return ids

    @classmethod
    def from_arrow(cls, array: pa.Array) -> Ids:
        """The catalogue of ids that are known to be distinct: an int64 or a large_string array."""
        return cls._of((_segment(array),) if len(array) else (), "int" if array.type == pa.int64() else "str")

    @classmethod
    def from_values(cls, values: Any, id_type: str | None = None, *, name: str = "values") -> tuple[Ids, Int64s]:
        """Number a column in order of first arrival: the catalogue of its distinct ids, and the number of every row.

        Args:
            values: a NumPy array, a list, a pyarrow array or any column with the Arrow interface.
            id_type: ``"int"`` or ``"str"``. Where None, the column decides: integers, and floats that all are
                integers, are integers; strings are strings; a list of both is integers where every string is a
                canonical integer (``"1"`` or ``"1.0"``, not ``"01"``), else strings.
            name: what the column is called in errors.

        Raises:
            DataError: a value is missing, is no id (bool, bytes, a fraction …), does not fit into 64 bits, or is no
                integer where ``id_type="int"``.
        """
        column = read_ids(values, name).typed(id_type)
        array = column.array
        if column.id_type == "int":
            numbers = array.to_numpy(zero_copy_only=False)
            if (numbers[1:] > numbers[:-1]).all():
                return cls.from_arrow(array), np.arange(len(numbers))
        encoded = array.dictionary_encode()
        return cls.from_arrow(encoded.dictionary), encoded.indices.to_numpy().astype(np.int64)

    @classmethod
    def range(cls, n: int) -> Ids:
        """The integer ids ``0 … n − 1``."""
        return cls.from_arrow(pa.array(np.arange(n, dtype=np.int64)))

    @property
    def id_type(self) -> str:
        """``"int"`` or ``"str"``."""
        return self._type

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Ids):
            return NotImplemented
        if self is other:
            return True
        alike = self._type == other._type and len(self) == len(other)
        return alike and bool(self.to_arrow().equals(other.to_arrow()))

    def __repr__(self) -> str:
        shown = ", ".join(repr(v) for v in self.decode(np.arange(min(len(self), 3))).tolist())
        return f"Ids({len(self)}: {shown}{', …' if len(self) > 3 else ''})"

    @property
    def values(self) -> npt.NDArray[Any]:
        """All ids in internal order: int64, or an object array of str."""
        return self.decode(np.arange(len(self)))

    def to_arrow(self) -> pa.Array:
        """All ids in internal order: an int64 or a large_string array, without a copy where nothing was added."""
        if len(self._segments) == 1:
            return self._segments[0].to_arrow()
        return pa.chunked_array([s.to_arrow() for s in self._segments], _KINDS[self._type][1]).combine_chunks()

    def order(self) -> Int64s:
        """Internal numbers in ascending order of the ids: integers by value, strings by code point."""
        if self._type == "int":
            return np.argsort(self.values, kind="stable")
        from pyarrow import compute

        return np.asarray(compute.array_sort_indices(self.to_arrow()).to_numpy().astype(np.int64))

    def add(self, values: Any, *, name: str = "values") -> tuple[Ids, Int64s]:
        """A catalogue with new ids at the end, and the numbers of all ``values``; this catalogue stays as it is.

        Args:
            values: ids in any order, known ones and new ones, each as often as it may be.
            name: what the column is called in errors.

        Raises:
            DataError: as ``from_values``, with the type of this catalogue.
        """
        found, array = self._few(values), read_ids(values, name).typed(self._type).array
        codes = self._find(array) if found is None else np.array(found)
        new = (codes < 0).nonzero()[0]
        if not len(new):
            return self, codes
        encoded = (array if len(new) == len(codes) else array.take(pa.array(new))).dictionary_encode()
        codes[new] = len(self) + encoded.indices.to_numpy().astype(np.int64)
        segments = [*self._segments, _segment(encoded.dictionary)]
        while len(segments) > 1 and len(segments[-2]) < max(2 * len(segments[-1]), _SMALL - len(segments[-1])):
            pair = [segment.to_arrow() for segment in segments[-2:]]
            segments[-2:] = [_segment(pa.concat_arrays(pair))]
        return Ids._of(tuple(segments), self._type), codes

    def encode(self, values: Any, *, name: str = "ids", on_unknown: str = "raise") -> Int64s:
        """Internal numbers of external ids, ``(n,)``.

        Values are read in the type of the catalogue: where that is integers, ``1``, ``1.0``, ``"1"`` and ``"1.0"``
        are one id; where it is strings, ``1`` is ``"1"``. A value that cannot be of the type is an unknown id.

        Args:
            values: a NumPy array, a list, a pyarrow array or any column with the Arrow interface.
            name: what the argument is called in errors.
            on_unknown: ``"raise"``, or ``"mark"`` to answer −1 for an id outside the catalogue.

        Raises:
            UnknownIdError: an id is not in the catalogue.
            DataError: a value is missing or is no id.
        """
        mark = choose("on_unknown", on_unknown, _UNKNOWN)
        known = self.known(values) if type(values) is list else None
        if known is not None:
            return known
        found = self._few(values)
        if found is not None and min(found) >= 0:
            return np.array(found)
        column = read_ids(values, name)
        array, valid = column.coerced(self._type)
        codes = self._find(array)
        if valid is not None:
            codes[~valid] = -1
        if not mark and len(codes) and codes.min() < 0:
            raise UnknownIdError(self._explain(column, np.flatnonzero(codes < 0), valid))
        return codes

    def known(self, values: list[Any]) -> Int64s | None:
        """Internal numbers of a list of ids in one compiled call; None where it cannot find all of them: ``encode``
        can, or tells why not.
        """
        found: Int64s | None = self.held.find(values) if values and self.held is not None else None
        return found

    @property
    def held(self) -> Any:
        """The ids as the kernel holds them; None where it does not, or ids were added."""
        return self._segments[0].held if len(self._segments) == 1 else None

    def decode(self, indices: npt.ArrayLike) -> npt.NDArray[Any]:
        """External ids of internal numbers, in the same shape: int64, or objects of type str.

        Raises:
            ArgumentError: a number is outside ``0 … len − 1``.
        """
        codes = np.asarray(indices)
        if (held := self.held) is not None:
            try:
                found = held.decode(codes)
                return found if self._type == "int" else _objects(found)
            except (TypeError, ValueError):  # of another shape or type, no number, or damaged text: done or told below
                pass
        dtype = np.int64 if self._type == "int" else np.object_
        if codes.size == 0:
            return np.empty(codes.shape, dtype)
        if codes.dtype.kind not in "iu" or codes.min() < 0 or codes.max() >= len(self):
            raise ArgumentError(f"indices must be integers in 0 … {len(self) - 1} (got {codes.min()} … {codes.max()})")
        if len(self._segments) == 1 and isinstance(self._segments[0], Integers):
            return np.asarray(self._segments[0].values[codes])
        flat = codes.ravel().astype(np.int64)
        out = np.empty(len(flat), dtype)
        owner = np.searchsorted(self._starts, flat, "right") - 1
        for number, segment in enumerate(self._segments):
            mine = owner == number
            places = flat[mine] - self._starts[number]
            if isinstance(segment, Integers):
                out[mine] = segment.values[places]
            else:
                # pa.array would import pandas, where it is installed: a second in the first answer of a service.
                numbers = pa.Array.from_buffers(pa.int64(), len(places), [None, pa.py_buffer(places)])
                try:
                    out[mine] = segment.texts.take(numbers).to_pylist()
                except UnicodeDecodeError as error:
                    raise DataError(f"ids must be UTF-8 text, which a damaged file does not hold ({error})") from error
        return out.reshape(codes.shape)

    def take(self, indices: Int64s) -> Ids:
        """The catalogue of the ids at ``indices``, distinct internal numbers, in that order."""
        return Ids.from_arrow(self.to_arrow().take(pa.array(indices, pa.int64())))

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The catalogue as flat arrays with all that look-ups need, ready to be stored and mapped.

        Returns:
            Of integers: ``ints`` int64 ``(n,)``; only where they do not ascend, also ``ascending`` int64 ``(n,)``, the
            same in ascending order, and ``order`` int32 ``(n,)``, the position of each of these. Of strings:
            ``utf8`` uint8, all strings end to end; ``offsets`` int64 ``(n + 1,)`` into it; ``hashes`` uint64
            ``(n,)``, ascending; ``order`` int32 ``(n,)``, the position of the string of each hash.
        """
        one = self._segments[0] if len(self._segments) == 1 else _segment(self.to_arrow())
        return one.arrays()

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]], *, full: bool = False) -> Ids:
        """The catalogue that ``arrays`` gave, without a copy.

        Args:
            arrays: what ``arrays`` gave; they may be mapped, and must not change.
            full: check every value. Otherwise types, lengths, and what could lead outside of the arrays are checked,
                which takes milliseconds for a million ids.

        Raises:
            DataError: the arrays are no catalogue.
        """
        id_type, needed = ("int", {"ints"}) if "ints" in arrays else ("str", {"utf8", "offsets", "hashes", "order"})
        missing = needed - set(arrays)
        if missing:
            raise DataError(f"a catalogue of ids needs the arrays {', '.join(sorted(missing))} (or else ints)")
        segment = (Integers if id_type == "int" else Texts).from_arrays(arrays, full)
        return cls._of((segment,) if len(segment) else (), id_type)

    def _few(self, values: Any) -> list[int] | None:
        """Internal numbers of a short list of ids of the type of the catalogue, −1 for unknown ones; else None."""
        short = type(values) is list and len(values) <= _FEW[self._type]
        return [*map(self.find, values)] if short and {*map(type, values)} == {_KINDS[self._type][0]} else None

    def _find(self, array: pa.Array) -> Int64s:
        if len(self._segments) == 1:
            return self._segments[0].find(array)
        codes = np.full(len(array), -1, np.int64)
        for start, segment in zip(self._starts.tolist(), self._segments, strict=False):
            found = segment.find(array)
            codes = np.where(found >= 0, found + start, codes)
        return codes

    def find(self, value: Any) -> int:
        """Internal number of one id that has the type of the catalogue, an int or a str; −1 where it is unknown."""
        if self._type == "int" and not -(2**63) <= value < 2**63:
            return -1
        for start, segment in zip(self._starts.tolist(), self._segments, strict=False):
            found = segment.find_one(value)
            if found >= 0:
                return int(start) + found
        return -1

    def _explain(self, column: IdValues, rows: Int64s, valid: npt.NDArray[np.bool_] | None) -> str:
        shown = list(dict.fromkeys(column.array[int(row)].as_py() for row in rows[: 4 * _SHOWN]))[:_SHOWN]
        listed = ", ".join(map(repr, shown))
        message = f"{column.name} holds {len(rows)} unknown id{'s' if len(rows) > 1 else ''}: {listed}"
        if valid is not None and not valid[rows].all():
            odd = column.array[int(rows[~valid[rows]][0])].as_py()
            message += f" ({odd!r} is no integer, as the known ids are)" if self._type == "int" else ""
        return message


def _objects(values: list[str]) -> npt.NDArray[Any]:
    out = np.empty(len(values), np.object_)
    out[:] = values
    return out


def _segment(array: pa.Array) -> Integers | Texts:
    return Integers(array.to_numpy(zero_copy_only=False)) if array.type == pa.int64() else Texts(array)
