"""The people of items, and items in the form of a model from where their people are."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from hashlgn._kernel import compiled
from hashlgn.errors import ArgumentError
from hashlgn.inference.attributes import Neighbours
from hashlgn.inference.changes import Placed
from hashlgn.inference.live import live_of
from hashlgn.inference.model import ServedModel
from hashlgn.inference.placement import Placement, decoded_answers, decoded_histories
from hashlgn.inference.stored import Stored
from hashlgn.scoring.decoders import CodebookDecoder
from hashlgn.scoring.histories import CodedHistories, FloatHistories
from hashlgn.scoring.items import CodedItems

__all__ = ["People", "given", "living_histories", "people_of", "place"]

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_compiled: Any = compiled()
_MOST = 128  # people of an item who are asked: more make its mean hardly better
_ROWS = 2048  # histories whose sums are made at a time; the kernel has numbers of its own for both
_ITEMS = 256  # that are placed at a time: a history that several of them share is summed once


@dataclass(frozen=True)
class People:
    """Whose histories tell where some items go.

    Attributes:
        counts: people of each item, all that there are, ``(items,)``.
        bounds: of the people of each item who are asked, ``(items + 1,)``.
        users: who they are, ``(entries,)``.
        stored: histories, by user.
    """

    counts: Ints
    bounds: Ints
    users: Ints
    stored: Stored


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


def people_of(stored: Stored, numbers: Ints) -> People:
    """The people who have items."""
    return _asked([stored.who(number) for number in numbers.tolist()], stored)


def given(histories: list[tuple[Ints, npt.NDArray[np.integer[Any]]]], numbers: Ints) -> People:
    """Histories that a caller gave: for each item bounds and items of some. The items are sorted by ``numbers``."""
    lists = [histories[place] for place in np.argsort(numbers)]
    ends = np.cumsum([0, *(len(bounds) - 1 for bounds, _ in lists)])
    lengths = np.concatenate([np.diff(bounds) for bounds, _ in lists])
    items = np.concatenate([items for _, items in lists]).astype(np.int32)
    stored = Stored.of(np.append(0, np.cumsum(lengths)), items)
    return _asked([np.arange(begin, end) for begin, end in pairwise(ends.tolist())], stored)


def _asked(who: list[Ints], stored: Stored) -> People:
    """Of many people of an item, those at even steps."""
    counts = np.array([len(users) for users in who])
    asked = [users if len(users) <= _MOST else users[-(-np.arange(_MOST) * len(users) // _MOST)] for users in who]
    return People(counts, np.array([*accumulate(map(len, asked), initial=0)]), np.concatenate(asked), stored)


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
    own, o, p = np.empty((3, len(numbers), histories.width), np.float32)
    if isinstance(histories, CodedHistories) and _compiled is not None:
        where = numbers, people.users, people.bounds, people.counts
        placement.held.place(histories.held, people.stored.held, len(people.stored), *where, own, o, p)
    else:
        _estimated(histories, placement, numbers, people, own, o, p)
    for row, number in enumerate(numbers.tolist()):
        if near and number in near and not people.counts[row]:
            items, weights = near[number]
            o[row] = weights @ decoded_answers(model.items, items)
    live = live_of(model)
    trained = int(numbers.searchsorted(live.items)) if blended else 0
    if trained:
        here = numbers[:trained]
        old = np.minimum(live.counts.take(here) / np.maximum(people.counts[:trained], 1), 1)[:, None].astype(np.float32)
        o[:trained] += old * (decoded_answers(model.items, here) - o[:trained])
        p[:trained] += old * (own[:trained] - p[:trained])
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


def _estimated(
    histories: CodedHistories | FloatHistories,
    placement: Placement,
    numbers: Ints,
    people: People,
    own: Floats,
    o: Floats,
    p: Floats,
) -> None:
    """Fill in what items are in histories, 0 where they are in none yet, and both vectors from their people."""
    own[:] = 0
    there = numbers < len(histories)
    own[there] = decoded_histories(histories, numbers[there])
    for first in range(0, len(numbers), _ITEMS):
        some = slice(first, first + _ITEMS)
        bounds = people.bounds[first : first + _ITEMS + 1]
        users = people.users[bounds[0] : bounds[-1]]
        strengths = people.stored.strengths(users, np.repeat(numbers[some], np.diff(bounds)))
        asked, rows = np.unique(users, return_inverse=True)
        v = _sums(histories, people.stored, asked)
        o[some], p[some] = placement.estimates(v, rows, strengths, bounds - bounds[0], own[some], people.counts[some])


def _sums(histories: CodedHistories | FloatHistories, stored: Stored, users: Ints) -> Doubles:
    """``v_u`` of users, over the items that the model has: new ones are in no history yet."""
    v = np.empty((len(users), histories.width))
    for first in range(0, len(users), _ROWS):
        bounds, items, strengths = stored.rows(users[first : first + _ROWS])
        there = items < len(histories)
        if not there.all():
            bounds, items = np.append(0, np.cumsum(there))[bounds], items[there]
            strengths = None if strengths is None else strengths[there]
        v[first : first + _ROWS] = histories.vectors(bounds, items, strengths)
    return v
