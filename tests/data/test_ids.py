"""Catalogues of ids: one type each, numbers in order of arrival that never change, every id found again."""

from __future__ import annotations

import datetime

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import hashlgn.data.ids as ids_module
import hashlgn.data.lookup as lookup
from hashlgn.data import Ids
from hashlgn.data.arrays import Arrivals
from hashlgn.data.lookup import Texts
from hashlgn.errors import ArgumentError, DataError, UnknownIdError

INT64 = st.integers(-(2**63), 2**63 - 1) | st.integers(-3, 3)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
COLUMN = st.lists(INT64, max_size=30) | st.lists(TEXT, max_size=30)


@given(COLUMN)
def test_ids_are_numbered_in_order_of_first_arrival(values: list) -> None:
    ids, codes = Ids.from_values(values)
    assert ids.values.tolist() == list(dict.fromkeys(values))
    assert ids.decode(codes).tolist() == values
    assert ids.encode(values).tolist() == codes.tolist()
    assert [int(ids.encode([value])[0]) for value in values] == codes.tolist()  # one by one, too
    assert ids.decode(ids.order()).tolist() == sorted(set(values))


@given(COLUMN)
def test_arrays_hold_the_whole_catalogue(values: list) -> None:
    ids, codes = Ids.from_values(values)
    for full in (False, True):
        back = Ids.from_arrays(ids.arrays(), full=full)
        assert back == ids
        assert back.id_type == ids.id_type or not values
        assert back.encode(values).tolist() == codes.tolist()


PIECES = st.lists(st.lists(INT64, max_size=8), max_size=8) | st.lists(st.lists(TEXT, max_size=8), max_size=8)


@given(PIECES, st.sampled_from((1, ids_module._SMALL)))
def test_adding_numbers_new_ids_and_changes_no_number(pieces: list[list], small: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ids_module, "_SMALL", small)
        _add_and_check(pieces)


def _add_and_check(pieces: list[list]) -> None:
    id_type = "str" if any(isinstance(v, str) for piece in pieces for v in piece) else "int"
    ids, known, states = Ids((), id_type), {}, []
    for piece in pieces:
        before = ids
        ids, codes = ids.add(piece)
        for value in piece:
            known.setdefault(value, len(known))
        assert codes.tolist() == [known[value] for value in piece]
        states.append((before, len(before)))
    assert ids.values.tolist() == list(known)
    assert ids == Ids(list(known), id_type)
    assert Ids.from_arrays(ids.arrays(), full=True) == ids
    for state, length in states:  # earlier catalogues stand as they were
        assert state.values.tolist() == list(known)[:length]
        assert state.encode(list(known), on_unknown="mark").tolist() == [
            n if n < length else -1 for n in range(len(known))
        ]


def test_one_by_one_additions_keep_few_segments_and_share_the_large_one() -> None:
    base = Ids([f"item {i}" for i in range(5000)])
    ids = base
    for i in range(1500):
        ids, codes = ids.add([f"new {i}"])
        assert codes.tolist() == [5000 + i]
    assert len(ids._segments) < 5
    assert ids._segments[0] is base._segments[0]
    assert ids.encode([f"new {i}" for i in range(1500)]).tolist() == list(range(5000, 6500))
    assert len(base) == 5000
    assert ids.add(["new 7", "item 3"]) == (ids, pytest.approx([5007, 3]))


