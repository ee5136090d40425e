"""Seen, allow and deny lists as one exclusion."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hashlgn.errors import ArgumentError
from hashlgn.scoring.exclusion import Exclusion

lists = st.lists(st.lists(st.integers(0, 9), max_size=12), max_size=6)


@given(lists, st.none() | st.lists(st.integers(0, 9)), st.none() | st.lists(st.integers(0, 9)))
def test_exclusion_says_what_its_lists_say(
    seen: list[list[int]], allow: list[int] | None, deny: list[int] | None
) -> None:
    indptr = np.cumsum([0, *map(len, seen)])
    exclude = Exclusion.build(
        10, seen=(indptr, np.array([item for row in seen for item in row], np.int64)), allow=allow, deny=deny
    )

    def out(row: int, item: int) -> bool:
        return item in seen[row] or (allow is not None and item not in allow) or (deny is not None and item in deny)

    want = np.array([[out(row, item) for item in range(10)] for row in range(len(seen))], bool).reshape(len(seen), 10)
    np.testing.assert_array_equal(exclude.masks(len(seen)), want)
    rows, items = np.meshgrid(np.arange(len(seen)), np.arange(10), indexing="ij")
    np.testing.assert_array_equal(exclude.excluded(rows, items), want)
    order = np.arange(len(seen))[::-1]
    np.testing.assert_array_equal(exclude.take(order).masks(len(seen)), want[order])
    kept = np.array([1, 4, 5, 9])
    own = np.array([[item in row for item in kept.tolist()] for row in seen], bool).reshape(len(seen), 4)
    np.testing.assert_array_equal(exclude.within(kept).masks(len(seen)), own)


def test_exclusion_refuses_what_is_no_item() -> None:
    for lists, message in (
        ({"allow": [10]}, "allow must hold item numbers in 0 … 9"),
        ({"deny": [-1]}, "deny must hold item numbers"),
        ({"deny": [0.5]}, "deny must be a flat list"),
        ({"seen": (np.array([0, 2]), np.array([1]))}, "seen must be"),
        ({"seen": (np.array([0, 1]), np.array([11]))}, "seen must hold item numbers"),
    ):
        with pytest.raises(ArgumentError, match=message):
            Exclusion.build(10, **lists)


def test_by_hand() -> None:
    # Row 0 has seen 3 and 1 (out of order), row 1 nothing, row 2 item 0; only 0 … 3 are allowed, 2 is denied as well.
    exclude = Exclusion.build(
        5, seen=(np.array([0, 2, 2, 3]), np.array([3, 1, 0])), allow=[3, 1, 0, 2, 2], deny=np.array([2])
    )
    assert exclude.indices is not None and exclude.indices.tolist() == [1, 3, 0]
    assert exclude.counts(3).tolist() == [2, 0, 1]
    want = [[0, 1, 1, 1, 1], [0, 0, 1, 0, 1], [1, 0, 1, 0, 1]]
    assert exclude.masks(3).astype(int).tolist() == want
    assert exclude.take(np.array([2, 0, 2])).masks(3).astype(int).tolist() == [want[2], want[0], want[2]]
    assert exclude.within(np.array([0, 1, 3])).masks(3).astype(int).tolist() == [[0, 1, 1], [0, 0, 0], [1, 0, 0]]


def test_an_empty_allow_list_allows_nothing_and_an_empty_deny_list_denies_nothing() -> None:
    assert Exclusion.build(3, allow=[]).masks(2).all()
    assert not Exclusion.build(3, deny=[]).masks(2).any()
    assert not Exclusion.build(3).masks(2).any()
    assert Exclusion.build(0, seen=(np.array([0, 0]), np.array([]))).masks(1).shape == (1, 0)


@pytest.mark.parametrize("indptr", [[], [1, 2], [0, 2, 1, 2], [0, 1], [[0, 2]]])
def test_seen_that_is_no_compressed_row_form(indptr: list[int]) -> None:
    with pytest.raises(ArgumentError, match=r"seen must be .indptr, indices. in compressed-row form"):
        Exclusion.build(4, seen=(np.array(indptr, np.int64), np.array([0, 1])))


def test_exclusions_made_by_hand_are_checked() -> None:
    indptr, one = np.array([0, 1]), np.array([1])
    for fields, message in (
        ({"indptr": indptr}, "must come together"),
        ({"indices": one}, "must come together"),
        ({"indptr": indptr, "indices": np.array([-1])}, r"item numbers in 0 … 3 .got -1"),
        ({"indptr": indptr, "indices": np.array([4])}, r"item numbers in 0 … 3 .got 4"),
        ({"indptr": np.array([0, 2]), "indices": one}, "compressed-row form"),
        ({"banned": np.zeros(3, bool)}, "banned must be 4 bool"),
        ({"banned": np.zeros(4, np.uint8)}, "banned must be 4 bool"),
    ):
        with pytest.raises(ArgumentError, match=message):
            Exclusion(4, **fields)
    with pytest.raises(ArgumentError, match="deny must not be masked"):
        Exclusion.build(4, deny=np.ma.masked_array([1, 2], mask=[0, 1]))


@pytest.mark.parametrize("lists", [{"deny": 5}, {"allow": None, "deny": 1.5}, {"seen": 5}, {"seen": ([0, 1.5], [1])}])
def test_what_is_no_list_is_named(lists: dict[str, object]) -> None:
    with pytest.raises(ArgumentError, match="must"):
        Exclusion.build(5, **lists)
