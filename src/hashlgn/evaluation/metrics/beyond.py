"""Metrics beyond accuracy: how well known, how different from one another and how surprising the answers are.

Each takes ``(recommended, k)`` and gives one float64 per user, ``(q,)``: a mean over the answer ``r_1 … r_n`` within
the cutoff, ``n = min(K, its length)``; 0 for an empty answer. ``n_i`` is the number of users who have item i in
training, and ``n_users`` the number of users who have anything there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from hashlgn.errors import ArgumentError, positive_int
from hashlgn.evaluation.metrics.arrays import Floats, Ints, ratio

__all__ = ["Recommended", "diversity", "novelty", "popularity", "popularity_lift", "serendipity"]

_CHUNK = 1 << 20  # items whose features are compared at a time

Features = Callable[[Ints], npt.NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Recommended:
    """Ragged answers, with what the training says of the items in them."""

    indptr: Ints  # ``(q + 1,)``: answer r is ``items[indptr[r]:indptr[r + 1]]``, best first
    items: Ints  # item numbers; those from ``len(counts)`` on are unknown to the training
    relevant: npt.NDArray[np.bool_]  # whether each is a hit, ``(len(items),)``
    counts: Ints  # ``n_i`` of every item of the catalogue, ``(n_items,)``
    n_users: int  # users with a training interaction
    profile: Floats  # mean of ``n_i / n_users`` over each user's own history, ``(q,)``
    # Gives what tells items apart: for item numbers ``(n,)`` either categories ``(n, M)`` of integers, such as sub-
    # codes, or vectors ``(n, width)`` of length 1. None where nothing is known of them
    features: Features | None = None

    @cached_property
    def rows(self) -> Ints:
        """The user of each item."""
        return np.repeat(np.arange(len(self.indptr) - 1), np.diff(self.indptr))

    @cached_property
    def ranks(self) -> Ints:
        """The place of each item in its answer, from 0."""
        return np.arange(len(self.items)) - self.indptr[self.rows]

    def of(self, values: npt.NDArray[Any], unknown: float) -> Floats:
        """A number for each item answered, from one for each item of the catalogue."""
        known = self.items < len(values)
        found = np.full(len(self.items), unknown)
        found[known] = values[self.items[known]]
        return found

    def within(self, k: int | None) -> npt.NDArray[np.bool_]:
        """Which of the items are within the cutoff.

        Raises:
            ArgumentError: ``k`` is neither None nor a positive integer.
        """
        return np.ones(len(self.items), np.bool_) if k is None else self.ranks < positive_int("k", k)

    def mean(self, values: Floats, k: int | None) -> Floats:
        """Means of the values of the items within the cutoff, ``(q,)``; 0 for an empty answer."""
        within = self.within(k)
        rows, n = self.rows[within], len(self.indptr) - 1
        return ratio(np.bincount(rows, values[within], minlength=n), np.bincount(rows, minlength=n))


def novelty(recommended: Recommended, k: int | None = None) -> Floats:
    """Mean self-information in bits, ``−(1/n) Σ_j log2(n_{r_j} / n_users)``: high for what few users have.

    An item that nobody has in training counts as one that a single user has. Sources: Zhou et al., *Solving the
    apparent diversity-accuracy dilemma of recommender systems*, PNAS 2010; RecTools calls it MeanInvUserFreq.
    """
    shares = np.maximum(recommended.of(recommended.counts, 1.0), 1.0) / recommended.n_users
    return recommended.mean(-np.log2(shares), k)


def popularity(recommended: Recommended, k: int | None = None) -> Floats:
    """Mean popularity ``(1/n) Σ_j n_{r_j} / n_users``, as a share of the users.

    Source: Abdollahpouri, Burke, Mobasher, *Managing popularity bias in recommender systems with personalized
    re-ranking*, FLAIRS 2019; RecTools' AvgRecPopularity and RecBole's AveragePopularity are this times ``n_users``.
    """
    return recommended.mean(recommended.of(recommended.counts / recommended.n_users, 0.0), k)


def popularity_lift(recommended: Recommended, k: int | None = None) -> Floats:
    """Popularity of the answer against that of the user's own history H: ``(1/n) Σ_j n_{r_j} / mean_{i∈H} n_i − 1``.

    Above 0 the answers are more popular than what the user chose. Source: Abdollahpouri et al., *The unfairness of
    popularity bias in recommendation*, RMSE workshop 2019, whose ΔGAP has the ratio of the means of a group of users.
    """
    answered = np.bincount(recommended.rows, minlength=len(recommended.profile)) > 0
    lift = ratio(popularity(recommended, k), recommended.profile) - 1
    return np.where(answered, lift, 0.0)


def serendipity(recommended: Recommended, k: int | None = None) -> Floats:
    """``(1/n) Σ_j rel_j · max(P_j − P(r_j), 0)``: hits that are ranked higher than their popularity explains.

    ``P_j = (n_items + 1 − j) / n_items``, and ``P(i) = (n_items + 1 − rank_i) / n_items`` with ``rank_i`` the place of
    ``n_i`` among the distinct counts, from 1 for the greatest; 0 for an item that nobody has in training.

    Source: RecTools' Serendipity.
    """
    counts, n_items = recommended.counts, len(recommended.counts)
    distinct = np.unique(counts[counts > 0])
    place = len(distinct) - np.searchsorted(distinct, counts)  # 1 for the greatest
    usual = np.where(counts > 0, (n_items + 1 - place) / n_items, 0.0)
    here = (n_items - recommended.ranks) / n_items
    surplus = np.maximum(here - recommended.of(usual, 0.0), 0.0)
    return recommended.mean(surplus * recommended.relevant, k)


def diversity(recommended: Recommended, k: int | None = None) -> Floats:
    """Intra-list diversity ``2 / (n (n − 1)) Σ_{i<j} d(r_i, r_j)``, the mean distance of two items of the answer.

    For items with categories, such as the sub-codes of a code, ``d`` is the share of them that differ (the Hamming
    distance over their number), between 0 and 1; for vectors it is ``1 − cosine``, between 0 and 2. The two do not
    compare. 0 for answers of one item. Items that are unknown to the training are passed over.

    Source: Ziegler et al., *Improving recommendation lists through topic diversification*, WWW 2005; RecTools'
    IntraListDiversity with the Hamming distance.

    Raises:
        ArgumentError: nothing is known that tells the items apart.
    """
    if recommended.features is None:
        raise ArgumentError("diversity needs a model of this project, whose items have codes (got answers alone)")
    within = recommended.within(k) & (recommended.items < len(recommended.counts))
    rows, items = recommended.rows[within], recommended.items[within]
    n = len(recommended.indptr) - 1
    sizes = np.bincount(rows, minlength=n)
    bounds = np.append(0, np.cumsum(sizes))
    means = np.zeros(n)
    step = max(1, _CHUNK // max(int(sizes.max(initial=0)), 1))
    for first in range(0, n, step):
        last = min(first + step, n)
        part = slice(bounds[first], bounds[last])
        features = recommended.features(items[part])
        alike = _alike(features, rows[part] - first, last - first)
        counts = sizes[first:last].astype(np.float64)
        pairs = counts * (counts - 1) / 2
        means[first:last] = np.where(pairs > 0, 1 - ratio(alike, pairs), 0.0)
    return np.asarray(np.maximum(means, 0.0))  # equal vectors differ by rounding


def _alike(features: npt.NDArray[Any], rows: Ints, n: int) -> Floats:
    """``Σ_{i<j} (1 − d(i, j))`` of the items of each row, ``(n,)``."""
    if features.dtype.kind == "f":  # |Σ v|² holds every pair twice, and the squares of all
        sums = np.zeros((n, features.shape[1]))
        np.add.at(sums, rows, features.astype(np.float64))
        squares = np.bincount(rows, np.square(features, dtype=np.float64).sum(axis=1), minlength=n)
        found: Floats = ((sums**2).sum(axis=1) - squares) / 2
        return found
    width = int(features.max(initial=0)) + 1
    total = np.zeros(n)
    for column in features.T:  # those with one value make n (n − 1) / 2 pairs that agree
        same = np.bincount(rows * width + column, minlength=n * width).reshape(n, width).astype(np.float64)
        total += (same * (same - 1) / 2).sum(axis=1)
    return np.asarray(total / max(features.shape[1], 1))
