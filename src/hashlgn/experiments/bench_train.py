"""Seconds an epoch of every stage and loss, and the memory they take."""

from __future__ import annotations

import multiprocessing
import resource
import sys
from pathlib import Path
from typing import Any

from hashlgn.data import Interactions, read_interactions
from hashlgn.data.synthetic import synthetic
from hashlgn.errors import need
from hashlgn.estimators import HashLGN, LightGCN
from hashlgn.provenance import provenance

__all__ = ["bench_train"]

_SIDES: dict[str, tuple[str, dict[str, Any]]] = {
    "LightGCN 64, softmax": ("lightgcn", {}),
    "LightGCN 64, bpr": ("lightgcn", {"train.loss": "bpr"}),
    "HashLGN 128 bits, residual + codebook, softmax": ("hashlgn", {"train.warmup": 0.0}),
    "HashLGN 128 bits, mlp3 + reweight, softmax": (
        "hashlgn",
        {"train.warmup": 0.0, "model.hash": "mlp3", "model.decoder": "reweight"},
    ),
    "HashLGN 128 bits, mlp3 + reweight, bpr": (
        "hashlgn",
        {"train.warmup": 0.0, "model.hash": "mlp3", "model.decoder": "reweight", "train.loss": "bpr"},
    ),
}


def bench_train(data: Path | None = None, *, threads: int | None = None, epochs: int = 1) -> dict[str, Any]:
    """Time a few epochs of each model and loss, each in a process of its own, so that its peak memory is its own.

    Args:
        data: interactions; None is a synthetic catalogue of 6,000 users, 3,700 items and 800,000 interactions.
        threads: processor threads; all where None.
        epochs: how many to time.

    Returns:
        ``rows``: seconds an epoch, seconds of the whole call (start from the SVD, codes' start and export included) and
        peak memory of the process.
    """
    need("torch", "train", "bench train")
    context = multiprocessing.get_context("spawn")
    rows = []
    for name in _SIDES:
        with context.Pool(1) as pool:
            rows.append(pool.apply(_measure, (name, data, threads, epochs)))
    return {"rows": rows, "setting": {"data": str(data), "epochs": epochs}, **provenance(threads=threads)}


def _measure(name: str, data: Path | None, threads: int | None, epochs: int) -> dict[str, Any]:
    interactions = _interactions(data)
    kind, changes = _SIDES[name]
    moments: list[float] = []

    def note(step: Any) -> None:
        if step.epoch_done:
            moments.append(step.seconds)

    config = changes | {"train.epochs": epochs + 1, "train.validation_users": 0}
    model = (LightGCN if kind == "lightgcn" else HashLGN)(config=config, threads=threads)
    model.fit(interactions, report=note)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {
        "model": name,
        "s/epoch": round((moments[-1] - moments[0]) / epochs, 3),
        "s in all": round(model.model.provenance["seconds"], 2),
        "peak MB": round(peak / 1e6),
    }


def _interactions(data: Path | None) -> Interactions:
    return synthetic(6000, 3700, 800_000, seed=0) if data is None else read_interactions(data)
