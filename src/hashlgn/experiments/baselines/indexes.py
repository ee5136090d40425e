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

faiss: Any = faiss_module  # its type stubs lack half of the indexes
Ints = npt.NDArray[np.int64]
Search = Callable[[Any, int], Ints]  # queries (q, dim), k → items (q, k), best first, −1 where there are no more
_LINKS, _WIDTH = 16, 200  # of graphs: links a node and breadth while building, hnswlib's defaults
_BREADTHS = (64, 128, 256, 512)  # of graphs, while searching
_SHARES = (0.01, 0.04, 0.16)  # of the lists of an inverted file, searched
_REFINED = 4  # times k candidates are scored again with floats


@dataclass(frozen=True)
class Index:
    """An index and its operating points."""

    search: Mapping[str, Search]  # by name of the operating point
    bytes_per_item: float  # size of the index as its library writes it, divided by the items
    # Every item over a threshold, where the library can tell: (queries, threshold) → bounds of the rows, and items
    above: Callable[[Floats, float], tuple[Ints, Ints]] | None = None


Builder = Callable[[Floats, int, int], Index]  # vectors (n, dim), bits, threads
Run = Callable[[Floats, int, int], Ints]  # queries, k, breadth → items

# As Faiss's factory calls them. RaBitQ is one bit a dimension and two floats an item, as published, whatever the bits;
# inner products need no norms beside residual codes; an inverted file scores its best candidates again with floats.
_FACTORY = {
    "faiss-flat": "Flat",
    "faiss-pq": "PQ{parts}x4fs",
    "faiss-rq": "RQ{subcodes}x4fs_Nnone",
    "faiss-rabitq": "RR,RaBitQfs",
    "faiss-ivf-pq": "IVF{lists},PQ{parts}x4fs,RFlat",
    "faiss-ivf-rabitq": "RR,IVF{lists},RaBitQfs,RFlat",
}


def _faiss(name: str, vectors: Floats, bits: int, threads: int) -> Index:
    (n, dim), subcodes = vectors.shape, bits // 4
    # No more parts of a product quantizer than dimensions; between 4 √n and 16 √n lists, as Faiss advises, and at least
    # 39 items in each.
    parts, lists = min(subcodes, dim), max(1, min(round(4 * math.sqrt(n)), n // 39))
    text = _FACTORY[name].format(parts=parts, subcodes=subcodes, lists=lists)
    index = faiss.index_factory(dim, text, faiss.METRIC_INNER_PRODUCT)
    if name == "faiss-rq":
        index.rq.max_beam_size = 8
    index.train(np.ascontiguousarray(vectors[:: max(1, n // 500_000)]))  # more than its clustering would use
    index.add(vectors)
    size = _size(index) / n

    def search(queries: Floats, k: int) -> Ints:
        return np.asarray(index.search(queries, k)[1])

    def above(queries: Floats, threshold: float) -> tuple[Ints, Ints]:
        bounds, _, items = index.range_search(queries, threshold)
        return bounds.astype(np.int64), items

    if not name.startswith("faiss-ivf"):
        return Index({"": search}, size, above if name == "faiss-flat" else None)
    index.k_factor = _REFINED

    def probe(searched: int, queries: Floats, k: int) -> Ints:
        faiss.extract_index_ivf(index).nprobe = searched
        return search(queries, k)

    return Index({f"nprobe {searched}": partial(probe, searched) for searched in _probes(lists)}, size)


def _graph(
    build: Callable[[Floats, bool, int], tuple[Run, float]], squared: bool, vectors: Floats, bits: int, threads: int
) -> Index:
    """A graph over inner products, or over squared distances that rank as these do."""
    held, ask = _as_neighbours(vectors) if squared else (vectors, lambda queries: queries)
    run, size = build(held, squared, threads)

    def search(breadth: int, queries: Floats, k: int) -> Ints:
        return run(ask(queries), k, max(breadth, k))

    return Index({f"ef {ef}": partial(search, ef) for ef in _BREADTHS}, size / len(vectors))


def _hnsw(vectors: Floats, squared: bool, threads: int) -> tuple[Run, float]:
    index = faiss.IndexHNSWFlat(vectors.shape[1], _LINKS, faiss.METRIC_L2 if squared else faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = _WIDTH
    index.add(vectors)

    def run(queries: Floats, k: int, breadth: int) -> Ints:
        return np.asarray(index.search(queries, k, params=faiss.SearchParametersHNSW(efSearch=breadth))[1])

    return run, _size(index)


def _hnswlib(vectors: Floats, squared: bool, threads: int) -> tuple[Run, float]:
    hnswlib = need("hnswlib", "bench", "the index 'hnswlib'")
    index = hnswlib.Index(space="l2" if squared else "ip", dim=vectors.shape[1])
    index.init_index(max_elements=len(vectors), M=_LINKS, ef_construction=_WIDTH, random_seed=0)
    index.set_num_threads(threads)
    index.add_items(vectors, num_threads=threads)

    def run(queries: Floats, k: int, breadth: int) -> Ints:
        index.set_ef(breadth)
        return np.asarray(index.knn_query(queries, k, num_threads=threads)[0], np.int64)

    return run, index.index_file_size()


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
    **{name: partial(_faiss, name) for name in _FACTORY},
    **{
        name + "-l2" * squared: partial(_graph, build, squared)
        for name, build in (("faiss-hnsw", _hnsw), ("hnswlib", _hnswlib))
        for squared in (False, True)
    },
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


def _size(index: Any) -> int:
    """Bytes that Faiss would write, without holding them."""
    written = 0

    def count(part: bytes) -> None:
        nonlocal written
        written += len(part)

    faiss.write_index(index, faiss.BufferedIOWriter(faiss.PyCallbackIOWriter(count), 1 << 20))
    return written


def _probes(lists: int) -> list[int]:
    return sorted({max(1, round(share * lists)) for share in _SHARES})
