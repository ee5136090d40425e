"""How stale a model has become since its training, and what another training would bring."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hashlgn.inference.live import live_of
from hashlgn.inference.model import ServedModel
from hashlgn.scoring.exclusion import Exclusion
from hashlgn.scoring.rows import rows_of
from hashlgn.search.base import Searcher

__all__ = ["Staleness", "staleness"]

Ints = npt.NDArray[np.int64]

_USERS = 1000  # who are asked
_TOP = 20


@dataclass(frozen=True)
class Staleness:
    """What of a model is newer than its training; shares lie in 0 … 1.

    Attributes:
        interactions: share of the stored interactions that are newer.
        items: share of the items that can be answered that are newer.
        score_mass: share of the scores of the users' 20 best items that goes to newer items.
        recall: recall@20 of the newest interactions, each hidden from its user's history.
        known_recall: the same of those among them whose item the training knew well, with two thirds of the
            interactions that the item has now; None where there is no such interaction.
        refit_gain: what a refit would bring, as recall@20 of the newest interactions, if it brought all items to the
            recall of those that the training knew well; 0 where this is not more.
        asked: newest interactions that these figures are measured on.
    """

    interactions: float
    items: float
    score_mass: float
    recall: float
    known_recall: float | None
    refit_gain: float
    asked: int


def staleness(model: ServedModel, searcher: Searcher) -> Staleness:
    """Measure a model; the newest interactions of at most 1,000 users who have any that are newer than the training."""
    live, (indptr, indices) = live_of(model), model.seen
    rows = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
    answerable = np.ones(len(model.item_ids), np.bool_) if live.removed is None else ~live.removed
    newest = _newest(model, rows, answerable)
    users = np.unique(rows[newest])
    hidden = np.zeros(len(indices), np.bool_)
    hidden[newest] = True
    counts = np.bincount(indices, minlength=len(model.item_ids))
    old = np.bincount(indices[~model.stored.newer], minlength=len(model.item_ids))
    found = np.zeros(len(newest), np.bool_)
    mass = [0.0, 0.0]
    if len(users):
        bounds, places = rows_of((indptr, np.arange(len(indices))), users)
        kept = ~hidden[places]
        bounds = np.concatenate(([0], np.cumsum(kept)))[bounds]
        places = places[kept]
        strengths = None if model.strengths is None else model.strengths[places]
        queries = model.queries(bounds, indices[places], strengths)
        exclude = Exclusion.build(len(counts), seen=(bounds, indices[places])).also(live.removed)
        hits = searcher.search(queries, min(_TOP, max(len(counts), 1)), exclude)
        owner = np.repeat(users, np.diff(hits.indptr))
        keys = owner * len(counts) + hits.items
        found = np.isin(rows[newest] * len(counts) + indices[newest], keys)
        scores = np.maximum(hits.scores.astype(np.float64), 0)
        mass = [float(scores.sum()), float(scores[hits.items >= live.items].sum())]
    known = old[indices[newest]] * 3 >= 2 * counts[indices[newest]]
    recall = float(found.mean()) if len(found) else 0.0
    known_recall = float(found[known].mean()) if known.any() else None
    return Staleness(
        interactions=float(model.stored.newer.mean()) if len(model.stored.newer) else 0.0,
        items=float(np.mean(np.flatnonzero(answerable) >= live.items)) if answerable.any() else 0.0,
        score_mass=mass[1] / mass[0] if mass[0] else 0.0,
        recall=recall,
        known_recall=known_recall,
        refit_gain=max(0.0, (known_recall or 0.0) - recall),
        asked=len(newest),
    )


def _newest(model: ServedModel, rows: Ints, answerable: npt.NDArray[np.bool_]) -> Ints:
    """The newest interaction of each of some users who have one since the training, and others beside it."""
    indices = model.seen[1]
    places = np.flatnonzero(model.stored.newer & answerable[indices])
    places = places[np.diff(model.seen[0])[rows[places]] > 1]
    if model.times is not None:
        places = places[np.lexsort((-model.times[places], rows[places]))]
    places = places[np.unique(rows[places], return_index=True)[1]]
    return places[:: -(-len(places) // _USERS)] if len(places) else places
