"""Splits: nothing lost, nothing in two parts, the right part held out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hashlgn.data import Ids, Interactions, global_time, leave_last, leave_users, random_ratio
from hashlgn.errors import ArgumentError, DataError

PAIRS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 8), st.integers(0, 20)), min_size=1, max_size=50)
SPLITS: list[Callable[[Interactions], tuple[Interactions, Interactions]]] = [
    lambda data: random_ratio(data, 0.3, seed=1),
    lambda data: leave_last(data, 2),
    lambda data: random_ratio(data, 0.4, seed=1, max_users=2),
    lambda data: global_time(data, 0.3),
]


def pairs(data: Interactions) -> set[tuple[int, int]]:
    return set(zip(data.rows.tolist(), data.indices.tolist(), strict=True))


@given(PAIRS, st.sampled_from(SPLITS))
def test_the_parts_are_disjoint_and_together_the_data(rows: list[tuple[int, int, int]], split: Callable) -> None:
    users, items, times = map(list, zip(*rows, strict=True))
    data = Interactions.from_pairs(users, items, np.ones(len(rows)), times)
    try:
        train, test = split(data)
    except DataError:  # global_time, where too little comes after the first moment
        assert (data.times > data.times.min()).sum() < 0.3 * len(data)
        return
    assert pairs(train) | pairs(test) == pairs(data)
    assert len(train) + len(test) == len(data)
    for part in (train, test):
        assert part.user_ids is data.user_ids
        assert part.item_ids is data.item_ids
        assert len(part.ratings) == len(part.times) == len(part)


@given(PAIRS, st.floats(0.01, 0.99), st.integers(0, 3))
def test_random_ratio_gives_a_rounded_share_of_each_user_but_never_all(
    rows: list[tuple[int, int, int]], share: float, seed: int
) -> None:
    data = Interactions.from_pairs([u for u, _, _ in rows], [i for _, i, _ in rows])
    train, test = random_ratio(data, share, seed=seed)
    for user, n in enumerate(np.diff(data.indptr).tolist()):
        assert len(test.row(user)) == min(int(share * n + 0.5), n - 1)
        assert len(train.row(user)) >= 1


def test_random_ratio_is_fixed_by_its_seed_and_draws_evenly() -> None:
    data = Interactions.from_pairs(np.repeat(np.arange(4000), 10), np.tile(np.arange(10), 4000))
    _, test = random_ratio(data, 0.2, seed=3)
    assert pairs(test) == pairs(random_ratio(data, 0.2, seed=3)[1])
    assert pairs(test) != pairs(random_ratio(data, 0.2, seed=4)[1])
    per_item = np.bincount(test.indices, minlength=10)
    assert per_item.sum() == 8000
    assert abs(per_item - 800).max() < 5 * np.sqrt(4000 * 0.2 * 0.8)


def test_leave_last_holds_out_the_latest() -> None:
    data = Interactions.from_pairs(["a", "a", "a", "b", "b", "c"], [1, 2, 3, 1, 2, 3], times=[30, 10, 30, 5, 6, 1])
    _, test = leave_last(data)
    assert pairs(test) == {(0, 2), (1, 1)}  # of equal times the higher item; the only one of c stays
    train, _ = leave_last(data, 2)
    assert pairs(train) == {(0, 1), (1, 0), (2, 2)}


def test_leave_last_takes_any_time() -> None:
    low, high = np.iinfo(np.int64).min, np.iinfo(np.int64).max
    data = Interactions.from_pairs([1, 1, 1], [1, 2, 3], times=[low, high, 0])
    assert pairs(leave_last(data)[1]) == {(0, 1)}
    assert pairs(leave_last(data, 2)[0]) == {(0, 0)}


def test_global_time_keeps_a_moment_together() -> None:
    data = Interactions.from_pairs([1, 1, 2, 2, 3], [1, 2, 1, 2, 1], times=[1, 5, 3, 5, 5])
    train, test = global_time(data, 0.2)
    assert sorted(test.times.tolist()) == [5, 5, 5]
    assert sorted(train.times.tolist()) == [1, 3]
    assert len(train.row(2)) == 0


def test_validation_slice_is_of_few_users() -> None:
    data = Interactions.from_pairs(np.repeat(np.arange(50), 10), np.tile(np.arange(10), 50))
    fit, validation = random_ratio(data, 0.2, seed=0, max_users=7)
    sizes = np.diff(validation.indptr)
    assert sorted(sizes.tolist()) == [0] * 43 + [2] * 7
    assert pairs(random_ratio(data, 0.2, seed=1, max_users=7)[1]) != pairs(validation)
    assert len(random_ratio(data, 0.2)[1]) == 100
    assert len(fit) == 486


def test_bad_arguments() -> None:
    data = Interactions.from_pairs([1, 1], [1, 2], times=[1, 2])
    for share in (0, 1, -0.5, float("nan"), True, "0.2"):
        with pytest.raises(ArgumentError, match="test must be a number between 0 and 1, both excluded"):
            random_ratio(data, share)
    with pytest.raises(ArgumentError, match=r"test must be .* \(got 2\)"):
        random_ratio(data, 2)
    with pytest.raises(ArgumentError, match=r"max_users must be a positive integer \(got 0\)"):
        random_ratio(data, max_users=0)
    with pytest.raises(ArgumentError, match=r"n must be a positive integer \(got 0\)"):
        leave_last(data, 0)
    for split in (leave_last, global_time):
        with pytest.raises(DataError, match="needs times"):
            split(Interactions.from_pairs([1], [1]))
    with pytest.raises(DataError, match="no moment leaves training data"):
        global_time(Interactions.from_pairs([1, 1], [1, 2], times=[3, 3]))
    nothing = Interactions(Ids.range(2), Ids.range(2), np.zeros(3, np.int64), np.empty(0, np.int32))
    with pytest.raises(DataError, match="needs interactions"):
        global_time(
            Interactions(
                *([nothing.user_ids, nothing.item_ids, nothing.indptr, nothing.indices]), times=np.empty(0, np.int64)
            )
        )
    assert [len(part) for part in random_ratio(nothing)] == [0, 0]


def test_leave_last_by_share() -> None:
    users, items = np.repeat(np.arange(30), 10), np.tile(np.arange(10), 30)
    timed = Interactions.from_pairs(users, items, times=np.tile(np.arange(10), 30)[::-1])
    train, test = leave_last(timed, share=0.25)
    assert np.diff(test.indptr).tolist() == [3] * 30  # 2.5, halves upwards
    for user in range(30):
        latest_kept, first_held = (part.times[part.indptr[user] : part.indptr[user + 1]] for part in (train, test))
        assert latest_kept.max() < first_held.min()
    with pytest.raises(ArgumentError, match="n and share must not both be given"):
        leave_last(timed, 1, share=0.5)
    with pytest.raises(ArgumentError, match="share must be a number between 0 and 1"):
        leave_last(timed, share=1)


@given(PAIRS, st.floats(0.01, 0.99), st.floats(0.01, 0.99), st.integers(0, 3))
def test_leave_users_loses_nothing_and_trains_on_nobody_who_is_tested(
    rows: list[tuple[int, int, int]], share: float, part: float, seed: int
) -> None:
    users, items, times = map(list, zip(*rows, strict=True))
    data = Interactions.from_pairs(users, items, None, times)
    lengths = np.diff(data.indptr)
    able = int((lengths >= 2).sum())
    if able < 2:
        with pytest.raises(DataError, match="leave_users needs two users"):
            leave_users(data, share, given=part, seed=seed)
        return
    train, told, test = leave_users(data, share, given=part, seed=seed)
    assert pairs(train) | pairs(told) | pairs(test) == pairs(data)
    assert len(train) + len(told) + len(test) == len(data)
    left_out = np.flatnonzero(np.diff(test.indptr))
    assert len(left_out) == min(max(1, int(share * able + 0.5)), able - 1)
    assert not np.diff(train.indptr)[left_out].any() and np.diff(told.indptr)[left_out].all()
    assert set(told.rows.tolist()) == set(left_out.tolist())
    for user in left_out:  # a share of each history, never nothing and never all
        n, kept = int(lengths[user]), len(told.row(user))
        assert abs(kept - np.clip(part * n, 1, n - 1)) <= 0.5 + 1e-9
    assert pairs(leave_users(data, share, given=part, seed=seed)[2]) == pairs(test)


def test_leave_users_gives_four_fifths_of_a_tenth() -> None:
    data = Interactions.from_pairs(np.repeat(np.arange(50), 10), np.tile(np.arange(10), 50))
    train, told, test = leave_users(data, seed=1)
    assert (len(train), len(told), len(test)) == (450, 40, 10)
    with pytest.raises(ArgumentError, match="given must be a number between 0 and 1"):
        leave_users(data, given=1)
