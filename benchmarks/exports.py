"""Every export asked in its engine: bytes, time per query, how far off; beside the library's own search.

    python benchmarks/exports.py                         # 100,000 made vectors of 128 dimensions, as codes of 128 bits
    python benchmarks/exports.py --model MODEL --to duckdb,faiss-flat

Each user asks for 100 items besides those that they have seen, one user after the other; the engine's first answer is
not counted. Faiss, DuckDB and PostgreSQL run on one thread, the others as they come. ``faiss-pq`` needs codes without
scales, and so is measured without. An export whose engine is not installed is left out, with the reason.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from engines import ENGINES, Answer, QdrantEdge

from hashlgn.data import Ids
from hashlgn.errors import HashLGNError, choose, positive_int
from hashlgn.experiments.common.measure import timed
from hashlgn.experiments.common.tables import table
from hashlgn.export import EXPORTERS, Query, asked, export, fill
from hashlgn.inference.model import ServedModel
from hashlgn.inference.recommender import Recommender, load
from hashlgn.inference.stored import Stored
from hashlgn.scoring.decoders import Floats
from hashlgn.scoring.histories import FloatHistories
from hashlgn.scoring.items import CodedItems
from hashlgn.scoring.pairs import pair_scores
from hashlgn.search import Kernel
from hashlgn.search.overfetch import faiss_threads

_CENTRES, _HISTORY = 1000, 20  # groups of made vectors, items in a made history


def made_vectors(n: int, dim: int, seed: int) -> tuple[Floats, Floats]:
    """Items and 4,000 queries around 1,000 centres, with weaker and weaker directions and items of unlike lengths."""
    rng = np.random.default_rng(seed)
    strength, centres = np.arange(1, dim + 1) ** -0.5, rng.standard_normal((_CENTRES, dim))
    items, queries = (
        (centres[rng.integers(0, _CENTRES, count)] + rng.standard_normal((count, dim))) * strength
        for count in (n, 4000)
    )
    return (items * rng.lognormal(0, 0.3, (n, 1))).astype(np.float32), queries.astype(np.float32)


def bench_export(
    model: Path | None = None,
    *,
    items: int = 100_000,
    bits: int = 128,
    dim: int = 128,
    users: int = 20,
    to: Sequence[str] | None = None,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """One row for the library's own search, and one per export, all where ``to`` is None; of made items, or a model."""
    names = list(EXPORTERS) if to is None else list(to)
    for name in names:
        choose("to", name, EXPORTERS)
    users = positive_int("users", users)
    recommender = _made(items, bits, dim, users + 1, seed) if model is None else load(model, threads=1)
    numbers = np.arange(min(users + 1, len(recommender.model.user_ids)))
    rows = [_own(recommender, numbers)]
    for name in names:
        try:
            rows.append(_row(name, recommender, numbers))
        except HashLGNError as error:
            rows.append({**dict.fromkeys(rows[0]), "to": name, "left out": str(error)})
    return rows


def _made(n: int, bits: int, dim: int, users: int, seed: int) -> Recommender:
    from hashlgn.vectors import encode

    vectors, queries = made_vectors(n, dim, seed)
    coded, rng = encode(vectors, queries, bits, seed=seed).items, np.random.default_rng(seed)
    held = np.sort(np.stack([rng.choice(n, _HISTORY, replace=False) for _ in range(users)]), axis=1)
    seen = Stored.of(np.arange(users + 1) * _HISTORY, held.ravel().astype(np.int32))
    ids = Ids(np.arange(users)), Ids(np.arange(n))
    model = ServedModel(
        "hashlgn", {}, *ids, coded, seen, FloatHistories(vectors), titles=[f"title {i}" for i in range(n)]
    )
    return Recommender(model, threads=1)


def _own(recommender: Recommender, numbers: Any) -> dict[str, Any]:
    """The library's kernel, on one thread."""
    items, vectors = recommender.model.items, recommender.queries(numbers)
    searcher = Kernel(items, 1) if isinstance(items, CodedItems) else recommender.searcher
    times = [timed(partial(searcher.search, vector[None], 100))[1] for vector in vectors]
    return {
        "to": "hashlgn",
        "bytes per item": round(items.bytes_per_item, 1),
        "ms per query": round(1e3 * float(np.median(times[1:])), 3),
        "recall@100": 1.0,
        "largest error": 0.0,
        "seconds to write": None,
        "left out": None,
    }


def _row(name: str, recommender: Recommender, numbers: Any) -> dict[str, Any]:
    if name == "faiss-pq":
        recommender = _unscaled(recommender)
    model = recommender.model
    queries = asked(recommender, model.user_ids.decode(numbers))
    with tempfile.TemporaryDirectory(prefix="hashlgn-") as place, faiss_threads(1):
        Path(place).chmod(0o755)
        folder = Path(place) / "out"
        engine = [EXPORTERS[name].query(query, 100) for query in queries]
        if name.startswith("qdrant"):
            edge = QdrantEdge(folder)
            seconds = timed(lambda: fill(recommender, name, edge))[1]
            found = edge.answers(engine)
            edge.close()
        else:
            seconds = timed(lambda: export(recommender, name, folder))[1]
            found = ENGINES[name](folder, engine)
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    best = recommender.recommend(model.user_ids.decode(numbers), 100)
    wanted = model.item_ids.encode(best["item"]).reshape(len(queries), -1)
    compared = [_compared(recommender, *asked_of) for asked_of in zip(queries, found, wanted, strict=True)]
    recalls, errors = zip(*compared, strict=True)
    return {
        "to": name,
        "bytes per item": round(size / len(model.items), 1),
        "ms per query": round(1e3 * float(np.median([answer.seconds for answer in found[1:]])), 3),
        "recall@100": round(float(np.mean(recalls)), 4),
        "largest error": float(f"{max(errors):.1e}"),
        "seconds to write": round(seconds, 1),
        "left out": None,
    }


def _compared(recommender: Recommender, query: Query, answer: Answer, wanted: Any) -> tuple[float, float]:
    """Share of the library's answer that the engine has, and its largest error as a share of the best score."""
    kept = ~np.isin(answer.numbers, query.seen)
    numbers, scores = answer.numbers[kept][: len(wanted)], answer.scores[kept][: len(wanted)]
    exact = pair_scores(recommender.model.items, query.vector[None], np.zeros(len(numbers), np.int64), numbers)
    error = np.abs(scores.astype(np.float32) - exact).max(initial=0) / np.abs(exact).max(initial=1e-30)
    return len(np.intersect1d(numbers, wanted)) / len(wanted), float(error)


def _unscaled(recommender: Recommender) -> Recommender:
    items = recommender.model.items
    if not isinstance(items, CodedItems) or items.scale is None:
        return recommender
    return Recommender(replace(recommender.model, items=CodedItems(items.packed, items.decoder)), threads=1)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a saved model; codes of made vectors by default")
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--bits", type=int, default=128)
    parser.add_argument("--dim", type=int, default=128, help="width of made vectors")
    parser.add_argument("--users", type=int, default=20, help="users who ask")
    parser.add_argument("--to", type=lambda text: text.split(","), help="exports, separated by commas; all by default")
    parser.add_argument("--seed", type=int, default=0)
    print(table(bench_export(**vars(parser.parse_args()))))


if __name__ == "__main__":
    main()
