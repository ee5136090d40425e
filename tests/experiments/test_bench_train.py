from __future__ import annotations

import importlib
import math
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import numpy as np
import pytest

from conftest import clusters
from hashlgn.errors import ArgumentError
from hashlgn.experiments.benchmarks import train as module
from hashlgn.experiments.benchmarks.train import VARIANTS, bench_train
from hashlgn.experiments.common import measure
from hashlgn.experiments.common.tables import table

FAST = {"model.dim": 16, "model.bits": 16, "model.history_bits": 16}


@pytest.fixture
def here(monkeypatch) -> None:
    """Measure in this process: a new one takes seconds to load PyTorch."""
    monkeypatch.setattr(module, "_alone", module._measure)


@pytest.fixture(scope="module")
def reference() -> Any:
    return importlib.import_module("hashlgn.experiments.baselines.lightgcn_reference")


def test_steps_of_every_variant_are_timed(here) -> None:
    variants = (*VARIANTS, "reference")
    result = bench_train(sizes=(6000,), variants=variants, seconds=0.05, threads=1, changes=FAST)
    rows = {row["variant"]: row for row in result["rows"]}
    assert list(rows) == list(variants)
    assert rows["reference"]["steps/epoch"] == math.ceil(6000 / 2048)
    for row in rows.values():
        assert row["interactions"] == 6000
        assert row["ns/interaction"] == pytest.approx(1e9 * row["s/epoch"] / 6000, rel=2e-3)
        assert row["s/epoch"] == pytest.approx(row["ms/step"] * row["steps/epoch"] / 1000, rel=2e-3)
        assert row["bytes/interaction"] == pytest.approx(1e6 * row["peak MB"] / 6000, abs=100)
    assert "lightgcn-codes" in table(result["rows"])


def test_a_model_without_steps_has_no_times(here) -> None:
    changes = FAST | {"model.encoder": "spectral"}  # in closed form
    (row,) = bench_train(sizes=(6000,), variants=("lightgcn",), seconds=0.05, changes=changes)["rows"]
    assert row["s/epoch"] is None and row["note"] == "no steps"


def test_a_process_of_its_own() -> None:
    (row,) = bench_train(sizes=(5000,), variants=("lightgcn",), seconds=0.05, threads=1, changes=FAST)["rows"]
    assert row["interactions"] == 5000 and row["note"] == ""


def test_a_process_that_dies_leaves_a_row(monkeypatch) -> None:
    class Dead:
        def __init__(self, *_: Any, **__: Any) -> None: ...

        def __enter__(self) -> Dead:
            return self

        def __exit__(self, *_: Any) -> None: ...

        def submit(self, *_: Any) -> Any:
            raise BrokenProcessPool("killed")

    monkeypatch.setattr(measure, "ProcessPoolExecutor", Dead)
    (row,) = bench_train(sizes=(5000,), variants=("lightgcn",))["rows"]
    assert row["note"] == "died, most likely for want of memory"
    assert row["s/epoch"] is None and "-" in table([row])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variants": ("float",)}, "variants must be one of 'student'"),
        ({"seconds": 0.0}, "seconds must be positive"),
        ({"sizes": (0,)}, "synthetic must be a positive integer"),
        ({"changes": {"model.bits": 12}}, "bits must be a positive multiple of 8"),
    ],
)
def test_bad_arguments(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        bench_train(**options)


def test_the_reference_is_what_its_text_says(reference) -> None:
    data = clusters()
    model = reference.Reference(data)
    dense = np.zeros((data.n_users + data.n_items,) * 2)
    dense[data.rows, data.n_users + data.indices] = 1
    dense += dense.T
    degree = dense.sum(axis=0)
    dense /= np.sqrt(np.outer(degree, degree))
    start = model.start.detach().numpy().astype(np.float64)
    layers = [start]
    for _ in range(3):
        layers.append(dense @ layers[-1])
    embedding = np.mean(layers, axis=0)
    np.testing.assert_allclose(model.propagate().detach().numpy(), embedding, atol=1e-6)

    (batch,) = reference.interaction_batches(data, 2048, np.random.default_rng([0, 0]))
    u, i, j = batch[0], batch[1] + data.n_users, batch[2] + data.n_users
    difference = (embedding[u] * (embedding[j] - embedding[i])).sum(axis=1)
    squares = sum((start[rows] ** 2).sum() for rows in (u, i, j))
    want = np.log1p(np.exp(difference)).mean() + 1e-4 / 2 * squares / len(u)
    (loss,) = model.epoch()
    assert loss == pytest.approx(want, rel=1e-5)
    for _ in range(60):
        losses = list(model.epoch())
    assert losses[-1] < 0.9 * loss
