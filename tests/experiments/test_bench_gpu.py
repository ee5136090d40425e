"""The benchmark of a GPU, with the processor in its place."""

from __future__ import annotations

import pytest
import torch

from conftest import clusters
from hashlgn.errors import ArgumentError
from hashlgn.experiments.benchmarks import gpu
from hashlgn.experiments.benchmarks.gpu import bench_gpu

SMALL = {"model.dim": 16, "model.bits": 32, "model.history_bits": 32, "student.epochs": 2}


def test_three_trainings_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "find_data", lambda seed: (clusters(seed=1), clusters(seed=2), "clusters"))
    rows = bench_gpu(made=2000, device="cpu", changes=SMALL)["rows"]
    assert [row["interactions"] for row in rows] == [len(clusters(seed=1)), 2000, len(clusters(seed=1))]
    assert rows[0]["recall@50"] == rows[2]["recall@50"] > 0.5 and rows[1]["recall@50"] is None
    assert all(row["seconds"] <= row["with evaluation"] for row in rows)


def test_without_a_gpu_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ArgumentError, match="needs a machine with CUDA"):
        bench_gpu()
