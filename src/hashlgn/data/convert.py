"""Columns of ratings, weights and times on their way in: converted once, with what is missing or wrong marked."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from hashlgn.data.arrays import decoded

__all__ = ["Column", "is_text", "numbers", "texts", "times"]

Bools = npt.NDArray[np.bool_]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Column:
    """A converted column."""

    values: npt.NDArray[Any]  # float32 or int64, one per row; anything where a row is missing or wrong
    wrong: Bools  # rows whose value breaks the rule
    rule: str  # what a value must be, in words


def is_text(kind: pa.DataType) -> bool:
    """Whether a type is one of Arrow's string types."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or kind == pa.string_view())


def _plain(array: pa.Array) -> pa.Array:
    array = decoded(array) if pa.types.is_dictionary(array.type) else array
    return array.cast(pa.large_string()) if array.type == pa.string_view() else array


def texts(array: pa.Array) -> pa.DictionaryArray:
    """A column as text, dictionary-encoded, empty where it is missing; lists are joined by ``|``."""
    array = _plain(array)
    if pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
        array = pc.binary_join(array.cast(pa.list_(pa.string())), "|")
    return pc.fill_null(array.cast(pa.string()), "").dictionary_encode()


def numbers(array: pa.Array, decimal: str = ".") -> Column:
    """A column as float32: a number that is not finite in float32 is wrong."""
    array = _plain(array)
    rule = "a number"
    if is_text(array.type):
        texts = pc.utf8_trim_whitespace(array)
        texts = texts if decimal == "." else pc.replace_substring(texts, decimal, ".")
        try:
            floats = texts.cast(pa.float64())
        except pa.ArrowInvalid:
            floats = pa.array([_number(text) for text in texts.to_pylist()], pa.float64())
    elif pa.types.is_integer(array.type) or pa.types.is_floating(array.type):
        floats = array.cast(pa.float64(), safe=False)
    elif pa.types.is_decimal(array.type) or pa.types.is_null(array.type):
        floats = array.cast(pa.float64())
    else:
        return Column(np.zeros(len(array), np.float32), np.ones(len(array), np.bool_), f"a number, not {array.type}")
    unread = pc.and_(pc.is_valid(array), pc.is_null(floats)).to_numpy(zero_copy_only=False)
    with np.errstate(over="ignore"):
        values = pc.fill_null(floats, 0.0).to_numpy(zero_copy_only=False).astype(np.float32)
    infinite = ~np.isfinite(values)
    if not unread.any():
        rule = "finite"
    return Column(values, unread | infinite, rule)


def times(array: pa.Array) -> Column:
    """A column as int64: numbers with fractions cut off, dates as microseconds since 1970 (UTC where they say none)."""
    array = _plain(array)
    kind, rule = array.type, "a number of 64 signed bits or an ISO date"
    if is_text(kind):
        return Column(*_texts_as_times(pc.utf8_trim_whitespace(array)), "a number or an ISO date")
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        array = array.cast(pa.timestamp("us", getattr(kind, "tz", None)), safe=False).cast(pa.int64())
    elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_null(kind)):
        rule = f"a number or a date, not {kind}"
        return Column(np.zeros(len(array), np.int64), np.ones(len(array), np.bool_), rule)
    if pa.types.is_floating(array.type):
        floats = np.floor(pc.fill_null(array.cast(pa.float64()), 0).to_numpy(zero_copy_only=False))
        wrong = ~(np.abs(floats) < 2.0**63)
        return Column(np.where(wrong, 0, floats).astype(np.int64), wrong, rule)
    if array.type == pa.uint64():
        large = pc.fill_null(array, 0).to_numpy(zero_copy_only=False)
        return Column(large.astype(np.int64), large >= 2**63, rule)
    return Column(
        pc.fill_null(array.cast(pa.int64()), 0).to_numpy(zero_copy_only=False), np.zeros(len(array), np.bool_), rule
    )


def _texts_as_times(texts: pa.Array) -> tuple[npt.NDArray[np.int64], Bools]:
    """Numbers, or else dates; which of the two is decided by the first value, and the other kind is wrong."""
    try:
        return pc.fill_null(texts.cast(pa.int64()), 0).to_numpy(zero_copy_only=False), np.zeros(len(texts), np.bool_)
    except pa.ArrowInvalid:
        values = texts.to_pylist()
    first = next((text for text in values if text), "")
    read = _date if _number(first) is None and len(first) >= 10 else _integer
    found = [None if text is None else read(text) for text in values]
    wrong = np.array([number is None and text is not None for number, text in zip(found, values, strict=True)])
    return np.array([number or 0 for number in found], np.int64), wrong


def _number(text: str | None) -> float | None:
    if text is None or "_" in text:
        return None
    try:
        return float(text)
    except ValueError:
        return None


def _integer(text: str) -> int | None:
    number = _number(text)
    if number is None or not abs(number) < 2.0**63:
        return None
    try:
        exact = int(text)
    except ValueError:
        exact = math.floor(number)
    return exact if -(2**63) <= exact < 2**63 else None


def _date(text: str) -> int | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // timedelta(microseconds=1)
