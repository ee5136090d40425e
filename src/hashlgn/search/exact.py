"""The oracle: every item scored for every query in NumPy, a block of queries at a time."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from hashlgn.errors import positive_int, thread_count, threshold_value
from hashlgn.scoring.codes import unpack_subcodes
from hashlgn.scoring.decoders import Floats
from hashlgn.scoring.exclusion import Exclusion
from hashlgn.scoring.items import CodedItems, Items, rounded, score_bound
from hashlgn.scoring.products import ordered_product
from hashlgn.search.base import Found, Hits, check_exclusion, check_queries, check_score_bound, order_hits

__all__ = ["Exact"]

_CELLS = 4_000_000  # scores held at a time


class Exact:
    """Scores everything, sorts, and is right by construction: what the other searchers are tested against.

    Args:
        items: float vectors or codes.
        threads: not used; NumPy's own.

    Attributes:
        longest: ``scoring.score_bound`` of the items.
        score_bound: the same with scales: no score passes ``score_bound · ‖f‖``.
        subcodes: sub-codes of the codes, ``(M, n)``, None for float items.
    """

    def __init__(self, items: Items, threads: int | None = None) -> None:
        self.items, self.threads = items, thread_count("threads", threads)
        self.subcodes, self.longest, largest = None, score_bound(items), 1.0
        if isinstance(items, CodedItems):
            self.subcodes = np.ascontiguousarray(unpack_subcodes(items.packed).T)
            largest = 1.0 if items.scale is None else float(items.scale.max(initial=1))
        self.score_bound = check_score_bound(self.longest * largest)

    def search(self, queries: Floats, k: int, exclude: Exclusion | None = None) -> Hits:
        """The k best items of each query."""
        return self._search(queries, positive_int("k", k), None, exclude)

    def search_above(self, queries: Floats, threshold: float, exclude: Exclusion | None = None) -> Hits:
        """Every item whose score is greater than ``threshold``, for each query."""
        return self._search(queries, None, threshold_value("threshold", threshold), exclude)

    def scores(self, queries: Floats) -> Floats:
        """All scores, ``(q, n)``."""
        if not isinstance(self.items, CodedItems) or self.subcodes is None:
            return rounded(ordered_product(queries, self._columns))
        tables = self.items.decoder.tables(queries)
        total = np.zeros((len(queries), len(self.items)), np.float64)
        for m, subcodes in enumerate(self.subcodes):
            total += tables[:, m, :].astype(np.float64)[:, subcodes]
        return rounded(total, self.items.scale)

    @cached_property
    def _columns(self) -> Floats:
        return np.ascontiguousarray(self.items.decode().T)

    def _search(self, queries: Floats, k: int | None, threshold: float | None, exclude: Exclusion | None) -> Hits:
        n = len(self.items)
        k = None if k is None else min(k, max(n, 1))
        queries = check_queries(queries, self.items.width, self.score_bound)
        exclude = check_exclusion(exclude, len(queries), n)
        found: list[Found] = []
        block = max(1, _CELLS // max(n, 1))
        for start in range(0, len(queries), block):
            scores = self.scores(queries[start : start + block])
            taken = exclude.take(np.arange(start, start + len(scores))).masks(len(scores))
            if threshold is not None:
                keep = scores > np.float64(threshold)  # a plain float would be rounded to float32
            elif k is not None and k < n:
                # The k-th best of what may be answered; ties with it are cut by item number at the end.
                level = np.partition(np.where(taken, -np.inf, scores), n - k, axis=1)[:, n - k]
                keep = scores >= level[:, None]
            else:
                keep = np.ones(scores.shape, np.bool_)
            rows, items = np.nonzero(keep & ~taken)
            found.append((rows + start, items, scores[rows, items]))
        return order_hits(found, len(queries), k)
