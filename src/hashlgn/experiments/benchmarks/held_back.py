"""Items held back from a training, then added with a few of their interactions; beside a training that knew these.

A share of the items is drawn, and one model is trained without them. Then, for each number of interactions that is
asked for, they are added to this model with so many of their interactions, drawn at random. Another model is trained on
the same interactions at once. Both answer the users of all other interactions of these items, over the whole catalogue,
and over the new items alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from hashlgn.data import Interactions
from hashlgn.errors import ArgumentError, positive_int
from hashlgn.experiments.common.runs import recommender
from hashlgn.inference.recommender import Recommender
from hashlgn.utils.provenance import provenance

_COLUMNS = ("interactions", "items", "asked", "added", "trained", "ratio", "added, new", "trained, new", "ratio, new")
Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


def bench_held_back(
    data: Interactions,
    counts: Sequence[int] = (1, 2, 5, 10, 20, 50),
    *,
    share: float = 0.05,
    k: int = 50,
    among: int = 20,
    threads: int | None = None,
    seed: int = 0,
    changes: Mapping[str, Any] | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Recall for items that were added to a trained model, and for the same items where a training knew them; arguments
    are the options of ``hashlgn bench held-back``, and ``among``, the items of an answer that holds new items only.

    Returns:
        ``rows``, one per number of interactions: ``items``, ``asked`` interactions, recall@k over these where the items
        were ``added``, where a model was ``trained`` with them, and the ``ratio``; then the same where new items alone
        may be answered. There, an order drawn at random has the recall ``chance``.

    Raises:
        ArgumentError: a number breaks its rule, or there are too few items of so many interactions.
    """
    counts = sorted({positive_int("counts", count) if count else 0 for count in counts})
    if not counts:
        raise ArgumentError("counts must hold at least one number (got none)")
    held = _held(data, counts[-1], share, seed)
    new = held[data.indices]

    def train(part: Interactions) -> Recommender:
        model = recommender(part, changes, seed=seed, threads=threads)
        say(f"trained on {len(part):,} interactions with {len(model.model.items):,} items")
        return model

    rank = _ranks(data, seed)
    base = train(data.select(~new)).model
    rows = []
    for count in counts:
        known = ~new | (rank < count)
        part = data.select(known)
        models = {"added": _added(Recommender(base, threads=threads), data, part, held)}
        if count:
            models["trained"] = train(part)
        row: dict[str, Any] = {"interactions": count, "items": int(held.sum()), "asked": int((~known).sum())}
        for only, suffix in ((False, ""), (True, ", new")):
            size = among if only else k
            recalls = {name: float(_found(m, data, known, held, size, only).mean()) for name, m in models.items()}
            row |= {name + suffix: recall for name, recall in recalls.items()}
            if recalls.get("trained"):
                row["ratio" + suffix] = recalls["added"] / recalls["trained"]
        rows.append({name: row.get(name) for name in _COLUMNS})
    chance = min(1.0, among / np.count_nonzero(held))
    return {
        "rows": rows,
        "k": k,
        "among": among,
        "chance": chance,
        **provenance(data=data.stats(), seed=seed, threads=threads),
    }


def _added(model: Recommender, data: Interactions, part: Interactions, held: Mask) -> Recommender:
    """The model after the held items were added with their interactions; those without any start by their genres."""
    model.update(part.select(held[part.indices]), budget=0)
    there = np.zeros(data.n_items, np.bool_)
    there[part.indices] = True
    absent = np.flatnonzero(held & ~there)
    if len(absent):
        genres = None if data.genres is None else [data.genres[number] for number in absent.tolist()]
        ids = data.item_ids.decode(absent).tolist()
        model.add_items(ids, genres=genres, attributes=None if genres is None else "genres")
    return model


def _held(data: Interactions, most: int, share: float, seed: int) -> Mask:
    """The items that are held back, which have more interactions than any is added with, ``(n_items,)``."""
    if not 0 < share < 1:
        raise ArgumentError(f"share must lie between 0 and 1 (got {share})")
    degree = np.bincount(data.indices, minlength=data.n_items)
    several, size = np.flatnonzero(degree > most), int(share * np.count_nonzero(degree))
    if not 0 < size <= len(several):
        raise ArgumentError(f"share must leave items of more than {most} interactions (got {share})")
    held = np.zeros(data.n_items, np.bool_)
    held[np.random.default_rng(seed).choice(several, size, replace=False)] = True
    return held


def _ranks(data: Interactions, seed: int) -> Ints:
    """The place of each interaction among those of its item, in an order drawn at random."""
    order = np.lexsort((np.random.default_rng(seed).random(len(data)), data.indices))
    starts = np.concatenate(([0], np.cumsum(np.bincount(data.indices, minlength=data.n_items))))
    ranks = np.empty(len(data), np.int64)
    ranks[order] = np.arange(len(data)) - starts[data.indices[order]]
    return ranks


def _found(model: Recommender, data: Interactions, known: Mask, held: Mask, k: int, only: bool) -> Mask:
    """Whether each interaction with a held item that is not known is among the k best of its user, of all items or of
    the held ones only.
    """
    asked = np.flatnonzero(~known)
    rows = data.rows[asked]
    users = data.user_ids.decode(np.intersect1d(rows, data.rows[known]))  # who has a history
    allow = data.item_ids.decode(np.flatnonzero(held)) if only else None
    keys = [
        data.user_ids.encode(part["user"]) * data.n_items + data.item_ids.encode(part["item"])
        for part in model.recommend_batches(users, k, allow=allow, on_unknown="skip", titles=False)
    ]
    return np.isin(rows * data.n_items + data.indices[asked], np.concatenate(keys))
