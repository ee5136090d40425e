"""Metrics of accuracy: each takes ``(evaluated, k)`` and gives one number per user, ``(q,)`` float64.

Notation as in ``hashlgn.evaluation.metrics``.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hashlgn.evaluation.metrics.arrays import Floats, Ints, numbers, ratio, totals
from hashlgn.evaluation.metrics.evaluated import Evaluated

__all__ = [
    "answer_size",
    "average_precision",
    "average_precision_trec",
    "empty",
    "f1",
    "f1_of_means",
    "hit_rate",
    "ndcg",
    "ndcg_bigear",
    "ndcg_hashgnn",
    "ndcg_paper",
    "precision",
    "r_precision",
    "recall",
    "reciprocal_rank",
]


def precision(evaluated: Evaluated, k: int | None = None) -> Floats:
    """``h_K / K``; a whole answer (``k=None``) is divided by its own size, and an empty one scores 0."""
    return ratio(evaluated.hits(k), evaluated.cutoff(k))


def recall(evaluated: Evaluated, k: int | None = None) -> Floats:
    """``h_K / |T|``."""
    return ratio(evaluated.hits(k), evaluated.relevant)


def f1(evaluated: Evaluated, k: int | None = None) -> Floats:
    """``2PR / (P + R) = 2 h_K / (K + |T|)`` for each user: the F1 of an evaluation is the mean of these."""
    return ratio(2 * evaluated.hits(k), evaluated.cutoff(k) + evaluated.relevant)


def f1_of_means(precisions: npt.ArrayLike, recalls: npt.ArrayLike) -> float:
    """``2 P̄ R̄ / (P̄ + R̄)`` of the mean precision and recall: what some papers call F1, not the mean of F1.

    Raises:
        ArgumentError: an array is empty.
    """
    p, r = (float(numbers(name, v).mean()) for name, v in (("precisions", precisions), ("recalls", recalls)))
    return 2 * p * r / (p + r) if p + r > 0 else 0.0


def ndcg(evaluated: Evaluated, k: int | None = None) -> Floats:
    """``DCG@K / I(min(K, |T|))``: the standard form, 1 for an answer that no other beats.

    Source: Järvelin and Kekäläinen, Cumulated gain-based evaluation of IR techniques, 2002, with binary
    gains.
    """
    return ratio(evaluated.dcg(k), _ideal(np.minimum(evaluated.cutoff(k), evaluated.relevant)))


def ndcg_paper(evaluated: Evaluated, k: int | None = None) -> Floats:
    """``DCG@K / I(K)``: the equation as the HashLGN paper prints it; below 1 wherever ``|T| < K``."""
    return ratio(evaluated.dcg(k), _ideal(evaluated.cutoff(k)))


def ndcg_bigear(evaluated: Evaluated, k: int | None = None) -> Floats:
    """``DCG@K / I(min(K, h))`` with ``h`` the hits of the whole answer, as BiGeaR's evaluation computes it.

    The value at K therefore depends on the longest list that was asked for: evaluate answers of that length,
    then cutoff.
    """
    return ratio(evaluated.dcg(k), _ideal(np.minimum(evaluated.cutoff(k), evaluated.hits(None))))


def ndcg_hashgnn(evaluated: Evaluated, k: int | None = None) -> Floats:
    """``DCG@K / I(h_K)``, HashGNN's form: only the order of the hits counts, not how many there are.

    HashGNN's released code gives this at its longest cutoff; at the shorter ones it gives :func:`ndcg_bigear`.
    """
    return ratio(evaluated.dcg(k), _ideal(evaluated.hits(k)))


def r_precision(evaluated: Evaluated, k: int | None = None) -> Floats:
    """``h_R / R`` with ``R = |T|``, of the first K: precision where the answer is as long as the truth."""
    within = evaluated.ranks < np.minimum(evaluated.relevant, evaluated.cutoff(k))[evaluated.rows]
    return ratio(np.bincount(evaluated.rows[within], minlength=len(evaluated)), evaluated.relevant)


def average_precision(evaluated: Evaluated, k: int | None = None) -> Floats:
    """``AP@K = Σ_{j≤K} rel_j P@j / min(K, |T|)``; its mean over users is MAP@K, here called ``map``.

    The denominator is the number of hits that a perfect answer would have, so that a perfect answer scores 1.
    """
    return ratio(_precisions(evaluated, k), np.minimum(evaluated.cutoff(k), evaluated.relevant))


def average_precision_trec(evaluated: Evaluated, k: int | None = None) -> Floats:
    """``Σ_{j≤K} rel_j P@j / |T|``, as trec_eval's ``map_cut`` has it; its mean is here called ``map_trec``.

    Less than ``average_precision`` where ``|T| > K``.
    """
    return ratio(_precisions(evaluated, k), evaluated.relevant)


def reciprocal_rank(evaluated: Evaluated, k: int | None = None) -> Floats:
    """``1 / j`` for the place ``j ≤ K`` of the first hit, 0 without one; its mean is MRR@K."""
    best = np.full(len(evaluated), np.inf)
    np.minimum.at(best, evaluated.rows, evaluated.ranks + 1.0)
    found = best <= evaluated.cutoff(k)
    return ratio(found, best)


def hit_rate(evaluated: Evaluated, k: int | None = None) -> Floats:
    """1 where ``h_K > 0``, else 0."""
    return (evaluated.hits(k) > 0).astype(np.float64)


def answer_size(evaluated: Evaluated, k: int | None = None) -> Floats:
    """Number of items answered, at most K."""
    sizes: Floats = np.minimum(evaluated.sizes, evaluated.cutoff(k)).astype(np.float64)
    return sizes


def empty(evaluated: Evaluated, k: int | None = None) -> Floats:
    """1 where the answer holds no item, else 0; the mean is the share of users who are told nothing."""
    nothing: Floats = (answer_size(evaluated, k) == 0).astype(np.float64)
    return nothing


def _precisions(evaluated: Evaluated, k: int | None) -> Floats:
    """``Σ_{j≤K} rel_j P@j``, ``(q,)``."""
    first = np.searchsorted(evaluated.rows, np.arange(len(evaluated)))
    ordinal = (
        np.arange(len(evaluated.rows)) - first[evaluated.rows] + 1
    )  # 1 for a user's first hit, 2 for the second, …
    within = evaluated.ranks < evaluated.cutoff(k)[evaluated.rows]
    return totals(evaluated.rows[within], (ordinal / (evaluated.ranks + 1))[within], len(evaluated))


def _ideal(counts: Ints) -> Floats:
    """``I(n)`` for each n in ``counts``."""
    steps = np.arange(int(counts.max(initial=0)))
    return np.concatenate(([0.0], np.cumsum(1 / np.log2(steps + 2))))[counts]
