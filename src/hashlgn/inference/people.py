"""The people of items: their queries, each without the item itself, summed by item."""

from __future__ import annotations

from dataclasses import dataclass
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

__all__ = ["People", "given", "living_histories", "people_of", "place", "weighted_means"]

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

_MOST = 128  # people of an item who are asked: more make its mean hardly better
_ROWS = 2048  # histories whose sums are made at a time
_ENTRIES = 8192  # people of items whose queries are made at a time
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
    means, worth = weighted_means(histories, numbers, people, own)
    o, p = placement.vectors(means, worth, people.counts.astype(np.float64))
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


def weighted_means(
    histories: CodedHistories | FloatHistories, numbers: Ints, people: People, own: Floats
) -> tuple[Floats, Floats]:
    """Weighted means of unit queries without the item itself, ``(items, width)``, and of how many people each is worth:
    m and n' of ``placement``; ``own`` are the vectors of the items, ``(items, width)``.

    Each history is summed once: of ``v_u``, an item takes its own part ``a_ui p_i``.
    """
    count, n_rows = len(people.counts), len(people.indptr) - 1
    if count == 1 and n_rows <= _ROWS:  # the same with fewer calls
        strengths = _own_strengths(people, numbers[people.owners], people.rows)
        v = _vectors(histories, people, 0, n_rows)[people.rows]
        left = v - strengths[:, None] * own[0]
        weights, shares = _weighed(left, np.einsum("ij,ij->i", v, v))
        return _means((shares @ left)[None], weights.sum(keepdims=True), (weights @ weights)[None])
    sums, totals, squared = (np.zeros(shape, np.float32) for shape in ((count, histories.width), count, count))
    order = np.argsort(people.rows, kind="stable")
    owners, rows = people.owners[order], people.rows[order]
    strengths = _own_strengths(people, numbers[owners], rows)
    for first in range(0, n_rows, _ROWS):
        v = _vectors(histories, people, first, first + _ROWS)
        lengths = np.einsum("ij,ij->i", v, v)
        start, end = np.searchsorted(rows, (first, first + _ROWS))
        for begin in range(start, end, _ENTRIES):
            part = slice(begin, min(begin + _ENTRIES, end))
            owner, row = owners[part], rows[part] - first
            left = v[row] - strengths[part, None] * own[owner]
            weights, shares = _weighed(left, lengths[row])
            sums += sparse.csr_matrix((shares, (owner, np.arange(len(owner)))), (count, len(owner))) @ left
            totals += np.bincount(owner, weights, count).astype(np.float32)
            squared += np.bincount(owner, weights**2, count).astype(np.float32)
    return _means(sums, totals, squared)


def _weighed(left: Floats, whole: Floats) -> tuple[Floats, Floats]:
    """Weights of people, and of their sums without the item, from these sums and the squared lengths with it."""
    squares = np.einsum("ij,ij->i", left, left)
    kept = squares > _NOTHING * whole  # else nothing but the item is in the history
    inverse = np.where(kept, 1 / np.sqrt(np.maximum(squares, 1e-30)), 0).astype(np.float32)
    weights = inverse**WEIGHT
    return weights, weights * inverse


def _means(sums: Floats, totals: Floats, squared: Floats) -> tuple[Floats, Floats]:
    means: Floats = (sums / np.maximum(totals, 1e-30)[:, None]).astype(np.float32)
    worth: Floats = (totals**2 / np.maximum(squared, 1e-30)).astype(np.float32)
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


def _vectors(histories: CodedHistories | FloatHistories, people: People, first: int, last: int) -> Floats:
    """Sums of some histories in float32: a place needs no bits that are the same for every batch."""
    bounds = people.indptr[first : last + 1]
    span = slice(int(bounds[0]), int(bounds[-1]))
    items, bounds = people.indices[span], bounds - bounds[0]
    strengths = np.ones(len(items), np.float32) if people.strengths is None else people.strengths[span]
    if isinstance(histories, FloatHistories):
        shape = len(bounds) - 1, len(histories)
        return np.asarray(sparse.csr_matrix((strengths, items, bounds), shape) @ histories.items)
    return histories.histograms(bounds, items, strengths.astype(np.float64)).astype(np.float32) @ histories.rows
