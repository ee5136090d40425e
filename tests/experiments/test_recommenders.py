from __future__ import annotations

import numpy as np
import pytest

from conftest import clusters
from hashlgn.data import Interactions, random_ratio
from hashlgn.errors import ArgumentError, DataError
from hashlgn.evaluation.full_ranking import evaluate
from hashlgn.experiments.baselines import recommenders as module
from hashlgn.experiments.baselines.recommenders import RECOMMENDERS, Tuned, tuned
from hashlgn.inference.recommender import Recommender
from hashlgn.scoring.items import FloatItems

TRAIN, TEST = random_ratio(clusters(), 0.3, seed=0)
FIT, HELD_OUT = random_ratio(TRAIN, 0.2, seed=0)


@pytest.fixture(autouse=True)
def installed(request: pytest.FixtureRequest) -> None:
    if "als" in request.node.name:
        pytest.importorskip("implicit", reason="the extra 'references' is not installed")


def checkerboard(size: int = 20) -> Interactions:
    """User u has the items of u's parity; one is missing, which is the only good answer."""
    users, items = np.meshgrid(np.arange(size), np.arange(size), indexing="ij")
    has = (users % 2 == items % 2) & (users != items)
    return Interactions.from_pairs(users[has], items[has])


def weights(name: str, settings: dict[str, float], data: Interactions = TRAIN) -> tuple[np.ndarray, np.ndarray]:
    """(X, B) of a linear baseline."""
    model = Tuned(name, settings).build(data)
    assert isinstance(model.items, FloatItems)
    return model.users.astype(float), model.items.vectors.T.astype(float)


@pytest.mark.parametrize("name", RECOMMENDERS)
def test_a_baseline_is_tuned_on_validation_and_served(name: str) -> None:
    chosen = tuned(name, FIT, HELD_OUT, k=5, threads=1)
    grid = RECOMMENDERS[name].grid
    assert chosen.settings in grid
    if len(grid) > 1:
        assert chosen.settings == grid[int(np.argmax(chosen.values))] and len(chosen.values) == len(grid)
    recall = evaluate(Recommender(chosen.build(TRAIN)), TEST, 5).at(5).mean("recall")
    chance = 5 / (TRAIN.n_items - 4)
    assert recall > (0.8 * chance if name == "popularity" else 3 * chance)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("ease", {"user_weight": 0.0, "regularization": 1.0}),
        ("ease", {"user_weight": -0.5, "regularization": 1.0}),
        ("slim", {"l1": 0.1, "l2": 1.0}),
        ("als", {"factors": 2, "regularization": 0.1, "alpha": 5.0, "iterations": 15}),
    ],
)
def test_on_a_checkerboard_the_missing_item_comes_first(name: str, settings: dict[str, float]) -> None:
    model = Recommender(Tuned(name, settings, threads=1).build(checkerboard()))
    assert model.recommend(users=range(20), k=1)["item"].tolist() == list(range(20))


@pytest.mark.parametrize("name", ["ease", "slim", "als"])
def test_new_users_are_folded_in(name: str) -> None:
    board = checkerboard()
    settings = {"factors": 2, "alpha": 5.0, "iterations": 15, "user_weight": 0.0, "l1": 0.1, "l2": 1.0}
    settings = {key: settings[key] for key in RECOMMENDERS[name].grid[0] if key in settings} | (
        {} if name == "slim" else {"regularization": 0.1}
    )
    new = np.isin(board.rows, board.user_ids.encode([3, 8]))
    model = Recommender(Tuned(name, settings, threads=1).build(board.select(~new), board.select(new)))
    assert model.recommend(users=[3, 8], k=1)["item"].tolist() == [3, 8]


def test_a_user_folded_into_als_solves_its_least_squares() -> None:
    settings = {"factors": 3, "regularization": 0.7, "alpha": 5.0, "iterations": 2}
    items = np.random.default_rng(0).normal(size=(TRAIN.n_items, 3)).astype(np.float32)
    queries = RECOMMENDERS["als"].fold_in(TRAIN, items, settings).astype(float)
    x = TRAIN.matrix.toarray()
    confidence = np.where(x > 0, settings["alpha"], 1.0)
    gradient = (confidence * (queries @ items.T - x)) @ items + settings["regularization"] * queries
    np.testing.assert_allclose(gradient, 0, atol=1e-4)


def test_popularity_ranks_by_counts_and_leaves_out_what_is_seen() -> None:
    data = Interactions.from_pairs([1, 1, 2, 2, 3, 4], ["a", "b", "a", "c", "a", "b"])
    model = Recommender(Tuned("popularity", {}).build(data))
    assert model.recommend(users=[3], k=3)["item"].tolist() == ["b", "c"]
    assert model.recommend(users=[1], k=3)["item"].tolist() == ["c"]
    np.testing.assert_allclose(model.recommend(users=[3], k=3)["score"], [2 / 6, 1 / 6], rtol=1e-6)


@pytest.mark.parametrize("power", [0.0, -0.5])
def test_ease_is_the_weighted_least_squares_with_a_zero_diagonal(power: float) -> None:
    # Column j of B minimises Σ_u d_u^power (X_uj − X_u b)² + λ‖b‖² with b_j = 0: ridge regression on the other items.
    x = TRAIN.matrix.toarray().astype(float)
    weight = x.sum(axis=1, keepdims=True) ** power
    lam, n = 10.0, TRAIN.n_items
    expected = np.zeros((n, n))
    for j in range(n):
        others = np.delete(np.arange(n), j)
        a = x[:, others]
        expected[others, j] = np.linalg.solve(a.T @ (weight * a) + lam * np.eye(n - 1), a.T @ (weight[:, 0] * x[:, j]))
    rows, found = weights("ease", {"user_weight": power, "regularization": lam})
    np.testing.assert_array_equal(rows, x)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_slim_holds_the_conditions_of_its_optimum() -> None:
    l1, l2 = 0.5, 2.0
    x, found = weights("slim", {"l1": l1, "l2": l2})
    slope = x.T @ (x @ found - x) + l2 * found + l1  # of the objective, where B may grow
    apart = ~np.eye(len(found), dtype=bool)
    assert not np.diag(found).any() and (found >= 0).all()
    assert slope[apart].min() > -0.02
    assert np.abs(slope[apart & (found > 1e-3)]).max() < 0.02
    assert 0.02 < (found[apart] > 0).mean() < 0.5  # some weights, and most of them zero


def test_a_seed_fixes_als() -> None:
    grid = RECOMMENDERS["als"].grid
    one, two = (Tuned("als", grid[0], seed=1, threads=1).build(TRAIN) for _ in range(2))
    np.testing.assert_array_equal(one.users, two.users)


def test_bad_arguments(monkeypatch) -> None:
    with pytest.raises(ArgumentError, match="baseline must be one of 'popularity', 'ease', 'slim', 'als'"):
        tuned("magic", FIT, HELD_OUT)
    monkeypatch.setattr(module, "_LARGEST", 1000)
    for name in ("ease", "slim"):
        with pytest.raises(DataError, match="hold dense matrices of at most 1,000 bytes"):
            tuned(name, FIT, HELD_OUT)
