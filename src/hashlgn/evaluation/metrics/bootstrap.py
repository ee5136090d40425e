"""How certain a mean over users is: intervals from resampling them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hashlgn.errors import ArgumentError, positive_int, shown
from hashlgn.evaluation.metrics.arrays import Floats, numbers

__all__ = ["bootstrap_interval", "paired_bootstrap", "resampled_means"]

# Numbers drawn at a time: enough to be vectorised, little enough to stay in tens of megabytes.
_CHUNK = 2_000_000


def bootstrap_interval(
    values: npt.ArrayLike, *, level: float = 0.95, samples: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """Percentile interval of the mean over users, from resampling users with replacement.

    Source: Efron and Tibshirani, An introduction to the bootstrap, 1993, section 13.3.

    Args:
        values: one value per user, ``(q,)``.
        level: probability that the interval is meant to cover, between 0 and 1.
        samples: number of resamples.
        seed: of the generator; equal seeds give equal intervals.

    Returns:
        Low and high end.

    Raises:
        ArgumentError: ``values`` is empty, not flat or not finite, or an option breaks its rule.
    """
    array = numbers("values", values)
    if isinstance(level, bool) or not isinstance(level, (int, float)) or not 0 < level < 1:
        raise ArgumentError(f"level must lie between 0 and 1 (got {shown(level)})")
    low, high = np.quantile(resampled_means(array, samples, seed), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def resampled_means(values: Floats, samples: int, seed: int) -> Floats:
    """Means of resamples with replacement, ``(samples,)``."""
    count, generator = positive_int("samples", samples), np.random.default_rng(seed)
    means, step = np.empty(count), max(1, _CHUNK // len(values))
    for start in range(0, count, step):
        draws = generator.integers(0, len(values), (min(step, count - start), len(values)))
        means[start : start + step] = values[draws].mean(axis=1)
    return means


def paired_bootstrap(
    a: npt.ArrayLike, b: npt.ArrayLike, *, level: float = 0.95, samples: int = 1000, seed: int = 0
) -> tuple[float, tuple[float, float]]:
    """Difference of two models on the same users, ``mean(a − b)``, and its bootstrap interval.

    Users are resampled in pairs, so what they have in common cancels: an interval clear of 0 speaks for a
    difference even where the two models' own intervals overlap.

    Raises:
        ArgumentError: ``a`` and ``b`` have different lengths, and as :func:`bootstrap_interval`.
    """
    first, second = numbers("a", a), numbers("b", b)
    if len(first) != len(second):
        raise ArgumentError(f"a and b must hold the same users (got {len(first)} and {len(second)} values)")
    difference = first - second
    return float(difference.mean()), bootstrap_interval(difference, level=level, samples=samples, seed=seed)
