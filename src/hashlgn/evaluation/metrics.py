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

Four NDCGs are in circulation; they differ in the ideal alone. :func:`ndcg` is the standard one and the one to
report; :func:`ndcg_paper`, :func:`ndcg_bigear` and :func:`ndcg_hashgnn` exist to compare with numbers
published under them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hashlgn.errors import ArgumentError, positive_int

__all__ = [
    "METRICS",
    "Evaluated",
    "answer_size",
    "average_precision",
    "average_precision_trec",
    "bootstrap_interval",
    "coverage",
    "empty",
    "f1",
    "f1_of_means",
    "gini",
    "hit_rate",
    "ndcg",
    "ndcg_bigear",
    "ndcg_hashgnn",
    "ndcg_paper",
    "paired_bootstrap",
    "precision",
    "r_precision",
    "recall",
    "reciprocal_rank",
]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

# Numbers drawn at a time: enough to be vectorised, little enough to stay in tens of megabytes.
_CHUNK = 2_000_000


@dataclass(frozen=True, eq=False)
class Evaluated:
    """Answers compared with the truth: all that any metric needs, in the space of the hits alone.

    Attributes:
        sizes: length of each answer, ``(q,)``.
        relevant: number of relevant items ``|T|``, ``(q,)``, at least 1.
        rows: the user of each hit, ``(hits,)``, ascending.
        ranks: the place of each hit in its answer, from 0, ``(hits,)``, ascending within each user.
    """

    sizes: Ints
    relevant: Ints
    rows: Ints
    ranks: Ints

    @classmethod
    def build(
        cls,
        indptr: npt.ArrayLike,
        items: npt.ArrayLike,
        truth_indptr: npt.ArrayLike,
        truth_indices: npt.ArrayLike,
    ) -> Evaluated:
        """Mark the hits of a batch of ragged answers.

        Args:
            indptr: ``(q + 1,)``: answer r is ``items[indptr[r]:indptr[r + 1]]``, best first, each item once.
            items: item numbers.
            truth_indptr: ``(q + 1,)``: the relevant items of answer r, in the same form.
            truth_indices: item numbers, ascending within each user.

        Raises:
            ArgumentError: a ragged array is malformed, the two have different numbers of users, a user has no
                relevant item, the truth is not ascending, or an answer holds a relevant item twice.
        """
        bounds, answers = _ragged("indptr", indptr, "items", items)
        truth_bounds, truth = _ragged("truth_indptr", truth_indptr, "truth_indices", truth_indices)
        q = len(bounds) - 1
        sizes, relevant = np.diff(bounds), np.diff(truth_bounds)
        if len(relevant) != q:
            raise ArgumentError(f"truth_indptr must have {q} rows, one an answer (got {len(relevant)})")
        if (relevant == 0).any():
            row = int(np.flatnonzero(relevant == 0)[0])
            raise ArgumentError(f"every user must have a relevant item; leave the others out (row {row} has none)")

        n_items = int(max(answers.max(initial=-1), truth.max(initial=-1))) + 1
        if q * n_items >= 2**63:
            raise ArgumentError(f"item numbers must be below 2^63 / users (got {n_items - 1} with {q} users)")
        truth_keys = np.repeat(np.arange(q), relevant) * n_items + truth
        if (np.diff(truth_keys) <= 0).any():
            raise ArgumentError("truth_indices must be strictly ascending within each user")
        owner = np.repeat(np.arange(q), sizes)
        keys = owner * n_items + answers
        if not len(keys):
            return cls(sizes, relevant, np.empty(0, np.int64), np.empty(0, np.int64))
        place = np.minimum(np.searchsorted(truth_keys, keys), len(truth_keys) - 1)
        hit = np.flatnonzero(truth_keys[place] == keys)
        if len(np.unique(keys[hit])) != len(hit):
            raise ArgumentError("items must hold each item at most once within an answer")
        rows = owner[hit]
        return cls(sizes, relevant, rows, hit - bounds[rows])

    @classmethod
    def concatenate(cls, parts: Sequence[Evaluated]) -> Evaluated:
        """Join the batches of one evaluation, in order.

        Raises:
            ArgumentError: ``parts`` is empty.
        """
        if not parts:
            raise ArgumentError("parts must hold at least one batch (got none)")
        starts = np.cumsum([0] + [len(part) for part in parts[:-1]])
        return cls(
            np.concatenate([part.sizes for part in parts]),
            np.concatenate([part.relevant for part in parts]),
            np.concatenate([part.rows + start for part, start in zip(parts, starts, strict=True)]),
            np.concatenate([part.ranks for part in parts]),
        )

    def __len__(self) -> int:
        return len(self.sizes)

    def cutoff(self, k: int | None) -> Ints:
        """K for each user, ``(q,)``: ``k``, or the answer's size where ``k`` is None.

        Raises:
            ArgumentError: ``k`` is neither None nor a positive integer.
        """
        return self.sizes if k is None else np.full(len(self), positive_int("k", k), np.int64)

    def hits(self, k: int | None) -> Ints:
        """``h_K``, the hits within the cutoff, ``(q,)``."""
        return np.bincount(self.rows[self._within(k)], minlength=len(self)).astype(np.int64)

    def dcg(self, k: int | None) -> Floats:
        """``DCG@K = Σ_{j≤K} rel_j / log2(j + 1)``, ``(q,)``."""
        within = self._within(k)
        return _totals(self.rows[within], 1 / np.log2(self.ranks[within] + 2), len(self))

    def _within(self, k: int | None) -> npt.NDArray[np.bool_]:
        return self.ranks < self.cutoff(k)[self.rows]


