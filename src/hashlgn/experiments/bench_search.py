"""Search time of every searcher on one random catalogue: codes against float vectors, side by side in one run."""

from __future__ import annotations

import statistics
import time
from typing import Any

import numpy as np

from hashlgn.codes import check_bits
from hashlgn.errors import positive_int
from hashlgn.filters import Exclusion
from hashlgn.provenance import provenance
from hashlgn.scoring import CodebookDecoder, CodedItems, FloatItems, Items, ReweightDecoder
from hashlgn.search import build_searcher

__all__ = ["bench_search"]

_SEEN = 50  # items left out for each query


def bench_search(
    *, items: int, queries: int, bits: int, dim: int, k: int, repeats: int, threads: int, seed: int = 0
) -> dict[str, Any]:
    """Time a batch of queries, top-k and threshold, with 50 items left out for each.

    The float baseline is Faiss's flat inner product over ``dim`` floats. Codes, codewords and queries are random, with
    clusters, so that scores spread as those of a trained model do. The threshold is the median score of the k-th item.

    Returns:
        ``rows``, one a searcher: bytes an item, microseconds a query (median over ``repeats``, runs interleaved), and
        the ratio to the float baseline; and the provenance.
    """
    rng = np.random.default_rng(seed)
    words = check_bits(bits) // 4
    positive_int("items", items)
    centres = rng.standard_normal((256, dim)).astype(np.float32)
    vectors = _unit(centres[rng.integers(0, 256, items)] + rng.standard_normal((items, dim)).astype(np.float32))
    users = _unit(centres[rng.integers(0, 256, queries)] + rng.standard_normal((queries, dim)).astype(np.float32))
    packed = rng.integers(0, 256, (items, bits // 8), np.uint8)
    codebook = CodebookDecoder(
        rng.standard_normal((words, 16, dim)).astype(np.float32) / np.sqrt(np.float32(words * dim))
    )
    scale = rng.uniform(0.9, 1.1, items).astype(np.float16)
    paper = ReweightDecoder(*rng.uniform(0, 1, (2, bits)).astype(np.float32))
    wide = _unit(rng.standard_normal((queries, bits)).astype(np.float32))
    sides: list[tuple[str, Items, str, Any]] = [
        (f"float {dim}, flat", FloatItems(vectors), "flat", users),
        (f"reweight {bits} bits, fastscan", CodedItems(packed, paper), "fastscan", wide),
        (f"codebook {bits} bits, fastscan", CodedItems(packed, codebook), "fastscan", users),
        (f"codebook {bits} bits + scale, fastscan", CodedItems(packed, codebook, scale), "fastscan", users),
        (f"codebook {bits} bits + scale, decoded", CodedItems(packed, codebook, scale), "decoded", users),
    ]
    seen = np.sort(rng.integers(0, items, (queries, min(_SEEN, items))), axis=1)
    exclude = Exclusion.build(items, seen=(np.arange(queries + 1) * seen.shape[1], seen.ravel()))
    built = [(name, held, build_searcher(held, engine, threads), asked) for name, held, engine, asked in sides]
    levels = []
    for _, _, searcher, asked in built:  # also warms every searcher up
        hits = searcher.search(asked, k, exclude)
        last = hits.indptr[1:][np.diff(hits.indptr) > 0] - 1
        levels.append(float(np.median(hits.scores[last])) if len(last) else 0.0)
    top: list[list[float]] = [[] for _ in built]
    above: list[list[float]] = [[] for _ in built]
    for _ in range(positive_int("repeats", repeats)):
        for place, (_, _, searcher, asked) in enumerate(built):
            began = time.perf_counter()
            searcher.search(asked, k, exclude)
            top[place].append(time.perf_counter() - began)
            began = time.perf_counter()
            searcher.search_above(asked, levels[place], exclude)
            above[place].append(time.perf_counter() - began)
    base_top, base_above = statistics.median(top[0]), statistics.median(above[0])
    rows = [
        {
            "searcher": name,
            "bytes/item": held.bytes_per_item,
            f"top-{k} us/query": round(1e6 * statistics.median(top[place]) / queries, 1),
            "ratio": f"{base_top / statistics.median(top[place]):.2f}x",
            "threshold us/query": round(1e6 * statistics.median(above[place]) / queries, 1),
            "ratio ": f"{base_above / statistics.median(above[place]):.2f}x",
        }
        for place, (name, held, _, _) in enumerate(built)
    ]
    setting = {"items": items, "queries": queries, "bits": bits, "dim": dim, "k": k, "seen": seen.shape[1]}
    return {"rows": rows, "setting": setting | {"repeats": repeats}, **provenance(seed=seed, threads=threads)}


def _unit(vectors: Any) -> Any:
    return np.ascontiguousarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)
