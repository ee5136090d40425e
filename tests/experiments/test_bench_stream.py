"""The replay of a data set by time: what is asked and counted, by hand, and that models which learn come out ahead."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hashlgn.data import Ids, Interactions
from hashlgn.errors import ArgumentError, DataError
from hashlgn.experiments.benchmarks import stream
from hashlgn.experiments.benchmarks.stream import bench_stream, draw, drifting

SMALL = {"model.dim": 16, "model.bits": 32, "model.history_bits": 32, "student.epochs": 6, "student.code_epochs": 3}
SMALL |= {"student.distillation_epochs": 3}


class Fixed:
    """Answers by item number, the smallest first."""

    learnt: list[int]

    def __init__(self) -> None:
        self.learnt = []

    def scores(self, users: np.ndarray) -> np.ndarray:
        return np.tile(-np.arange(6, dtype=np.float32), (len(users), 1))

    def learn(self, part: Interactions, known: Interactions) -> None:
        self.learnt.append(len(part))

    def nbytes(self) -> int:
        return 5


def test_questions_and_ages_by_hand() -> None:
    users, items = [0, 0, 1, 1, 0, 1, 2], [0, 1, 1, 2, 3, 0, 4]
    data = Interactions.from_pairs(users, items, times=list(range(7)))
    place = np.argsort(np.argsort(data.times, kind="stable"))
    fixed = Fixed()
    row, recalls = stream._replayed("fixed", fixed, data, place, np.array([4, 7]), 2, lambda line: None)
    # User 0 has 0 and 1, gets 2 and 3, and wants 3; user 1 has 1 and 2, gets 0 and 3, and wants 0; user 2 is unknown.
    assert recalls == [1.0] and row["recall@2"] == 1.0 and row["new items"] == 1.0 and row["1"] == 1.0
    assert row["2 to 4"] is None and fixed.learnt == [3] and row["MB"] == 5e-6


def test_all_methods_on_made_data(tmp_path: Path) -> None:
    pytest.importorskip("implicit")
    data = drifting(80, 60, 2500)
    result = bench_stream(data, periods=2, threads=1, changes=SMALL)
    assert [row["method"] for row in result["rows"]] == list(stream.METHODS)
    recalls = {row["method"]: row["recall@20"] for row in result["rows"]}
    assert all(0 < recall < 1 for recall in recalls.values())
    assert recalls["users and items"] > recalls["never"]
    draw(tmp_path / "plot.svg", result)
    assert (tmp_path / "plot.svg").stat().st_size > 1000


def test_drifting_data_is_born_and_fades() -> None:
    data = drifting(100, 80, 4000, seed=3)
    assert data == data and data.times is not None
    again = drifting(100, 80, 4000, seed=3)
    assert data.fingerprint() == again.fingerprint() != drifting(100, 80, 4000, seed=4).fingerprint()
    early = data.times < np.quantile(data.times, 0.3)
    assert len(np.unique(data.indices[early])) < len(np.unique(data.indices[~early]))


def test_bad_requests_are_refused() -> None:
    data = drifting(30, 30, 200)
    with pytest.raises(ArgumentError, match="method must be one of"):
        bench_stream(data, methods=["magic"])
    with pytest.raises(ArgumentError, match="start must lie between"):
        bench_stream(data, start=1.0)
    plain = Interactions(Ids.range(data.n_users), Ids.range(data.n_items), data.indptr, data.indices)
    with pytest.raises(DataError, match="needs times"):
        bench_stream(plain)
