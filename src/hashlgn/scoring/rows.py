"""Ragged arrays of item numbers in compressed-row form: row r is ``indices[indptr[r]:indptr[r + 1]]``."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from hashlgn._kernel import compiled

__all__ = ["ascending_rows", "entries_of", "rows_of"]

Ints = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.integer[Any]]
_compiled: Any = compiled()


def ascending_rows(indptr: Ints, indices: Numbers, n_items: int) -> bool:
    """Whether bounds ascend from 0 to the number of indices, and each row ascends strictly inside ``0 … n_items − 1``.

    Args:
        indptr: ``(q + 1,)``.
        indices: ``(entries,)``.
        n_items: size of the catalogue.
    """
    if indptr.ndim != 1 or indices.ndim != 1:
        return False
    if _compiled is not None:
        return bool(_compiled.ascending(*map(np.ascontiguousarray, (indptr, indices)), n_items))
    if not len(indptr) or indptr[0] != 0 or indptr[-1] != len(indices) or (indptr[1:] < indptr[:-1]).any():
        return False
    if not len(indices):
        return True
    keys = np.repeat(np.arange(len(indptr) - 1) * n_items, np.diff(indptr)) + indices
    return bool(indices.min() >= 0 and indices.max() < n_items and (keys[1:] > keys[:-1]).all())


def rows_of(ragged: tuple[Ints, Numbers], rows: Numbers) -> tuple[Ints, Ints]:
    """Some rows of a ragged array, in the order asked: bounds, and entries as int64."""
    bounds, places = entries_of(ragged[0], rows)
    return bounds, ragged[1][places].astype(np.int64)


def entries_of(indptr: Ints, rows: Numbers) -> tuple[Ints, Ints]:
    """Bounds of some rows of a ragged array, in the order asked, and where their entries are."""
    starts = indptr[rows]
    bounds = np.zeros(len(starts) + 1, np.int64)
    np.cumsum(indptr[1:][rows] - starts, out=bounds[1:])
    return bounds, np.arange(bounds[-1]) + np.repeat(starts - bounds[:-1], np.diff(bounds))
