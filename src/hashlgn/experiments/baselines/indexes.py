"""Other libraries' indexes over float vectors, each set up as its own documentation recommends, behind one call.

``INDEXES`` is the table of choices: name → builder. A builder imports its library itself; one that is not installed
raises ``MissingExtraError``. Every index is told to rank by inner product.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import faiss as faiss_module
import numpy as np
import numpy.typing as npt

from hashlgn.errors import ArgumentError, need
from hashlgn.scoring.codes import Bytes
from hashlgn.scoring.decoders import Floats
from hashlgn.scoring.exclusion import Exclusion

__all__ = ["CODED", "INDEXES", "Index", "Search", "binary_flat", "loop_over_seen", "matmul", "without_seen"]

faiss: Any = faiss_module  # its type stubs lack half of the indexes
Ints = npt.NDArray[np.int64]
Search = Callable[[Any, int], Ints]  # queries (q, dim), k → items (q, k), best first, −1 where there are no more
_LINKS, _WIDTH = 16, 200  # of graphs: links a node and breadth while building, hnswlib's defaults
_BREADTHS = (64, 128, 256, 512)  # of graphs, while searching
_SHARES = (0.01, 0.04, 0.16)  # of the lists of an inverted file, searched
_REFINED = 4  # times k candidates are scored again with floats


@dataclass(frozen=True)
class Index:
    """An index and its operating points.

    Attributes:
        search: by name of the operating point, how to search there.
        bytes_per_item: size of the index as its library writes it, divided by the items.
        above: every item with a score over a threshold, where the library can tell: ``(queries, threshold)`` → bounds
            of the rows and items.
    """

    search: Mapping[str, Search]
    bytes_per_item: float
    above: Callable[[Floats, float], tuple[Ints, Ints]] | None = None


Builder = Callable[[Floats, int, int], Index]  # vectors (n, dim), bits, threads


def _flat(vectors: Floats, bits: int, threads: int) -> Index:
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    return _faiss(index, above=True)


def _pq(vectors: Floats, bits: int, threads: int) -> Index:
    index = faiss.IndexPQFastScan(vectors.shape[1], _subquantizers(vectors, bits), 4, faiss.METRIC_INNER_PRODUCT)
    return _filled(index, vectors)


def _residual(vectors: Floats, bits: int, threads: int) -> Index:
    plain = faiss.AdditiveQuantizer.ST_LUT_nonorm  # inner products need no norms beside the codes
    index = faiss.IndexResidualQuantizerFastScan(vectors.shape[1], bits // 4, 4, faiss.METRIC_INNER_PRODUCT, plain)
    index.rq.max_beam_size = 8
    return _filled(index, vectors)


def _ivf_pq(vectors: Floats, bits: int, threads: int) -> Index:
    (n, dim), subcodes = vectors.shape, _subquantizers(vectors, bits)
    coarse = faiss.IndexFlatIP(dim)
    index = faiss.IndexIVFPQFastScan(coarse, dim, _lists(n), subcodes, 4, faiss.METRIC_INNER_PRODUCT)
    return _refined(coarse, index, vectors)


def _rabitq(vectors: Floats, bits: int, threads: int) -> Index:
    """One bit a dimension and two floats an item, as published, whatever ``bits``; rotated at random before."""
    dim = vectors.shape[1]
    return _filled(_rotated(faiss.IndexRaBitQFastScan(dim, faiss.METRIC_INNER_PRODUCT)), vectors)


def _ivf_rabitq(vectors: Floats, bits: int, threads: int) -> Index:
    n, dim = vectors.shape
    coarse = faiss.IndexFlatIP(dim)
    index = faiss.IndexIVFRaBitQFastScan(coarse, dim, _lists(n), faiss.METRIC_INNER_PRODUCT)
    return _refined(coarse, index, vectors, _rotated(index))


def _hnsw(vectors: Floats, bits: int, threads: int, *, squared: bool = False) -> Index:
    held, ask = _as_neighbours(vectors) if squared else (vectors, _same)
    metric = faiss.METRIC_L2 if squared else faiss.METRIC_INNER_PRODUCT
    index = faiss.IndexHNSWFlat(held.shape[1], _LINKS, metric)
    index.hnsw.efConstruction = _WIDTH
    index.add(held)

    def search(breadth: int, queries: Floats, k: int) -> Ints:
        parameters = faiss.SearchParametersHNSW(efSearch=max(breadth, k))
        return np.asarray(index.search(ask(queries), k, params=parameters)[1])

    return Index({f"ef {ef}": partial(search, ef) for ef in _BREADTHS}, _size(index) / len(vectors))


def _hnswlib(vectors: Floats, bits: int, threads: int, *, squared: bool = False) -> Index:
    hnswlib = need("hnswlib", "bench", "the index 'hnswlib'")
    held, ask = _as_neighbours(vectors) if squared else (vectors, _same)
    index = hnswlib.Index(space="l2" if squared else "ip", dim=held.shape[1])
    index.init_index(max_elements=len(vectors), M=_LINKS, ef_construction=_WIDTH, random_seed=0)
    index.set_num_threads(threads)
    index.add_items(held, num_threads=threads)

    def search(breadth: int, queries: Floats, k: int) -> Ints:
        index.set_ef(max(breadth, k))
        return np.asarray(index.knn_query(ask(queries), k, num_threads=threads)[0], np.int64)

    return Index({f"ef {ef}": partial(search, ef) for ef in _BREADTHS}, index.index_file_size() / len(vectors))


def _usearch(vectors: Floats, bits: int, threads: int, *, squared: bool = False) -> Index:
    usearch = need("usearch.index", "bench", "the index 'usearch'")
    held, ask = _as_neighbours(vectors) if squared else (vectors, _same)
    index = usearch.Index(
        ndim=held.shape[1],
        metric="l2sq" if squared else "ip",
        dtype="f32",
        connectivity=_LINKS,
        expansion_add=_WIDTH,
    )
    index.add(np.arange(len(vectors)), held, threads=threads)

    def search(breadth: int, queries: Floats, k: int) -> Ints:
        index.expansion_search = max(breadth, k)
        found = index.search(ask(queries), k, threads=threads)
        keys = np.asarray(found.keys).astype(np.int64).reshape(len(queries), -1)
        counts = np.reshape(getattr(found, "counts", keys.shape[1]), (-1, 1))  # one query has no counts
        return np.where(np.arange(keys.shape[1]) < counts, keys, -1)

    return Index({f"ef {ef}": partial(search, ef) for ef in _BREADTHS}, index.serialized_length / len(vectors))


def _scann(vectors: Floats, bits: int, threads: int) -> Index:
    """As its documentation advises: all floats under 20,000 items, hashes under 100,000, and a tree of about √n leaves
    above.
    """
    scann = need("scann.scann_ops.py.scann_ops_pybind", "bench", "the index 'scann'")
    n = len(vectors)
    builder = scann.builder(vectors, min(10, n), "dot_product").set_n_training_threads(threads)
    leaves = round(math.sqrt(n)) if n >= 100_000 else 0
    if leaves:
        builder = builder.tree(leaves, max(1, leaves // 100), training_sample_size=min(n, 250_000))
    if n >= 20_000:
        builder = builder.score_ah(2, anisotropic_quantization_threshold=0.2).reorder(100)
    else:
        builder = builder.score_brute_force()
    index = builder.build()
    index.set_num_threads(threads)
    run = index.search_batched if threads == 1 else index.search_batched_parallel

    def search(searched: int | None, queries: Floats, k: int) -> Ints:
        again = max(100, _REFINED * k) if n >= 20_000 else None
        items, scores = run(queries, k, again, searched)
        return np.where(np.isnan(scores), -1, np.asarray(items).astype(np.int64))

    points = {f"leaves {probed}": partial(search, probed) for probed in _probes(leaves)} if leaves else {}
    with tempfile.TemporaryDirectory(prefix="hashlgn-bench-") as folder:
        index.serialize(folder)
        size = sum(file.stat().st_size for file in Path(folder).iterdir())
    return Index(points or {"": partial(search, None)}, size / n)


INDEXES: dict[str, Builder] = {
    "faiss-flat": _flat,
    "faiss-pq": _pq,
    "faiss-rq": _residual,
    "faiss-rabitq": _rabitq,
    "faiss-ivf-pq": _ivf_pq,
    "faiss-ivf-rabitq": _ivf_rabitq,
    "faiss-hnsw": _hnsw,
    "faiss-hnsw-l2": partial(_hnsw, squared=True),
    "hnswlib": _hnswlib,
    "hnswlib-l2": partial(_hnswlib, squared=True),
    "usearch": _usearch,
    "usearch-l2": partial(_usearch, squared=True),
    "scann": _scann,
}
CODED = frozenset({"faiss-pq", "faiss-rq", "faiss-ivf-pq"})  # use ``bits``


def binary_flat(packed: Bytes) -> Index:
    """Faiss's exhaustive Hamming search over packed codes; queries are packed too."""
    index = faiss.IndexBinaryFlat(8 * packed.shape[1])
    index.add(packed)
    return Index({"": lambda queries, k: np.asarray(index.search(queries, k)[1])}, float(packed.shape[1]))


