"""Metrics beyond accuracy and groups, worked by hand; the first case is the one of RecTools' documentation."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import hashlgn
from hashlgn.data import Ids, Interactions
from hashlgn.errors import ArgumentError
from hashlgn.evaluation.groups import thirds
from hashlgn.evaluation.metrics import BEYOND, Recommended
from hashlgn.inference.model import ServedModel
from hashlgn.inference.recommender import Recommender
from hashlgn.inference.stored import Stored
from hashlgn.scoring.codes import pack_subcodes
from hashlgn.scoring.decoders import CodebookDecoder
from hashlgn.scoring.items import CodedItems, FloatItems


def recommended(answers: list[list[int]], hits: list[list[int]], counts: list[int], **more: object) -> Recommended:
    indptr = np.append(0, np.cumsum([len(row) for row in answers]))
    items = np.array([item for row in answers for item in row], np.int64)
    flags = [item in truth for row, truth in zip(answers, hits, strict=True) for item in row]
    profile = np.asarray(more.pop("profile", np.ones(len(answers))))
    relevant = np.array(flags, np.bool_)
    return Recommended(indptr, items, relevant, np.array(counts), int(more.pop("n_users", 3)), profile, **more)


# RecTools' example of Serendipity: items 0 … 3 had 3, 2, 0 and 0 users of 3, and four users are answered.
ANSWERS = [[0, 1], [1, 2], [2], [1, 2]]
CASE = recommended(ANSWERS, [[0, 1], [1, 2], [1], [1]], [3, 2, 0, 0], profile=[1, 1, 1, 1 / 3])
B = np.log2(3 / 2)  # bits that an item of two users in three has; one of a single user has log2(3)


@pytest.mark.parametrize(
    ("name", "at_1", "at_2"),
    [
        ("serendipity", [0, 0.25, 0, 0.25], [0, 0.5, 0, 0.125]),
        ("novelty", [0, B, np.log2(3), B], [B / 2, (B + np.log2(3)) / 2, np.log2(3), (B + np.log2(3)) / 2]),
        ("popularity", [1, 2 / 3, 0, 2 / 3], [5 / 6, 1 / 3, 0, 1 / 3]),
        ("popularity_lift", [0, -1 / 3, -1, 1], [-1 / 6, -2 / 3, -1, 0]),
    ],
)
def test_worked_by_hand(name: str, at_1: list[float], at_2: list[float]) -> None:
    np.testing.assert_allclose(BEYOND[name](CASE, 1), at_1, atol=1e-12)
    np.testing.assert_allclose(BEYOND[name](CASE, 2), at_2, atol=1e-12)
    np.testing.assert_allclose(BEYOND[name](CASE, None), at_2, atol=1e-12)


def test_novelty_as_rectools_documents_it() -> None:
    case = recommended([[2], [1, 2], [0, 1]], [[], [], []], [3, 1, 0])
    np.testing.assert_allclose(BEYOND["novelty"](case, 1), [1.5849625, 1.5849625, 0], atol=1e-6)
    np.testing.assert_allclose(BEYOND["novelty"](case, 3), [1.5849625, 1.5849625, 0.79248125], atol=1e-6)


def test_diversity_counts_sub_codes_that_differ_and_angles_of_vectors() -> None:
    words = np.array([[1, 2, 3, 4], [1, 2, 3, 5], [9, 9, 9, 9]], np.uint8)
    case = recommended([[0, 1, 2], [0, 1], [2], [], [2, 7]], [[]] * 5, [1, 1, 1], features=lambda items: words[items])
    # pairs of the first: one sub-code in four differs, and twice all of them; item 7 is unknown
    np.testing.assert_allclose(BEYOND["diversity"](case, None), [(0.25 + 1 + 1) / 3, 0.25, 0, 0, 0])
    np.testing.assert_allclose(BEYOND["diversity"](case, 2), [0.25, 0.25, 0, 0, 0])
    vectors = np.array([[1, 0], [0, 1], [-1, 0]], np.float32)
    angles = recommended([[0, 1, 2], [0, 2]], [[], []], [1, 1, 1], features=lambda items: vectors[items])
    np.testing.assert_allclose(BEYOND["diversity"](angles, None), [(1 + 1 + 2) / 3, 2])
    with pytest.raises(ArgumentError, match="diversity needs a model of this project"):
        BEYOND["diversity"](CASE, 2)


@given(st.lists(st.lists(st.integers(0, 9), unique=True, max_size=8), min_size=1, max_size=6), st.integers(1, 9))
def test_diversity_equals_the_loop_over_pairs(answers: list[list[int]], k: int) -> None:
    words = np.random.default_rng(3).integers(0, 3, (10, 6)).astype(np.uint8)
    case = recommended(answers, [[]] * len(answers), [1] * 10, features=lambda items: words[items])
    for row, value in zip(answers, BEYOND["diversity"](case, k), strict=True):
        pairs = [(i, j) for place, i in enumerate(row[:k]) for j in row[:place]]
        assert value == pytest.approx(np.mean([(words[i] != words[j]).mean() for i, j in pairs]) if pairs else 0)


def test_an_empty_answer_is_worth_0_and_every_metric_states_its_definition() -> None:
    case = recommended([[], [1]], [[], []], [2, 1], features=lambda items: np.zeros((len(items), 2), np.uint8))
    for name, metric in BEYOND.items():
        assert metric(case, 3)[0] == 0, name
        text = inspect.getdoc(metric) or ""
        assert "Source" in text and "``" in text, name


def test_thirds_keep_equal_values_together() -> None:
    assert thirds(np.array([1, 2, 3, 4, 5, 6])).tolist() == [0, 0, 1, 1, 2, 2]
    assert thirds(np.array([5, 5, 5, 5, 1, 9])).tolist() == [0, 0, 0, 0, 0, 2]
    assert thirds(np.array([7])).tolist() == [0]


def by_hand(items: FloatItems | CodedItems) -> Recommender:
    """Users 1, 2, 3 have one, two and three of the items 10 … 15, and rank them in this order."""
    seen = np.array([0, 0, 1, 0, 1, 2], np.int32)
    return Recommender(
        ServedModel(
            kind="float",
            config={},
            user_ids=Ids([1, 2, 3]),
            item_ids=Ids([10, 11, 12, 13, 14, 15]),
            users=np.ones((3, 1), np.float32),
            items=items,
            stored=Stored.of(np.array([0, 1, 3, 6]), seen),
        )
    )


def test_evaluate_gives_them_and_groups_of_users_and_items() -> None:
    model = by_hand(FloatItems(np.array([[6], [5], [4], [3], [2], [1]], np.float32)))
    test = Interactions.from_pairs([1, 1, 2, 3], [11, 15, 13, 13])
    result = hashlgn.evaluate(model, test, k=2, metrics=["recall", *BEYOND])
    # 1 gets 11, 12; 2 gets 12, 13; 3 gets 13, 14. Items 10, 11, 12 have 3, 2, 1 of three users.
    at = result.at(2).per_user
    np.testing.assert_allclose(at["recall"], [0.5, 1, 1])
    np.testing.assert_allclose(at["popularity"], [(2 / 3 + 1 / 3) / 2, 1 / 6, 0])
    np.testing.assert_allclose(at["popularity_lift"], [0.5 - 1, (1 / 6) / (5 / 6) - 1, -1])
    # P of 11 is 5/6 and it is first: 1 − 5/6; of 13 it is 0, second for 2 and first for 3
    np.testing.assert_allclose(at["serendipity"], [(1 / 6) / 2, (5 / 6) / 2, 1 / 2])
    np.testing.assert_allclose(at["diversity"], 0, atol=1e-7)  # vectors of one dimension
    few, middle, many = result.user_groups
    assert [(g.name, g.low, g.high, g.size, g.interactions) for g in (few, middle, many)] == [
        ("few", 1, 1, 1, 2),
        ("middle", 2, 2, 1, 1),
        ("many", 3, 3, 1, 1),
    ]
    assert few.means["@2"]["recall"] == 0.5 and many.means["@2"]["recall"] == 1
    rare, middle, popular = result.item_groups  # counts 0, 0, 0 | 1 | 3, 2
    assert [(g.low, g.high, g.size, g.interactions) for g in (rare, middle, popular)] == [
        (0, 0, 3, 3),
        (1, 1, 1, 0),
        (2, 3, 2, 1),
    ]
    assert rare.means["@2"] == {"recall": pytest.approx((0 + 1 + 1) / 3), "share": pytest.approx(3 / 6)}
    assert middle.means["@2"] == {"recall": 0, "share": pytest.approx(2 / 6)}
    assert popular.means["@2"] == {"recall": 1, "share": pytest.approx(1 / 6)}
    assert result.to_dict()["item_groups"][0]["name"] == "rare"
    assert "items, popular" in str(result.group_rows()) and "popularity_lift" in repr(result)


def test_codes_are_told_apart_by_their_sub_codes() -> None:
    words = np.array([[0, 0], [1, 0], [1, 1], [2, 1], [3, 1], [3, 3]], np.uint8)
    codewords = np.zeros((2, 16, 1), np.float32)
    codewords[0, :4, 0] = [9, 6, 3, 1]
    model = by_hand(CodedItems(pack_subcodes(words), CodebookDecoder(codewords)))
    test = Interactions.from_pairs([1, 2], [15, 14])
    found = hashlgn.evaluate(model, test, k=2, metrics="diversity").at(2).per_user["diversity"]
    np.testing.assert_allclose(found, [0.5, 0.5])  # 11 and 12 share the first sub-code; 12 and 13 the second


def test_answers_from_elsewhere_need_the_training() -> None:
    answers = {"user": [1, 1], "item": [11, 15]}
    test, train = Interactions.from_pairs([1], [11]), Interactions.from_pairs([1, 2, 2], [10, 10, 11])
    with pytest.raises(ArgumentError, match="metric 'novelty' needs train"):
        hashlgn.evaluate(answers, test, k=2, metrics=["novelty"])
    found = hashlgn.evaluate(answers, test, k=2, metrics=["novelty"], train=train)
    assert found.at(2).mean("novelty") == pytest.approx(1)  # one user of two has 11; 15 is new
    assert not hashlgn.evaluate(answers, test, k=2).user_groups
