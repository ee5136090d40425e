"""Items held back: which interactions are known, what is asked, and that added items are found."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hashlgn.data.synthetic import synthetic
from hashlgn.errors import ArgumentError
from hashlgn.experiments.benchmarks import held_back
from hashlgn.experiments.benchmarks.held_back import bench_held_back

SMALL = {"model.dim": 16, "model.bits": 32, "model.history_bits": 32, "student.epochs": 3, "student.code_epochs": 2}
SMALL |= {"student.distillation_epochs": 2}


def test_held_items_and_ranks_by_hand() -> None:
    data = synthetic(60, 40, 1500, clusters=4)
    degree = np.bincount(data.indices, minlength=data.n_items)
    held = held_back._held(data, 5, 0.2, 0)
    assert held.sum() == int(0.2 * np.count_nonzero(degree)) and (degree[held] > 5).all()
    assert not np.array_equal(held, held_back._held(data, 5, 0.2, 1))
    ranks = held_back._ranks(data, 0)
    for item in range(data.n_items):
        assert sorted(ranks[data.indices == item].tolist()) == list(range(degree[item]))


def test_added_items_are_found_beside_trained_ones() -> None:
    data = synthetic(150, 60, 4000, clusters=4)
    data = replace(data, genres=[(f"g{number % 3}",) for number in range(data.n_items)])
    result = bench_held_back(data, [0, 10], share=0.2, k=20, among=4, threads=1, changes=SMALL)
    nothing, ten = result["rows"]
    assert nothing["interactions"] == 0 and nothing["trained"] is None and 0 <= nothing["added, new"] <= 1
    assert ten["items"] == 12 and ten["asked"] > 0 and ten["trained"] > 0 and ten["added"] > 0
    assert ten["ratio, new"] > 0.7 and result["chance"] == pytest.approx(4 / 12)


def test_bad_requests_are_refused() -> None:
    data = synthetic(30, 20, 200)
    with pytest.raises(ArgumentError, match="share must lie"):
        bench_held_back(data, [1], share=0)
    with pytest.raises(ArgumentError, match="more than 1000 interactions"):
        bench_held_back(data, [1000])
    with pytest.raises(ArgumentError, match="counts must be a positive integer"):
        bench_held_back(data, [-1])
    with pytest.raises(ArgumentError, match="counts must hold at least one number"):
        bench_held_back(data, [])
