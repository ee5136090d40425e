"""Exact answers from an approximate scan: fetch more than asked, rescore exactly, prove that nothing was missed.

A scan gives, for each query, the L items with the best approximate scores. They are rescored exactly. The engine
knows a ceiling over the exact score of every item that was not fetched; once the k-th exact score lies above it, or the
threshold does not lie below it, the answer is certified. Where it is not, more is fetched, in the end everything.
"""

from __future__ import annotations

import contextlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from hashlgn.errors import positive_int, thread_count, threshold_value
from hashlgn.scoring.decoders import Floats
from hashlgn.scoring.exclusion import Exclusion
from hashlgn.scoring.items import Items
from hashlgn.search.base import Found, Hits, check_exclusion, check_queries, order_hits
from hashlgn.search.exact import Exact

__all__ = ["TINY", "Ints", "Levels", "OverFetch", "faiss_threads"]

Ints = npt.NDArray[np.int64]
Levels = npt.NDArray[np.float64]
TINY = 1e-25  # relative bounds of rounding do not hold near the smallest float32
_BLOCK = 512  # queries a scan
_CELLS = 4_000_000  # items fetched at a time, for all queries of a scan
_MARGIN = 16  # fetched beyond what is needed: near ties
_FEW = 256  # so many banned items are over-fetched; with more, the rest of the catalogue is searched on its own
_PROCESS = os.getpid()  # that has imported Faiss
_FIRST = 64  # fetched first by a threshold search


