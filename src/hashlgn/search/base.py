"""What a searcher is, what it answers, and the checks that every one of them shares."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from hashlgn.errors import ArgumentError
from hashlgn.scoring.decoders import Floats
from hashlgn.scoring.exclusion import Exclusion

__all__ = [
    "Found",
    "Hits",
    "Searcher",
    "check_exclusion",
    "check_queries",
    "check_score_bound",
    "in_range",
    "order_hits",
]

Found = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], Floats]  # rows, items and scores of loose hits, aligned
_LARGEST = 1e30  # scores stay well inside float32, whatever is added or multiplied on the way to them
_NOTHING: Found = (np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))


@dataclass(frozen=True)
class Hits:
    """Ragged answers to a batch of queries: row r is ``items[indptr[r]:indptr[r + 1]]``, best first, with its scores.

    Ordered by (score descending, item ascending). A query with fewer candidates than k simply has a shorter row.

    Attributes:
        indptr: ``(q + 1,)`` int64.
        items: item numbers, int64.
        scores: float32.
    """

    indptr: npt.NDArray[np.int64]
    items: npt.NDArray[np.int64]
    scores: Floats

    def __len__(self) -> int:
        return len(self.indptr) - 1

    def row(self, r: int) -> tuple[npt.NDArray[np.int64], Floats]:
        """Items and scores of query ``r``."""
        span = slice(self.indptr[r], self.indptr[r + 1])
        return self.items[span], self.scores[span]


class Searcher(Protocol):
    """Answers queries over one catalogue.

    Queries are float32 vectors ``(q, width)``: users after compression. Both methods leave out what ``exclude`` says
    (its rows are the queries' rows) and raise ``ArgumentError`` for queries of another shape or with NaN or infinity.
    """

    def search(self, queries: Floats, k: int, exclude: Exclusion | None = None) -> Hits:
        """MIPS: the k items of the highest score for each query; k over the catalogue gives all candidates."""

    def search_above(self, queries: Floats, threshold: float, exclude: Exclusion | None = None) -> Hits:
        """TIPS: every item whose score is greater than ``threshold``, for each query."""


def check_score_bound(bound: float) -> float:
    """Check how far scores of items can reach for a query of length 1 (``scoring.score_bound``, times the
    largest scale).

    Raises:
        ArgumentError: items are not finite, or too large for float32 scores.
    """
    if not bound <= _LARGEST:
        raise ArgumentError(f"items must be finite and give scores under {_LARGEST:.0e} (may reach {bound:.2g})")
    return bound


def check_queries(queries: Any, width: int, score_bound: float) -> Floats:
    """Check a batch of queries and return it as contiguous float32.

    Raises:
        ArgumentError: the shape is not ``(q, width)``, the values are no numbers, or not all finite, or so large that
            scores, at most ``score_bound · ‖f‖``, may leave float32.
    """
    try:
        array = np.asarray(queries)
    except ValueError as error:  # rows of different lengths
        raise ArgumentError(f"queries must have shape (q, {width}) ({error})") from error
    if isinstance(queries, np.ma.MaskedArray):
        raise ArgumentError("queries must not be masked: fill or drop what is masked first")
    if array.ndim != 2 or array.shape[1] != width:
        raise ArgumentError(f"queries must have shape (q, {width}) (got {array.shape})")
    if array.dtype.kind not in "fiu":
        raise ArgumentError(f"queries must be numbers (got dtype {array.dtype})")
    with np.errstate(over="ignore"):  # what float32 cannot hold is infinite, and refused below
        array = np.ascontiguousarray(array, np.float32)
    if not array.size:
        return array
    largest = max(float(array.max()), -float(array.min()))  # NaN, where there is one
    if in_range(score_bound, largest, width):
        return array
    if not np.isfinite(array).all():
        row = int(np.flatnonzero(~np.isfinite(array).all(axis=1))[0])
        raise ArgumentError(f"queries must be finite (row {row} holds NaN or infinity)")
    sizes = score_bound * np.linalg.norm(array.astype(np.float64), axis=1)
    if not (sizes <= _LARGEST).all():
        row = int(sizes.argmax())
        raise ArgumentError(f"queries must give scores under {_LARGEST:.0e} (row {row} may reach {sizes[row]:.2g})")
    return array


def in_range(score_bound: float, largest: float, width: int) -> bool:
    """Whether no score of a query of ``width`` numbers up to ``largest`` can leave float32."""
    return score_bound * largest * math.sqrt(width) <= _LARGEST


def check_exclusion(exclude: Exclusion | None, n_queries: int, n_items: int) -> Exclusion:
    """Check that an exclusion fits the batch and the catalogue; None becomes the empty exclusion.

    Raises:
        ArgumentError: it is for another number of queries or items.
    """
    if exclude is None:
        return Exclusion(n_items)
    if exclude.n_items != n_items:
        raise ArgumentError(f"exclude must be for {n_items} items (got one for {exclude.n_items})")
    if exclude.indptr is not None and len(exclude.indptr) != n_queries + 1:
        raise ArgumentError(f"exclude must have {n_queries} rows, one per query (got {len(exclude.indptr) - 1})")
    return exclude


def order_hits(found: Sequence[Found], n_queries: int, k: int | None = None) -> Hits:
    """Order loose hits (rows, items, scores) by (row, score descending, item), and cut rows to k where k is given."""
    parts = [_NOTHING, *found]
    rows, items = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
    scores = np.concatenate([part[2] for part in parts])
    order = np.lexsort((items, -scores, rows))
    rows, items, scores = rows[order], items[order], scores[order]
    indptr = np.concatenate(([0], np.cumsum(np.bincount(rows, minlength=n_queries)))).astype(np.int64)
    if k is not None:
        keep = np.arange(len(rows)) - indptr[rows] < k
        items, scores = items[keep], scores[keep]
        indptr = np.concatenate(([0], np.cumsum(np.minimum(np.diff(indptr), k)))).astype(np.int64)
    return Hits(indptr, items, scores)