def precision(evaluated: Evaluated, k: int | None = None) -> Floats:
    """``h_K / K``; a whole answer (``k=None``) is divided by its own size, and an empty one scores 0."""
    return _ratio(evaluated.hits(k), evaluated.cutoff(k))


def recall(evaluated: Evaluated, k: int | None = None) -> Floats:
    """``h_K / |T|``."""
    return _ratio(evaluated.hits(k), evaluated.relevant)


def f1(evaluated: Evaluated, k: int | None = None) -> Floats:
    """``2PR / (P + R) = 2 h_K / (K + |T|)`` for each user: the F1 of an evaluation is the mean of these."""
    return _ratio(2 * evaluated.hits(k), evaluated.cutoff(k) + evaluated.relevant)


def f1_of_means(precisions: npt.ArrayLike, recalls: npt.ArrayLike) -> float:
    """``2 P̄ R̄ / (P̄ + R̄)`` of the mean precision and recall: what some papers call F1, not the mean of F1.

    Raises:
        ArgumentError: an array is empty.
    """
    p, r = (float(_values(name, v).mean()) for name, v in (("precisions", precisions), ("recalls", recalls)))
    return 2 * p * r / (p + r) if p + r > 0 else 0.0


def ndcg(evaluated: Evaluated, k: int | None = None) -> Floats:
    """``DCG@K / I(min(K, |T|))``: the standard form, 1 for an answer that no other beats.

    Source: Järvelin and Kekäläinen, Cumulated gain-based evaluation of IR techniques, 2002, with binary
    gains.
    """
    return _ratio(evaluated.dcg(k), _ideal(np.minimum(evaluated.cutoff(k), evaluated.relevant)))


def ndcg_paper(evaluated: Evaluated, k: int | None = None) -> Floats:
    """``DCG@K / I(K)``: the equation as the HashLGN paper prints it; below 1 wherever ``|T| < K``."""
    return _ratio(evaluated.dcg(k), _ideal(evaluated.cutoff(k)))


def ndcg_bigear(evaluated: Evaluated, k: int | None = None) -> Floats:
    """``DCG@K / I(min(K, h))`` with ``h`` the hits of the whole answer, as BiGeaR's evaluation computes it.

    The value at K therefore depends on the longest list that was asked for: evaluate answers of that length,
    then cutoff.
    """
    return _ratio(evaluated.dcg(k), _ideal(np.minimum(evaluated.cutoff(k), evaluated.hits(None))))


def ndcg_hashgnn(evaluated: Evaluated, k: int | None = None) -> Floats:
    """``DCG@K / I(h_K)``, HashGNN's form: only the order of the hits counts, not how many there are.

    HashGNN's released code gives this at its longest cutoff; at the shorter ones it gives :func:`ndcg_bigear`.
    """
    return _ratio(evaluated.dcg(k), _ideal(evaluated.hits(k)))


def r_precision(evaluated: Evaluated, k: int | None = None) -> Floats:
    """``h_R / R`` with ``R = |T|``, of the first K: precision where the answer is as long as the truth."""
    within = evaluated.ranks < np.minimum(evaluated.relevant, evaluated.cutoff(k))[evaluated.rows]
    return _ratio(np.bincount(evaluated.rows[within], minlength=len(evaluated)), evaluated.relevant)


def average_precision(evaluated: Evaluated, k: int | None = None) -> Floats:
    """``AP@K = Σ_{j≤K} rel_j P@j / min(K, |T|)``; its mean over users is MAP@K, here called ``map``.

    The denominator is the number of hits that a perfect answer would have, so that a perfect answer scores 1.
    """
    return _ratio(_precisions(evaluated, k), np.minimum(evaluated.cutoff(k), evaluated.relevant))


def average_precision_trec(evaluated: Evaluated, k: int | None = None) -> Floats:
    """``Σ_{j≤K} rel_j P@j / |T|``, as trec_eval's ``map_cut`` has it; its mean is here called ``map_trec``.

    Less than ``average_precision`` where ``|T| > K``.
    """
    return _ratio(_precisions(evaluated, k), evaluated.relevant)


