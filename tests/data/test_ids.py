"""Catalogues of ids: two kinds kept apart, every number found again, bad values refused."""

from __future__ import annotations

import datetime

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hashlgn.data import Ids
from hashlgn.data.arrays import Strings, factorise_ints
from hashlgn.errors import ArgumentError, DataError, UnknownIdError

INT64 = st.integers(-(2**63), 2**63 - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)


@given(st.lists(INT64 | TEXT, max_size=30))
def test_factorising_mixed_ids_and_decoding_gives_them_back(values: list[int | str]) -> None:
    ids, codes = Ids.from_values(values)
    assert ids.decode(codes).tolist() == values
    assert ids.values.tolist() == sorted({v for v in values if isinstance(v, int)}) + sorted(
        {v for v in values if isinstance(v, str)}
    )
    assert ids.encode(values).tolist() == codes.tolist()


@given(st.lists(INT64 | TEXT, max_size=30))
def test_arrays_hold_the_whole_catalogue(values: list[int | str]) -> None:
    ids, _ = Ids.from_values(values)
    assert Ids.from_arrays(ids.to_arrays()) == ids


@given(st.lists(INT64, min_size=1, max_size=40), st.integers(1, 5))
def test_factorise_ints_is_unique_with_inverse_whatever_the_chunks(values: list[int], pieces: int) -> None:
    array = np.array(values, np.int64)
    unique, codes = factorise_ints(np.array_split(array, pieces))
    expected, inverse = np.unique(array, return_inverse=True)
    assert unique.tolist() == expected.tolist()
    assert np.concatenate(codes).tolist() == inverse.tolist()


@given(st.lists(st.lists(TEXT, max_size=8), min_size=1, max_size=4))
def test_strings_are_ordered_by_code_point_whatever_the_chunks(chunks: list[list[str]]) -> None:
    column = Strings()
    for chunk in chunks:
        column.add(pa.array(chunk, pa.string()).dictionary_encode())
    texts, codes = column.factorise()
    flat = [text for chunk in chunks for text in chunk]
    assert texts.to_pylist() == sorted(set(flat))
    assert [texts[int(code)].as_py() for code in np.concatenate(codes)] == flat


def test_the_two_kinds_never_mix() -> None:
    ids, codes = Ids.from_values([1, "1", 2, "02"])
    assert ids.values.tolist() == [1, 2, "02", "1"]
    assert codes.tolist() == [0, 3, 1, 2]
    assert ids.encode(["1", 1]).tolist() == [3, 0]
    with pytest.raises(UnknownIdError, match=r"2 unknown ids: '2', 3 \('2' is unknown, but the integer 2 is known\)"):
        ids.encode(["2", 3])
    with pytest.raises(UnknownIdError, match=r"5 is unknown, but the string '5' is known"):
        Ids((), ["5"]).encode([5])


def test_unknown_ids_are_named_and_may_be_marked() -> None:
    ids = Ids([5, 7, 9])
    assert ids.encode([9, 8, 5], on_unknown="mark").tolist() == [2, -1, 0]
    with pytest.raises(UnknownIdError, match=r"^users holds 2 unknown ids: 8, 4$"):
        ids.encode([8, 7, 4], name="users")
    with pytest.raises(ArgumentError, match="on_unknown must be one of 'raise', 'mark'"):
        ids.encode([5], on_unknown="drop")
    assert Ids().encode([1, "a"], on_unknown="mark").tolist() == [-1, -1]


def test_an_unknown_id_in_a_mixed_column_is_named_by_its_own_value() -> None:
    ids, _ = Ids.from_values([1, "a"])
    with pytest.raises(UnknownIdError, match=r"2 unknown ids: 'b', 3$"):
        ids.encode(["a", "b", 1, 3])


