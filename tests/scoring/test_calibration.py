"""Scores as probabilities: the map rises, its inverse bounds it, and the fit finds chances that are known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hashlgn.errors import ArgumentError
from hashlgn.evaluation.calibration import fit_calibration, reliability
from hashlgn.scoring.calibration import Calibration


@st.composite
def maps(draw: st.DrawFn) -> Calibration:
    steps = draw(st.lists(st.floats(0.01, 3), min_size=1, max_size=6))
    p = np.cumsum(steps) / (np.sum(steps) + draw(st.floats(0.01, 3)))
    z = draw(st.floats(-9, 9)) + np.cumsum(draw(st.lists(st.floats(0.01, 3), min_size=len(p), max_size=len(p))))
    return Calibration(draw(st.floats(0.1, 30)), draw(st.floats(-2, 2)), draw(st.floats(0.05, 0.5)), z, p)


@given(maps(), st.lists(st.floats(-3, 3), min_size=2, max_size=30), st.integers(0, 5000))
def test_probabilities_rise_with_the_score(calibration: Calibration, scores: list[float], count: int) -> None:
    probabilities = calibration.probability(np.sort(scores), count)
    assert (np.diff(probabilities) >= -1e-12).all()  # but for the last bit
    assert ((probabilities >= 0) & (probabilities <= 1)).all()


@given(maps(), st.lists(st.floats(-3, 3), min_size=1, max_size=30), st.integers(0, 5000), st.floats(0.01, 0.99))
def test_no_item_over_the_probability_lies_below_the_threshold(
    calibration: Calibration, scores: list[float], count: int, probability: float
) -> None:
    bound = calibration.threshold(probability, count)
    over = calibration.probability(scores, count) > probability
    assert (np.asarray(scores)[over] >= bound).all()
    just_above = calibration.probability(bound + 1e-3 * (1 + np.abs(bound)), count)
    assert just_above > probability - 0.05 * (1 + calibration.slope)


def test_a_horizon_of_the_held_out_share_gives_the_polygon_itself() -> None:
    calibration = Calibration(2.0, 0.0, 0.1, np.array([0.0, 2.0]), np.array([0.2, 0.6]))
    np.testing.assert_allclose(calibration.probability([0.0, 0.5, 1.0], 0, horizon=0.1), [0.2, 0.4, 0.6])
    twice = calibration.probability([0.5], 0, horizon=0.2)  # two parts like the first one, independent of each other
    np.testing.assert_allclose(twice, 1 - (1 - 0.4) ** 2)


def test_known_chances_are_found() -> None:
    rng = np.random.default_rng(0)
    scores, counts = rng.random(200_000), rng.integers(5, 500, 200_000).astype(float)
    chances = 1 / (1 + np.exp(-(6 * scores + 0.5 * np.log1p(counts) - 8)))
    calibration = fit_calibration(scores, counts, rng.random(200_000) < chances, 0.1)
    assert calibration is not None
    fresh = rng.random(200_000) < chances
    found = reliability(calibration.probability(scores, counts, horizon=0.1), fresh)
    assert found.error < 0.01
    untold = reliability(np.full(200_000, chances.mean()), fresh, bins=1)
    assert untold.error < 0.01  # right on average, and of no use: one bin hides it
    for group in (counts < 50, counts > 300):  # a threshold means the same for everybody
        part = reliability(calibration.probability(scores[group], counts[group], horizon=0.1), fresh[group])
        assert part.error < 0.02


def test_scores_that_tell_nothing_give_no_map() -> None:
    rng = np.random.default_rng(0)
    scores, labels = rng.random(1000), rng.random(1000) < 0.3
    assert fit_calibration(-labels.astype(float) + 0.1 * scores, np.ones(1000), labels, 0.1) is None
    assert fit_calibration(scores, np.ones(1000), np.arange(1000) < 5, 0.1) is None
    assert fit_calibration(np.full(1000, 2.0), np.arange(1000.0), labels, 0.1) is None
    two = fit_calibration(labels.astype(float), np.ones(1000), labels, 0.1)  # two scores tell them apart exactly
    assert two is not None and (np.diff(two.z) > 0).all()


def test_the_error_is_the_mean_gap() -> None:
    probabilities = np.repeat([0.1, 0.9], 50)
    labels = np.concatenate((np.arange(50) < 10, np.arange(50) < 40))  # 0.2 and 0.8
    assert reliability(probabilities, labels, bins=2).error == pytest.approx(0.1)


def test_bad_numbers_are_refused() -> None:
    with pytest.raises(ArgumentError, match="slope must be positive"):
        Calibration(-1.0, 0.0, 0.1, np.array([0.0]), np.array([0.5]))
    with pytest.raises(ArgumentError, match="strictly ascending"):
        Calibration(1.0, 0.0, 0.1, np.array([0.0, 0.0]), np.array([0.2, 0.5]))
    with pytest.raises(ArgumentError, match="between 0 and 1 where it is calibrated"):
        Calibration(1.0, 0.0, 0.1, np.array([0.0]), np.array([0.5])).threshold(1.0, 3)
    with pytest.raises(ArgumentError, match="at least one pair"):
        reliability(np.empty(0), np.empty(0, np.bool_))
