"""Counts of users and items in a few numbers."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["inequality", "summary"]


def summary(counts: npt.NDArray[np.integer]) -> dict[str, float | int]:
    """Mean, median, least and most; zeros where there are none."""
    if not len(counts):
        return {"mean": 0.0, "median": 0.0, "min": 0, "max": 0}
    return {
        "mean": float(counts.mean()),
        "median": float(np.median(counts)),
        "min": int(counts.min()),
        "max": int(counts.max()),
    }


def inequality(counts: npt.NDArray[np.integer]) -> float:
    """The Gini coefficient of counts: ``Σ_j (2j − n − 1) x_j / (n Σ_j x_j)`` over ``x_1 ≤ … ≤ x_n``; 0 without any."""
    n, total = len(counts), int(counts.sum())
    return float((2 * np.arange(1, n + 1) - n - 1) @ np.sort(counts).astype(np.float64) / (n * total)) if total else 0.0
