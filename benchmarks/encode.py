"""Codes for vectors from elsewhere: how much of the float ranking is kept, and how fast it is searched.

    python benchmarks/encode.py                    # a made catalogue of 100,000 vectors
    python benchmarks/encode.py --als ml-1m        # item and user factors of implicit's ALS

``hashlgn.encode`` beside optimized product quantization with a scale (searched as ours), Faiss's product and residual
quantizers, RaBitQ, and ScaNN (extra ``bench``), which keeps the floats too. Half of the queries set the quantization
where it takes queries; the others are asked.
Times are wall times on one thread: of a batch, and the median of single queries.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
from exports import made_vectors

import hashlgn
from hashlgn.errors import HashLGNError
from hashlgn.experiments.baselines.indexes import INDEXES
from hashlgn.experiments.baselines.quantizers import quantize
from hashlgn.experiments.common.tables import table
from hashlgn.scoring.decoders import Floats
from hashlgn.search import Searcher, build_searcher

Search = Callable[[Floats, int], np.ndarray]  # queries, k → items (q, k)
CUTOFFS = (10, 100)


def factors(name: str, dim: int, seed: int) -> tuple[Floats, Floats]:
    """Item and user factors of ALS."""
    from implicit.als import AlternatingLeastSquares
    from scipy.sparse import csr_matrix

    data = hashlgn.read_interactions(name)
    counts = csr_matrix((np.ones(len(data), np.float32), data.indices, data.indptr), (data.n_users, data.n_items))
    model = AlternatingLeastSquares(factors=dim, alpha=10, iterations=15, random_state=seed, num_threads=1)
    model.fit(counts, show_progress=False)
    return model.item_factors, model.user_factors


def encoded_search(searcher: Searcher) -> Search:
    """A searcher over codes as the table asks it."""
    return lambda queries, k: searcher.search(queries, k).items.reshape(len(queries), -1)


def row(name: str, size: float, search: Search, queries: Floats, best: np.ndarray, repeats: int) -> dict[str, str]:
    """One row of the table."""
    found = search(queries, max(CUTOFFS))
    kept = {
        f"recall@{k}": np.mean([len(set(a[:k]) & set(b[:k])) / k for a, b in zip(found, best, strict=True)])
        for k in CUTOFFS
    }
    batch, single = [], []
    for _ in range(repeats):
        began = time.perf_counter()
        search(queries, 100)
        batch.append((time.perf_counter() - began) / len(queries))
        for query in queries[:200]:
            began = time.perf_counter()
            search(query[None], 100)
            single.append(time.perf_counter() - began)
    times = {"batch µs": f"{1e6 * min(batch):.0f}", "single µs": f"{1e6 * np.median(single):.0f}"}
    shown = {"codes": name, "bytes per item": f"{size:.1f}"} | {n: f"{value:.4f}" for n, value in kept.items()} | times
    print(shown, flush=True)
    return shown


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--als", metavar="DATA")
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--bits", default="64,128")
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    import faiss
    import torch

    faiss.omp_set_num_threads(1)
    torch.set_num_threads(1)
    items, queries = (
        factors(chosen.als, chosen.dim, chosen.seed)
        if chosen.als
        else made_vectors(chosen.items, chosen.dim, chosen.seed)
    )
    order = np.random.default_rng(chosen.seed).permutation(len(queries))
    known, asked = queries[order[: len(order) // 2]], queries[order[len(order) // 2 :]][: chosen.queries]
    flat = INDEXES["faiss-flat"](items, 0, 1).search[""]
    best = flat(asked, max(CUTOFFS))
    rows = [row("floats: faiss-flat", 4.0 * items.shape[1], flat, asked, best, chosen.repeats)]
    for bits in map(int, chosen.bits.split(",")):
        for of, given in (("queries", known), ("items alone", None)):
            began = time.perf_counter()
            encoded = hashlgn.encode(items, given, bits, threads=1, seed=chosen.seed)
            print(f"encoded in {time.perf_counter() - began:.1f} s", flush=True)
            search, size = encoded_search(encoded), encoded.items.bytes_per_item
            rows.append(row(f"hashlgn.encode, {bits} bits, {of}", size, search, asked, best, chosen.repeats))
        product = quantize(items, "product", bits, scale=True, seed=chosen.seed)
        search = encoded_search(build_searcher(product.items, threads=1))
        size = product.items.bytes_per_item
        rows.append(row(f"OPQ and a scale, {bits} bits", size, search, asked, best, chosen.repeats))
        for name, length in (("faiss-pq", bits), ("faiss-rq", bits + 16)):
            if name == "faiss-pq" and items.shape[1] % (length // 4):
                print(f"{name}: {items.shape[1]} dimensions are no multiple of {length // 4} parts")
                continue
            index = INDEXES[name](items, length, 1)
            rows.append(row(f"{name}, {length} bits", length / 8, index.search[""], asked, best, chosen.repeats))
    for name in ("faiss-rabitq", "scann"):
        try:
            index = INDEXES[name](items, 0, 1)
        except HashLGNError as error:
            print(f"{name}: {error}")
            continue
        for point, search in index.search.items():
            rows.append(row(f"{name} {point}".strip(), index.bytes_per_item, search, asked, best, chosen.repeats))
    print(table(rows))


if __name__ == "__main__":
    main()
