"""The shares of a history add up to the score, whatever form answers and histories have."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hashlgn.errors import ArgumentError
from hashlgn.experiments.benchmarks.call import random_model
from hashlgn.inference.explaining import explainable, shares
from hashlgn.inference.model import ServedModel
from hashlgn.inference.recommender import Recommender
from hashlgn.inference.stored import Stored
from hashlgn.scoring.fold_in import FoldIn
from hashlgn.scoring.histories import FloatHistories
from hashlgn.scoring.items import FloatItems


def model(form: str) -> ServedModel:
    made, rng = random_model(200, 30, 7), np.random.default_rng(1)
    vectors = rng.standard_normal((200, 128)).astype(np.float32)
    if "answers" in form:
        made = replace(made, items=FloatItems(vectors))
    if "histories" in form:
        made = replace(made, histories=FloatHistories(vectors[::-1].copy()))
    if "strengths" in form:
        made = replace(made, stored=Stored.of(*made.seen, rng.lognormal(0, 1, len(made.seen[1])).astype(np.float32)))
    return made


@pytest.mark.parametrize("form", ["codes", "answers", "histories", "answers histories", "codes strengths"])
def test_shares_add_up_to_the_score(form: str) -> None:
    served = model(form)
    recommender = Recommender(served, threads=1)
    for user in range(8):
        own = slice(served.seen[0][user], served.seen[0][user + 1])
        history = served.seen[1][own].astype(np.int64)
        strengths = None if served.strengths is None else served.strengths[own]
        table = recommender.recommend([user], 12)
        found = shares(served, history, strengths, table["item"])
        assert found.shape == (12, 7)
        np.testing.assert_allclose(found.sum(axis=1), table["score"], rtol=2e-6, atol=2e-6 * np.abs(found).max())
        alone = shares(served, history[:1], None, table["item"])  # one item is all of the score
        given = recommender.recommend(history=history[:1].tolist(), k=200, filter_seen=False)
        score = dict(zip(given["item"].tolist(), given["score"].tolist(), strict=True))
        np.testing.assert_allclose(alone[:, 0], [score[item] for item in table["item"].tolist()], rtol=1e-5, atol=1e-6)


def test_a_model_that_folds_in_by_an_encoder_has_no_shares() -> None:
    made = random_model(200, 30, 7)
    folded = replace(made, histories=FoldIn(np.ones((200, 128), np.float32), (), True, False))
    assert explainable(made) and not explainable(folded)
    with pytest.raises(ArgumentError, match="sums over a history"):
        shares(folded, np.array([1]), None, np.array([2]))
