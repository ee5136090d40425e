"""How the answers to all users together are spread over the catalogue."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hashlgn.data.statistics import inequality
from hashlgn.errors import ArgumentError, positive_int
from hashlgn.evaluation.metrics.arrays import Ints, integers

__all__ = ["coverage", "gini"]


def coverage(items: npt.ArrayLike, n_items: int) -> float:
    """Share of the catalogue that appears in any answer: ``|∪_u {r_j}| / n_items``.

    Args:
        items: the item numbers of all answers together.
        n_items: size of the catalogue.

    Raises:
        ArgumentError: an item number is outside ``0 … n_items − 1``.
    """
    counts = _counts(items, n_items)
    return int(np.count_nonzero(counts)) / len(counts)


def gini(items: npt.ArrayLike, n_items: int) -> float:
    """How unequally the answers are spread over the catalogue: ``Σ_j (2j − n − 1) x_j / (n Σ_j x_j)``.

    ``x_1 ≤ x_2 ≤ …`` are how often each of the ``n`` items is answered. 0 where all are answered equally often, close
    to 1 where a few have all answers; 0 where there is no answer.

    Args:
        items: the item numbers of all answers together.
        n_items: size of the catalogue.

    Raises:
        ArgumentError: an item number is outside ``0 … n_items − 1``.
    """
    return inequality(_counts(items, n_items))


def _counts(items: npt.ArrayLike, n_items: int) -> Ints:
    """How often each item of the catalogue is answered, ``(n_items,)``."""
    numbers, size = integers("items", items), positive_int("n_items", n_items)
    if numbers.max(initial=-1) >= size:
        raise ArgumentError(f"items must hold item numbers in 0 … {size - 1} (got {numbers.max()})")
    return np.bincount(numbers, minlength=size).astype(np.int64)
