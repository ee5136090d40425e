"""Stored histories: rows that change in parts are those of a table built at once, and older states stay as they are."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hashlgn.errors import ArgumentError
from hashlgn.inference import stored as module
from hashlgn.inference.stored import Part, Stored

ITEMS = 6
rows = st.lists(st.integers(0, ITEMS - 1), max_size=ITEMS, unique=True).map(sorted)


def part_of(table: dict[int, list[int]], named: bool) -> Part:
    users = np.array(sorted(table), np.int64)
    lists = [table[user] for user in users.tolist()]
    indices = np.array([item for row in lists for item in row], np.int32)
    strengths = np.array([10.0 * user + item + 1 for user in users for item in table[user]], np.float32)
    newer = np.full(len(indices), named) if named else None
    indptr = np.cumsum([0, *map(len, lists)], dtype=np.int64)
    return Part(indptr, indices, strengths, strengths.astype(np.int64), newer, users if named else None)


def check(stored: Stored, table: dict[int, list[int]], changed: set[int]) -> None:
    users = np.array([*table, *table][::-1], np.int64)
    for compiled in (module._compiled, None):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "_compiled", compiled)
            bounds, items, strengths = stored.rows(users)
            for item in range(ITEMS):
                assert stored.who(item).tolist() == [user for user in sorted(table) if item in table[user]]
            asked = np.repeat(users, ITEMS), np.tile(np.arange(ITEMS), len(users))
            told = [10.0 * user + item + 1 if item in table[user] else 0 for user, item in zip(*asked, strict=True)]
            assert stored.strengths(*asked).tolist() == told
        found = [items[a:b].tolist() for a, b in pairwise(bounds.tolist())]
        assert found == [table[user] for user in users.tolist()] and items.dtype == np.int64
        assert strengths is not None
        assert strengths.tolist() == [10.0 * user + item + 1 for user in users.tolist() for item in table[user]]
    flat = stored.flat
    assert flat.indices.tolist() == [item for user in sorted(table) for item in table[user]]
    assert flat.times is not None and flat.times.tolist() == flat.strengths.tolist()  # type: ignore[union-attr]
    assert stored.newer.tolist() == [user in changed for user in sorted(table) for _ in table[user]]
    assert stored.latest >= max([0, *flat.times.tolist()])
    sizes = [len(part.indices) + len(part) for part in stored.parts]
    assert all(2 * small <= large for large, small in pairwise(sizes))


@settings(max_examples=60)
@given(
    st.lists(rows, max_size=12),
    st.lists(st.dictionaries(st.integers(0, 15), rows, min_size=1), max_size=8),
    st.booleans(),
    st.sampled_from((0, module._SMALL)),
)
def test_changes_equal_a_table_built_at_once(
    first: list[list[int]], changes: list[dict[int, list[int]]], compiled: bool, small: int
) -> None:
    table, changed = dict(enumerate(first)), set[int]()
    stored = Stored((part_of(table, False),), len(table))
    states = [(stored, dict(table), set(changed))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_compiled", module._compiled if compiled else None)
        patch.setattr(module, "_SMALL", small)
        for change in changes:
            table |= {user: [] for user in range(len(table), max(change) + 1)} | change
            changed |= set(change)
            stored = stored.changed(part_of(change, True), len(table))
            states.append((stored, dict(table), set(changed)))
        for state in states:
            check(*state)


@settings(max_examples=60)
@given(
    st.dictionaries(st.integers(0, 9), rows, min_size=1),
    st.sets(st.tuples(st.integers(0, 9), st.integers(0, ITEMS - 1)), min_size=1),
    st.booleans(),
    st.integers(0, 99),
)
def test_new_interactions_are_merged_into_rows(
    table: dict[int, list[int]], pairs: set[tuple[int, int]], given_: bool, seed: int
) -> None:
    first, second = {user: [0] for user in range(10)}, table
    stored = Stored((part_of(first, False),), 10).changed(part_of(second, True), 10)
    held = first | second
    fresh = [pair for pair in pairs if pair[1] not in held[pair[0]]]
    np.random.default_rng(seed).shuffle(fresh)
    users, items = np.array(fresh, np.int64).reshape(-1, 2).T.copy()
    strengths = 100.0 * users.astype(np.float32) if given_ else None
    times = 7 * items if given_ else None
    for compiled in (module._compiled, None):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "_compiled", compiled)
            part = stored.extended(users, items, strengths, times)
        assert part.users is not None and part.users.tolist() == sorted({*users.tolist()})
        assert part.strengths is not None and part.times is not None and part.newer is not None
        for row, user in enumerate(part.users.tolist()):
            mine = [item for one, item in fresh if one == user]
            told = {item: (10.0 * user + item + 1, 10 * user + item + 1, user in second) for item in held[user]}
            told |= {item: ((100.0 * user, 7 * item) if given_ else (1.0, 0)) + (True,) for item in mine}
            here = slice(int(part.indptr[row]), int(part.indptr[row + 1]))
            columns = part.strengths[here].tolist(), part.times[here].tolist(), part.newer[here].tolist()
            assert part.indices[here].tolist() == sorted(told)
            assert [*zip(*columns, strict=True)] == [told[item] for item in sorted(told)]


@pytest.mark.parametrize("apart", [1, 10_000], ids=["small catalogue", "large catalogue"])
def test_who_has_an_item_of_many_interactions(apart: int) -> None:
    table = np.random.default_rng(0).random((700, 100)) < 0.8
    stored = Stored.of(np.append(0, table.sum(axis=1).cumsum()), (apart * np.nonzero(table)[1]).astype(np.int32))
    table[5:9] = False
    stored = stored.changed(Part(np.zeros(5, np.int64), np.empty(0, np.int32), users=np.arange(5, 9)), 700)
    for item in (-1, *range(0, 100, 9), 100):
        expected = np.flatnonzero(table[:, item]) if 0 <= item < 100 else np.empty(0)
        np.testing.assert_array_equal(stored.who(apart * item), expected)
        assert apart == 1 or not len(stored.who(apart * item + 1))


def test_a_user_who_is_none_is_refused() -> None:
    stored = Stored.of(np.array([0, 1]), np.array([2], np.int32)).changed(None, 3)
    assert stored.rows(np.array([2, 0]))[0].tolist() == [0, 0, 1]
    if module._compiled is not None:
        for user in (-1, 3):
            with pytest.raises(ValueError, match="numbers of users"):
                stored.rows(np.array([user]))


@pytest.mark.skipif(module._compiled is None, reason="the kernel was not compiled when HashLGN was installed")
def test_the_compiled_forms_refuse_what_does_not_fit() -> None:
    kernel, none = module._compiled, np.empty(0, np.int64)
    one, two = np.array([0], np.int64), np.array([0, 1])
    items = np.array([3], np.int32)
    held = kernel.Rows(one, two, items)
    for segments in ([None], [held, None], [None, held]):
        for call in (
            lambda segments=segments: kernel.gather(segments, none, 5),
            lambda segments=segments: kernel.who(segments, 3),
            lambda segments=segments: kernel.strengths(segments, none, none),
            lambda segments=segments: kernel.columns(segments, none),
            lambda segments=segments: kernel.columns(segments, None),
            lambda segments=segments: kernel.extended(segments, none, none, None, None),
        ):
            with pytest.raises(ValueError, match="segments must not be None"):
                call()
    for indptr in (np.array([1, 2]), np.array([0, 2]), np.array([0])):
        with pytest.raises(ValueError, match="indptr must begin with 0 and end with the number of indices"):
            kernel.Rows(None, indptr, items)
    for item in (-1, 2**31):
        with pytest.raises(ValueError, match="items must be numbers of items"):
            kernel.extended([held], one, np.array([item]), None, None)
    with pytest.raises(ValueError, match="one number per user"):
        kernel.extended([held], one, none, None, None)
    with pytest.raises(ValueError, match="must name their users"):
        kernel.columns([kernel.Rows(None, two, items)], None)
    with pytest.raises(ValueError, match="all segments must have strengths, or none"):
        kernel.gather([held, kernel.Rows(one, two, items, np.ones(1, np.float32))], one, 1)


def test_columns_that_do_not_fit_are_refused() -> None:
    indptr, indices = np.array([0, 1, 2]), np.array([1, 0], np.int32)
    for stored, message in (
        (Stored.of(indptr.astype(np.int32), indices), "seen.indptr must be an array of int64"),
        (Stored.of(indptr, indices, np.ones(3, np.float32)), r"strengths must have shape \(2,\)"),
        (Stored.of(indptr, indices, np.array([1, np.nan], np.float32)), "strengths must be finite and positive"),
        (Stored.of(indptr, indices, times=np.ones(2)), "times must be an array of int64"),
        (Stored.of(indptr[::-1].copy(), indices), "seen.indptr must ascend"),
        (Stored.of(indptr, indices + 1), "seen.indices must lie in"),
        (Stored.of(np.array([0, 2, 2]), indices), "strictly ascending"),
        (Stored.of(indptr[:2], indices[:1]), "seen.indptr must have shape"),
    ):
        with pytest.raises(ArgumentError, match=message):
            stored.check(2, 2, True)
