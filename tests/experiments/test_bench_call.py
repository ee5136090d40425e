"""The benchmark of one call, on a catalogue of a few items."""

from __future__ import annotations

import numpy as np

from hashlgn.experiments.benchmarks.call import bench_call, random_model


def test_every_call_is_measured_with_both_types_of_ids() -> None:
    rows = bench_call(items=300, users=100, length=20, seconds=0.01)["rows"]
    assert [row["call"] for row in rows[:5]] == [
        "1 user",
        "64 users",
        "history of 20",
        "similar items",
        "score of a pair",
    ]
    assert [row["ids"] for row in rows] == ["int"] * 5 + ["str"] * 5 + ["int"] * 2
    assert [row["call"] for row in rows[10:]] == ["update of an item", "new item"]
    assert all(row["us"] > 0 for row in rows)


def test_histories_of_the_made_model_are_whole() -> None:
    indptr, indices = random_model(60, 30, 20).seen
    assert (np.diff(indptr) == 20).all() and indices.max() < 60  # distinct: the model checks that they ascend
