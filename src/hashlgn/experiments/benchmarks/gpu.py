"""The default training on a GPU, beside the processor of the same machine: seconds, memory and quality."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from hashlgn.config import Config
from hashlgn.data import Interactions
from hashlgn.data.synthetic import synthetic
from hashlgn.errors import ArgumentError, need
from hashlgn.estimators import HashLGN
from hashlgn.evaluation.full_ranking import evaluate
from hashlgn.experiments.demo import find_data
from hashlgn.utils.provenance import provenance


def bench_gpu(
    *,
    made: int = 10_000_000,
    seed: int = 0,
    device: str = "cuda",
    changes: Mapping[str, Any] | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Train the default on MovieLens 1M (or the synthetic catalogue of the demonstration) and on made interactions, of
    which there are a hundred per user, and 20,000 items at most; with ``changes`` of the configuration.

    Returns:
        ``rows``, one per training, and the provenance.

    Raises:
        ArgumentError: there is no such device.
        MissingExtraError: PyTorch is not installed.
    """
    torch = need("torch", "train", "bench gpu")
    if device == "cuda" and not torch.cuda.is_available():
        raise ArgumentError("bench gpu needs a machine with CUDA (PyTorch sees no GPU here)")
    train, test, source = find_data(seed)
    users = max(2, made // 100)
    big = synthetic(users, min(20_000, max(2, made // 20)), made, seed=seed, titles=False)
    config = Config().updated(changes or {})

    def row(data: Interactions, name: str, where: str, held_out: Interactions | None) -> dict[str, Any]:
        if where == "cuda":
            torch.cuda.reset_peak_memory_stats()
        began = time.perf_counter()
        model = HashLGN(config=config, seed=seed, device=where).fit(data, progress=False)
        at = None if held_out is None else evaluate(model, held_out, 50).at(50)
        seconds = model.info()["provenance"]["seconds"]
        say(f"{name} on {where}: {seconds:.1f} s")
        return {
            "data": name,
            "device": torch.cuda.get_device_name() if where == "cuda" else where,
            "interactions": len(data),
            "seconds": round(seconds, 1),
            "with evaluation": round(time.perf_counter() - began, 1),
            "recall@50": None if at is None else at.mean("recall"),
            "ndcg@50": None if at is None else at.mean("ndcg"),
            "peak GPU GiB": round(torch.cuda.max_memory_allocated() / 2**30, 2) if where == "cuda" else None,
        }

    rows = [
        row(train, source, device, test),
        row(big, f"made, {made:,} interactions", device, None),
        row(train, source, "cpu", test),
    ]
    return {"rows": rows, **provenance(seed=seed)}