def without_seen(search: Search, queries: Any, k: int, exclude: Exclusion) -> Ints:
    """The k best that are not excluded, for an index that knows no exclusion: fetch more, mask, close the ranks.

    Users whose histories are about as long ask together, so that nobody pays for somebody else's.
    """
    counts = exclude.counts(len(queries))
    classes = np.ceil(np.log2(np.maximum(counts, 32)))
    answers = np.full((len(queries), k), -1, np.int64)
    for each in np.unique(classes):
        rows = np.flatnonzero(classes == each)
        whole = len(rows) == len(queries)
        items = search(
            queries if whole else np.ascontiguousarray(queries[rows]), min(k + int(counts[rows].max()), exclude.n_items)
        )
        drop = (items < 0) | exclude.excluded(np.broadcast_to(rows[:, None], items.shape), np.maximum(items, 0))
        order = np.argsort(drop, axis=1, kind="stable")[:, :k]
        found = np.where(np.take_along_axis(drop, order, axis=1), -1, np.take_along_axis(items, order, axis=1))
        answers[rows, : found.shape[1]] = found
    return answers


def loop_over_seen(search: Search, queries: Floats, k: int, exclude: Exclusion, *, together: bool) -> list[list[int]]:
    """The paper's procedure: k and as many as were seen are asked of a float index, and a loop drops what was seen.

    ``together``: one call for all users, which must ask for the longest history; else one call a user.
    """
    if exclude.indptr is None or exclude.indices is None:
        raise AssertionError("there is nothing to drop")
    bounds, indices = exclude.indptr.tolist(), exclude.indices
    longest = min(k + int(np.diff(exclude.indptr).max(initial=0)), exclude.n_items)
    found = search(queries, longest) if together else None
    answers = []
    for row in range(len(queries)):
        history = set(indices[bounds[row] : bounds[row + 1]].tolist())
        length = min(k + len(history), exclude.n_items)
        line = found[row] if found is not None else search(queries[row : row + 1], length)[0]
        answer: list[int] = []
        for item in line.tolist():
            if item not in history:
                answer.append(item)
                if len(answer) == k:
                    break
        answers.append(answer)
    return answers