class OverFetch(ABC):
    """Search by over-fetching; an engine says how to scan, how to score, and what it may have missed.

    Args:
        items: the catalogue.
        threads: processor threads of the scan; all where None.

    Attributes:
        exact: the oracle over the same items, for what cannot be certified.
        levelled: whether ``fetch`` does better where it knows a level.
    """

    levelled = False

    def __init__(self, items: Items, threads: int | None = None) -> None:
        self.items, self.exact = items, Exact(items)
        self.threads = thread_count("threads", threads)
        self._part: tuple[bytes, Ints, OverFetch] | None = None  # the last allowed part of the catalogue

    @abstractmethod
    def prepare(self, queries: Floats) -> Any:
        """What ``fetch``, ``score`` and ``ceiling`` need of some queries; an array with one row per query."""

    @abstractmethod
    def fetch(self, prepared: Any, length: int, level: Levels) -> tuple[Floats, Ints]:
        """The ``length`` items of the best approximate scores, best first: scores and items, ``(q, length)``.

        ``level``, ``(q,)``, is a score below which no item matters, NaN where none is known yet.
        """

    @abstractmethod
    def score(self, prepared: Any, approximate: Floats, items: Ints) -> Floats:
        """Exact scores of fetched items, ``(q, length)``."""

    @abstractmethod
    def ceiling(self, prepared: Any, worst: Floats, level: Levels) -> Levels:
        """No item that was not fetched has a greater exact score, ``(q,)``; ``worst`` are the last ones fetched."""

    def search(self, queries: Floats, k: int, exclude: Exclusion | None = None) -> Hits:
        """The k best items of each query."""
        return self._search(queries, positive_int("k", k), None, exclude)

    def search_above(self, queries: Floats, threshold: float, exclude: Exclusion | None = None) -> Hits:
        """Every item whose score is greater than ``threshold``, for each query."""
        return self._search(queries, None, threshold_value("threshold", threshold), exclude)

    def _search(self, queries: Floats, k: int | None, threshold: float | None, exclude: Exclusion | None) -> Hits:
        n = len(self.items)
        k = None if k is None else min(k, max(n, 1))
        queries = check_queries(queries, self.items.width, self.exact.score_bound)
        exclude = check_exclusion(exclude, len(queries), n)
        banned = 0 if exclude.banned is None else int(exclude.banned.sum())
        if banned > _FEW:
            return self._search_part(queries, k, threshold, exclude)
        # A user who has seen much needs a longer list; sorted by that, nobody pays for somebody else's history.
        needed = exclude.counts(len(queries)) + banned + (_FIRST if k is None else k) + _MARGIN
        order = np.argsort(needed, kind="stable")
        found: list[Found] = []
        with faiss_threads(self.threads):
            for start in range(0, len(order), _BLOCK):
                rows = order[start : start + _BLOCK]
                found += self._certified(queries[rows], rows, int(needed[rows[-1]]), k, threshold, exclude)
        return order_hits(found, len(queries), k)

    def _certified(
        self, queries: Floats, rows: Ints, length: int, k: int | None, threshold: float | None, exclude: Exclusion
    ) -> list[Found]:
        """Hits (row, item, score) of one block; for top-k possibly more than k a row, the k best among them."""
        found: list[Found] = []
        prepared = self.prepare(queries)
        level = np.full(len(rows), np.nan if threshold is None else threshold, np.float64)
        guess = self.levelled and threshold is None
        while len(rows) and 2 * length < len(self.items):
            done = np.zeros(len(rows), np.bool_)
            step = max(1, _CELLS // length)
            for part in (slice(start, start + step) for start in range(0, len(rows), step)):
                hits, done[part], level[part] = self._attempt(
                    prepared[part], rows[part], length, level[part], k, threshold, exclude
                )
                found.append(hits)
            rows, queries, prepared, level = rows[~done], queries[~done], prepared[~done], level[~done]
            length, guess = (2 if guess else 4) * length, False  # a first level is worth more than a longer list
        if len(rows):
            found.append(self._everything(queries, rows, k, threshold, exclude))
        return found

    def _attempt(
        self,
        prepared: Any,
        rows: Ints,
        length: int,
        level: Levels,
        k: int | None,
        threshold: float | None,
        exclude: Exclusion,
    ) -> tuple[Found, npt.NDArray[np.bool_], Levels]:
        """Fetch ``length`` items a query: hits of the rows that are certified, which rows these are, better levels."""
        approximate, items = self.fetch(prepared, length, level)
        scores = self.score(prepared, approximate, items)
        valid = ~exclude.excluded(np.broadcast_to(rows[:, None], items.shape), items)
        ceiling = self.ceiling(prepared, approximate[:, -1], level)
        if k is None:
            valid &= scores > np.float64(threshold)  # a plain float would be rounded to float32
            done = ceiling <= np.float64(threshold)
        else:
            best = np.partition(np.where(valid, scores, -np.inf), length - k, axis=1)[:, length - k]
            done = best > ceiling
            valid &= scores >= best[:, None]
            level = np.where(np.isfinite(best), best, level)  # the k-th score so far: nothing below it matters
        hit_rows, places = np.nonzero(valid & done[:, None])
        return (rows[hit_rows], items[hit_rows, places], scores[hit_rows, places]), done, level

    def _everything(
        self, queries: Floats, rows: Ints, k: int | None, threshold: float | None, exclude: Exclusion
    ) -> Found:
        """Hits by scoring the whole catalogue."""
        part = exclude.take(rows)
        if threshold is None:
            hits = self.exact.search(queries, k or 1, part)
        else:
            hits = self.exact.search_above(queries, threshold, part)
        return np.repeat(rows, np.diff(hits.indptr)), hits.items, hits.scores

    def _search_part(self, queries: Floats, k: int | None, threshold: float | None, exclude: Exclusion) -> Hits:
        """Search what is not banned as a catalogue of its own."""
        if exclude.banned is None:
            raise AssertionError("nothing is banned")
        key = np.packbits(exclude.banned).tobytes()
        part = self._part  # read once: another thread may put its own there
        if part is None or part[0] != key:
            kept = np.flatnonzero(~exclude.banned)
            part = self._part = key, kept, type(self)(self.items.take(kept), self.threads)
        _, kept, engine = part
        hits = engine._search(queries, k, threshold, exclude.within(kept))
        return Hits(hits.indptr, kept[hits.items], hits.scores)


@contextlib.contextmanager
def faiss_threads(count: int | None) -> Iterator[None]:
    """Let Faiss use ``count`` threads in this block; as it is where None; one in the child of a ``fork``.

    OpenMP's threads do not come along with a fork, and the child would wait for them for ever.
    """
    before = faiss.omp_get_max_threads()
    count = 1 if os.getpid() != _PROCESS else count
    if count is not None:
        faiss.omp_set_num_threads(count)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
