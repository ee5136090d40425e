"""Interactions: pairs in any order give the same rows; duplicates, cores and re-numbering against plain Python."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hashlgn.data import Dropped, Ids, Interactions, random_ratio
from hashlgn.data.strengths import decayed
from hashlgn.errors import ArgumentError, DataError

ROWS = st.lists(
    st.tuples(st.sampled_from(["a", "b", "c", "d", "1"]), st.integers(-3, 3), st.integers(0, 5), st.integers(-2, 2)),
    max_size=40,
)


def columns(rows: list[tuple], n: int) -> list[list]:
    return [[row[i] for row in rows] for i in range(n)]


def as_dict(data: Interactions) -> dict[tuple, tuple]:
    keys = zip(data.user_ids.decode(data.rows).tolist(), data.item_ids.decode(data.indices).tolist(), strict=True)
    return dict(zip(keys, zip(data.ratings.tolist(), data.times.tolist(), strict=True), strict=True))


@given(ROWS, st.sampled_from(["first", "last"]))
def test_each_pair_is_stood_for_by_one_row(rows: list[tuple], keep: str) -> None:
    expected: dict[tuple, tuple] = {}
    for user, item, rating, time in rows:
        held = expected.get((user, item))
        if held is None or (time >= held[1] if keep == "last" else time < held[1]):
            expected[user, item] = (rating, time)
    data = Interactions.from_pairs(*columns(rows, 4), duplicates=keep)
    assert as_dict(data) == expected
    assert len(data) == len(expected)


@given(ROWS, st.sampled_from(["first", "last"]))
def test_without_times_the_first_or_last_row_stands(rows: list[tuple], keep: str) -> None:
    data = Interactions.from_pairs(*columns(rows, 3), duplicates=keep)
    expected: dict[tuple, float] = {}
    for user, item, rating, _ in rows if keep == "last" else reversed(rows):
        expected[user, item] = rating
    assert {key: value[0] for key, value in as_dict(replace(data, times=np.zeros(len(data), np.int64))).items()} == (
        expected
    )


@given(ROWS, st.randoms())
def test_the_order_of_rows_does_not_matter(rows: list[tuple], random: object) -> None:
    shuffled = list(rows)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    first, second = (Interactions.from_pairs(*columns(r, 2)) for r in (rows, shuffled))
    assert first.fingerprint() == second.fingerprint()
    same = all(a == b for a, b in ((first.user_ids, second.user_ids), (first.item_ids, second.item_ids)))
    assert (first.fingerprint(numbered=True) == second.fingerprint(numbered=True)) == same
    dense = np.zeros((first.n_users, first.n_items), np.float32)
    dense[first.user_ids.encode([r[0] for r in rows]), first.item_ids.encode([r[1] for r in rows])] = 1
    assert (first.matrix.toarray() == dense).all()
    assert [first.row(u).tolist() for u in range(first.n_users)] == [np.flatnonzero(row).tolist() for row in dense]


def test_fingerprint_sees_a_changed_pair_and_a_changed_kind_of_id() -> None:
    base = Interactions.from_pairs([1, 2], [1, 2]).fingerprint()
    assert Interactions.from_pairs([1, 2], [2, 1]).fingerprint() != base
    assert Interactions.from_pairs(["1", "2"], [1, 2]).fingerprint() != base
    assert Interactions.from_pairs([1, 3], [1, 2]).fingerprint() != base


@given(
    st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), min_size=1, max_size=40),
    st.integers(1, 4),
    st.integers(1, 4),
)
def test_k_core_is_the_largest_part_with_enough_on_both_sides(
    rows: list[tuple[int, int]], user_k: int, item_k: int
) -> None:
    pairs = set(rows)
    while True:
        users = {u for u, _ in pairs if sum(v == u for v, _ in pairs) >= user_k}
        items = {i for _, i in pairs if sum(j == i for _, j in pairs) >= item_k}
        smaller = {(u, i) for u, i in pairs if u in users and i in items}
        if smaller == pairs:
            break
        pairs = smaller
    data = Interactions.from_pairs(*columns(rows, 2))
    if not pairs:
        with pytest.raises(DataError, match=f"no interactions are left of {len(data)} in the core of user_k={user_k}"):
            data.k_core(user_k, item_k)
        return
    core = data.k_core(user_k, item_k)
    found = zip(core.user_ids.decode(core.rows).tolist(), core.item_ids.decode(core.indices).tolist(), strict=True)
    assert set(found) == pairs
    assert (core.n_users, core.n_items) == (len({u for u, _ in pairs}), len({i for _, i in pairs}))


def test_k_core_keeps_what_belongs_to_the_pairs() -> None:
    data = Interactions.from_pairs([1, 1, 2, 2, 3], [7, 8, 7, 8, 9], [1, 2, 3, 4, 5], [5, 6, 7, 8, 9])
    data = replace(data, titles=["seven", "eight", "nine"], genres=[("A",), (), ("B",)])
    core = data.k_core(2, 2)
    assert (core.n_users, core.n_items, len(core)) == (2, 2, 4)
    assert core.titles == ["seven", "eight"]
    assert core.genres == [("A",), ()]
    assert core.ratings.tolist() == [1, 2, 3, 4]
    assert core.times.tolist() == [5, 6, 7, 8]
    with pytest.raises(ArgumentError, match=r"item_k must be a positive integer \(got 0\)"):
        data.k_core(1, 0)


def test_encode_like_takes_the_numbers_of_train_and_counts_the_unknown() -> None:
    train = Interactions.from_pairs([10, 20], ["x", "y"])
    train = replace(train, titles=["an x", "a y"])
    test = Interactions.from_pairs([30, 20, 20, 10, 30], ["x", "x", "z", "y", "z"], times=[1, 2, 3, 4, 5])
    encoded, dropped = test.encode_like(train)
    assert encoded.user_ids == train.user_ids
    assert encoded.item_ids == train.item_ids
    assert encoded.matrix.toarray().tolist() == [[0, 1], [1, 0]]
    assert encoded.times.tolist() == [4, 2]
    assert encoded.titles == ["an x", "a y"]
    assert dropped == Dropped(users=1, items=1, interactions=3)


def test_select_keeps_the_catalogues() -> None:
    data = Interactions.from_pairs([1, 1, 2], [1, 2, 2], [3, 4, 5])
    part = data.select(data.ratings > 3)
    assert part.n_users == 2
    assert part.matrix.toarray().tolist() == [[0, 1], [0, 1]]
    assert part.without_empty().n_items == 1
    with pytest.raises(ArgumentError, match=r"mask must be \(3,\) bool"):
        data.select(np.array([0, 1, 2]))


def test_stats_by_hand() -> None:
    stats = Interactions.from_pairs([1, 1, 1, 2], ["a", "b", "c", "a"]).stats()
    assert stats["users"] == 2
    assert stats["density"] == pytest.approx(4 / 6)
    assert stats["per_user"] == {"mean": 2.0, "median": 2.0, "min": 1, "max": 3}
    assert stats["per_item"]["max"] == 2
    assert stats["popularity_gini"] == pytest.approx((-2 * 1 + 0 * 1 + 2 * 2) / (3 * 4))
    even = Interactions.from_pairs(np.repeat(np.arange(5), 4), np.tile(np.arange(4), 5))
    assert even.stats()["popularity_gini"] == 0


def test_no_interactions_and_one_of_everything() -> None:
    nothing = Interactions.from_pairs([], [])
    assert (len(nothing), nothing.n_users, nothing.n_items) == (0, 0, 0)
    assert nothing.stats()["density"] == 0
    one = Interactions.from_pairs(["u"], [-5])
    assert one.matrix.toarray().tolist() == [[1]]
    assert one.stats()["popularity_gini"] == 0
    assert repr(one) == "Interactions(1 user, 1 item, 1 interaction)"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1, 2], [1]), r"one length \(got 2 and 1\)"),
        (([1, None], [1, 2]), r"users must have no missing values \(row 1 is empty\)"),
        (([1, 2], [1, 2], [1]), r"ratings must have one value per row, shape \(2,\)"),
        (([1, 2], [1, 2], [1, float("nan")]), r"ratings must be finite \(row 1 is nan\)"),
        (([1, 2], [1, 2], [1, float("inf")]), r"ratings must be finite \(row 1 is inf\)"),
        (([1, 2], [1, 2], [1, 1e300]), "ratings must be finite"),
        (([1, 2], [1, 2], ["a", "b"]), "ratings must be numbers"),
        (([1, 2], [1, 2], None, [1.5, 2.5]), "times must be integers"),
        (([1, 2], [1, 2], None, [1]), "times must have one value per row"),
        (([1, 2], [1, 2], None, np.array([1, 2**63], np.uint64)), "times must fit into 64 signed bits"),
    ],
)
def test_bad_columns(arguments: tuple, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Interactions.from_pairs(*arguments)


def test_bad_choice_of_duplicates() -> None:
    with pytest.raises(ArgumentError, match="duplicates must be one of 'first', 'last' \\(got 'best'\\)"):
        Interactions.from_pairs([1], [1], duplicates="best")


@pytest.mark.parametrize(
    ("indptr", "indices", "more", "message"),
    [
        ([0, 1, 2], [0, 2], {}, "indices must lie in 0 … 1"),
        ([0, 1, 2], [0, -1], {}, "indices must lie in 0 … 1"),
        ([0, 2, 2], [1, 0], {}, "ascend within each row"),
        ([0, 2, 2], [1, 1], {}, "ascend within each row"),
        ([0, 2, 1], [0, 1], {}, "indptr must rise from 0 to 2"),
        ([0, 2], [0, 1], {}, "indptr must rise from 0 to 2 in 3 steps"),
        ([0, 1, 2], [0, 0], {"titles": ["a"]}, "titles must have length 2"),
        ([0, 1, 2], [0, 0], {"times": np.zeros(3, np.int64)}, "times must have length 2"),
    ],
)
def test_broken_rows_are_refused(indptr: list[int], indices: list[int], more: dict, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        Interactions(Ids.range(2), Ids.range(2), np.array(indptr), np.array(indices, np.int32), **more)
    with pytest.raises(ArgumentError, match="indptr must be int64 and indices int32"):
        Interactions(Ids.range(2), Ids.range(2), np.array(indptr), np.array(indices))


def test_rows_may_fall_where_a_new_user_begins() -> None:
    data = Interactions(Ids.range(4), Ids.range(3), np.array([0, 2, 2, 3, 3]), np.array([1, 2, 0], np.int32))
    assert [data.row(u).tolist() for u in range(4)] == [[1, 2], [], [0], []]


def test_weights_stay_with_their_pairs() -> None:
    rows = [(1, 7, 0.5), (1, 8, 2.0), (2, 7, 3.0), (2, 8, 4.0), (3, 9, 5.0), (1, 7, 9.0)]
    users, items, weights = (list(column) for column in zip(*rows, strict=True))
    data = Interactions.from_pairs(users, items, weights=weights)
    assert data.weights.tolist() == [0.5, 2, 3, 4, 5]
    assert Interactions.from_pairs(users, items, weights=weights, duplicates="last").weights.tolist() == [9, 2, 3, 4, 5]
    assert data.select(data.weights > 2).weights.tolist() == [3, 4, 5]
    assert data.k_core(2, 2).weights.tolist() == [0.5, 2, 3, 4]
    assert data.encode_like(Interactions.from_pairs([2, 1], [8, 7]))[0].weights.tolist() == [4, 3, 2, 0.5]
    train, test = random_ratio(data, 0.5)
    assert sorted([*train.weights.tolist(), *test.weights.tolist()]) == [0.5, 2, 3, 4, 5]
    far = ((1e-60, "1e-60"), (1e-7, "1e-07"), (1e13, "10000000000000.0"), (1e38, r"1e\+38"))
    for wrong, shown in ((0, "0"), (-1, "-1"), (float("nan"), "nan"), (float("inf"), "inf"), *far):
        with pytest.raises(DataError, match=rf"weights must be from 1e-6 to 1e12 .*\(row 1 is {shown}"):
            Interactions.from_pairs([1, 2], [1, 2], weights=[1, wrong])
    assert Interactions.from_pairs([1, 2], [1, 2], weights=[1e-6, 1e12]).weights is not None


def test_a_table_of_the_interactions_goes_to_other_libraries() -> None:
    data = Interactions.from_pairs(["b", "a", "b"], [3, 3, 1], [5, 4, 3], [10, 20, 30], weights=[1, 2, 3])
    table = data.to_arrow()
    assert table.to_pydict() == {
        "user": ["b", "b", "a"],
        "item": [3, 1, 3],
        "rating": [5, 3, 4],
        "time": [10, 30, 20],
        "weight": [1, 3, 2],
    }
    frame = Interactions.from_pairs([2, 1], ["x", "y"]).to_pandas()
    assert frame.to_dict("list") == {"user": [2, 1], "item": ["x", "y"]}
    back = Interactions.from_pairs(table["user"], table["item"], weights=table["weight"].to_numpy())
    assert back.fingerprint() == data.fingerprint()


@pytest.mark.parametrize("column", ["ratings", "times", "weights"])
def test_masked_values_are_missing_values(column: str) -> None:
    values = np.ma.array([1, 2], mask=[False, True])
    with pytest.raises(DataError, match=rf"{column} must have no missing values \(row 1 is masked\)"):
        Interactions.from_pairs([1, 2], [3, 4], **{column: values})
    assert len(Interactions.from_pairs([1, 2], [3, 4], **{column: np.ma.array([1, 2])})) == 2


@given(st.lists(st.lists(st.integers(-1000, 1000), max_size=4), max_size=6), st.floats(1, 100))
def test_a_strength_halves_with_age_counted_from_the_newest_of_the_history(rows: list[list[int]], half: float) -> None:
    indptr = np.cumsum([0, *map(len, rows)]).astype(np.int64)
    found = decayed(indptr, np.array([time for row in rows for time in row], np.int64), half)
    wanted = [max(2 ** (-(max(row) - time) / half), 1e-6) for row in rows for time in row]
    np.testing.assert_allclose(found, np.array(wanted, np.float32), rtol=1e-5)
