from __future__ import annotations

import numpy as np
import pytest

from conftest import clusters
from hashlgn.data import Interactions, random_ratio
from hashlgn.data.splits import validation_slice
from hashlgn.errors import ArgumentError, DataError
from hashlgn.evaluation.full_ranking import evaluate
from hashlgn.experiments.baselines import recommenders as room
from hashlgn.experiments.baselines.recommenders import REFERENCES, Tuned, tuned
from hashlgn.inference.recommender import Recommender
from hashlgn.scoring.items import FloatItems

TRAIN, TEST = random_ratio(clusters(), 0.3, seed=0)
FIT, HELD_OUT = validation_slice(TRAIN, 0.2, seed=0)


@pytest.fixture(autouse=True)
def installed(request: pytest.FixtureRequest) -> None:
    if "als" in request.node.name:
        pytest.importorskip("implicit", reason="the extra 'references' is not installed")


@pytest.mark.parametrize("name", REFERENCES)
def test_a_reference_is_tuned_on_validation_and_served(name: str) -> None:
    chosen = tuned(name, FIT, HELD_OUT, k=5, threads=1)
    grid = REFERENCES[name].grid
    assert chosen.settings in grid
    if len(grid) > 1:
        assert chosen.settings == grid[int(np.argmax(chosen.values))] and len(chosen.values) == len(grid)
    recall = evaluate(Recommender(chosen.build(TRAIN)), TEST, 5).at(5).mean("recall")
    chance = 5 / (TRAIN.n_items - 4)
    assert recall > (0.8 * chance if name == "popularity" else 3 * chance)


def test_popularity_ranks_by_counts_and_leaves_out_what_is_seen() -> None:
    data = Interactions.from_pairs([1, 1, 2, 2, 3, 4], ["a", "b", "a", "c", "a", "b"])
    model = Recommender(Tuned("popularity", {}, ()).build(data))
    assert model.recommend(users=[3], k=3)["item"].tolist() == ["b", "c"]
    assert model.recommend(users=[1], k=3)["item"].tolist() == ["c"]
    np.testing.assert_allclose(model.recommend(users=[3], k=3)["score"], [2 / 6, 1 / 6], rtol=1e-6)


def test_ease_is_the_least_squares_with_a_zero_diagonal() -> None:
    # Column j of B minimises ‖X_j − X b‖² + λ‖b‖² with b_j = 0: ridge regression on the other items.
    x = TRAIN.matrix.toarray().astype(float)
    lam, n = 10.0, TRAIN.n_items
    expected = np.zeros((n, n))
    for j in range(n):
        others = np.delete(np.arange(n), j)
        a = x[:, others]
        expected[others, j] = np.linalg.solve(a.T @ a + lam * np.eye(n - 1), a.T @ x[:, j])
    model = Tuned("ease", {"regularisation": lam}, ()).build(TRAIN)
    assert isinstance(model.items, FloatItems)
    np.testing.assert_allclose(model.users @ model.items.vectors.T, x @ expected, atol=1e-5)


def test_a_seed_fixes_als() -> None:
    grid = REFERENCES["als"].grid
    one, two = (Tuned("als", grid[0], (), seed=1, threads=1).build(TRAIN) for _ in range(2))
    np.testing.assert_array_equal(one.users, two.users)


def test_bad_arguments(monkeypatch) -> None:
    with pytest.raises(ArgumentError, match="reference must be one of 'popularity', 'ease', 'als'"):
        tuned("magic", FIT, HELD_OUT)
    monkeypatch.setattr(room, "_LARGEST", 1000)
    with pytest.raises(DataError, match="EASE holds dense matrices of at most 1,000 bytes"):
        tuned("ease", FIT, HELD_OUT)
