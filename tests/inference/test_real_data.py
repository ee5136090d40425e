"""The main job on real data, from the published split to the file of recommendations; skipped without the data.

Each data set is trained on once, for all that is asked of the model.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from test_users_are_histories import check

import hashlgn
from hashlgn.cli.main import app
from hashlgn.data import Interactions, random_ratio
from hashlgn.evaluation.metrics import METRICS, Evaluated
from hashlgn.inference.recommender import Recommender
from hashlgn.utils.console import exit_code


@pytest.fixture(scope="module")
def ml_100k(real_data: Path) -> tuple[Recommender, Interactions, Interactions]:
    """A model, what it was trained on, and the test part."""
    data = hashlgn.read_interactions(real_data / "ml-100k", min_rating=4)
    train, test = random_ratio(data, seed=0)
    return hashlgn.HashLGN(bits=64, history_bits=64, dim=64).fit(train), train, test


@pytest.fixture(scope="module")
def ml_1m(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model, by the command line."""
    out = tmp_path_factory.mktemp("ml-1m") / "model"
    few = {"epochs": 2, "code_epochs": 1, "settle_epochs": 1, "teacher": "labels"}
    options = [f"--set=student.{name}={value}" for name, value in few.items()] + ["--dim=64", "--bits=64", "--quiet"]
    assert exit_code(app, ["train", str(real_data / "ml-1m"), "--out", str(out), *options]) == 0
    return out


def test_ml_100k_beats_popularity_by_far(ml_100k: tuple[Recommender, Interactions, Interactions]) -> None:
    model, train, test = ml_100k
    result = hashlgn.evaluate(model, test, k=20).at(20)
    popular = np.argsort(-np.bincount(train.indices, minlength=train.n_items), kind="stable")
    users = np.flatnonzero(np.diff(test.indptr))
    answers = [popular[~np.isin(popular, train.row(user))][:20] for user in users]
    truth = test.matrix[users].tocsr()
    evaluated = Evaluated.build(np.arange(len(users) + 1) * 20, np.concatenate(answers), truth.indptr, truth.indices)
    assert result.mean("recall") > 1.4 * METRICS["recall"](evaluated, 20).mean()
    assert result.mean("ndcg") > 1.4 * METRICS["ndcg"](evaluated, 20).mean()


def test_the_file_of_recommendations_says_what_evaluate_says(ml_1m: Path, real_data: Path, tmp_path: Path) -> None:
    folder = real_data / "ml-1m"
    assert exit_code(app, ["recommend", str(ml_1m), "--out", str(tmp_path / "r.parquet"), "--k", "50", "--quiet"]) == 0
    rows = pq.read_table(tmp_path / "r.parquet")
    truth: dict[int, set[int]] = {}
    for line in (folder / "test.txt").read_text().splitlines():
        user, *items = map(int, line.split())
        truth[user] = set(items)
    model = hashlgn.load(ml_1m)
    known = set(model.model.item_ids.values.tolist())
    hits = dict.fromkeys(truth, 0)
    for user, item in zip(rows["user"].to_pylist(), rows["item"].to_pylist(), strict=True):
        hits[user] += item in truth[user]
    recall = np.mean([hits[user] / len(items & known) for user, items in truth.items() if items & known])
    told = hashlgn.evaluate(model, folder, k=50).at(50).mean("recall")
    assert abs(recall - told) < 1e-9
    assert recall > 0.3
    assert model.model.titles[int(model.model.item_ids.encode([2857])[0])] == "American Beauty (1999)"


@pytest.mark.parametrize(("name", "alone", "engines"), [("ml_100k", None, None), ("ml_1m", 200, ())])
def test_named_and_given_are_one_and_the_same_on_real_data(
    name: str, alone: int | None, engines: tuple[str, ...] | None, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    made = request.getfixturevalue(name)
    check(hashlgn.load(made) if isinstance(made, Path) else made[0], tmp_path, alone, engines)