def reciprocal_rank(evaluated: Evaluated, k: int | None = None) -> Floats:
    """``1 / j`` for the place ``j ≤ K`` of the first hit, 0 without one; its mean is MRR@K."""
    best = np.full(len(evaluated), np.inf)
    np.minimum.at(best, evaluated.rows, evaluated.ranks + 1.0)
    found = best <= evaluated.cutoff(k)
    return _ratio(found, best)


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
    counts = np.sort(_counts(items, n_items)).astype(np.float64)
    n = len(counts)
    return float((2 * np.arange(1, n + 1) - n - 1) @ counts / (n * max(counts.sum(), 1)))


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
    array = _values("values", values)
    if isinstance(level, bool) or not isinstance(level, (int, float)) or not 0 < level < 1:
        raise ArgumentError(f"level must lie between 0 and 1 (got {level!r})")
    count = positive_int("samples", samples)
    generator = np.random.default_rng(seed)
    means = np.empty(count)
    step = max(1, _CHUNK // len(array))
    for start in range(0, count, step):
        draws = generator.integers(0, len(array), (min(step, count - start), len(array)))
        means[start : start + step] = array[draws].mean(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def paired_bootstrap(
    a: npt.ArrayLike, b: npt.ArrayLike, *, level: float = 0.95, samples: int = 1000, seed: int = 0
) -> tuple[float, tuple[float, float]]:
    """Difference of two models on the same users, ``mean(a − b)``, and its bootstrap interval.

    Users are resampled in pairs, so what they have in common cancels: an interval clear of 0 speaks for a
    difference even where the two models' own intervals overlap.

    Raises:
        ArgumentError: ``a`` and ``b`` have different lengths, and as :func:`bootstrap_interval`.
    """
    first, second = _values("a", a), _values("b", b)
    if len(first) != len(second):
        raise ArgumentError(f"a and b must hold the same users (got {len(first)} and {len(second)} values)")
    difference = first - second
    return float(difference.mean()), bootstrap_interval(difference, level=level, samples=samples, seed=seed)


def _counts(items: npt.ArrayLike, n_items: int) -> Ints:
    """How often each item of the catalogue is answered, ``(n_items,)``."""
    numbers, size = _integers("items", items), positive_int("n_items", n_items)
    if numbers.max(initial=-1) >= size:
        raise ArgumentError(f"items must hold item numbers in 0 … {size - 1} (got {numbers.max()})")
    return np.bincount(numbers, minlength=size).astype(np.int64)


def _precisions(evaluated: Evaluated, k: int | None) -> Floats:
    """``Σ_{j≤K} rel_j P@j``, ``(q,)``."""
    first = np.searchsorted(evaluated.rows, np.arange(len(evaluated)))
    ordinal = (
        np.arange(len(evaluated.rows)) - first[evaluated.rows] + 1
    )  # 1 for a user's first hit, 2 for the second, …
    within = evaluated.ranks < evaluated.cutoff(k)[evaluated.rows]
    return _totals(evaluated.rows[within], (ordinal / (evaluated.ranks + 1))[within], len(evaluated))


def _totals(rows: Ints, weights: Floats, n: int) -> Floats:
    """Sum of the weights of each row, ``(n,)``; with nothing to sum, bincount alone would give integers."""
    return np.bincount(rows, weights, minlength=n).astype(np.float64)


def _ideal(counts: Ints) -> Floats:
    """``I(n)`` for each n in ``counts``."""
    steps = np.arange(int(counts.max(initial=0)))
    return np.concatenate(([0.0], np.cumsum(1 / np.log2(steps + 2))))[counts]


def _ratio(above: npt.NDArray[Any], below: npt.NDArray[Any]) -> Floats:
    """Quotients, 0 where the denominator is 0."""
    quotients = np.zeros(len(above))
    np.divide(above, below, out=quotients, where=below > 0)
    return quotients


def _values(name: str, values: npt.ArrayLike) -> Floats:
    array = np.asarray(values)
    if array.ndim != 1 or not len(array) or array.dtype.kind not in "fiub" or not np.isfinite(array).all():
        raise ArgumentError(f"{name} must be a flat array of finite numbers, one per user (got {_shown(array)})")
    return array.astype(np.float64)


def _integers(name: str, values: npt.ArrayLike) -> Ints:
    array = np.asarray(values)
    if array.ndim == 1 and array.size == 0:
        return np.empty(0, np.int64)
    if array.ndim != 1 or array.dtype.kind not in "iu" or array.min() < 0:
        raise ArgumentError(f"{name} must be a flat array of non-negative integers (got {_shown(array)})")
    return array.astype(np.int64)


def _ragged(bounds_name: str, bounds: npt.ArrayLike, name: str, values: npt.ArrayLike) -> tuple[Ints, Ints]:
    indptr, flat = _integers(bounds_name, bounds), _integers(name, values)
    if not len(indptr) or indptr[0] != 0 or indptr[-1] != len(flat) or (np.diff(indptr) < 0).any():
        raise ArgumentError(f"{bounds_name} must ascend from 0 to the length of {name} ({len(flat)})")
    return indptr, flat


def _shown(array: npt.NDArray[Any]) -> str:
    text = np.array2string(array.ravel()[:4], separator=", ", threshold=4)
    return f"dtype {array.dtype}, shape {array.shape}, {text}"
