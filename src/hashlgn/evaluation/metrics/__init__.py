"""How good ranked answers are: one pass marks the hits, then a metric is a few array operations over users.

Notation, for one user: ``T`` is the set of relevant items, ``r_1, r_2, …`` the answer, best first, ``rel_j =
1`` where ``r_j ∈ T`` and 0 elsewhere, ``K`` the cutoff, ``h_K = Σ_{j≤K} rel_j`` the hits within it, and

    DCG@K = Σ_{j≤K} rel_j / log2(j + 1),        I(n) = Σ_{j≤n} 1 / log2(j + 1).

K is the cutoff that was asked for, even where the answer is shorter: an answer that runs out is not rewarded for
it. With ``k=None`` the answer is taken whole, as a threshold search gives it, and K is the answer's own size
for each user. An empty answer scores 0 in every quality metric.

A metric takes ``(evaluated, k)`` and returns one float64 per user, ``(q,)``, so that answers can be averaged,
compared and resampled by user. Users without relevant items have no defined recall: the caller leaves them
out, and :meth:`Evaluated.build` refuses them.

Metrics beyond accuracy take ``(recommended, k)``: answers with what the training says of the items in them. They are
means over the answer within the cutoff, and 0 for an empty answer.

Four NDCGs are in circulation; they differ in the ideal alone. :func:`ndcg` is the standard one and the one to
report; :func:`ndcg_paper`, :func:`ndcg_bigear` and :func:`ndcg_hashgnn` exist to compare with numbers
published under them.
"""

from __future__ import annotations

from collections.abc import Callable

from hashlgn.evaluation.metrics.accuracy import (
    answer_size,
    average_precision,
    average_precision_trec,
    empty,
    f1,
    f1_of_means,
    hit_rate,
    ndcg,
    ndcg_bigear,
    ndcg_hashgnn,
    ndcg_paper,
    precision,
    r_precision,
    recall,
    reciprocal_rank,
)
from hashlgn.evaluation.metrics.arrays import Floats
from hashlgn.evaluation.metrics.beyond import (
    Recommended,
    diversity,
    novelty,
    popularity,
    popularity_lift,
    serendipity,
)
from hashlgn.evaluation.metrics.bootstrap import bootstrap_interval, paired_bootstrap
from hashlgn.evaluation.metrics.catalogue import coverage, gini
from hashlgn.evaluation.metrics.evaluated import Evaluated

__all__ = [
    "BEYOND",
    "METRICS",
    "Evaluated",
    "Floats",
    "Recommended",
    "answer_size",
    "average_precision",
    "average_precision_trec",
    "bootstrap_interval",
    "coverage",
    "diversity",
    "empty",
    "f1",
    "f1_of_means",
    "gini",
    "hit_rate",
    "ndcg",
    "ndcg_bigear",
    "ndcg_hashgnn",
    "ndcg_paper",
    "novelty",
    "paired_bootstrap",
    "popularity",
    "popularity_lift",
    "precision",
    "r_precision",
    "recall",
    "reciprocal_rank",
    "serendipity",
]

METRICS: dict[str, Callable[[Evaluated, int | None], Floats]] = {
    "precision": precision,
    "recall": recall,
    "f1": f1,
    "ndcg": ndcg,
    "ndcg_paper": ndcg_paper,
    "ndcg_bigear": ndcg_bigear,
    "ndcg_hashgnn": ndcg_hashgnn,
    "map": average_precision,
    "map_trec": average_precision_trec,
    "r_precision": r_precision,
    "mrr": reciprocal_rank,
    "hit_rate": hit_rate,
    "answer_size": answer_size,
    "empty": empty,
}
BEYOND: dict[str, Callable[[Recommended, int | None], Floats]] = {
    "novelty": novelty,
    "popularity": popularity,
    "popularity_lift": popularity_lift,
    "diversity": diversity,
    "serendipity": serendipity,
}