@pytest.mark.parametrize(
    ("train", "asked", "codes"),
    [
        ([5, 1, 7], ["1", " 1 ", "1.0", "+1", "01", "promo-1", "1.5", "0x1", "", "99999999999999999999"], [1] * 5),
        ([5, 1, 7], np.array([1.0, 7.0, 1.5, np.inf, 1e300]), [1, 2]),
        ([5, 1, 7], np.array([7, 2**63 + 1], np.uint64), [2]),
        ([5, 1, 7], [1, "7", 1.0, "x"], [1, 2, 1]),
        ([5, 1, 7], [7, 2**70], [2]),
        ([-1, 2**63 - 1], ["-1", str(2**63 - 1), str(2**63)], [0, 1]),
        (["5", "1", "07"], [1, 5, 7], [1, 0]),
        (["5", "1", "07"], [1.0, 5.0], [1, 0]),
        (["5", "1", "07"], ["1", "07", "7", "1.0"], [1, 2]),
        (["5", str(2**64)], [2**64, 5], [1, 0]),
    ],
)
def test_values_are_read_in_the_type_of_the_catalogue(train: list, asked: object, codes: list[int]) -> None:
    ids = Ids(train)
    found = ids.encode(asked, on_unknown="mark").tolist()
    assert found == codes + [-1] * (len(found) - len(codes))
    assert len(found) == len(asked)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "id_type", "expected"),
    [
        ([1, "1", 2, "2.0"], None, [1, 2]),
        ([1, "01"], None, ["1", "01"]),
        ([1, "x"], None, ["1", "x"]),
        (["1", "2"], None, ["1", "2"]),
        (["1", "02"], "int", [1, 2]),
        ([3, 1], "str", ["3", "1"]),
        ([1.0, 3.0], None, [1, 3]),
        ([1.0, 3.0], "str", ["1", "3"]),
        ([], "str", []),
    ],
)
def test_a_catalogue_has_one_type(values: list, id_type: str | None, expected: list) -> None:
    ids, _ = Ids.from_values(values, id_type)
    assert ids.values.tolist() == expected
    if expected:
        assert ids.id_type == ("int" if isinstance(expected[0], int) else "str")
    if id_type is not None:
        assert ids.id_type == id_type


def test_unknown_ids_are_named_and_may_be_marked() -> None:
    ids = Ids([5, 9, 7])
    assert ids.encode([9, 8, 5], on_unknown="mark").tolist() == [1, -1, 0]
    with pytest.raises(UnknownIdError, match=r"^users holds 2 unknown ids: 8, 4$"):
        ids.encode([8, 7, 4], name="users")
    with pytest.raises(UnknownIdError, match=r"unknown ids: 'x', '8' \('x' is no integer, as the known ids are\)"):
        ids.encode(["x", "7", "8"])
    with pytest.raises(ArgumentError, match="on_unknown must be one of 'raise', 'mark'"):
        ids.encode([5], on_unknown="drop")
    assert Ids().encode([1, "a"], on_unknown="mark").tolist() == [-1, -1]


