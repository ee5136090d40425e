"""How a batch of rows is answered: queries, search, what nobody can be asked about, a table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from hashlgn.data import Ids
from hashlgn.inference.model import ServedModel
from hashlgn.inference.requests import Limits, Pairs, Rows
from hashlgn.inference.tables import Table
from hashlgn.scoring.calibration import Calibration
from hashlgn.scoring.decoders import Floats
from hashlgn.scoring.exclusion import Exclusion
from hashlgn.scoring.items import Items
from hashlgn.scoring.pairs import pair_scores
from hashlgn.search import Hits, Searcher
from hashlgn.search.base import order_hits

__all__ = ["BATCH", "Ask", "Catalogue", "Columns", "Popular", "answer", "find", "popular", "tables", "whole"]

BATCH = 2048  # rows answered at a time

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

    @cached_property
    def all(self) -> Limits:
        """No limits."""
        return Limits(len(self.ids))


@dataclass(frozen=True)
class Popular:
    """What ranks answers to rows without a list: a number per item, and all items by falling number."""

    value: Doubles
    order: Ints


def popular(model: ServedModel) -> Popular:
    """What ranks answers to somebody of whom nothing is known."""
    return Popular(model.popularity, model.most_popular)


class Ask(NamedTuple):
    """What is wanted of the rows."""

    k: int | None  # number of answers, or None
    threshold: float | None  # score to exceed, or None; a probability where there is a calibration
    calibration: Calibration | None = None  # the map from scores to probabilities, where they are asked for
    # What ranks answers to rows without a list; None where every row has a query
    popular: Callable[[], Popular] | None = None
    columns: tuple[str, str] = ("user", "item")  # names of the column of rows and of the column of answers
    own: bool = True  # whether rows leave out their own lists
    titles: Sequence[str] | None = None  # of the answers, or None


def answer(catalogue: Catalogue, rows: Rows, limits: Limits, start: int, ask: Ask) -> Table:
    """The answers to one batch, which begins at row ``start`` of all."""
    queries = catalogue.queries(rows)
    exclude = limits.exclusion(start, rows, ask.own)
    pairs = None if limits.row_allow is None else limits.candidates(start, len(rows))
    return Columns(catalogue.ids, rows, ask).table(find(catalogue, queries, rows, exclude, ask, pairs))


def tables(catalogue: Catalogue, rows: Rows, limits: Limits, ask: Ask) -> Iterator[Table]:
    """The answers to all rows, a batch at a time."""
    for start in range(0, max(len(rows), 1), BATCH):
        yield answer(catalogue, rows.part(start, start + BATCH), limits, start, ask)


def whole(catalogue: Catalogue, rows: Rows, limits: Limits, ask: Ask) -> Table:
    """The answers to all rows in one table."""
    if len(rows) <= BATCH:
        return answer(catalogue, rows, limits, 0, ask)
    return Table.concatenate(list(tables(catalogue, rows, limits, ask)))


def find(
    catalogue: Catalogue, queries: Floats, rows: Rows, exclude: Exclusion, ask: Ask, pairs: Pairs | None = None
) -> Hits:
    """The answers to one batch in numbers.

    Args:
        catalogue: what is searched.
        queries: ``(q, width)``.
        rows: what is asked about; rows of empty lists are answered by popularity.
        exclude: what rows leave out.
        ask: what is wanted.
        pairs: rows and items of all that may be answered, where each row has an allow list of its own.
    """
    if catalogue.removed is not None:
        exclude = exclude.also(catalogue.removed)
    if pairs is None and ask.k is not None:
        hits = catalogue.searcher.search(queries, min(ask.k, max(len(catalogue.items), 1)), exclude)
    else:
        hits = _search(catalogue, queries, rows.counts, exclude, ask, pairs)
    if ask.popular is None or not rows.some_empty():
        return hits
    return _with_popular(hits, np.flatnonzero(rows.counts == 0), ask.popular(), exclude, pairs, ask.k)


def _search(
    catalogue: Catalogue, queries: Floats, counts: Ints, exclude: Exclusion, ask: Ask, pairs: Pairs | None
) -> Hits:
    threshold = ask.threshold
    bounds = None if threshold is None else np.full(len(counts), threshold)
    if threshold is not None and ask.calibration is not None:
        bounds = ask.calibration.threshold(threshold, counts)
    if pairs is not None:  # everybody has an allow list of their own: only its items are scored
        kept = ~exclude.excluded(*pairs)
        row, item = pairs[0][kept], pairs[1][kept]
        scores = pair_scores(catalogue.items, queries, row, item)
        above = slice(None) if bounds is None else np.float64(scores) > bounds[row]
        hits = order_hits([(row[above], item[above], scores[above])], len(counts), ask.k)
    else:
        assert bounds is not None  # k, or a threshold
        hits = catalogue.searcher.search_above(queries, float(bounds.min(initial=np.inf)), exclude)
    if threshold is not None and ask.calibration is not None:
        # The bound is a little low, and that of the row with the lowest: probabilities decide.
        row = np.repeat(np.arange(len(counts)), np.diff(hits.indptr))
        hits = _kept(hits, row, ask.calibration.probability(hits.scores, counts[row]) > threshold)
    return hits


def _kept(hits: Hits, row: Ints, keep: npt.NDArray[np.bool_]) -> Hits:
    bounds = np.searchsorted(row[keep], np.arange(len(hits.indptr))).astype(np.int64)
    return Hits(bounds, hits.items[keep], hits.scores[keep])


def _with_popular(
    hits: Hits, empty: Ints, popular: Popular, exclude: Exclusion, pairs: Pairs | None, k: int | None
) -> Hits:
    """The answers with those of the empty rows replaced: the most popular items, none where a threshold is asked."""
    rows = {row: hits.row(row) for row in range(len(hits))}
    for row in empty.tolist():
        items = np.empty(0, np.int64)
        if k is not None and pairs is not None:
            allowed = pairs[1][pairs[0] == row]  # ascending
            items = _best(allowed[np.argsort(-popular.value[allowed], kind="stable")], row, exclude, k)
        elif k is not None:
            items = _best(popular.order, row, exclude, k)
        rows[row] = items, np.floor(popular.value[items]).astype(np.float32)
    bounds = np.cumsum([0, *(len(items) for items, _ in rows.values())], dtype=np.int64)
    return Hits(bounds, *(np.concatenate([found[i] for found in rows.values()]) for i in (0, 1)))


def _best(order: Ints, row: int, exclude: Exclusion, k: int) -> Ints:
    """The first k items of an order that a row does not leave out."""
    size = 2 * k + int(exclude.counts(row + 1)[row])
    while True:  # twice at most, unless most of the catalogue is left out
        first = order[:size]
        kept = first[~exclude.excluded(np.full(len(first), row), first)]
        if len(kept) >= k or size >= len(order):
            return kept[:k]
        size *= 16


class Columns:
    """The columns of an answer; each is made when it is first asked for.

    Args:
        ids: of what is answered.
        rows: what is asked about.
        ask: what is wanted.
    """

    __slots__ = ("_ask", "_ids", "_rows", "names")

    def __init__(self, ids: Ids, rows: Rows, ask: Ask) -> None:
        self._ids, self._rows, self._ask = ids, rows, ask
        names = (ask.columns[0], ask.columns[1], "score", "rank") if rows.named else (ask.columns[1], "score", "rank")
        if ask.popular is not None:
            names = (*names, "source")
        if ask.calibration is not None:
            names = (*names, "probability")
        self.names = names if ask.titles is None else (*names, "title")

    def table(self, hits: Hits) -> Table:
        """The answer."""
        return Table.deferred({**dict.fromkeys(self.names, partial(self.make, hits)), "score": hits.scores})

    def make(self, hits: Hits, name: str) -> npt.NDArray[Any]:
        """A column of the answer."""
        ids, rows, ask = self._ids, self._rows, self._ask
        if name == ask.columns[1]:
            return ids.decode(hits.items)
        lengths = np.diff(hits.indptr)
        if name == ask.columns[0]:
            return np.repeat(np.asarray(rows.names), lengths)
        if name == "rank":
            return np.arange(len(hits.items)) - np.repeat(hits.indptr[:-1], lengths) + 1
        if name == "source":
            return np.repeat(_SOURCES[(rows.counts > 0).astype(np.int64)], lengths)
        if name == "probability" and ask.calibration is not None:
            counts = np.repeat(rows.counts, lengths)
            found = ask.calibration.probability(hits.scores, counts)
            return np.where(counts > 0, found, np.nan).astype(np.float32)
        assert ask.titles is not None  # the only one that is left
        titles = ask.titles
        return np.array([*(titles[item] or None for item in hits.items.tolist()), None], np.object_)[:-1]


_SOURCES = np.array(["popular", "model"], np.object_)
