"""Faiss's 4-bit FastScan straight over the packed codes, for every decoder alike, made exact by a certificate."""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from hashlgn.codes import unpack_words
from hashlgn.errors import ArgumentError
from hashlgn.scoring import CodedItems, Floats, Items
from hashlgn.search.flat import rescore
from hashlgn.search.overfetch import Ints, OverFetch

__all__ = ["FastScan"]


class FastScan(OverFetch):
    """Sums of table entries in SIMD registers, the table rounded to 8 bits for each query.

    A product quantiser over ``16 M`` dimensions whose codewords are the unit vectors makes the flattened table the
    query: the product with codeword k of word m is ``T[m, k]``. Faiss rounds entries to multiples of ``1 / a``, with
    ``a = 255 / max_m (max_k T[m, k] − min_k T[m, k])``, so a sum of M entries is off by at most ``M / (2 a)``.
    """

    def __init__(self, items: Items, threads: int | None = None) -> None:
        if not isinstance(items, CodedItems):
            raise ArgumentError("engine 'fastscan' is for codes (got float items: use 'flat')")
        super().__init__(items, threads)
        self._words = unpack_words(items.packed)
        words = self._words.shape[1]
        plain: Any = faiss.IndexPQ(16 * words, words, 4, faiss.METRIC_INNER_PRODUCT)
        units = np.tile(np.eye(16, dtype=np.float32), (words, 1, 1))
        faiss.copy_array_to_vector(units.ravel(), plain.pq.centroids)
        plain.is_trained = True
        if len(items):
            plain.add_sa_codes(np.ascontiguousarray(items.packed))
        self._index = faiss.IndexPQFastScan(plain)  # packs the codes for its registers
        scale = np.ones(1) if items.scale is None or not len(items) else items.scale.astype(np.float64)
        self._scale_range = float(scale.min()), float(scale.max())

    def prepare(self, queries: Floats) -> Any:
        """Query tables, ``(q, M, 16)``."""
        return self.items.decoder.tables(queries) if isinstance(self.items, CodedItems) else queries

    def fetch(self, prepared: Any, length: int) -> tuple[Floats, Ints]:
        """FastScan's answer: sums without the items' scales."""
        sums, items = self._index.search(prepared.reshape(len(prepared), -1), length)
        # Items whose every entry rounds to 0 are never returned; what is missing for them could be anything.
        sums[items < 0], items[items < 0] = np.inf, 0
        return sums, items

    def score(self, prepared: Any, approximate: Floats, items: Ints) -> Floats:
        """From the codes."""
        return rescore(prepared, self._words, self.items, items)

    def ceiling(self, prepared: Any, worst: Floats) -> npt.NDArray[np.float64]:
        """The worst sum that was fetched, plus the rounding, times the scale that makes most of it."""
        spans = (prepared.max(axis=2) - prepared.min(axis=2)).astype(np.float64)  # (q, M)
        rounding = prepared.shape[1] * spans.max(axis=1) / (2 * 255)
        # Float32 arithmetic around the 8-bit sums: a few parts in a million of everything that is added.
        slack = 1e-5 * np.abs(prepared).max(axis=2).sum(axis=1, dtype=np.float64)
        sums = worst + rounding * (1 + 1e-4) + slack
        low, high = self._scale_range
        return np.asarray(np.where(sums > 0, sums * high, sums * low))