def matmul(vectors: Floats, queries: Floats, k: int, exclude: Exclusion) -> Ints:
    """The k best that are not excluded, by BLAS and NumPy: all scores, a mask, a partition, and a sort of k."""
    answers, step = [], max(1, 50_000_000 // len(vectors))
    for start in range(0, len(queries), step):
        scores = queries[start : start + step] @ vectors.T
        part = exclude.take(np.arange(start, start + len(scores)))
        if part.indptr is not None and part.indices is not None:
            scores[np.repeat(np.arange(len(scores)), np.diff(part.indptr)), part.indices] = -np.inf
        best = np.argpartition(scores, len(vectors) - k, axis=1)[:, len(vectors) - k :]
        order = np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1, kind="stable")
        answers.append(np.take_along_axis(best, order, axis=1))
    return np.concatenate(answers)


def _faiss(index: Any, *, above: bool = False) -> Index:
    def over(queries: Floats, threshold: float) -> tuple[Ints, Ints]:
        bounds, _, items = index.range_search(queries, threshold)
        return bounds.astype(np.int64), items

    search: Search = lambda queries, k: np.asarray(index.search(queries, k)[1])  # noqa: E731
    return Index({"": search}, _size(index) / index.ntotal, over if above else None)


def _rotated(index: Any) -> Any:
    rotation = faiss.RandomRotationMatrix(index.d, index.d)
    rotation.init(0)
    return faiss.IndexPreTransform(rotation, index)


