"""The people of items: their queries, each without the item itself, summed by item."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from hashlgn.errors import ArgumentError
from hashlgn.inference.attributes import Neighbours
from hashlgn.inference.changes import Placed
from hashlgn.inference.live import live_of
from hashlgn.inference.model import ServedModel
from hashlgn.inference.placement import WEIGHT, Placement, decoded_answers, decoded_histories
from hashlgn.scoring.decoders import CodebookDecoder
from hashlgn.scoring.histories import CodedHistories, FloatHistories
from hashlgn.scoring.items import CodedItems

__all__ = ["People", "given", "living_histories", "people_of", "place", "unit_queries", "weighted_means"]

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

_MOST = 128  # people of an item who are asked: more make its mean hardly better
_ROWS = 2048  # histories whose sums are made at a time
_ENTRIES = 32_768  # people of items whose queries are made at a time
_NOTHING = 1e-10  # of a squared length: what rounding leaves of a history without its only item


@dataclass(frozen=True)
class People:
    """Whose histories tell where some items go.

    Attributes:
        counts: people of each item, all that there are, ``(items,)``.
        owners: the item of each entry, by its place among the items, ``(entries,)``.
        rows: the history of each entry, ``(entries,)``.
        indptr: bounds of the histories.
        indices: their items.
        strengths: ``a_ui``, aligned with ``indices``, or None.
        users: whose histories they are, ``(histories,)``, or None where the caller gave them.
    """

    counts: Ints
    owners: Ints
    rows: Ints
    indptr: Ints
    indices: Ints
    strengths: Floats | None
    users: Ints | None = None

    def parts(self) -> Iterator[tuple[slice, People]]:
        """The same in parts whose queries fit into memory, each with its items; entries ascend by item."""
        order = np.argsort(self.owners, kind="stable")
        owners, rows = self.owners[order], self.rows[order]
        if len(owners) <= _ENTRIES:
            yield slice(0, len(self.counts)), replace(self, owners=owners, rows=rows)
            return
        ends = np.searchsorted(owners, np.arange(len(self.counts)), side="right")
        first = 0
        while first < len(ends):
            begin = ends[first - 1] if first else 0
            last = max(first + 1, int(np.searchsorted(ends, begin + _ENTRIES, side="right")))
            asked, places = np.unique(rows[begin : ends[last - 1]], return_inverse=True)
            indptr, indices, strengths = _taken(self.indptr, self.indices, self.strengths, asked)
            some = slice(first, last)
            yield (
                some,
                People(self.counts[some], owners[begin : ends[last - 1]] - first, places, indptr, indices, strengths),
            )
            first = last


def _taken(indptr: Ints, indices: Ints, strengths: Floats | None, rows: Ints) -> tuple[Ints, Ints, Floats | None]:
    """Some rows of histories."""
    sizes = np.diff(indptr)[rows]
    bounds = np.concatenate(([0], np.cumsum(sizes)))
    places = np.arange(bounds[-1]) + np.repeat(indptr[rows] - bounds[:-1], sizes)
    return bounds, indices[places], None if strengths is None else strengths[places]


def living_histories(model: ServedModel) -> CodedHistories | FloatHistories:
    """The items in histories of a model that can change.

    Raises:
        ArgumentError: users are not their histories.
    """
    histories, items = model.histories, model.items
    coded = isinstance(items, CodedItems) and not isinstance(items.decoder, CodebookDecoder)
    if model.users is not None or coded or not isinstance(histories, CodedHistories | FloatHistories):
        raise ArgumentError("items and interactions can be added only to a model whose users are their histories")
    return histories


def people_of(model: ServedModel, owners: Ints, users: Ints, count: int) -> People:
    """The stored histories of people who have items.

    Args:
        model: whose histories.
        owners: place of an item, ``(entries,)``.
        users: number of a user who has it, ``(entries,)``.
        count: number of items.
    """
    counts = np.bincount(owners, minlength=count)
    if len(owners) and counts.max() > _MOST:  # those at even steps
        order = np.argsort(owners, kind="stable")
        rank = np.arange(len(owners)) - np.repeat(np.cumsum(counts) - counts, counts)
        sizes = np.repeat(np.maximum(counts, 1), counts)
        chosen = order[(rank * _MOST // sizes) != ((rank - 1) * _MOST // sizes)]
        owners, users = owners[chosen], users[chosen]
    if count == 1 and (users[1:] > users[:-1]).all():
        asked, rows = users, np.arange(len(users))
    else:
        asked, rows = np.unique(users, return_inverse=True)
    return People(counts, owners, rows, *model.stored.rows(asked), asked)


def given(histories: list[tuple[Ints, npt.NDArray[np.integer[Any]]]], numbers: Ints) -> People:
    """Histories that a caller gave: for each item bounds and items of some. The items are sorted by ``numbers``."""
    histories = [histories[place] for place in np.argsort(numbers)]
    counts = np.array([len(bounds) - 1 for bounds, _ in histories], np.int64)
    bounds = [bounds[1:] - bounds[:-1] for bounds, _ in histories]
    indptr = np.concatenate(([0], np.cumsum(np.concatenate([np.empty(0, np.int64), *bounds])))).astype(np.int64)
    indices = np.concatenate([np.empty(0, np.int64), *(items for _, items in histories)])
    owners = np.repeat(np.arange(len(histories)), counts)
    return People(counts, owners, np.arange(len(owners)), indptr, indices, None)


def place(
    model: ServedModel,
    placement: Placement,
    numbers: Ints,
    people: People,
    *,
    blended: bool = False,
    near: Neighbours | None = None,
) -> Placed:
    """Items in the form of a model, from their people.

    Args:
        model: whose vectors of items in histories count; items it does not have are in no history yet.
        placement: where items go.
        numbers: ascending, ``(items,)``.
        people: of these items.
        blended: whether an item of the training goes towards its new place by the share of its interactions that are
            new, and not all the way.
        near: where items start that nobody has.
    """
    histories = living_histories(model)
    own = _own_vectors(histories, numbers)
    o, p = (np.empty((len(numbers), histories.width), np.float32) for _ in range(2))
    for some, part in people.parts():
        units, weights = unit_queries(histories, numbers[some], part, own[some])
        means, worth = weighted_means(units, weights, part.owners, len(part.counts))
        o[some], p[some] = placement.vectors(means, worth, part.counts.astype(np.float64))
        placement.draw(o[some], units, part.owners, part.counts)
    for row, number in enumerate(numbers.tolist()):
        if near and number in near and not people.counts[row]:
            items, weights = near[number]
            o[row] = weights @ decoded_answers(model.items, items)
    live = live_of(model)
    trained = np.flatnonzero(numbers < live.items) if blended else numbers[:0]
    if len(trained):
        here = numbers[trained]
        old = np.minimum(live.counts.take(here) / np.maximum(people.counts[trained], 1), 1)[:, None].astype(np.float32)
        o[trained] += old * (decoded_answers(model.items, here) - o[trained])
        p[trained] += old * (own[trained] - p[trained])
    return _formed(model, placement, numbers, o, p, people.counts)


def _formed(model: ServedModel, placement: Placement, numbers: Ints, o: Floats, p: Floats, counts: Ints) -> Placed:
    answers: npt.NDArray[np.generic] = o
    known: npt.NDArray[np.generic] = p
    scale = weight = None
    items, histories = model.items, model.histories
    if isinstance(items, CodedItems) and isinstance(items.decoder, CodebookDecoder):
        answers, scale = placement.coder("answers", items.decoder.codewords).code(o)
    if isinstance(histories, CodedHistories):
        known, weight = placement.coder("histories", histories.codewords).code(p)
    return Placed(numbers, answers, scale, known, weight, counts)


def _own_vectors(histories: CodedHistories | FloatHistories, numbers: Ints) -> Floats:
    """``p`` of some items; 0 of those that are in no history yet."""
    own = np.zeros((len(numbers), histories.width), np.float32)
    there = numbers < len(histories)
    own[there] = decoded_histories(histories, numbers[there])
    return own


def unit_queries(
    histories: CodedHistories | FloatHistories, numbers: Ints, people: People, own: Floats
) -> tuple[Floats, Floats]:
    """Queries of people, each without the item itself, ``(entries, width)``, 0 where the history has nothing else; and
    how much each weighs, ``(entries,)``.

    Each history is summed once: of ``v_u``, an item takes its own part ``a_ui p_i``; ``own`` are the vectors of the
    items, ``(items, width)``.
    """
    v = _vectors(histories, people)
    strengths = _own_strengths(people, numbers[people.owners], people.rows)
    left = v[people.rows] - strengths[:, None] * own[people.owners]
    squares = np.einsum("ij,ij->i", left, left)
    kept = squares > _NOTHING * np.einsum("ij,ij->i", v, v)[people.rows]
    inverse = np.where(kept, 1 / np.sqrt(np.maximum(squares, 1e-30)), 0).astype(np.float32)
    left *= inverse[:, None]
    return left, inverse**WEIGHT


def weighted_means(units: Floats, weights: Floats, owners: Ints, count: int) -> tuple[Floats, Floats]:
    """Weighted means of the queries of each item's people, ``(count, width)``, and of how many people each is worth: m
    and n' of ``placement``.
    """
    sums = np.asarray(sparse.csr_matrix((weights, (owners, np.arange(len(owners)))), (count, len(owners))) @ units)
    totals, squares = np.bincount(owners, weights, count), np.bincount(owners, weights**2, count)
    means: Floats = (sums / np.maximum(totals, 1e-30)[:, None]).astype(np.float32)
    worth: Floats = (totals**2 / np.maximum(squares, 1e-30)).astype(np.float32)
    return means, worth


def _own_strengths(people: People, numbers: Ints, rows: Ints) -> Floats:
    """``a_ui`` of an item in the history of somebody, for each entry; 0 where it is not there."""
    count = int(max(people.indices.max(initial=0), numbers.max(initial=0))) + 1
    keys = np.repeat(np.arange(len(people.indptr) - 1), np.diff(people.indptr)) * count + people.indices
    wanted = rows * count + numbers
    places = np.minimum(np.searchsorted(keys, wanted), max(len(keys) - 1, 0))
    if not len(keys):
        return np.zeros(len(wanted), np.float32)
    strengths = np.ones(len(keys), np.float32) if people.strengths is None else people.strengths
    return np.where(keys[places] == wanted, strengths[places], np.float32(0))


def _vectors(histories: CodedHistories | FloatHistories, people: People) -> Floats:
    """Sums of the histories in float32: a place needs no bits that are the same for every batch."""
    items, bounds, strengths = people.indices, people.indptr, people.strengths
    strengths = np.ones(len(items), np.float32) if strengths is None else strengths
    if isinstance(histories, FloatHistories):
        shape = len(bounds) - 1, len(histories)
        return np.asarray(sparse.csr_matrix((strengths, items, bounds), shape) @ histories.items)
    v = np.empty((len(bounds) - 1, histories.width), np.float32)
    for first in range(0, len(v), _ROWS):
        ends = bounds[first : first + _ROWS + 1]
        span = slice(int(ends[0]), int(ends[-1]))
        counts = histories.histograms(ends - ends[0], items[span], strengths[span].astype(np.float64))
        v[first : first + _ROWS] = counts.astype(np.float32) @ histories.rows
    return v
