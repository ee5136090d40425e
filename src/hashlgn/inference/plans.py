"""What a request to change a model comes to: ids become numbers, items are placed, and the result is a ``Change``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from hashlgn.data import Ids, Interactions
from hashlgn.errors import ArgumentError, shown
from hashlgn.inference.attributes import Neighbours
from hashlgn.inference.changes import Change, Pairs, grown
from hashlgn.inference.live import live_of
from hashlgn.inference.model import ServedModel
from hashlgn.inference.people import People, given, living_histories, people_of, place
from hashlgn.inference.placement import Placement
from hashlgn.inference.placement_fit import fit_placement
from hashlgn.inference.requests import encoded, listed, ragged

__all__ = ["named", "numbered", "placing", "relevant", "taken_in", "undone"]

Ints = npt.NDArray[np.int64]

_GROWN = 2  # an item is placed anew where it has so many times the interactions that its place rests on
_WELL_KNOWN = 20  # interactions from which on an item of the training stays where the training has put it


def numbered(item_ids: Ids, ids: list[Any], *, new: bool) -> tuple[Ids, Ints]:
    """The catalogue with ids that may be new, and their numbers.

    Raises:
        ArgumentError: an id is there twice.
        UnknownIdError: an id is unknown, and not ``new``.
        DataError: a value is no id.
    """
    grown, numbers = item_ids.add(ids, name="ids") if new else (item_ids, item_ids.encode(ids, name="ids"))
    if len({*numbers.tolist()}) < len(numbers):
        values, counts = np.unique(numbers, return_counts=True)
        twice = grown.decode(values[counts > 1][:1]).tolist()[0]
        raise ArgumentError(f"ids must name each item once (got {shown(twice)} twice)")
    return grown, numbers


def named(name: str, ids: list[Any], numbers: Ints, values: Any, kind: type) -> dict[int, Any]:
    """Titles or genres by number, as a caller gave them: aligned with the ids, or a mapping from some of them.

    Raises:
        ArgumentError: there are too few or too many, one is of another type, or of no id that was given.
    """
    if values is None:
        return {}
    if isinstance(values, Mapping):
        place = dict(zip(ids, numbers.tolist(), strict=True))
        strange = [key for key in values if key not in place]
        if strange:
            raise ArgumentError(f"{name} must be of ids that are given (got {shown(strange[0])})")
        found = {place[key]: value for key, value in values.items()}
    else:
        one = isinstance(values, kind) and len(ids) == 1 and kind is str
        listed_ = [values] if one or not isinstance(values, Iterable) else list(values)
        if len(listed_) != len(ids):
            raise ArgumentError(f"{name} must have one entry per id, {len(ids)} (got {len(listed_)})")
        found = dict(zip(numbers.tolist(), listed_, strict=True))
    if kind is tuple:
        found = {number: tuple(value) if isinstance(value, list) else value for number, value in found.items()}
    for value in found.values():
        strings = (value,) if kind is str else value
        if not isinstance(value, kind) or not all(isinstance(text, str) for text in strings):
            what = "strings" if kind is str else "tuples of strings"
            raise ArgumentError(f"{name} must be {what} (got {shown(value)})")
        try:
            "".join(strings).encode()
        except UnicodeEncodeError as error:
            raise ArgumentError(f"{name} must be valid Unicode ({error})") from error
    return found


def relevant(
    model: ServedModel, ids: list[Any], single: bool, numbers: Ints, users: Any, histories: Any, skip: bool
) -> tuple[People | None, Pairs | None]:
    """What a caller says of the people of items.

    Args:
        model: before the change.
        ids: of the items.
        single: whether the caller gave one id, so that a list is of this item.
        numbers: of the items, after new ones were added.
        users: for each item who has it, or None.
        histories: for each item histories of people who have it, or None.
        skip: whether unknown ids are skipped.

    Returns:
        Histories as people, or None where the stored ones decide; new interactions, or None.

    Raises:
        ArgumentError: histories hold nothing but the item itself; a new item may have none.
    """
    if users is not None and histories is not None:
        raise ArgumentError("users and histories must not both be given (got both)")
    living_histories(model)
    if histories is not None:
        lists = _lists("histories", ids, single, histories)
        nested = [_listed_each("histories of an item", one) for one in lists]
        rows = [ragged(model.item_ids, "histories", one, skip) for one in nested]
        for value, number, (bounds, items) in zip(ids, numbers.tolist(), rows, strict=True):
            here = number < len(model.item_ids) and (model.removed is None or not model.removed[number])
            if (here or len(bounds) > 1) and not (items != number).any():  # it would become an average item
                which = f"got none for {shown(value)}"
                raise ArgumentError(f"histories must hold a known item beside the item itself ({which})")
        return given(rows, numbers), None
    if users is None:
        return None, None
    lists = _listed_each("users", _lists("users", ids, single, users))
    found = [sorted({*encoded(model.user_ids, "users", one, skip).tolist()}) for one in lists]
    people = np.array([*chain.from_iterable(found)], np.int64)
    pairs = Pairs(people, np.repeat(numbers, [len(one) for one in found]), None, _times(model, None, len(people)))
    return None, _unknown(model, pairs)


def placing(
    model: ServedModel,
    numbers: Ints,
    people: People | None,
    *,
    pairs: Pairs | None = None,
    blended: bool = True,
    near: Neighbours | None = None,
) -> Change:
    """A change that places items.

    Args:
        model: with all new ids and interactions.
        numbers: of the items, ascending.
        people: whose histories decide; all who have the items where None.
        pairs: the new interactions, which the change is to hold.
        blended: whether an item of the training goes towards its new place by the share of its interactions that are
            new, and not all the way.
        near: where new items start that nobody has. None where no item is new: one that nobody has stays.
    """
    live = live_of(model)
    if people is None:
        if blended:  # items of the training of which nothing is new stay
            rests = live.counts.take(np.minimum(numbers, len(live.counts) - 1))
            counts = model.counts.take(numbers)
            numbers = numbers[((numbers >= live.items) & ((counts > 0) | (near is not None))) | (counts > rests)]
        if not len(numbers):
            return Change(pairs=pairs, before=model)
        people = people_of(model.stored, numbers)
    placement, first = live.placement, None
    if placement is None:
        placement = first = _fitted(model)
    placed = place(model, placement, numbers, people, blended=blended, near=near or {})
    return Change(pairs=pairs, placed=placed, placement=first, before=model)


def taken_in(model: ServedModel, data: Interactions, budget: int) -> tuple[Change, int]:
    """What new interactions change, and how many items that were there are placed anew.

    Raises:
        ArgumentError: the users of the model are not their histories.
    """
    living_histories(model)
    data = data.without_empty()
    user_ids, users = model.user_ids.add(data.user_ids, name="users")
    item_ids, items = model.item_ids.add(data.item_ids, name="items")
    n_users, n_items = len(model.user_ids), len(model.item_ids)
    rows, columns = users[data.rows], items[data.indices]
    pairs = _unknown(model, Pairs(rows, columns, data.weights, _times(model, data.times, len(rows))))
    added = user_ids.decode(np.arange(n_users, len(user_ids))).tolist()
    before = grown(model, user_ids, item_ids, pairs)
    regrown = _grown(before, n_items, budget)
    chosen = np.concatenate((regrown, np.arange(n_items, len(item_ids))))
    change = placing(before, chosen, None, pairs=pairs) if len(chosen) else Change(pairs=pairs, before=before)
    new = np.flatnonzero(items >= n_items).tolist()
    return (
        replace(
            change,
            users=added,
            items=item_ids.decode(np.arange(n_items, len(item_ids))).tolist(),
            titles={} if data.titles is None else {int(items[place]): data.titles[place] for place in new},
            genres={} if data.genres is None else {int(items[place]): data.genres[place] for place in new},
        ),
        len(regrown),
    )


def undone(after: ServedModel, before: ServedModel) -> ServedModel:
    """The state before a change, as a state that follows it."""
    return replace(before, live=replace(live_of(before), changes=live_of(after).changes + 1), contents=False)


def _fitted(model: ServedModel) -> Placement:
    """The placement that follows from what is of the training."""
    (indptr, indices), kept = model.seen, ~model.stored.newer
    bounds = np.concatenate(([0], np.cumsum(kept)))[indptr]
    strengths = None if model.strengths is None else model.strengths[kept]
    return fit_placement(model.items, living_histories(model), (bounds, indices[kept]), strengths)


def _grown(model: ServedModel, n_items: int, budget: int) -> Ints:
    """The items, of the first ``n_items``, that have grown most since they were placed, ascending."""
    live = live_of(model)
    rests = live.counts.whole
    counts = model.item_counts[:n_items]
    ratio = counts / np.maximum(rests, 1)
    ratio[: live.items][rests[: live.items] >= _WELL_KNOWN] = 0
    if model.removed is not None:
        ratio[model.removed] = 0
    chosen = np.flatnonzero((ratio >= _GROWN) & (counts > rests))
    return np.sort(chosen[np.argsort(-ratio[chosen], kind="stable")[:budget]])


def _unknown(model: ServedModel, pairs: Pairs) -> Pairs:
    """The interactions that are not stored yet."""
    unknown = model.stored.strengths(pairs.users, pairs.items) == 0
    return pairs if unknown.all() else pairs.part(unknown)


def _times(model: ServedModel, times: Ints | None, count: int) -> Ints | None:
    """Times of new interactions where the model has times; the newest one that is known where they have none."""
    if model.stored.parts[0].times is None:
        return None
    return np.full(count, model.stored.latest) if times is None else times


def _listed_each(name: str, lists: Any) -> list[Any]:
    """Lists of ids, as a caller gave them.

    Raises:
        ArgumentError: one is no list.
    """
    found = [lists] if isinstance(lists, str | bytes) or not isinstance(lists, Iterable) else list(lists)
    for one in found:
        if isinstance(one, str | bytes | Mapping) or not isinstance(one, Iterable):
            raise ArgumentError(f"{name} must be lists of ids (got {shown(one)} in place of a list)")
    return found


def _lists(name: str, ids: list[Any], single: bool, lists: Any) -> list[Any]:
    """One list per id, as a caller gave them.

    Raises:
        ArgumentError: there are too few or too many, or a mapping misses an id.
    """
    if isinstance(lists, Mapping):
        missing = [key for key in ids if key not in lists]
        if missing or len(lists) != len(ids):
            raise ArgumentError(f"{name} must have a list for each id, and no others (got {shown(list(lists))})")
        return [lists[key] for key in ids]
    if single:
        return [listed(name, lists)]
    if isinstance(lists, str | bytes) or not hasattr(lists, "__len__") or len(lists) != len(ids):
        raise ArgumentError(f"{name} must be a list with one list per id, {len(ids)} (got {shown(lists)})")
    return list(lists)
