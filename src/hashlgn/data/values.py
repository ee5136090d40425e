"""External ids as they come: any column becomes integers or strings, or is refused with the row that is at fault."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from hashlgn.data.arrays import Int64s, decoded
from hashlgn.errors import DataError, choose, shown

__all__ = ["IdValues", "canonical_integers", "parsed_integers", "read_ids", "whole_numbers"]

# What an integer looks like where the values decide on the type: nothing that another spelling could mean as well.
_CANONICAL = r"^\s*(0|-?[1-9][0-9]{0,18})(\.0+)?\s*$"
_PLAIN = r"^-?[0-9]{1,18}$"  # surely within 64 bits
_INTEGER = re.compile(r"\s*([+-]?[0-9]+)(\.0*)?\s*", re.ASCII)  # read so where the type is known


@dataclass(frozen=True)
class IdValues:
    """A column of ids as it came."""

    array: pa.Array  # int64, uint64, float64 or large_string, without missing values
    name: str  # what the column is called in errors
    mixed: bool = False  # whether integers and strings came together; then all are strings
    too_large: int | None = None  # an integer of more than 64 bits that came, or None

    @property
    def id_type(self) -> str:
        """The type of ``array``."""
        return "str" if pa.types.is_large_string(self.array.type) else "int"

    def typed(self, id_type: str | None = None) -> IdValues:
        """The column as int64 or large_string: as ``id_type`` says, or as the column decides where None.

        Raises:
            DataError: a value cannot be of the type.
        """
        if id_type is not None:
            choose("id_type", id_type, {"int": None, "str": None})
        if self.too_large is not None and id_type != "str":
            raise DataError(f"{self.name} must fit into 64 signed bits (got {self.too_large})")
        if id_type is None and self.mixed:
            id_type = "int" if canonical_integers(self.array) is not None else "str"
        array, valid = self.coerced(id_type or self.id_type)
        if valid is not None and not valid.all():
            row = int(np.flatnonzero(~valid)[0])
            value = self.array[row].as_py()
            if isinstance(value, int):
                raise DataError(f"{self.name} must fit into 64 signed bits (row {row} is {value})")
            what = (
                "integers, as id_type='int' (given, or the model's) says" if id_type == "int" else "integers or strings"
            )
            raise DataError(f"{self.name} must hold {what} (row {row} is {shown(value)})")
        return IdValues(array, self.name)

    def coerced(self, id_type: str) -> tuple[pa.Array, npt.NDArray[np.bool_] | None]:
        """The values in a type, and which of them could be of it (None: all)."""
        kind = self.array.type
        if pa.types.is_large_string(kind):
            if id_type == "str":
                return self.array, None
            numbers, whole = parsed_integers(self.array)
            return pa.array(numbers), None if whole.all() else whole
        array = self.array
        valid: npt.NDArray[np.bool_] | None = None
        if pa.types.is_floating(kind) or (kind == pa.uint64() and id_type == "int"):
            found, valid = whole_numbers(array)
            array = pa.array(found)
        return array.cast(pa.large_string()) if id_type == "str" else array, valid


def whole_numbers(array: pa.Array) -> tuple[Int64s, npt.NDArray[np.bool_]]:
    """Floats or unsigned integers as int64, and which of them are integers that fit; 0 where they do not, or are
    missing.
    """
    floats = pa.types.is_floating(array.type)
    values = pc.fill_null(array.cast(pa.float64()) if floats else array, 0).to_numpy(zero_copy_only=False)
    valid = values < 2**63
    if floats:
        valid = np.isfinite(values) & (np.floor(values) == values) & (np.abs(values) <= 2**53)
    return np.where(valid, values, 0).astype(np.int64), valid


def parsed_integers(texts: pa.Array) -> tuple[Int64s, npt.NDArray[np.bool_]]:
    """Strings as integers (``" 007"`` and ``"7.0"`` are 7), and which of them are integers of 64 bits."""
    plain = pc.match_substring_regex(texts, _PLAIN)
    valid = plain.to_numpy(zero_copy_only=False).copy()
    numbers = np.zeros(len(texts), np.int64)
    numbers[valid] = texts.filter(plain).cast(pa.int64()).to_numpy(zero_copy_only=False)
    for row in np.flatnonzero(~valid).tolist():
        match = _INTEGER.fullmatch(texts[row].as_py())
        # Python refuses to read thousands of digits
        if match and len(match[1].lstrip("+-").lstrip("0")) < 20 and -(2**63) <= int(match[1]) < 2**63:
            numbers[row], valid[row] = int(match[1]), True
    return numbers, valid


def canonical_integers(texts: pa.Array) -> Int64s | None:
    """The integers that strings spell, if every one is spelled as integers usually are, else None."""
    if not pc.all(pc.match_substring_regex(texts, _CANONICAL), min_count=0).as_py():
        return None
    numbers, valid = parsed_integers(texts)
    return numbers if valid.all() else None


def read_ids(values: Any, name: str) -> IdValues:
    """Read a column of ids.

    Raises:
        DataError: a value is missing or is no id.
    """
    if isinstance(values, str | bytes):
        raise DataError(f"{name} must be a list of ids (got the single value {values!r})")
    array = _as_arrow(values, name)
    if not isinstance(array, pa.Array):
        return _mixed(array, name)
    if pa.types.is_dictionary(array.type):
        array = decoded(array)
    kind = array.type
    if pa.types.is_floating(kind):
        array = pc.if_else(pc.is_nan(array), pa.scalar(None, kind), array)
    if array.null_count:
        row = int(np.flatnonzero(array.is_null().to_numpy(zero_copy_only=False))[0])
        raise DataError(f"{name} must have no missing values (row {row} is empty)")
    if pa.types.is_null(kind):
        return IdValues(pa.array([], pa.int64()), name)
    if pa.types.is_integer(kind):
        return IdValues(array if kind == pa.uint64() else array.cast(pa.int64()), name)
    if pa.types.is_floating(kind):
        return IdValues(array.cast(pa.float64()), name)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or kind == pa.string_view():
        return IdValues(array.cast(pa.large_string()), name)
    what = f"row 0 is {shown(array[0].as_py())}" if len(array) else f"got {kind}"
    raise DataError(f"{name} must hold integers or strings ({what})")


def _as_arrow(values: Any, name: str) -> pa.Array | list[Any]:
    """The values as one Arrow array, or as a list where they mix kinds and must be read one by one."""
    if hasattr(values, "id_type") and hasattr(values, "to_arrow"):  # a catalogue of ids
        return values.to_arrow()
    if isinstance(values, np.ndarray):
        if values.ndim != 1:
            raise DataError(f"{name} must be a flat list of ids (got shape {values.shape})")
        if np.ma.isMaskedArray(values):
            masked = np.flatnonzero(np.ma.getmaskarray(values))
            if len(masked):
                raise DataError(f"{name} must have no missing values (row {masked[0]} is masked)")
            values = np.ma.getdata(values)
    elif not isinstance(values, pa.Array | pa.ChunkedArray) and not hasattr(values, "__arrow_c_stream__"):
        try:
            values = list(values)  # once: an iterator gives its values one time
        except TypeError as error:
            raise DataError(f"{name} must be a list of ids (got {shown(values)})") from error
    try:
        if isinstance(values, pa.Array):
            return values
        if not isinstance(values, np.ndarray | list):
            chunks = pa.chunked_array(values)
            return chunks.unify_dictionaries().combine_chunks() if chunks.num_chunks != 1 else chunks.chunk(0)
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError, UnicodeEncodeError):
        return list(values)  # each is looked at by itself: one that is no id is an error that names it


def _mixed(values: list[Any], name: str) -> IdValues:
    texts: list[str] = []
    kinds: set[type] = set()
    too_large = None
    for row, value in enumerate(values):
        if isinstance(value, str):
            kinds.add(str)
            texts.append(str(value))
            continue
        whole = isinstance(value, float | np.floating) and np.isfinite(value) and value == int(value)
        if isinstance(value, bool | np.bool_) or not (isinstance(value, int | np.integer) or whole):
            if value is None or value != value:  # None, NaN
                raise DataError(f"{name} must have no missing values (row {row} is empty)")
            raise DataError(f"{name} must hold integers or strings (row {row} is {shown(value)})")
        kinds.add(int)
        number = int(value)
        if not -(2**63) <= number < 2**63 and too_large is None:
            too_large = number
        texts.append(str(number))
    try:
        return IdValues(pa.array(texts, pa.large_string()), name, kinds != {str}, too_large)
    except UnicodeEncodeError as error:
        raise DataError(f"{name} holds a string that is not valid Unicode: {error.object!r}") from error
