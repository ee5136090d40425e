"""Cutting interactions into parts: plain functions that return (train, test) over the same catalogues.

Every split takes whole numbers of interactions and loses none: the parts are disjoint and together are the data.
Randomness comes from an explicit seed alone. A split that is published as two files needs no function: read both and
re-number the second with ``Interactions.encode_like``.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from hashlgn.data.interactions import Interactions
from hashlgn.errors import ArgumentError, DataError, positive_int, shown

__all__ = ["global_time", "leave_last", "leave_users", "random_ratio"]

Int64s = npt.NDArray[np.int64]
Parts = tuple[Interactions, Interactions]


def random_ratio(data: Interactions, test: float = 0.2, *, seed: int = 0, max_users: int | None = None) -> Parts:
    """Hold out a random share of every user's interactions.

    A user with n interactions gives ``round(test · n)`` of them (halves upwards) to the test part, but never
    the last one left for training.

    Args:
        data: interactions.
        test: the share, between 0 and 1.
        seed: fixes the draws.
        max_users: so many users give any, at most, drawn at random; all of them where None.

    Raises:
        ArgumentError: ``test`` is not between 0 and 1, or ``max_users`` no positive integer.
    """
    wanted, rng = _per_user(data, _share("test", test)), np.random.default_rng(seed)
    if max_users is not None:
        candidates = np.flatnonzero(wanted)
        chosen = rng.permutation(candidates)[: positive_int("max_users", max_users)]
        wanted[np.setdiff1d(candidates, chosen)] = 0
    return _hold_out(data, np.lexsort((rng.random(len(data)), data.rows)), wanted)


def leave_last(data: Interactions, n: int | None = None, *, share: float | None = None) -> Parts:
    """Hold out the latest interactions of every user, as far as one is left for training.

    Where times are equal, the item with the higher number counts as later.

    Args:
        data: interactions with times.
        n: how many of every user; 1 where neither ``n`` nor ``share`` is given.
        share: instead, a share of every user's interactions, rounded (halves upwards).

    Raises:
        ArgumentError: ``n`` is no positive integer, ``share`` is not between 0 and 1, or both are given.
        DataError: the data has no times.
    """
    if n is not None and share is not None:
        raise ArgumentError(f"n and share must not both be given (got n={shown(n)} and share={shown(share)})")
    if share is None:
        wanted = np.minimum(positive_int("n", 1 if n is None else n), np.maximum(np.diff(data.indptr) - 1, 0))
    else:
        wanted = _per_user(data, _share("share", share))
    latest_first = np.lexsort((-data.indices, ~_times(data), data.rows))  # ~t falls as t rises, and never overflows
    return _hold_out(data, latest_first, wanted)


def global_time(data: Interactions, test: float = 0.2) -> Parts:
    """Hold out everything from one moment on, the latest one that leaves at least a share ``test`` to the
    test part.

    Interactions of the same time stay together, so the share may be larger than asked. Users and items that
    only occur after the moment have no training interactions; evaluation has to decide what to do with them.

    Raises:
        ArgumentError: ``test`` is not between 0 and 1.
        DataError: the data has no times, or all of it would be held out.
    """
    share, times = _share("test", test), _times(data)
    if not len(times):
        raise DataError("global_time needs interactions (got none)")
    place = len(times) - max(1, math.ceil(share * len(times)))
    held_out = times >= np.partition(times, place)[place]
    if held_out.all():
        raise DataError(f"no moment leaves training data before it and a share of {share} after it")
    return data.select(~held_out), data.select(held_out)


def leave_users(
    data: Interactions, share: float = 0.1, *, given: float = 0.8, seed: int = 0
) -> tuple[Interactions, Interactions, Interactions]:
    """Leave whole users out of training, and split their histories: for strong generalisation.

    A model is trained on the first part; the users left out are answered by their histories in the second one
    (``evaluate(model, test, history=given)``), and evaluated on the third.

    Args:
        data: interactions. Users with fewer than two stay in training.
        share: of the users with at least two interactions, rounded (halves upwards), but at least one, drawn at random.
        given: of the history of each of them, rounded in favour of what is given, but never all and never nothing.
        seed: fixes the draws.

    Returns:
        Training, given histories and test, over the same catalogues.

    Raises:
        ArgumentError: ``share`` or ``given`` is not between 0 and 1.
        DataError: there are fewer than two users with two interactions.

    Source: Marlin, *Collaborative filtering: a machine learning perspective*, 2004; Liang et al., *Variational
    autoencoders for collaborative filtering*, WWW 2018, which gives four fifths as well.
    """
    share, given = _share("share", share), _share("given", given)
    counts, rng = np.diff(data.indptr), np.random.default_rng(seed)
    able = np.flatnonzero(counts >= 2)
    if len(able) < 2:
        raise DataError(f"leave_users needs two users with two interactions, at least (got {len(able)})")
    n = min(max(1, math.floor(share * len(able) + 0.5)), len(able) - 1)
    left_out = np.zeros(data.n_users, np.bool_)
    left_out[rng.permutation(able)[:n]] = True
    held = np.where(left_out, np.clip(np.ceil((1 - given) * counts - 0.5).astype(np.int64), 1, counts - 1), 0)
    rest, test = _hold_out(data, np.lexsort((rng.random(len(data)), data.rows)), held)
    told = left_out[rest.rows]
    return rest.select(~told), rest.select(told), test


def _per_user(data: Interactions, share: float) -> Int64s:
    """How many interactions every user gives away: a rounded share, but never all."""
    counts = np.diff(data.indptr)
    rounded = np.floor(share * counts + 0.5).astype(np.int64)
    return np.asarray(np.minimum(rounded, np.maximum(counts - 1, 0)))


def _hold_out(data: Interactions, order: Int64s, wanted: Int64s) -> Parts:
    """Hold out the first ``wanted[u]`` interactions of every user u in an order that is sorted by user."""
    place = np.arange(len(data)) - np.repeat(data.indptr[:-1], np.diff(data.indptr))
    held_out = np.zeros(len(data), np.bool_)
    held_out[order[place < np.repeat(wanted, np.diff(data.indptr))]] = True
    return data.select(~held_out), data.select(held_out)


def _share(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not 0 < value < 1:
        raise ArgumentError(f"{name} must be a number between 0 and 1, both excluded (got {shown(value)})")
    return float(value)


def _times(data: Interactions) -> Int64s:
    if data.times is None:
        raise DataError("a split by time needs times (the data has none: name their column when reading)")
    return data.times
