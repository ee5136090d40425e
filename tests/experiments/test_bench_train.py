from __future__ import annotations

import importlib
import math
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conftest import clusters
from hashlgn.data import random_ratio
from hashlgn.data.synthetic import write_lightgcn
from hashlgn.errors import ArgumentError
from hashlgn.experiments.benchmarks import train as module
from hashlgn.experiments.benchmarks.train import OTHERS, VARIANTS, bench_train
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
    for name in ("lightgcn-bpr", "paper", "reference"):
        assert rows[name]["steps/epoch"] == math.ceil(6000 / 2048)
    for row in rows.values():
        assert row["interactions"] == 6000 and row["ns/interaction"] == pytest.approx(
            1e9 * row["s/epoch"] / 6000, rel=0.1
        )
        assert row["s/epoch"] == pytest.approx(row["ms/step"] * row["steps/epoch"] / 1000, abs=0.001)
        assert row["bytes/interaction"] == pytest.approx(1e6 * row["peak MB"] / 6000, abs=100)
    assert "lightgcn-bpr" in table(result["rows"])


def test_a_model_without_steps_has_no_times(here) -> None:
    changes = FAST | {"model.encoder": "spectral"}  # in closed form
    (row,) = bench_train(sizes=(6000,), variants=("lightgcn",), seconds=0.05, changes=changes)["rows"]
    assert row["s/epoch"] is None and row["note"] == "no steps"


def test_a_target_ends_a_recipe_where_it_is_reached(here, tmp_path: Path) -> None:
    write_lightgcn(tmp_path, *random_ratio(clusters(), seed=0))
    how: dict[str, Any] = {
        "seconds": 30.0,
        "threads": 1,
        "changes": FAST
        | {"train.pretrain_epochs": 4, "train.joint_epochs": 2, "student.epochs": 1, "student.code_epochs": 1}
        | {"student.distillation_epochs": 2, "student.settle_epochs": 2},
    }
    (easy,) = bench_train(tmp_path, variants=("lightgcn",), target=0.01, **how)["rows"]
    assert easy["epochs"] == 1 and easy["best recall@20"] >= 0.01
    assert 0 <= easy["s to target"] <= easy["s"] + 0.1
    (coded,) = bench_train(tmp_path, variants=("lightgcn-codes",), target=0.01, **how)["rows"]
    assert coded["epochs"] == 5  # four of the encoder alone, which are not what is served
    (student,) = bench_train(tmp_path, variants=("student",), target=0.01, **how)["rows"]
    assert student["epochs"] == 1 + 2 + 3 or student["epochs"] == 1 + 3  # all stages: it is served at the end
    assert student["s to target"] is not None
    ours, other = bench_train(
        sizes=(6000,), variants=("lightgcn", "reference"), target=0.99, **(how | {"seconds": 0.3})
    )["rows"]
    assert ours["s to target"] is None and 0 < ours["best recall@20"] < 0.99 and ours["epochs"] > 1
    assert other["s to target"] is None and 0 < other["best recall@20"] < 0.99


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
        ({"target": 1.0}, "target must lie between 0 and 1"),
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


def test_pyg_computes_the_same(reference) -> None:
    pytest.importorskip("torch_geometric", reason="the extra 'bench' is not installed")
    mine, other = reference.Reference(clusters()), reference.PyG(clusters())
    with torch.no_grad():
        other.start.copy_(mine.start)
    for _ in range(3):
        assert list(other.epoch()) == pytest.approx(list(mine.epoch()), rel=1e-5)
    for ours, theirs in zip(mine.embeddings(), other.embeddings(), strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), atol=1e-5)
    assert set(reference.CONTENDERS) == set(OTHERS)
