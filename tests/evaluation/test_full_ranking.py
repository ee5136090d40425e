from __future__ import annotations

import json

import numpy as np
import pytest

import hashlgn
from conftest import clusters
from hashlgn.data import Ids, Interactions, random_ratio
from hashlgn.errors import ArgumentError, DataError
from hashlgn.inference.model import ServedModel
from hashlgn.inference.recommender import Recommender
from hashlgn.scoring.items import FloatItems


def by_hand() -> Recommender:
    """Two users over four items: user 7 ranks them 10, 11, 12, 13, user 8 the other way round; 7 has seen 10."""
    return Recommender(
        ServedModel(
            kind="float",
            config={},
            user_ids=Ids([7, 8]),
            item_ids=Ids([10, 11, 12, 13]),
            users=np.array([[1.0], [-1.0]], np.float32),
            items=FloatItems(np.array([[4.0], [3.0], [2.0], [1.0]], np.float32)),
            seen=(np.array([0, 1, 1]), np.array([0], np.int32)),
        )
    )


def test_worked_by_hand() -> None:
    # 7 gets 11, 12 and is tested on 12: rank 2. 8 gets 13, 12 and is tested on 13 and 10: rank 1, and one missed.
    result = hashlgn.evaluate(by_hand(), Interactions.from_pairs([7, 8, 8], [12, 13, 10]), k=2)
    cut = result.at(2)
    assert cut.per_user["recall"].tolist() == [1.0, 0.5]
    assert cut.per_user["precision"].tolist() == [0.5, 0.5]
    assert cut.per_user["mrr"].tolist() == [0.5, 1.0]
    second = 1 / np.log2(3)
    np.testing.assert_allclose(cut.per_user["ndcg"], [second, 1 / (1 + second)])
    assert cut.coverage == 0.75
    assert result.users.tolist() == [7, 8]


def test_thresholds_report_size_and_emptiness() -> None:
    result = hashlgn.evaluate(by_hand(), Interactions.from_pairs([7, 8], [12, 13]), k=(), threshold=[1.5, 0.0])
    high, zero = result.cuts
    assert high.per_user["answer_size"].tolist() == [2, 0]  # 7 has seen 10, which scores 4
    assert high.per_user["empty"].tolist() == [0, 1]
    assert high.per_user["recall"].tolist() == [1, 0]
    assert zero.per_user["answer_size"].tolist() == [3, 0]
    assert high.coverage == 0.5


def test_what_cannot_be_answered_is_left_out_and_counted() -> None:
    test = Interactions.from_pairs([7, 7, 7, 9], [10, 12, 99, 11])  # 10 is seen, 99 and user 9 are unknown
    result = hashlgn.evaluate(by_hand(), test, k=2)
    assert (result.interactions, result.seen, result.dropped.interactions) == (1, 1, 2)
    assert result.at(2).per_user["recall"].tolist() == [1.0]
    with pytest.raises(DataError, match="test must hold"):
        hashlgn.evaluate(by_hand(), Interactions.from_pairs([7, 9], [10, 11]), k=2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": 0}, "k must be a positive integer"),
        ({"k": ()}, "k must hold at least one cut"),
        ({"threshold": float("nan")}, "threshold must be a number"),
    ],
)
def test_bad_cuts_are_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        hashlgn.evaluate(by_hand(), Interactions.from_pairs([7], [12]), **arguments)


def test_k_beyond_the_catalogue_and_a_cut_not_asked_for() -> None:
    result = hashlgn.evaluate(by_hand(), Interactions.from_pairs([7, 8], [12, 10]), k=1000)
    assert result.at(1000).per_user["recall"].tolist() == [1, 1]
    with pytest.raises(ArgumentError, match="k must be one that was evaluated"):
        result.at(20)


def test_results_are_json_with_intervals_around_the_means() -> None:
    train, test = random_ratio(clusters(), seed=1)
    model = hashlgn.LightGCN(config={"model.dim": 8, "train.pretrain_epochs": 2, "train.joint_epochs": 1}).fit(train)
    result = hashlgn.evaluate(model, test, k=(1, 5), threshold=0.5)
    held = json.loads(json.dumps(result.to_dict()))
    assert [cut.get("k", cut.get("threshold")) for cut in held["cuts"]] == [1, 5, 0.5]
    for cut in held["cuts"]:
        low, high = cut["metrics"]["recall"]["interval_95"]
        assert low <= cut["metrics"]["recall"]["mean"] <= high
    assert "recall" in str(result)