@pytest.mark.parametrize(
    "column",
    [
        np.array([3, 1, 3], np.int8),
        np.array([3, 1, 3], np.uint64),
        np.array([3.0, 1.0, 3.0]),
        pd.Series([3, 1, 3]),
        pd.Series([3, 1, 3], dtype="category"),
        pl.Series([3, 1, 3]),
        pa.array([3, 1, 3]),
        pa.chunked_array([[3], [1, 3]]),
        (3, 1, 3),
        iter([3, 1, 3]),
    ],
)
def test_any_column_of_integers(column: object) -> None:
    ids, codes = Ids.from_values(column)
    assert ids == Ids([1, 3])
    assert codes.tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    "column",
    [
        np.array(["b", "a", "b"]),
        np.array(["b", "a", "b"], object),
        pd.Series(["b", "a", "b"]),
        pd.Series(["b", "a", "b"], dtype="category"),
        pl.Series(["b", "a", "b"]),
        pl.Series(["b", "a", "b"], dtype=pl.Categorical),
        pa.array(["b", "a", "b"], pa.string_view()),
        pa.chunked_array([pa.array(["b"]).dictionary_encode(), pa.array(["a", "b"]).dictionary_encode()]),
    ],
)
def test_any_column_of_strings(column: object) -> None:
    ids, codes = Ids.from_values(column)
    assert ids == Ids((), ["a", "b"])
    assert codes.tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1, None], r"users must have no missing values \(row 1 is empty\)"),
        ([1.0, float("nan")], "row 1 is nan"),
        ([1.5], "row 0 is 1.5"),
        ([1, "a", 2.5], "2.5"),
        ([float(2**60)], "must hold integers or strings"),
        ([2**63], "must fit into 64 signed bits"),
        (np.array([2**63], np.uint64), "must fit into 64 signed bits"),
        (["a", 2**70], "must fit into 64 signed bits"),
        ([True, False], "must hold integers or strings"),
        ([1, True, "a"], "row 1 is True"),
        ([b"a"], "must hold integers or strings"),
        ([datetime.date(2020, 1, 1)], "must hold integers or strings"),
        (["\ud800"], "not valid Unicode"),
        ("abc", "single value 'abc'"),
        (np.ones((2, 2), int), r"flat list \(got shape \(2, 2\)\)"),
    ],
)
def test_what_is_no_id_is_refused(values: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Ids.from_values(values, name="users")


def test_a_catalogue_holds_an_id_once() -> None:
    with pytest.raises(ArgumentError, match="an id must occur once"):
        Ids([1, 1])
    with pytest.raises(ArgumentError, match="an id must occur once"):
        Ids((), ["a", "a"])
    with pytest.raises(ArgumentError, match="ints must hold integers"):
        Ids(["a"])  # type: ignore[list-item]


def test_decode_refuses_numbers_outside_and_keeps_the_shape() -> None:
    ids = Ids([4, 6], ["x"])
    assert ids.decode([[2, 0], [1, 1]]).tolist() == [["x", 4], [6, 6]]
    assert ids.decode([]).shape == (0,)
    for wrong in ([3], [-1], [0.0]):
        with pytest.raises(ArgumentError, match=r"indices must be integers in 0 … 2"):
            ids.decode(wrong)


def test_take_keeps_both_kinds() -> None:
    assert Ids([4, 6], ["x", "y"]).take(np.array([1, 3])) == Ids([6], ["y"])


def test_equality_and_words() -> None:
    assert Ids([2, 1]) == Ids([1, 2])
    assert Ids([1]) != Ids((), ["1"])
    assert Ids([1]) != [1]
    assert repr(Ids([1, 2], ["a", "b"])) == "Ids(4: 1, 2, 'a', …)"
    assert repr(Ids()) == "Ids(0: )"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ints": np.array([2, 1])}, "ascending order"),
        ({"ints": np.array([1], np.int32)}, "must be int64, uint8 and int64"),
        ({"offsets": np.array([0, 9])}, "must rise from 0"),
        ({"offsets": np.array([0, 2, 1, 3])}, "must rise from 0"),
        ({"offsets": np.array([], np.int64)}, "must rise from 0"),
        ({"utf8": np.array([255, 254, 253], np.uint8)}, "not valid UTF-8"),
        ({"utf8": np.frombuffer(b"cba", np.uint8)}, "ascending order"),
    ],
)
def test_damaged_arrays_are_refused(change: dict[str, np.ndarray], message: str) -> None:
    arrays = Ids([1, 2], ["a", "bc"]).to_arrays()
    with pytest.raises(DataError, match=message):
        Ids.from_arrays(arrays | change)
    with pytest.raises(DataError, match="missing: utf8"):
        Ids.from_arrays({k: v for k, v in arrays.items() if k != "utf8"})
