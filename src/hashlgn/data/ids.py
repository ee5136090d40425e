"""External ids (int or str) and the dense internal numbers that stand for them.

A catalogue orders its integers ascending first, then its strings ascending by code point; the internal number
of an id is its position. The two kinds never mix: ``"1"`` and ``1`` are different ids.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from hashlgn.data.arrays import Int64s, Strings, decoded, factorise_ints
from hashlgn.errors import ArgumentError, DataError, UnknownIdError, choose

__all__ = ["Ids"]

_SHOWN = 5  # how many unknown ids an error names


@dataclass(frozen=True)
class _Column:
    """A column of external ids by kind: the integers, the strings, and where a column mixes both, which rows
    are integers.
    """

    ints: Int64s
    strings: pa.Array  # large_string
    int_rows: npt.NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.ints) + len(self.strings)

    def merge(self, of_ints: Int64s, of_strings: Int64s) -> Int64s:
        """One number a row, from the numbers of the integers and those of the strings."""
        if self.int_rows is None:
            return of_strings if len(self.strings) else of_ints
        out = np.empty(len(self), np.int64)
        out[self.int_rows] = of_ints
        out[~self.int_rows] = of_strings
        return out


@dataclass(frozen=True, eq=False)
class Ids:
    """A catalogue of external ids; the internal number of an id is its position.

    Attributes:
        ints: the integer ids, ``(a,)`` int64, strictly ascending.
        strings: the string ids, a pyarrow ``large_string`` array of length b, strictly ascending by code
            point.
    """

    ints: Int64s
    strings: pa.Array

    def __init__(self, ints: npt.ArrayLike | Iterable[int] = (), strings: Any = ()) -> None:
        """Make a catalogue of distinct ids, given in any order.

        Raises:
            ArgumentError: an id occurs twice, or is of the wrong kind.
        """
        first, second = _column(ints, "ints"), _column(strings, "strings")
        if len(first.strings) or len(second.ints):
            raise ArgumentError("ints must hold integers and strings must hold strings")
        numbers, texts = np.unique(first.ints), second.strings
        if len(texts) > 1 and not pc.all(pc.less(texts[:-1], texts[1:])).as_py():
            texts = pc.unique(texts)
            texts = texts.take(pc.array_sort_indices(texts))
        if len(numbers) != len(first.ints) or len(texts) != len(second.strings):
            raise ArgumentError("an id must occur once in a catalogue (some occur twice)")
        object.__setattr__(self, "ints", numbers)
        object.__setattr__(self, "strings", texts)

    @classmethod
    def from_values(cls, values: Any, *, name: str = "values") -> tuple[Ids, Int64s]:
        """Factorise a column: the catalogue of its distinct ids, and the internal number of every row.

        Args:
            values: a NumPy array, a list, a pyarrow array or any column with the Arrow interface.
            name: what the column is called in errors.

        Raises:
            DataError: a value is missing, is no id (bool, bytes, a fraction …) or does not fit into 64 bits.
        """
        column = _column(values, name)
        ints, (of_ints,) = factorise_ints([column.ints])
        texts = Strings()
        texts.add(column.strings.cast(pa.string()).dictionary_encode())
        strings, (of_strings,) = texts.factorise()
        return cls(ints, strings), column.merge(of_ints.astype(np.int64), of_strings.astype(np.int64) + len(ints))

    @classmethod
    def range(cls, n: int) -> Ids:
        """The integer ids ``0 … n − 1``."""
        return cls(np.arange(n, dtype=np.int64))

    def __len__(self) -> int:
        return len(self.ints) + len(self.strings)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Ids):
            return NotImplemented
        return np.array_equal(self.ints, other.ints) and bool(self.strings.equals(other.strings))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        shown = ", ".join(repr(v) for v in self.decode(np.arange(min(len(self), 3))).tolist())
        return f"Ids({len(self)}: {shown}{', …' if len(self) > 3 else ''})"

    @property
    def values(self) -> npt.NDArray[Any]:
        """All ids in internal order: int64 where all are integers, else an object array of int and str."""
        return self.decode(np.arange(len(self)))

    def encode(self, values: Any, *, name: str = "ids", on_unknown: str = "raise") -> Int64s:
        """Internal numbers of external ids, ``(n,)``.

        Args:
            values: a NumPy array, a list, a pyarrow array or any column with the Arrow interface.
            name: what the argument is called in errors.
            on_unknown: ``"raise"``, or ``"mark"`` to answer −1 for an id outside the catalogue.

        Raises:
            UnknownIdError: an id is not in the catalogue.
            DataError: a value is missing or is no id.
        """
        mark = choose("on_unknown", on_unknown, {"raise": False, "mark": True})
        column = _column(values, name)
        codes = column.merge(self._find_ints(column.ints), self._find_strings(column.strings))
        if not mark and len(codes) and codes.min() < 0:
            raise UnknownIdError(self._explain(column, codes < 0, name))
        return codes

    def decode(self, indices: npt.ArrayLike) -> npt.NDArray[Any]:
        """External ids of internal numbers, in the same shape: int64 where the catalogue is all integers,
        else objects.

        Raises:
            ArgumentError: a number is outside ``0 … len − 1``.
        """
        codes = np.asarray(indices)
        if codes.size == 0:
            return np.empty(codes.shape, np.int64 if not len(self.strings) else np.object_)
        if codes.dtype.kind not in "iu" or codes.min() < 0 or codes.max() >= len(self):
            raise ArgumentError(f"indices must be integers in 0 … {len(self) - 1} (got {codes.min()} … {codes.max()})")
        if not len(self.strings):
            return np.asarray(self.ints[codes])
        flat = codes.ravel().astype(np.int64)
        out = np.empty(len(flat), np.object_)
        is_int = flat < len(self.ints)
        out[is_int] = self.ints[flat[is_int]].tolist()
        out[~is_int] = self.strings.take(pa.array(flat[~is_int] - len(self.ints))).to_pylist()
        return out.reshape(codes.shape)

    def take(self, indices: Int64s) -> Ids:
        """The catalogue of the ids at ``indices``, distinct internal numbers in ascending order."""
        cut = int(np.searchsorted(indices, len(self.ints)))
        return Ids(self.ints[indices[:cut]], self.strings.take(pa.array(indices[cut:] - len(self.ints), pa.int64())))

    def to_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The catalogue as three flat arrays, without pickling.

        Returns:
            ``ints`` int64 ``(a,)``; ``utf8`` uint8, all strings end to end; ``offsets`` int64 ``(b + 1,)``
            into ``utf8``.
        """
        if not len(self.strings):
            return {"ints": self.ints, "utf8": np.empty(0, np.uint8), "offsets": np.zeros(1, np.int64)}
        _, places, text = self.strings.buffers()
        offsets = np.frombuffer(places, np.int64)[self.strings.offset :][: len(self.strings) + 1]
        utf8 = np.empty(0, np.uint8) if text is None else np.frombuffer(text, np.uint8)[offsets[0] : offsets[-1]]
        return {"ints": self.ints, "utf8": utf8, "offsets": offsets - offsets[0]}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Ids:
        """The catalogue that ``to_arrays`` wrote.

        Raises:
            DataError: the arrays are no catalogue (wrong types, offsets, order, or text that is not UTF-8).
        """
        missing = {"ints", "utf8", "offsets"} - set(arrays)
        if missing:
            raise DataError(
                f"a catalogue of ids needs the arrays ints, utf8 and offsets (missing: {', '.join(missing)})"
            )
        ints, utf8, offsets = (np.ascontiguousarray(arrays[key]) for key in ("ints", "utf8", "offsets"))
        if ints.dtype != np.int64 or utf8.dtype != np.uint8 or offsets.dtype != np.int64:
            raise DataError(f"ids must be int64, uint8 and int64 (got {ints.dtype}, {utf8.dtype} and {offsets.dtype})")
        if not len(offsets) or offsets[0] != 0 or offsets[-1] != len(utf8) or (np.diff(offsets) < 0).any():
            raise DataError(f"offsets of ids must rise from 0 to {len(utf8)}, the length of utf8")
        strings = pa.LargeStringArray.from_buffers(len(offsets) - 1, pa.py_buffer(offsets), pa.py_buffer(utf8))
        try:
            strings.validate(full=True)
        except pa.ArrowInvalid as error:
            raise DataError(f"ids are not valid UTF-8: {error}") from error
        ordered = len(strings) < 2 or pc.all(pc.less(strings[:-1], strings[1:])).as_py()
        if not ordered or (ints[1:] <= ints[:-1]).any():
            raise DataError("ids must be in ascending order, each once")
        return cls(ints, strings)

    def _find_ints(self, wanted: Int64s) -> Int64s:
        if not len(self.ints) or not len(wanted):
            return np.full(len(wanted), -1, np.int64)
        if int(self.ints[-1]) - int(self.ints[0]) == len(self.ints) - 1:  # no gaps: the place is a difference
            inside = (wanted >= self.ints[0]) & (wanted <= self.ints[-1])
            return np.where(inside, wanted - self.ints[0], -1)
        place = np.minimum(np.searchsorted(self.ints, wanted), len(self.ints) - 1)
        return np.where(self.ints[place] == wanted, place, -1).astype(np.int64)

    def _find_strings(self, wanted: pa.Array) -> Int64s:
        place = pc.fill_null(pc.index_in(wanted, value_set=self.strings), -1).to_numpy(zero_copy_only=False)
        return np.where(place >= 0, place.astype(np.int64) + len(self.ints), -1)

    def _explain(self, column: _Column, unknown: npt.NDArray[np.bool_], name: str) -> str:
        rows = np.flatnonzero(unknown)
        int_rows = column.int_rows
        if int_rows is None:
            int_rows = np.full(len(column), not len(column.strings))
        place = np.where(int_rows, np.cumsum(int_rows), np.cumsum(~int_rows)) - 1  # row → place in its kind
        shown: list[int | str] = []
        for row in rows[: 4 * _SHOWN]:
            value = int(column.ints[place[row]]) if int_rows[row] else column.strings[int(place[row])].as_py()
            if value not in shown and len(shown) < _SHOWN:
                shown.append(value)
        listed = ", ".join(map(repr, shown))
        message = f"{name} holds {len(rows)} unknown id{'s' if len(rows) > 1 else ''}: {listed}"
        other: int | str | None = _twin(shown[0])
        if other is not None and self.encode([other], on_unknown="mark")[0] >= 0:
            kind = "integer" if isinstance(other, int) else "string"
            message += f" ({shown[0]!r} is unknown, but the {kind} {other!r} is known)"
        return message


