"""HashGNN's answers re-ranked by continuous vectors: no Hamming search; an item costs its floats beside its code."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from hashlgn.errors import ArgumentError, positive_int, threshold_value
from hashlgn.inference.recommender import Recommender
from hashlgn.scoring.codes import pack_signs
from hashlgn.scoring.decoders import Floats
from hashlgn.scoring.exclusion import Exclusion
from hashlgn.scoring.items import FloatItems, Items, binary_items, score_bound
from hashlgn.search import Hits, Searcher, build_searcher
from hashlgn.search.base import check_queries, order_hits

__all__ = ["CANDIDATES", "Reranked", "RerankedRecommender"]

CANDIDATES = 500  # as in HashGNN's code
_BLOCK = 256  # queries whose candidates' vectors are in memory together


class Reranked:
    """The items nearest by the Hamming distance of signs, ordered by the inner product of the vectors themselves.

    An item that is not among the nearest is no answer, whatever its vector. Source: Tan et al., *Learning to Hash with
    Graph Neural Networks for Recommender Systems*, WWW 2020, and its code.

    Args:
        items: continuous vectors, whose signs are the codes.
        threads: of the Hamming search; all where None.
        candidates: how many of the nearest are ordered anew.

    Raises:
        ArgumentError: items are codes, or ``candidates`` is no positive integer.
    """

    def __init__(self, items: Items, threads: int | None = None, candidates: int = CANDIDATES) -> None:
        if not isinstance(items, FloatItems):
            raise ArgumentError(f"items must be continuous vectors (got {type(items).__name__})")
        self.vectors, self.score_bound = items.vectors, score_bound(items)
        self.candidates = positive_int("candidates", candidates)
        self.nearest = build_searcher(binary_items(pack_signs(_signs(items.vectors))), threads=threads)

    def search(self, queries: Floats, k: int, exclude: Exclusion | None = None) -> Hits:
        """The k best of the candidates of each query."""
        return self._search(queries, positive_int("k", k), -np.inf, exclude)

    def search_above(self, queries: Floats, threshold: float, exclude: Exclusion | None = None) -> Hits:
        """The candidates of each query whose score is greater than ``threshold``."""
        return self._search(queries, None, threshold_value("threshold", threshold), exclude)

    def _search(self, queries: Floats, k: int | None, threshold: float, exclude: Exclusion | None) -> Hits:
        queries = check_queries(queries, self.vectors.shape[1], self.score_bound)
        near = self.nearest.search(_signs(queries).astype(np.float32), self.candidates, exclude)
        found = []
        for start in range(0, len(queries), _BLOCK):
            bounds = near.indptr[start : start + _BLOCK + 1]
            items = near.items[bounds[0] : bounds[-1]]
            rows = start + np.repeat(np.arange(len(bounds) - 1), np.diff(bounds))
            scores = np.einsum("ij,ij->i", queries[rows], self.vectors[items])
            over = scores > np.float64(threshold)  # a plain float would be rounded to float32
            found.append((rows[over], items[over], scores[over]))
        return order_hits(found, len(queries), k)


class RerankedRecommender(Recommender):
    """Answers from a model of continuous vectors by ``Reranked``."""

    @cached_property
    def searcher(self) -> Searcher:
        """The searcher over the catalogue, built when first asked."""
        return Reranked(self.model.items, self.threads)


def _signs(vectors: Floats) -> np.ndarray[tuple[int, ...], np.dtype[np.int8]]:
    return np.where(vectors >= 0, 1, -1).astype(np.int8)
