"""Made-up interactions of any size, with clusters that a model can find; and the writer of LightGCN's folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from hashlgn.data.ids import Ids
from hashlgn.data.interactions import Interactions
from hashlgn.errors import ArgumentError, DataError, positive_int, shown
from hashlgn.utils.storage import reason, replaced_file

__all__ = ["synthetic", "write_lightgcn"]

Int64s = npt.NDArray[np.int64]
_BLOCK = 1 << 22  # interactions made at a time
_USERS = 1 << 16  # users written at a time
_ROUNDS = 16  # draws of an item that the user already has are repeated so often


def synthetic(
    n_users: int,
    n_items: int,
    interactions: int,
    *,
    clusters: int = 16,
    affinity: float = 0.8,
    skew: float = 0.8,
    seed: int = 0,
    titles: bool = True,
) -> Interactions:
    """Make exactly ``interactions`` distinct pairs of users and items ``0 … n − 1``.

    Every user and every item belongs to a cluster. An interaction is with an item of the user's own cluster with
    probability ``affinity``, else with one of a cluster drawn evenly; within a cluster, the item of rank r (from 0)
    is drawn about in proportion to ``(r + 1)^−skew``, and drawn again where the user has it. A user's number of
    interactions is log-normal (σ = 1), and at least 1 where ``interactions`` allows. Where users must have so much
    of the catalogue that drawing again is of no use, the rest is uniform among what they do not have.

    Args:
        n_users: number of users.
        n_items: number of items.
        interactions: number of pairs, at most ``n_users · n_items``.
        clusters: number of clusters; never more than items.
        affinity: probability of the own cluster, from 0 (nothing to learn) to 1.
        skew: exponent of popularity; 0 makes all items of a cluster equally popular.
        seed: fixes every draw.
        titles: name items by number and cluster, and give the cluster as their genre.

    Returns:
        No ratings and no times. Needs 4 bytes per interaction and a block of constant size; titles are Python strings,
        one per item.

    Raises:
        ArgumentError: an argument breaks its rule.
    """
    n_users, n_items = positive_int("n_users", n_users), positive_int("n_items", n_items)
    if seed < 0:
        raise ArgumentError(f"seed must be at least 0 (got {seed})")
    interactions, clusters = positive_int("interactions", interactions), positive_int("clusters", clusters)
    if interactions > n_users * n_items:
        raise ArgumentError(
            f"interactions must be at most n_users * n_items = {n_users * n_items} (got {interactions})"
        )
    if not 0 <= affinity <= 1:
        raise ArgumentError(f"affinity must be a number from 0 to 1 (got {shown(affinity)})")
    if not 0 <= skew <= 10:
        raise ArgumentError(f"skew must be a number from 0 to 10 (got {shown(skew)})")
    clusters = min(clusters, n_items)
    rng = np.random.default_rng(seed)
    of_user = rng.integers(clusters, size=n_users)
    item_of = rng.permutation(n_items).astype(np.int32)  # rank · clusters + cluster → item: ids tell nothing
    quota = _quota(rng, n_users, n_items, interactions)
    indptr = np.concatenate(([0], np.cumsum(quota)))
    indices = np.empty(interactions, np.int32)
    first = 0
    while first < n_users:
        last = max(first + 1, int(np.searchsorted(indptr, indptr[first] + _BLOCK, "right")) - 1)
        keys = _pairs(rng, quota[first:last], of_user[first:last], item_of, clusters, affinity, skew)
        start, stop = int(indptr[first]), int(indptr[last])
        indptr[first + 1 : last + 1] = start + np.cumsum(np.bincount(keys // n_items, minlength=last - first))
        indices[start:stop] = keys % n_items
        first = last
    names, genres = _labels(item_of, clusters) if titles else (None, None)
    return Interactions(Ids.range(n_users), Ids.range(n_items), indptr, indices, titles=names, genres=genres)


def _pairs(
    rng: np.random.Generator,
    quota: Int64s,
    of_user: Int64s,
    item_of: npt.NDArray[np.int32],
    clusters: int,
    affinity: float,
    skew: float,
) -> Int64s:
    """As many distinct pairs for each user as their quota, ascending, each as ``user · n_items + item``."""
    keys, lacks, n_items = np.empty(0, np.int64), quota, len(item_of)
    for _ in range(_ROUNDS):
        users = np.repeat(np.arange(len(quota)), lacks)
        own = rng.random(len(users)) < affinity
        cluster = np.where(own, of_user[users], rng.integers(clusters, size=len(users)))
        slot = _ranks(rng, len(users), -(-n_items // clusters), skew) * clusters + cluster
        inside = slot < n_items  # the last rank exists in some clusters only
        keys = _union(keys, users[inside] * n_items + item_of[slot[inside]])
        lacks = quota - np.bincount(keys // n_items, minlength=len(quota))
        if not lacks.any():
            return keys
    missing = _distinct(rng, int(lacks.sum()), len(quota) * n_items - len(keys))  # counted among the pairs not there
    return _union(keys, missing + np.searchsorted(keys - np.arange(len(keys)), missing, "right"))


def _labels(item_of: npt.NDArray[np.int32], clusters: int) -> tuple[list[str], list[tuple[str, ...]]]:
    """Titles and genres of all items."""
    of_item = np.empty(len(item_of), np.int64)
    of_item[item_of] = np.arange(len(item_of)) % clusters
    genres = [(f"Cluster {c}",) for c in range(clusters)]
    return [f"Item {i}" for i in range(len(item_of))], [genres[c] for c in of_item.tolist()]


def _quota(rng: np.random.Generator, n_users: int, n_items: int, interactions: int) -> Int64s:
    """How many items each user has: log-normal, at most n_items, with the given sum."""
    share = rng.lognormal(0.0, 1.0, n_users)
    each = int(interactions >= n_users)
    drawn = rng.multinomial(interactions - each * n_users, share / share.sum())
    quota = np.minimum(drawn + each, n_items)
    free = n_items - quota
    quota += np.clip(interactions - quota.sum() - (np.cumsum(free) - free), 0, free)  # what was cut off, to the first
    return quota


def _ranks(rng: np.random.Generator, size: int, n: int, skew: float) -> Int64s:
    """Draws from 0 … n − 1 about in proportion to ``(r + 1)^−skew``, by inverting the integral of the density."""
    uniform = rng.random(size)
    if abs(skew - 1) < 1e-9:
        drawn = (n + 1.0) ** uniform
    else:
        drawn = (1 + uniform * ((n + 1.0) ** (1 - skew) - 1)) ** (1 / (1 - skew))
    return np.minimum(drawn.astype(np.int64) - 1, n - 1)


def _union(a: Int64s, b: Int64s) -> Int64s:
    """The distinct numbers of both, ascending; several times as fast as NumPy's, which hashes."""
    joined = np.concatenate((a, b))
    joined.sort()
    keep = np.ones(len(joined), np.bool_)
    np.not_equal(joined[1:], joined[:-1], out=keep[1:])
    return joined[keep]


