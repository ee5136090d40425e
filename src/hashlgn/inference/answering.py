"""How a batch of rows is answered: queries, search, what nobody can be asked about, a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hashlgn.data import Ids
from hashlgn.inference.requests import Limits, Rows
from hashlgn.inference.tables import Table
from hashlgn.scoring.calibration import Calibration
from hashlgn.scoring.decoders import Floats
from hashlgn.scoring.exclusion import Exclusion
from hashlgn.scoring.items import Items
from hashlgn.scoring.pairs import pair_scores
from hashlgn.search import Hits, Searcher
from hashlgn.search.base import order_hits

__all__ = ["Ask", "Catalogue", "answer"]

Ints = npt.NDArray[np.int64]
Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Catalogue:
    """What is searched: ids, vectors or codes, a searcher over them, the queries that rows ask it, and what is never
    answered, ``(n,)`` bool, or None.
    """

    ids: Ids
    items: Items
    searcher: Searcher
    queries: Callable[[Rows], Floats]
    removed: npt.NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class Ask:
    """What is wanted of the rows.

    Attributes:
        columns: names of the column of rows and of the column of answers.
        k: number of answers, or None.
        threshold: score to exceed, or None; a probability where there is a calibration.
        own: whether rows leave out their own lists.
        titles: of the answers, or None.
        calibration: the map from scores to probabilities, where they are asked for.
        popularity: what ranks answers to rows without a list; None where every row has a query.
    """

    columns: tuple[str, str]
    k: int | None
    threshold: float | None
    own: bool
    titles: Sequence[str] | None = None
    calibration: Calibration | None = None
    popularity: Callable[[], Doubles] | None = None


def answer(catalogue: Catalogue, rows: Rows, limits: Limits, start: int, ask: Ask) -> Table:
    """The answers to one batch, which begins at row ``start`` of all."""
    counts = np.diff(rows.lists[0])
    exclude = limits.exclusion(start, len(rows), rows.lists if ask.own else None).also(catalogue.removed)
    hits = _search(catalogue, rows, limits.candidates(start, len(rows)), exclude, counts, ask)
    empty = np.flatnonzero(counts == 0) if ask.popularity is not None else counts[:0]
    if ask.popularity is not None and len(empty):
        hits = _with_popular(hits, empty, ask.popularity(), exclude, limits.candidates(start, len(rows)), ask.k)
    return _table(catalogue.ids, rows, hits, counts, ask)


def _search(
    catalogue: Catalogue, rows: Rows, pairs: tuple[Ints, Ints] | None, exclude: Exclusion, counts: Ints, ask: Ask
) -> Hits:
    queries, threshold = catalogue.queries(rows), ask.threshold
    bounds = None if threshold is None else np.full(len(rows), threshold)
    if threshold is not None and ask.calibration is not None:
        bounds = ask.calibration.threshold(threshold, counts)
    if pairs is not None:  # everybody has an allow list of their own: only its items are scored
        kept = ~exclude.excluded(*pairs)
        row, item = pairs[0][kept], pairs[1][kept]
        scores = pair_scores(catalogue.items, queries, row, item)
        above = slice(None) if bounds is None else np.float64(scores) > bounds[row]
        hits = order_hits([(row[above], item[above], scores[above])], len(rows), ask.k)
    elif bounds is not None:
        hits = catalogue.searcher.search_above(queries, float(bounds.min(initial=np.inf)), exclude)
    else:
        assert ask.k is not None  # one of the two is given
        return catalogue.searcher.search(queries, min(ask.k, max(len(catalogue.items), 1)), exclude)
    if threshold is not None and ask.calibration is not None:
        # The bound is a little low, and that of the row with the lowest: probabilities decide.
        row = np.repeat(np.arange(len(rows)), np.diff(hits.indptr))
        hits = _kept(hits, row, ask.calibration.probability(hits.scores, counts[row]) > threshold)
    return hits


def _kept(hits: Hits, row: Ints, keep: npt.NDArray[np.bool_]) -> Hits:
    bounds = np.searchsorted(row[keep], np.arange(len(hits.indptr))).astype(np.int64)
    return Hits(bounds, hits.items[keep], hits.scores[keep])


def _with_popular(
    hits: Hits, empty: Ints, popularity: Doubles, exclude: Exclusion, pairs: tuple[Ints, Ints] | None, k: int | None
) -> Hits:
    """The answers with those of the empty rows replaced: the most popular items, none where a threshold is asked."""
    row = np.repeat(np.arange(len(hits.indptr) - 1), np.diff(hits.indptr))
    model = ~np.isin(row, empty)
    rows, items = [row[model]], [hits.items[model]]
    scores = [hits.scores[model]]
    order = np.argsort(-popularity, kind="stable")
    if exclude.banned is not None:
        order = order[~exclude.banned[order]]
    for number in empty.tolist() if k is not None else ():
        allowed = order if pairs is None else order[np.isin(order, pairs[1][pairs[0] == number])]
        if exclude.indptr is not None and exclude.indices is not None:
            allowed = allowed[~np.isin(allowed, exclude.indices[exclude.indptr[number] : exclude.indptr[number + 1]])]
        best = allowed[:k]
        rows, items = [*rows, np.full(len(best), number)], [*items, best]
        scores.append(np.floor(popularity[best]).astype(np.float32))
    of_row = np.concatenate(rows)
    by_row = np.argsort(of_row, kind="stable")
    bounds = np.searchsorted(of_row[by_row], np.arange(len(hits.indptr))).astype(np.int64)
    return Hits(bounds, np.concatenate(items)[by_row], np.concatenate(scores)[by_row])


def _table(ids: Ids, rows: Rows, hits: Hits, counts: Ints, ask: Ask) -> Table:
    sizes = np.diff(hits.indptr)
    made: dict[str, npt.NDArray[Any]] = {} if rows.names is None else {ask.columns[0]: np.repeat(rows.names, sizes)}
    made[ask.columns[1]] = ids.decode(hits.items)
    made["score"] = hits.scores
    made["rank"] = np.arange(len(hits.items)) - np.repeat(hits.indptr[:-1], sizes) + 1
    if ask.popularity is not None:
        made["source"] = np.repeat(np.array(["popular", "model"], np.object_)[(counts > 0).astype(np.int64)], sizes)
    if ask.calibration is not None:
        found = ask.calibration.probability(hits.scores, np.repeat(counts, sizes))
        made["probability"] = np.where(np.repeat(counts, sizes) > 0, found, np.nan).astype(np.float32)
    if ask.titles is not None:
        made["title"] = np.array([*(ask.titles[item] for item in hits.items.tolist()), None], np.object_)[:-1]
    return Table(made)