def _twin(value: int | str) -> int | str | None:
    """The id of the other kind that is written alike, or None."""
    if isinstance(value, int):
        return str(value)
    try:
        number = int(value)
    except ValueError:
        return None
    return number if str(number) == value and -(2**63) <= number < 2**63 else None


def _column(values: Any, name: str) -> _Column:
    """Read a column of ids into its kinds.

    A column of floats counts as integers where every value is integral (data frames store integers so once a
    column has had holes).

    Raises:
        DataError: a value is missing, is no id, or does not fit into 64 bits.
    """
    nothing, no_text = np.empty(0, np.int64), pa.array([], pa.large_string())
    if isinstance(values, str | bytes):
        raise DataError(f"{name} must be a list of ids (got the single value {values!r})")
    array = _as_arrow(values)
    if array is None:
        return _mixed_column(list(values), name)
    if pa.types.is_dictionary(array.type):
        array = decoded(array)
    if array.null_count:
        row = int(np.flatnonzero(array.is_null().to_numpy(zero_copy_only=False))[0])
        raise DataError(f"{name} must have no missing values (row {row} is empty)")
    kind = array.type
    if pa.types.is_null(kind):
        return _Column(nothing, no_text)
    if pa.types.is_integer(kind):
        if kind == pa.uint64() and len(array) and pc.max(array).as_py() >= 2**63:
            raise DataError(f"{name} must fit into 64 signed bits (got {pc.max(array).as_py()})")
        return _Column(array.to_numpy(zero_copy_only=False).astype(np.int64, copy=False), no_text)
    if pa.types.is_floating(kind):
        return _Column(_integral(array.to_numpy(zero_copy_only=False), name), no_text)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or kind == pa.string_view():
        return _Column(nothing, array.cast(pa.large_string()))
    raise DataError(f"{name} must hold integers or strings (got {kind})")


