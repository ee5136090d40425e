"""The short way to an answer gives what the long way gives, and leaves to it what is unusual."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hashlgn.errors import ArgumentError, UnknownIdError
from hashlgn.experiments.benchmarks.call import random_model
from hashlgn.inference.direct import Direct
from hashlgn.inference.model import ServedModel
from hashlgn.inference.recommender import Recommender
from hashlgn.inference.stored import Stored
from hashlgn.inference.tables import Table
from hashlgn.search import Kernel


class LongWay(Recommender):
    """A model without the short way."""

    @property
    def direct(self) -> Direct | None:
        return None


def same(one: Table, other: Table) -> None:
    """Equal to the last bit."""
    assert one.names == other.names
    for name in one:
        a, b = one[name], other[name]
        assert a.dtype == b.dtype
        if a.dtype == np.float32:
            a, b = a.view(np.uint32), b.view(np.uint32)
        np.testing.assert_array_equal(a, b)


def model_of(seed: int, strings: bool, weighted: bool) -> ServedModel:
    """A small random model; user 0 has no history."""
    rng = np.random.default_rng(seed)
    model = random_model(int(rng.integers(5, 300)), 40, 5, strings=strings, seed=seed)
    part = model.stored.parts[0]
    bounds = np.maximum(part.indptr - 5, 0)
    strengths = rng.uniform(0.1, 3, len(part.indices) - 5).astype(np.float32) if weighted else None
    titles = [f"title {i}" for i in range(len(model.item_ids))]
    return replace(model, stored=Stored.of(bounds, part.indices[5:], strengths), titles=titles)


@given(st.integers(0, 10_000), st.booleans(), st.booleans(), st.integers(1, 30), st.booleans(), st.booleans())
@settings(max_examples=60, deadline=None)
def test_both_ways_give_the_same_bits(
    seed: int, strings: bool, weighted: bool, k: int, filter_seen: bool, titles: bool
) -> None:
    model, rng = model_of(seed, strings, weighted), np.random.default_rng(seed)
    short, long = Recommender(model), LongWay(model)
    users = model.user_ids.values[rng.integers(0, 40, rng.integers(1, 9))].tolist()
    history = model.item_ids.values[rng.permutation(len(model.item_ids))[:4]].tolist()
    history += history[:1]  # one of them twice
    options: dict[str, Any] = {"filter_seen": filter_seen, "titles": titles}
    for ask in ({"users": users}, {"users": users[0]}, {"history": history}):
        same(short.recommend(k=k, **ask, **options), long.recommend(k=k, **ask, **options))
    items = model.item_ids.values.tolist()
    for one in (short, long):
        one.remove_items(items[:2])
        one.update_items(items[3], users[:1])
        one.add_items("999999", users[:2], titles=["new"])
    for ask in ({"users": users}, {"history": history}, {"history": [*history, "999999"]}):
        same(short.recommend(k=k, **ask, **options), long.recommend(k=k, **ask, **options))


@given(st.integers(0, 10_000), st.booleans(), st.booleans(), st.lists(st.integers(1, 30), min_size=2, max_size=9))
@settings(max_examples=40, deadline=None)
def test_both_ways_answer_histories_with_the_same_bits(seed: int, strings: bool, weighted: bool, ks: list[int]) -> None:
    model, rng = model_of(seed, strings, weighted), np.random.default_rng(seed)
    users, recommender = rng.integers(1, 40, len(ks)), Recommender(model)
    for removed in ([], model.item_ids.values[:2].tolist()):
        recommender.remove_items(removed)
        direct = recommender.direct
        assert direct is not None
        bounds, items, strengths = recommender.model.stored.rows(users)
        rows = [slice(*pair) for pair in pairwise(bounds.tolist())]
        types = rng.choice([np.int32, np.int64], len(rows))
        given = [
            (items[row].astype(kind), None if strengths is None else strengths[row])
            for row, kind in zip(rows, types, strict=True)
        ]
        if strengths is not None:
            given[-1] = given[-1][0], None
            strengths[rows[-1]] = 1
        found, hits = direct.lists(given, ks), recommender.answer(bounds, items, strengths, k=max(ks))
        assert found is not None
        for row, (k, (numbers, ids, scores)) in enumerate(zip(ks, found, strict=True)):
            assert numbers == hits.row(row)[0][:k].tolist() and scores == hits.row(row)[1][:k].tolist()
            assert ids == model.item_ids.decode(numbers).tolist()
    own = given[0]
    for broken in (items[:0], items[::-1].copy(), items[:3] + 1000, items[:3] - 1000):
        assert direct.lists([own, (broken, None)], [3, 3]) is None
    for size, strength in ((99, 1), (len(own[0]), -1), (len(own[0]), np.nan)):
        assert direct.lists([(own[0], np.full(size, strength, np.float32))], [3]) is None


def test_very_many_hits_and_fewer_than_asked_for() -> None:
    model = random_model(3000, 40, 5)
    short, long = Recommender(model), LongWay(model)
    users = list(range(25))
    for k in (2000, 2999, 10**9):  # nobody has as many as the last two; all together are over 2^16
        found = short.recommend(users, k=k)
        assert len(found) == sum(min(k, 2995) for _ in users) == len(found["score"])
        same(found, long.recommend(users, k=k))
        same(short.recommend(history=[7], k=k), long.recommend(history=[7], k=k))


def test_a_table_that_nobody_has_read_is_copied_and_stored() -> None:
    recommender = Recommender(model_of(2, strings=True, weighted=False))
    users = recommender.model.user_ids.values[1:4].tolist()
    for made in (
        pickle.loads(pickle.dumps(recommender.recommend(users, k=3))),
        copy.deepcopy(recommender.recommend(users, k=3)),
    ):
        same(made, recommender.recommend(users, k=3))
    table = recommender.recommend(users, k=3)
    assert len(table) == 9 and "title" in table and "probability" not in table


def test_the_short_way_is_there_where_it_should_be_and_leaves_the_rest_to_the_long_one() -> None:
    model = model_of(1, strings=False, weighted=False)
    recommender = Recommender(model)
    assert recommender.direct is not None and recommender.direct is recommender.direct
    ask: Any = recommender._plain  # (users, k, filter_seen, on_unknown, history, on_empty, titles)
    assert ask([3, 4], 5, True, "raise", None, "popular", True) is not None
    assert ask(None, None, True, "skip", [3, 4], "raise", False) is not None
    for plain in (
        ([0], 5, True, "raise", None, "popular", True),  # somebody without a history
        ([3, 10**6], 5, True, "raise", None, "popular", True),  # unknown
        ([], 5, True, "raise", None, "popular", True),
        (None, 5, True, "raise", None, "popular", True),  # everybody
        (np.array([3]), 5, True, "raise", None, "popular", True),
        ([True], 5, True, "raise", None, "popular", True),
        ([3], 0, True, "raise", None, "popular", True),
        ([3], 5, 1, "raise", None, "popular", True),
        ([3], 5, True, "never", None, "popular", True),
        ([3], 5, True, "raise", None, ["popular"], True),
        ([3], 5, True, "raise", [4], "popular", True),
        (None, 5, True, "raise", {"me": [4]}, "popular", True),
    ):
        assert ask(*plain) is None, plain
    with pytest.raises(UnknownIdError):
        recommender.recommend([3, 10**6])
    with pytest.raises(ArgumentError, match="on_unknown"):
        recommender.recommend([3], on_unknown="never")
    recommender.engine = "exact"
    assert recommender.direct is None
    recommender.engine = "kernel"
    assert type(recommender.searcher) is Kernel and recommender.direct is not None
    before = recommender.direct
    recommender.remove_items(3)
    assert recommender.direct is not before


def test_an_answer_is_of_one_state_when_the_model_changes_meanwhile() -> None:
    model = model_of(3, strings=False, weighted=False)
    recommender = Recommender(model)

    class Between(Recommender):
        """A model that another thread changes once while the short way is made."""

        def _short(self, model: ServedModel) -> Direct | None:
            if not changes:
                changes.append(self.update_items([1, 2, 3], users=[[7, 8], [9], [10, 11]]))
                self.add_items(10**6, [7, 8], titles=["new"])
            return super()._short(model)

    changes: list[None] = []
    users = list(range(1, 30))
    same(Between(model).recommend(users, k=7), recommender.recommend(users, k=7))
    assert changes
