"""Evaluation by given histories, and of probabilities: known answers, and the same numbers as the other ways give."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

import hashlgn
from conftest import clusters
from hashlgn.data import Ids, Interactions, leave_users, random_ratio
from hashlgn.errors import ArgumentError, DataError
from hashlgn.evaluation.calibration import reliability
from hashlgn.inference.model import ServedModel
from hashlgn.inference.recommender import Recommender
from hashlgn.inference.stored import Stored
from hashlgn.scoring.calibration import Calibration
from hashlgn.scoring.histories import FloatHistories
from hashlgn.scoring.items import FloatItems

ITEMS = Ids([10, 11, 12, 13])


def by_hand(
    strengths: np.ndarray | None = None, calibration: Calibration | None = None, **model: object
) -> Recommender:
    """Item 10 in a history calls for 11 and then 12, item 13 for 12 and then 11; user 1 of the training has 10."""
    answers = np.array([[0, 0], [3, 1], [2, 2], [0, 0]], np.float32)
    histories = np.array([[1, 0], [0.5, 0.5], [0.5, 0.5], [0, 1]], np.float32)
    return Recommender(
        ServedModel(
            kind="hashlgn",
            config={"model": model},
            user_ids=Ids([1]),
            item_ids=ITEMS,
            items=FloatItems(answers),
            histories=FloatHistories(histories),
            stored=Stored.of(np.array([0, 1]), np.array([0], np.int32), strengths),
            calibration=calibration,
        )
    )


def test_new_users_are_answered_by_what_they_are_given() -> None:
    told = Interactions.from_pairs(["ann", "bob", "eve"], [10, 13, 99])
    test = Interactions.from_pairs(["ann", "ann", "bob", "eve", "zoe"], [11, 13, 11, 11, 11])
    result = hashlgn.evaluate(by_hand(), test, k=(1, 2), history=told)
    assert result.users.tolist() == ["ann", "bob"]
    assert result.dropped.users == 2  # eve's history holds nothing that is known, zoe has none
    assert result.at(1).per_user["recall"].tolist() == [0.5, 0]
    assert result.at(2).per_user["recall"].tolist() == [0.5, 1]
    with pytest.raises(DataError, match="test must hold"):  # what is given is masked, and nobody could hit it
        hashlgn.evaluate(by_hand(), told, k=1, history=told)


def test_a_given_history_goes_before_a_stored_one() -> None:
    test = Interactions.from_pairs([1], [12])
    assert hashlgn.evaluate(by_hand(), test, k=1).at(1).mean("recall") == 0  # 10 calls for 11
    told = Interactions.from_pairs([1], [13])
    assert hashlgn.evaluate(by_hand(), test, k=1, history=told).at(1).mean("recall") == 1


def test_stored_histories_given_again_are_worth_the_same() -> None:
    train, test = random_ratio(clusters(), seed=1)
    small = {"model.dim": 16, "model.bits": 32, "model.history_bits": 32, "student.epochs": 2}
    model = hashlgn.HashLGN(config={**small, "student.distillation_epochs": 1}).fit(train)
    stored, given = hashlgn.evaluate(model, test, k=5), hashlgn.evaluate(model, test, k=5, history=train)
    for name, values in stored.at(5).per_user.items():
        np.testing.assert_array_equal(values, given.at(5).per_user[name], err_msg=name)
    assert (stored.at(5).coverage, stored.at(5).gini) == (given.at(5).coverage, given.at(5).gini)
    rest, told, held = leave_users(clusters(), 0.2, seed=0)
    model.fit(rest)
    new = hashlgn.evaluate(model, held, k=5, history=told)
    assert len(new.users) == 12 and new.at(5).mean("recall") > 0.3  # of 40 items 5 at random give 0.14
    with pytest.raises(DataError, match="test must hold"):  # nobody of them is in the training
        hashlgn.evaluate(model, held, k=5)


def test_strengths_of_given_histories_follow_the_models_own_rule() -> None:
    told = Interactions.from_pairs([5, 5], [10, 13], times=[0, 20], weights=[1.0, 9.0])
    test = Interactions.from_pairs([5], [12])
    one = np.ones(1, np.float32)

    def best(model: Recommender, history: Interactions = told) -> bool:
        return hashlgn.evaluate(model, test, k=1, history=history).at(1).mean("recall") == 1

    assert not best(by_hand())  # equal strengths: 11 scores 4 / √2, as 12 does, and comes first
    assert best(by_hand(one, strength="weight"))
    assert best(by_hand(one, strength="decay", half_life=10.0))
    with pytest.raises(ArgumentError, match="weight"):
        best(by_hand(one, strength="weight"), dataclasses.replace(told, weights=None))


def test_history_needs_a_model_that_answers_histories() -> None:
    told = Interactions.from_pairs([5], [10])
    with pytest.raises(ArgumentError, match="history needs a model of this project"):
        hashlgn.evaluate({"user": [5], "item": [11]}, Interactions.from_pairs([5], [12]), k=1, history=told)


def test_probabilities_are_compared_with_what_happened() -> None:
    # z is the score, and a score of 0 is a chance of 0.2 that the item is in a fifth of the history held out
    calibration = Calibration(1.0, 0.0, 0.2, np.array([0.0]), np.array([0.2]))
    test = Interactions.from_pairs([1], [11])
    result = hashlgn.evaluate(by_hand(calibration=calibration), test, k=1)
    found = result.reliability
    assert found is not None and found.horizon == 1 and found.sizes.sum() == 3  # one test item, one in the history
    scores = np.sort(np.array([3, 2, 0], np.float64))  # of 11, 12 and 13; user 1 is the vector (1, 0)
    expected = 1 - (1 - 0.2 * np.exp(scores) / (0.8 + 0.2 * np.exp(scores))) ** 5
    np.testing.assert_allclose(found.predicted, expected)
    np.testing.assert_allclose(found.observed, [0, 0, 1])
    assert found.error == pytest.approx(np.mean(np.abs(expected - [0, 0, 1])))
    held = json.loads(json.dumps(result.to_dict()))["calibration"]
    assert held["error"] == found.error and held["sizes"] == [1, 1, 1]
    assert "expected calibration error" in repr(result) and "predicted" in result._repr_html_()
    assert "3 probabilities" in repr(found) and len(found.rows()) == 4
    assert hashlgn.evaluate(by_hand(), test, k=1).to_dict()["calibration"] is None


def test_the_error_of_bins_worked_by_hand() -> None:
    found = reliability(np.array([0.1, 0.1, 0.3, 0.5, 0.7]), np.array([False, True, False, True, True]), bins=2)
    # the lowest three: mean 1/6, one in three happened; the other two: 0.6, both
    assert found.error == pytest.approx((3 * abs(0.5 / 3 - 1 / 3) + 2 * abs(0.6 - 1)) / 5)
    assert found.sizes.tolist() == [3, 2]