def _as_arrow(values: Any) -> pa.Array | None:
    """The values as one Arrow array, or None where they mix kinds and must be read one by one."""
    if isinstance(values, Ids):
        values = values.values
    if hasattr(values, "__arrow_c_stream__") and not isinstance(values, pa.ChunkedArray):
        try:
            values = pa.chunked_array(values)
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            return None
    if isinstance(values, pa.ChunkedArray):
        return values.unify_dictionaries().combine_chunks() if values.num_chunks != 1 else values.chunk(0)
    if isinstance(values, pa.Array):
        return values
    if isinstance(values, np.ndarray) and values.ndim != 1:
        raise DataError(f"ids must be a flat list (got shape {values.shape})")
    try:
        return pa.array(values if isinstance(values, np.ndarray) else list(values))
    except (
        pa.ArrowInvalid,
        pa.ArrowTypeError,
        pa.ArrowNotImplementedError,
        OverflowError,
        UnicodeEncodeError,
    ):
        return None


def _integral(values: npt.NDArray[np.floating], name: str) -> Int64s:
    wrong = ~np.isfinite(values) | (np.floor(values) != values) | (np.abs(values) > 2**53)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise DataError(f"{name} must hold integers or strings (row {row} is {values[row]})")
    return values.astype(np.int64)


def _mixed_column(values: list[Any], name: str) -> _Column:
    int_rows = np.ones(len(values), np.bool_)
    ints: list[int] = []
    strings: list[str] = []
    for row, value in enumerate(values):
        if isinstance(value, str):
            int_rows[row] = False
            strings.append(str(value))
        elif isinstance(value, int | np.integer) and not isinstance(value, bool):
            ints.append(int(value))
        elif isinstance(value, float | np.floating):
            ints.append(int(_integral(np.array([value]), f"{name}, counted from row {row},")[0]))
        else:
            raise DataError(f"{name} must hold integers or strings (row {row} is {value!r})")
    try:
        numbers, texts = np.array(ints, np.int64), pa.array(strings, pa.large_string())
    except OverflowError as error:
        raise DataError(f"{name} must fit into 64 signed bits (got {max(ints, key=abs)})") from error
    except UnicodeEncodeError as error:
        raise DataError(f"{name} holds a string that is not valid Unicode: {error.object!r}") from error
    return _Column(numbers, texts, int_rows if ints and strings else None)