@pytest.mark.parametrize(
    "column",
    [
        np.array([3, 1, 3], np.int8),
        np.array([3, 1, 3], np.uint64),
        np.array([3.0, 1.0, 3.0]),
        np.ma.masked_array([3, 1, 3], [False] * 3),
        pd.Series([3, 1, 3]),
        pd.Series([3, 1, 3], dtype="category"),
        pl.Series([3, 1, 3]),
        pa.array([3, 1, 3]),
        pa.chunked_array([[3], [1, 3]]),
        (3, 1, 3),
        iter([3, 1, 3]),
        (value for value in [3, "1", 3]),
    ],
)
def test_any_column_of_integers(column: object) -> None:
    ids, codes = Ids.from_values(column)
    assert ids == Ids([3, 1])
    assert codes.tolist() == [0, 1, 0]


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
        pa.array(["x", "b", "a", "b"]).slice(1),
        pa.chunked_array([pa.array(["b"]).dictionary_encode(), pa.array(["a", "b"]).dictionary_encode()]),
    ],
)
def test_any_column_of_strings(column: object) -> None:
    ids, codes = Ids.from_values(column)
    assert ids == Ids(["b", "a"])
    assert codes.tolist() == [0, 1, 0]
    assert Ids.from_arrays(ids.arrays(), full=True) == ids


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1, None], r"users must have no missing values \(row 1 is empty\)"),
        ([1.0, float("nan")], r"no missing values \(row 1 is empty\)"),
        ([1, "a", None], r"no missing values \(row 2 is empty\)"),
        (np.ma.masked_array([1, 2], [False, True]), r"no missing values \(row 1 is masked\)"),
        ([1.5], "must hold integers.*row 0 is 1.5"),
        ([1, "a", 2.5], "2.5"),
        ([1, "a", float("inf")], "inf"),
        ([float(2**60)], "must hold integers"),
        ([2**63], "must fit into 64 signed bits"),
        (np.array([2**63], np.uint64), "must fit into 64 signed bits"),
        (["a", 2**70], "must fit into 64 signed bits"),
        ([True, False], "must hold integers or strings"),
        ([1, True, "a"], "row 1 is True"),
        ([b"a"], "must hold integers or strings"),
        ([datetime.date(2020, 1, 1)], "must hold integers or strings"),
        ([[1], [2]], r"must hold integers or strings \(row 0 is \[1\]\)"),
        (["\ud800"], "not valid Unicode"),
        ("abc", "single value 'abc'"),
        (7, "must be a list of ids"),
        (np.ones((2, 2), int), r"flat list of ids \(got shape \(2, 2\)\)"),
    ],
)
def test_what_is_no_id_is_refused(values: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Ids.from_values(values, name="users")
    with pytest.raises(DataError, match=message):
        Ids([1]).add(values, name="users")


def test_forced_integers_name_the_row_that_is_none() -> None:
    with pytest.raises(
        DataError, match=r"values must hold integers, as id_type='int' \(given, or the model's\) says \(row 1 is 'x'\)"
    ):
        Ids.from_values(["1", "x"], "int")
    with pytest.raises(DataError, match=r"\(row 0 is 'x'\)"):
        Ids([1]).add(["x"])
    with pytest.raises(ArgumentError, match="id_type must be one of"):
        Ids.from_values([1], "float")


def test_a_catalogue_holds_an_id_once() -> None:
    for values in ([1, 1], [3, 1, 3], ["a", "a"], [1, "1"]):
        with pytest.raises(ArgumentError, match="an id must occur once"):
            Ids(values)


@pytest.mark.parametrize("values", [[5, 3, 9], [1, 2, 3], ["b", "a", "ü"]])
def test_numbers_are_of_one_type_however_they_are_found(values: list) -> None:
    ids = Ids(values)
    for asked in (
        values,
        np.array(values),
        values[::-1],
        values * 100,
        [*values, np.int64(7) if values[0] == 5 else "7"],
    ):
        codes = ids.encode(asked, on_unknown="mark")
        assert codes.dtype == np.int64 and codes.tolist()[: len(values)] == [
            values.index(value) if value in values else -1 for value in list(asked)[: len(values)]
        ]
    assert ids.encode(values).dtype == np.int64 and ids.add([*values, values[0]])[1].dtype == np.int64
    assert ids.decode(np.array([2, 0])).tolist() == [values[2], values[0]]
    assert ids.decode(np.array([2, 0], np.int32)).tolist() == [values[2], values[0]]


def test_decode_refuses_numbers_outside_and_keeps_the_shape() -> None:
    ids = Ids(["y", "x", "z"])
    assert ids.decode([[2, 0], [1, 1]]).tolist() == [["z", "y"], ["x", "x"]]
    assert ids.decode([]).shape == (0,)
    for wrong in ([3], [-1], [0.0]):
        with pytest.raises(ArgumentError, match=r"indices must be integers in 0 … 2"):
            ids.decode(wrong)


def test_take_equality_and_words() -> None:
    assert Ids([4, 6, 2]).take(np.array([2, 0])) == Ids([2, 4])
    assert Ids(["x", "y"]).take(np.array([1])) == Ids(["y"])
    assert Ids([2, 1]) != Ids([1, 2])
    assert Ids([1]) != Ids(["1"])
    assert Ids([1]) != [1]
    assert repr(Ids([2, 1, 5, 4])) == "Ids(4: 2, 1, 5, …)"
    assert repr(Ids()) == "Ids(0: )"


def test_texts_with_equal_hashes_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """With P = 1 the hash is the sum of the bytes, so that all orders of the same letters collide."""
    monkeypatch.setattr(lookup, "_BASE", 1)
    lookup._powers.cache_clear()
    try:
        words = ["abc", "acb", "bac", "cab", "d", "ab", "ba"]
        ids = Ids(words)
        wanted = ["cba", *reversed(words), "bca", "e"]
        assert len(np.unique(ids.arrays()["hashes"])) < len(words)
        expected = [-1, *reversed(range(len(words))), -1, -1]
        assert ids.encode(wanted, on_unknown="mark").tolist() == expected
        assert [ids.find(word) for word in wanted] == expected
    finally:
        lookup._powers.cache_clear()


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=40), max_size=20, unique=True))
def test_hashes_do_not_depend_on_blocks(words: list[str]) -> None:
    whole = Texts(pa.array(words, pa.large_string())).search
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lookup, "_BLOCK", 16)
        parts = Texts(pa.array(words, pa.large_string())).search
    assert whole[0].tolist() == parts[0].tolist()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"offsets": np.array([0, 9, 3])}, "must rise from 0"),
        ({"offsets": np.array([0, 2, 1, 3])}, "must rise from 0"),
        ({"offsets": np.array([0, 1, 3], np.int32)}, "must be a contiguous array"),
        ({"offsets": np.array([], np.int64)}, "must rise from 0|contiguous"),
        ({"order": np.array([0, 2], np.int32)}, r"must lie in 0 … 1"),
        ({"order": np.array([0, -1], np.int32)}, r"must lie in 0 … 1"),
        ({"order": np.array([0], np.int32)}, "must be a contiguous array"),
        ({"hashes": np.array([1, 2])}, "must be a contiguous array"),
    ],
)
def test_arrays_that_lead_outside_are_always_refused(change: dict[str, np.ndarray], message: str) -> None:
    arrays = Ids(["a", "bc"]).arrays()
    with pytest.raises(DataError, match=message):
        Ids.from_arrays(arrays | change)
    with pytest.raises(DataError, match="needs the arrays utf8"):
        Ids.from_arrays({k: v for k, v in arrays.items() if k != "utf8"})
    with pytest.raises(DataError, match="needs the array ascending"):
        Ids.from_arrays({k: v for k, v in Ids([2, 1]).arrays().items() if k != "ascending"})
    with pytest.raises(DataError, match=r"must lie in 0 … 1 \(got 0 … 7\)"):
        Ids.from_arrays(Ids([2, 1]).arrays() | {"order": np.array([0, 7], np.int32)})


