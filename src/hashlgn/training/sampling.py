"""Training batches, drawn without a Python loop over users or interactions. Every draw takes an explicit generator."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from hashlgn.data import Interactions

__all__ = ["interaction_batches", "sample_negatives", "user_batches"]

Ints = npt.NDArray[np.int64]


def sample_negatives(data: Interactions, users: Ints, rng: np.random.Generator) -> Ints:
    """One item a user that the user has not interacted with, uniform over those: ``(b,)`` → ``(b,)``.

    With a user's items ``i_0 < i_1 < …`` the negative of rank r is ``r + #{j: i_j − j ≤ r}``, so that one draw is
    enough whoever has how many. A user who has interacted with every item has no negative; they get a uniform item,
    whose BPR term then pulls nothing apart on average.
    """
    degree = np.diff(data.indptr)
    free = data.n_items - degree[users]
    drawn = rng.integers(np.where(free, free, data.n_items))
    # (user, i_j − j) as one key: ascending, because i_j − j never falls within a user and stays below n_items
    starts = np.arange(data.n_users) * data.n_items + data.indptr[:-1]
    keys = np.repeat(starts, degree) + data.indices - np.arange(len(data))
    skipped = np.searchsorted(keys, users * data.n_items + drawn, side="right") - data.indptr[users]
    return np.where(free, drawn + skipped, drawn)


def interaction_batches(
    data: Interactions, batch_size: int, rng: np.random.Generator, negatives_each: int | None = None
) -> Iterator[tuple[Ints, Ints, Ints]]:
    """One pass over the interactions in random order: ``(users, positives, negatives)``, each ``(≤ batch_size,)``.

    Where ``negatives_each`` is given, negatives are ``(≤ batch_size, negatives_each)``.
    """
    users = np.repeat(np.arange(data.n_users), np.diff(data.indptr))
    order = rng.permutation(len(users))
    negatives = sample_negatives(data, np.repeat(users[order], negatives_each or 1), rng)
    if negatives_each is not None:
        negatives = negatives.reshape(-1, negatives_each)
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        yield users[batch], data.indices[batch].astype(np.int64), negatives[start : start + batch_size]


def user_batches(data: Interactions, batch_size: int, rng: np.random.Generator) -> Iterator[tuple[Ints, Ints, Ints]]:
    """One pass over the users who have interactions, in random order and in batches of nearly equal size.

    Yields ``(users (b,), rows (n,), items (n,))``: ``items`` are all interactions of the batch, ``rows`` their
    positions in ``users``.
    """
    degree = np.diff(data.indptr)
    active = rng.permutation(np.flatnonzero(degree))
    for users in np.array_split(active, max(1, round(len(active) / batch_size))):
        counts = degree[users]
        rows = np.repeat(np.arange(len(users)), counts)
        offsets = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
        yield users, rows, data.indices[data.indptr[users][rows] + offsets].astype(np.int64)
