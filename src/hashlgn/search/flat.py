"""Faiss's flat inner product: over float embeddings, the baseline, and over decoded vectors, the paper's way."""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from hashlgn.errors import ArgumentError
from hashlgn.scoring.decoders import Floats
from hashlgn.scoring.items import CodedItems, FloatItems, Items, rounded
from hashlgn.scoring.products import chosen_products
from hashlgn.search.overfetch import TINY, Ints, Levels, OverFetch

__all__ = ["Decoded", "Flat", "flat_index", "rescore"]


class Flat(OverFetch):
    """``IndexFlatIP`` over float vectors, rescored in float64.

    Faiss adds in an order of its own, and may take denormal numbers as 0.
    """

    def __init__(self, items: Items, threads: int | None = None) -> None:
        if not isinstance(items, FloatItems):
            raise ArgumentError(
                "engine 'flat' is for float items (got codes: 'decoded' searches their decoded vectors)"
            )
        super().__init__(items, threads)
        self._vectors, self._index = np.ascontiguousarray(items.vectors, np.float32), flat_index(items.vectors)
        # Faiss's product of t terms is off by at most t · 2^-24 times the sum of their sizes; doubled for safety.
        self._rounding = 2.0**-23 * (items.width + 4) * self.exact.longest

    def prepare(self, queries: Floats) -> Any:
        """The queries."""
        return queries

    def fetch(self, prepared: Any, length: int, level: Levels) -> tuple[Floats, Ints]:
        """Faiss's answer."""
        scores, items = self._index.search(prepared, length)
        return scores, items

    def score(self, prepared: Any, approximate: Floats, items: Ints) -> Floats:
        """From the vectors."""
        return rounded(chosen_products(prepared, self._vectors, items))

    def ceiling(self, prepared: Any, worst: Floats, level: Levels) -> Levels:
        """The worst that was fetched, and what rounding may hide."""
        lengths = np.linalg.norm(prepared.astype(np.float64), axis=1)
        return np.asarray(worst + self._rounding * lengths + TINY)


class Decoded(OverFetch):
    """``IndexFlatIP`` over ``scale_i · g(c_i)``, the codes decoded to floats beforehand; rescored from the codes.

    It answers what the codes answer and takes the memory and time of floats.
    """

    def __init__(self, items: Items, threads: int | None = None) -> None:
        if not isinstance(items, CodedItems):
            raise ArgumentError("engine 'decoded' is for codes (got float items: use 'flat')")
        super().__init__(items, threads)
        self._coded, self._index = items, flat_index(items.decode())
        # Rounding: a sum of t terms is off by at most t · 2^-24 times the sum of their sizes, here for the table
        # (width terms), the sub-codes' sum (M), the decoding (M) and Faiss's product (width); doubled for safety.
        scale = 1.0 if items.scale is None else float(items.scale.max(initial=0))
        self._rounding = 2.0**-23 * 2 * (items.width + items.decoder.bits // 4 + 4) * self.exact.longest * scale

    def prepare(self, queries: Floats) -> Any:
        """The queries."""
        return queries

    def fetch(self, prepared: Any, length: int, level: Levels) -> tuple[Floats, Ints]:
        """Faiss's answer."""
        scores, items = self._index.search(prepared, length)
        return scores, items

    def score(self, prepared: Any, approximate: Floats, items: Ints) -> Floats:
        """From the codes."""
        return rescore(self._coded.decoder.tables(prepared), self.exact.subcodes, self._coded, items)

    def ceiling(self, prepared: Any, worst: Floats, level: Levels) -> Levels:
        """The worst that was fetched, and what rounding may hide."""
        lengths = np.linalg.norm(prepared.astype(np.float64), axis=1)
        return np.asarray(worst + self._rounding * lengths + TINY)


def rescore(tables: Floats, subcodes: npt.NDArray[np.uint8] | None, items: CodedItems, chosen: Ints) -> Floats:
    """Exact scores of chosen items, ``(q, length)``, from query tables ``(q, M, 16)`` and sub-codes ``(M, n)``."""
    if subcodes is None:
        raise AssertionError("codes have sub-codes")
    flat, total = tables.ravel(), np.zeros(chosen.shape, np.float64)
    start = 16 * tables.shape[1] * np.arange(len(tables), dtype=np.int32)[:, None]  # where a query's table begins
    for m in range(tables.shape[1]):
        total += flat[subcodes[m][chosen] + (start + 16 * m)]
    return rounded(total, None if items.scale is None else items.scale[chosen])


def flat_index(vectors: Floats) -> Any:
    """``IndexFlatIP`` over vectors ``(n, width)``."""
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(np.ascontiguousarray(vectors, np.float32))
    return index
