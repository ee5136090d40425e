"""A change of a served model, and what it makes of a model: a new one; the model that was there stays as it is.

A change holds results, such as the codes of an item, and not how they were found. So a change that is read from a file
gives the same model, bit for bit, on every machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from hashlgn.data import Ids
from hashlgn.data.strengths import decayed
from hashlgn.errors import ArgumentError
from hashlgn.inference.live import Live, live_of
from hashlgn.inference.model import ServedModel
from hashlgn.inference.placement import Placement
from hashlgn.inference.stored import Part
from hashlgn.inference.texts import Tags, Texts
from hashlgn.scoring.fold_in import FoldIn
from hashlgn.scoring.histories import CodedHistories, FloatHistories
from hashlgn.scoring.items import CodedItems, FloatItems
from hashlgn.search.block_items import BlockItems

__all__ = ["Change", "Pairs", "Placed", "applied", "grown"]

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Pairs:
    """Interactions by number.

    Attributes:
        users: ``(n,)`` int64.
        items: ``(n,)`` int64.
        strengths: ``(n,)`` float32, or None.
        times: ``(n,)`` int64, or None.
    """

    users: Ints
    items: Ints
    strengths: npt.NDArray[np.float32] | None = None
    times: Ints | None = None

    def part(self, mask: npt.NDArray[np.bool_]) -> Pairs:
        """Those where ``mask`` is set."""
        strengths = None if self.strengths is None else self.strengths[mask]
        return Pairs(self.users[mask], self.items[mask], strengths, None if self.times is None else self.times[mask])


@dataclass(frozen=True, eq=False)
class Placed:
    """Items that stand anew, on both sides.

    Attributes:
        numbers: ascending, ``(n,)`` int64.
        answers: codes ``(n, bits / 8)`` uint8, or float32 vectors ``(n, width)``.
        scale: of the answers' codes, ``(n,)`` float16, or None.
        histories: the same of items in histories.
        weight: of the histories' codes, ``(n,)`` float16, or None.
        counts: interactions of each item that its place rests on, ``(n,)`` int64.
    """

    numbers: Ints
    answers: npt.NDArray[Any]
    scale: npt.NDArray[np.float16] | None
    histories: npt.NDArray[Any]
    weight: npt.NDArray[np.float16] | None
    counts: Ints


@dataclass(frozen=True, eq=False)
class Change:
    """What is new in a model. Numbers are those after the new ids were added.

    Attributes:
        users: ids of new users.
        items: ids of new items; each of them is in ``placed``.
        pairs: new interactions, each once and none that the model has, or None.
        placed: items with new codes or vectors, or None.
        removed: numbers of items that are no longer answered.
        restored: numbers of items that are answered again.
        titles: by number.
        genres: by number.
        placement: where new items go from now on, or None where that stays.
        before: the model with the new ids and interactions (see ``grown``), where it was made on the way. It saves
            time, and is not kept in a journal.
    """

    users: list[Any] = field(default_factory=list)
    items: list[Any] = field(default_factory=list)
    pairs: Pairs | None = None
    placed: Placed | None = None
    removed: tuple[int, ...] = ()
    restored: tuple[int, ...] = ()
    titles: Mapping[int, str] = field(default_factory=dict)
    genres: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    placement: Placement | None = None
    before: ServedModel | None = None


def applied(model: ServedModel, change: Change) -> ServedModel:
    """The model after a change.

    Raises:
        ArgumentError: the change does not fit the model.
    """
    before = change.before
    if before is None:
        user_ids, item_ids = model.user_ids, model.item_ids
        if change.users:
            user_ids = user_ids.add(change.users, name="users")[0]
        if change.items:
            item_ids = item_ids.add(change.items, name="ids")[0]
        new = len(user_ids) - len(model.user_ids), len(item_ids) - len(model.item_ids)
        if new != (len(change.users), len(change.items)):
            raise ArgumentError("the change must be of this model (it adds ids that are there)")
        before = grown(model, user_ids, item_ids, change.pairs)
    live, n_items, placed = live_of(before), len(before.item_ids), change.placed
    return before.changed(
        counts=before.counts,
        titles=_texts(model.titles, change.titles, n_items),
        genres=_tags(model.genres, change.genres, n_items),
        live=Live(
            change.placement or live.placement,
            live.counts if placed is None else live.counts.put(placed.numbers, placed.counts),
            live.items,
            _removed(live, change, n_items),
            live.changes + 1,
        ),
        **_sides(model, placed),
    )


def grown(model: ServedModel, user_ids: Ids, item_ids: Ids, pairs: Pairs | None) -> ServedModel:
    """A model with new ids at the end, and new interactions. It lacks vectors of the new items: it is on the way to
    what ``applied`` makes of it.
    """
    stored, counts, n_items = model.stored, model.counts, len(item_ids)
    if pairs is not None and len(pairs.users):
        stored = stored.changed(_rows(model, pairs), len(user_ids))
    elif len(user_ids) > len(stored):
        stored = stored.changed(None, len(user_ids))
    if len(counts) < n_items:
        counts = counts.put(np.arange(len(counts), n_items), 0)
    if pairs is not None:
        counts = counts.increased(pairs.items)
    return model.changed(user_ids=user_ids, item_ids=item_ids, stored=stored, counts=counts, live=live_of(model))


def _sides(model: ServedModel, placed: Placed | None) -> dict[str, Any]:
    """Both sides of the items with what stands anew."""
    if placed is None:
        return {}
    items, histories = model.items, model.histories
    if isinstance(items, CodedItems):
        items = BlockItems.of(items).placed(placed.numbers, placed.answers, placed.scale)
    else:
        items = FloatItems(_rows_set(items.vectors, placed.numbers, placed.answers))
    if isinstance(histories, CodedHistories):
        assert placed.weight is not None  # what was placed is of the form of the model
        histories = histories.changed(placed.numbers, placed.histories, placed.weight)
    elif isinstance(histories, FloatHistories):
        histories = FloatHistories(_rows_set(histories.items, placed.numbers, placed.histories))
    elif isinstance(histories, FoldIn):
        raise ArgumentError("items can be placed only in a model whose users are their histories")
    return {"items": items, "histories": histories}


def _rows_set(array: npt.NDArray[Any], numbers: Ints, rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A copy with some rows replaced, and rows added at the end."""
    count = max(len(array), int(numbers[-1]) + 1 if len(numbers) else 0)
    out = np.empty((count, *array.shape[1:]), array.dtype)
    out[: len(array)] = array
    out[numbers] = rows
    return out


