"""Faiss's 4-bit FastScan straight over the packed codes, for every decoder alike, made exact by a certificate."""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np

from hashlgn.errors import ArgumentError
from hashlgn.scoring.decoders import Floats
from hashlgn.scoring.items import CodedItems, Items
from hashlgn.search.flat import rescore
from hashlgn.search.overfetch import TINY, Ints, Levels, OverFetch

__all__ = ["MOST_BITS", "FastScan"]

_SPREAD = 64  # scales so many times smaller than the median are tiny
MOST_BITS = 1016  # Faiss adds up to 255 a sub-code in 16 bits without a check; two more sub-codes hold scales


class FastScan(OverFetch):
    """Sums of table entries in SIMD registers, the table rounded to 8 bits for each query.

    A product quantizer over ``16 M`` dimensions whose codewords are the unit vectors makes the flattened table the
    query: the product with codeword k of sub-code m is ``T[m, k]``. Faiss rounds entries to multiples of ``1 / a``,
    with ``a = 255 / max_m (max_k T[m, k] − min_k T[m, k])``, so a sum of M entries is off by at most ``M / (2 a)``.

    Scales are no sum over sub-codes. But ``scale_i Σ_i ≥ τ`` is ``Σ_i − τ r_i ≥ 0`` with ``r_i = 1 / scale_i``, and
    that is a sum: two more sub-codes hold ``r_i`` in 256 steps, and their table entries are ``−τ`` times the steps'
    values. τ is the threshold, or the k-th score of a first scan. Items whose scales are tiny beside the others would
    use up the steps. They share the last one, and have a bound of their own: no sum is greater than that of the largest
    entries.
    """

    def __init__(self, items: Items, threads: int | None = None) -> None:
        if not isinstance(items, CodedItems):
            raise ArgumentError("engine 'fastscan' is for codes (got float items: use 'flat')")
        if items.decoder.bits > MOST_BITS:
            raise ArgumentError(
                f"engine 'fastscan' is for codes of at most {MOST_BITS} bits (got {items.decoder.bits}: use 'exact')"
            )
        super().__init__(items, threads)
        self._coded, self.levelled = items, items.scale is not None and len(items) > 0
        packed = items.packed
        if items.scale is not None and len(items):
            scale = items.scale.astype(np.float64)
            tiny = scale < np.median(scale) / _SPREAD
            self._tiny = float(scale[tiny].max(initial=0))
            self._lowest, self._highest = float(scale[~tiny].min()), float(scale.max())
            first = 1 / self._highest
            self._step = (1 / self._lowest - first) / 255
            steps = np.rint((1 / np.maximum(scale, self._lowest) - first) / (self._step or 1)).astype(np.uint8)
            packed = np.hstack((packed, steps[:, None]))  # low half first, as all sub-codes
            values = np.arange(16) * self._step
            self._inverse = np.stack((first + values, 16 * values))  # (2, 16): r = low word + high word
        count = 2 * packed.shape[1]
        plain: Any = faiss.IndexPQ(16 * count, count, 4, faiss.METRIC_INNER_PRODUCT)
        faiss.copy_array_to_vector(np.tile(np.eye(16, dtype=np.float32), (count, 1, 1)).ravel(), plain.pq.centroids)
        plain.is_trained = True
        if len(items):
            plain.add_sa_codes(np.ascontiguousarray(packed))
        self._index = faiss.IndexPQFastScan(plain)  # packs the codes for its registers

    def prepare(self, queries: Floats) -> Any:
        """Query tables, ``(q, M, 16)``."""
        return self._coded.decoder.tables(queries)

    def fetch(self, prepared: Any, length: int, level: Levels) -> tuple[Floats, Ints]:
        """FastScan's answer: sums without scales, less ``τ r`` where items have scales."""
        tables = self._extended(prepared, level)
        sums, items = self._index.search(tables.reshape(len(tables), -1), length)
        # Items whose every entry rounds to 0 are never returned; what is missing for them could be anything.
        sums[items < 0], items[items < 0] = np.inf, 0
        return sums, items

    def score(self, prepared: Any, approximate: Floats, items: Ints) -> Floats:
        """From the codes."""
        return rescore(prepared, self.exact.subcodes, self._coded, items)

    def ceiling(self, prepared: Any, worst: Floats, level: Levels) -> Levels:
        """The worst sum that was fetched, plus the rounding; with scales, times the one that makes most of it.

        ``Σ_i − τ r̂_i ≤ A`` gives ``scale_i Σ_i ≤ scale_i A + τ scale_i r̂_i``, and ``r̂_i`` is within half a step of
        ``1 / scale_i``, so the second term is at most ``τ + |τ| scale_i step / 2``.
        """
        tables = self._extended(prepared, level)
        spans = (tables.max(axis=2) - tables.min(axis=2)).astype(np.float64)  # (q, M)
        rounding = tables.shape[1] * spans.max(axis=1) / (2 * 255)
        # Float32 arithmetic around the 8-bit sums: M terms, each off by 2^-24 of everything that is added; doubled.
        slack = 2.0**-23 * (tables.shape[1] + 64) * np.abs(tables).max(axis=2).sum(axis=1, dtype=np.float64)
        sums = worst + rounding * (1 + 1e-4) + slack
        if not self.levelled:
            return np.asarray(sums + TINY)
        known = _known(level)
        scaled = np.where(sums > 0, sums * self._highest, sums * self._lowest)
        regular = scaled + known + np.abs(known) * self._highest * self._step * 0.501
        largest = prepared.max(axis=2).sum(axis=1, dtype=np.float64) + slack
        return np.asarray(np.maximum(regular, self._tiny * np.maximum(largest, 0)) + TINY)

    def _extended(self, tables: Floats, level: Levels) -> Floats:
        if not self.levelled:
            return tables
        more = (-_known(level)[:, None, None] * self._inverse).astype(np.float32)
        return np.concatenate((tables, more), axis=1)


def _known(level: Levels) -> Levels:
    """The level, 0 where there is none yet or no score can be there."""
    return np.where(np.abs(level) <= 1e30, level, 0.0)
