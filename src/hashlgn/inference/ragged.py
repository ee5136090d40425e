"""Ragged arrays, rows end to end with their bounds: rows replaced and added, all others copied in large pieces."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import numpy as np
import numpy.typing as npt

__all__ = ["lengthened", "spliced"]

_T = TypeVar("_T", bound=np.generic)
Ints = npt.NDArray[np.int64]


def lengthened(bounds: Ints, lengths: Mapping[int, int], count: int) -> Ints:
    """Bounds ``(count + 1,)`` after some rows have other lengths; new rows are empty where they are not named."""
    sizes = np.zeros(count, np.int64)
    sizes[: len(bounds) - 1] = np.diff(bounds)
    sizes[list(lengths)] = list(lengths.values())
    return np.concatenate(([0], np.cumsum(sizes)))


def spliced(values: npt.NDArray[_T], bounds: Ints, rows: Mapping[int, npt.NDArray[_T]]) -> npt.NDArray[_T]:
    """Values of all rows, in which ``rows`` stand in place of those of the same number, or follow the last one."""
    pieces, done = [], 0
    for number in sorted(rows):
        start = int(bounds[min(number, len(bounds) - 1)])
        pieces += [values[done:start], rows[number].astype(values.dtype, copy=False)]
        done = int(bounds[min(number + 1, len(bounds) - 1)])
    return np.concatenate([*pieces, values[done:]])