def _distinct(rng: np.random.Generator, size: int, below: int) -> Int64s:
    """``size`` distinct integers from 0 … below − 1, uniformly, ascending."""
    if 2 * size > below:
        chosen = np.ones(below, np.bool_)
        chosen[_distinct(rng, below - size, below)] = False
        return np.flatnonzero(chosen)
    drawn = np.empty(0, np.int64)
    while len(drawn) < size:
        drawn = _union(drawn, rng.integers(below, size=size - len(drawn)))
    return drawn


def write_lightgcn(folder: Path, train: Interactions, test: Interactions) -> None:
    """Write ``train.txt`` and ``test.txt``, one line a user: ``user item item …``, which ``read_interactions`` reads.

    ``train.txt`` has a line for every user, ``test.txt`` for those who have test items. Ratings, times, titles, and
    items without any interaction have no place in this format.

    Raises:
        ArgumentError: an id is a string or negative, or a file cannot be written.
        DataError: a part has no interactions.
    """
    for name, data in (("train", train), ("test", test)):
        for ids in (data.user_ids, data.item_ids):
            if ids.id_type == "str" or (ids.values < 0).any():
                raise ArgumentError(f"{name} must have integer ids from 0 for this format (got {ids!r})")
        if not len(data):
            raise DataError(f"{name} has no interactions to write")
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write_part(folder / "train.txt", train, np.arange(train.n_users))
        _write_part(folder / "test.txt", test, np.flatnonzero(np.diff(test.indptr)))
    except OSError as error:
        raise ArgumentError(f"folder must be a place to write to (got {str(folder)!r}: {reason(error)})") from error


def _write_part(path: Path, data: Interactions, users: Int64s) -> None:
    user_ids, item_ids = data.user_ids.values[users], data.item_ids.values
    bounds = np.append(data.indptr[users], len(data))  # who is not among them has no interactions
    with replaced_file(path) as temporary, temporary.open("xb") as file:
        for first in range(0, len(users), _USERS):
            part = bounds[first : first + _USERS + 1]
            edges = part - part[0]
            tokens = np.insert(item_ids[data.indices[part[0] : part[-1]]], edges[:-1], user_ids[first : first + _USERS])
            ends = (edges + np.arange(len(edges))).astype(np.int32)  # a user is a token too
            lines = pc.binary_join(pa.ListArray.from_arrays(ends, pa.array(tokens).cast(pa.string())), " ")
            text = pc.binary_join(pa.ListArray.from_arrays([0, len(lines)], lines), "\n")
            file.write(text[0].as_buffer())
            file.write(b"\n")