def _filled(index: Any, vectors: Floats) -> Index:
    index.train(_sample(vectors))
    index.add(vectors)
    return _faiss(index)


def _refined(coarse: Any, index: Any, vectors: Floats, outer: Any = None) -> Index:
    """An inverted file whose best candidates are scored again with the floats, which it therefore holds too."""
    outer = index if outer is None else outer
    outer.train(_sample(vectors))
    outer.add(vectors)
    refined = faiss.IndexRefineFlat(outer, faiss.swig_ptr(vectors))
    refined.k_factor = _REFINED
    kept = (coarse, index, outer)  # Faiss does not own an index inside another: they live as long as the search

    def search(lists: int, queries: Floats, k: int) -> Ints:
        kept[1].nprobe = lists
        return np.asarray(refined.search(queries, k)[1])

    return Index(
        {f"nprobe {lists}": partial(search, lists) for lists in _probes(index.nlist)}, _size(refined) / len(vectors)
    )


def _as_neighbours(vectors: Floats) -> tuple[Floats, Callable[[Floats], Floats]]:
    """Vectors whose smallest Euclidean distance is the largest product, and what turns queries into such vectors.

    One more component, ``sqrt(max ‖o‖² − ‖o‖²)``, 0 for queries, makes all norms equal (Bachrach et al., *Speeding up
    the Xbox recommender system*, RecSys 2014). Whether a graph is better off so depends on the data: where long items
    lie in clusters, a graph of inner products falls apart and misses most answers; where they lie anywhere, it is the
    distances that fail.
    """
    squares = np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64)
    largest = squares.max()
    if squares.min() > 0.98 * largest:
        raise ArgumentError("items of about one length rank by distance as they rank by product: '-l2' adds nothing")
    more = np.sqrt(largest - squares).astype(np.float32)
    return (
        np.concatenate((vectors, more[:, None]), axis=1),
        lambda queries: np.concatenate((queries, np.zeros((len(queries), 1), np.float32)), axis=1),
    )


def _same(queries: Floats) -> Floats:
    return queries


def _size(index: Any) -> int:
    """Bytes that Faiss would write, without holding them."""
    written = 0

    def count(part: bytes) -> None:
        nonlocal written
        written += len(part)

    faiss.write_index(index, faiss.BufferedIOWriter(faiss.PyCallbackIOWriter(count), 1 << 20))
    return written


def _subquantizers(vectors: Floats, bits: int) -> int:
    """Parts of a vector for a product quantizer of 4 bits a part: no more than it has dimensions."""
    return min(bits // 4, int(vectors.shape[1]))


def _lists(n: int) -> int:
    """Lists of an inverted file: between 4 √n and 16 √n, as Faiss advises, and at least 39 items in each."""
    return max(1, min(round(4 * math.sqrt(n)), n // 39))


def _probes(lists: int) -> list[int]:
    return sorted({max(1, round(share * lists)) for share in _SHARES})


def _sample(vectors: Floats) -> Floats:
    """Evenly spread vectors to train on, where there are more than Faiss's clustering would use."""
    return np.ascontiguousarray(vectors[:: max(1, len(vectors) // 500_000)])
