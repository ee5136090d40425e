"""Arrays that the metrics share: checks of what callers give, sums and quotients by user."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from hashlgn.errors import ArgumentError

__all__ = ["Floats", "Ints", "integers", "numbers", "ragged", "ratio", "totals"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def totals(rows: Ints, weights: Floats, n: int) -> Floats:
    """Sum of the weights of each row, ``(n,)``; with nothing to sum, bincount alone would give integers."""
    return np.bincount(rows, weights, minlength=n).astype(np.float64)


def ratio(above: npt.NDArray[Any], below: npt.NDArray[Any]) -> Floats:
    """Quotients, 0 where the denominator is 0."""
    quotients = np.zeros(len(above))
    np.divide(above, below, out=quotients, where=below > 0)
    return quotients


def numbers(name: str, values: npt.ArrayLike) -> Floats:
    """A flat array of finite numbers.

    Raises:
        ArgumentError: it is none, or empty.
    """
    array = np.asarray(values)
    if array.ndim != 1 or not len(array) or array.dtype.kind not in "fiub" or not np.isfinite(array).all():
        raise ArgumentError(f"{name} must be a flat array of finite numbers, one per user (got {_shown(array)})")
    return array.astype(np.float64)


def integers(name: str, values: npt.ArrayLike) -> Ints:
    """A flat array of non-negative integers.

    Raises:
        ArgumentError: it is none.
    """
    array = np.asarray(values)
    if array.ndim == 1 and array.size == 0:
        return np.empty(0, np.int64)
    if array.ndim != 1 or array.dtype.kind not in "iu" or array.min() < 0:
        raise ArgumentError(f"{name} must be a flat array of non-negative integers (got {_shown(array)})")
    return array.astype(np.int64)


def ragged(bounds_name: str, bounds: npt.ArrayLike, name: str, values: npt.ArrayLike) -> tuple[Ints, Ints]:
    """Bounds and numbers in compressed-row form.

    Raises:
        ArgumentError: they do not fit.
    """
    indptr, flat = integers(bounds_name, bounds), integers(name, values)
    if not len(indptr) or indptr[0] != 0 or indptr[-1] != len(flat) or (np.diff(indptr) < 0).any():
        raise ArgumentError(f"{bounds_name} must ascend from 0 to the length of {name} ({len(flat)})")
    return indptr, flat


def _shown(array: npt.NDArray[Any]) -> str:
    text = np.array2string(array.ravel()[:4], separator=", ", threshold=4)
    return f"dtype {array.dtype}, shape {array.shape}, {text}"