def _removed(live: Live, change: Change, n_items: int) -> npt.NDArray[np.bool_] | None:
    same = live.removed is None or len(live.removed) == n_items
    if same and not change.removed and not change.restored:
        return live.removed
    removed = np.zeros(n_items, np.bool_)
    if live.removed is not None:
        removed[: len(live.removed)] = live.removed
    removed[list(change.removed)] = True
    removed[list(change.restored)] = False
    return removed if removed.any() else None


def _rows(model: ServedModel, pairs: Pairs) -> Part:
    """The rows of the users who have new interactions."""
    part = model.stored.extended(pairs.users, pairs.items, pairs.strengths, pairs.times)
    settings = model.config.get("model", {})
    if part.strengths is None or part.times is None or settings.get("strength") != "decay":
        return part
    return replace(part, strengths=decayed(part.indptr, part.times, settings["half_life"]))


def _texts(texts: Any, changed: Mapping[int, str], count: int) -> Texts | None:
    if texts is None and not changed:
        return None
    return (Texts.of([]) if texts is None else texts).changed(changed, count)


def _tags(tags: Any, changed: Mapping[int, tuple[str, ...]], count: int) -> Tags | None:
    if tags is None and not changed:
        return None
    return (Tags.of([]) if tags is None else tags).changed(changed, count)