@pytest.mark.parametrize(
    ("ids", "change"),
    [
        (["a", "bc"], {"utf8": np.array([255, 254, 253], np.uint8)}),
        (["a", "bc"], {"utf8": np.frombuffer(b"xbc", np.uint8)}),
        (["a", "bc"], {"hashes": np.zeros(2, np.uint64)}),
        (["a", "bc"], {"order": np.array([1, 1], np.int32)}),
        ([1, 2], {"ints": np.array([2, 1])}),
        ([2, 1], {"ints": np.array([2, 2])}),
        ([2, 1], {"order": np.array([0, 1], np.int32)}),
        ([2, 1], {"ascending": np.array([1, 3])}),
    ],
)
def test_damaged_arrays_are_refused_by_a_full_check(ids: list, change: dict[str, np.ndarray]) -> None:
    with pytest.raises(DataError, match=r"of ids|ids must|ids are"):
        Ids.from_arrays(Ids(ids).arrays() | change, full=True)


def test_mapped_arrays_are_not_copied(tmp_path: object) -> None:
    for ids in (Ids([5, 3, 9]), Ids(["b", "a", "cc"])):
        mapped = {}
        for name, array in ids.arrays().items():
            np.save(f"{tmp_path}/{name}.npy", array)
            mapped[name] = np.load(f"{tmp_path}/{name}.npy", mmap_mode="r")
        back = Ids.from_arrays(mapped)
        assert back == ids
        assert back.encode(ids).tolist() == [0, 1, 2]
        assert all(np.shares_memory(array, mapped[name]) for name, array in back.arrays().items())
        more, codes = back.add(ids.values.tolist())
        assert more is back
        assert codes.tolist() == [0, 1, 2]


@given(st.lists(st.lists(TEXT, max_size=8), min_size=1, max_size=4))
def test_arrivals_are_numbered_in_order_whatever_the_chunks(chunks: list[list[str]]) -> None:
    column = Arrivals(pa.string())
    for chunk in chunks:
        column.add(pa.array(chunk, pa.string()).dictionary_encode())
    words, codes = column.finish()
    flat = [text for chunk in chunks for text in chunk]
    assert words.to_pylist() == list(dict.fromkeys(flat))
    assert [words[int(code)].as_py() for code in np.concatenate(codes)] == flat


def test_bytes_that_are_no_text_are_an_error_of_the_project() -> None:
    stored = Ids.from_values(["a", "b"])[0].arrays()
    damaged = {**stored, "utf8": np.full_like(stored["utf8"], 128)}
    with pytest.raises(DataError, match="UTF-8"):
        Ids.from_arrays(damaged).decode(np.arange(2))
