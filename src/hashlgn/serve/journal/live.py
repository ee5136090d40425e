"""Histories as one model sees them: those that it was trained on, and every event since, as numbers in memory.

A user without events and removals has the model's own row, which is mapped and not copied. All others have a row here:
most in one ragged array, those that changed lately in dictionaries over it, which are folded into the array now and
then. One thread changes them; readers take the state once and need no lock.

How several events of one (user, item) pair count is the rule that the model was trained by (``model.strength``):
``one``: as one interaction; ``weight``: by the weight of the newest; ``decay``: by the time of the newest. Times decide
which is newest, and the order of arrival where they are equal. An interaction of the training counts as an event at its
time, and as older than all where the model knows no times.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from hashlgn.data import Ids
from hashlgn.data.strengths import faded
from hashlgn.inference.model import ServedModel
from hashlgn.scoring.rows import rows_of
from hashlgn.serve.journal.events import HistoryEntry, Id, Row
from hashlgn.serve.journal.pairs import Pairs

__all__ = ["LiveHistories", "Stored", "joined", "microseconds"]

Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Values = npt.NDArray[Any] | None  # of the entries of a row: weights float32, times int64, or nothing
_Overlay = dict[Id, tuple[Int32s, Values]]
_NEVER = np.iinfo(np.int64).min
_FOLDED = 20_000  # changed rows from which they are folded, or an eighth of all rows
_FEW = 8  # so many events of a user are added one by one


@dataclass(frozen=True, eq=False)
class Stored:
    """The histories that a model was trained on.

    Attributes:
        indptr: ``(n_users + 1,)`` int64.
        indices: item numbers, int32, ascending within a row.
        strengths: float32, aligned with ``indices``; 1 where None.
        times: int64, aligned with ``indices``, or None.
        rule: what a strength is: ``one``, ``weight`` or ``decay``.
        half_life: of decaying strengths, in the unit of the times.
    """

    indptr: Int64s
    indices: Int32s
    strengths: Floats | None = None
    times: Int64s | None = None
    rule: str = "one"
    half_life: float | None = None

    @classmethod
    def of(cls, model: ServedModel) -> Stored:
        """Those of a model."""
        said = model.config.get("model", {})
        rule, half_life = said.get("strength"), said.get("half_life")
        if model.strengths is None or rule not in ("weight", "decay") or (rule == "decay" and model.times is None):
            rule = "one" if model.strengths is None else "weight"
        return cls(*model.seen, model.strengths, model.times, rule, half_life)

    @cached_property
    def unit(self) -> float:
        """Microseconds in the unit of the times."""
        return 1.0 if self.times is None else _unit(self.times)

    def microseconds(self, entries: Any) -> Int64s:
        """Times of some entries in microseconds since 1970; the distant past where they are not known."""
        if self.times is None:
            return np.full(len(self.indices[entries]), _NEVER, np.int64)
        return microseconds(self.times[entries], self.unit)


def _unit(times: Int64s) -> float:
    newest = int(times.max(initial=0))
    return next((unit for most, unit in ((10**11, 1e6), (10**14, 1e3), (10**17, 1.0)) if newest < most), 1e-3)


def microseconds(times: Int64s, unit: float | None = None) -> Int64s:
    """Times in microseconds since 1970.

    Args:
        times: int64.
        unit: microseconds in their unit. Where None, their size tells it: seconds, milli-, micro- or nanoseconds.
    """
    unit = _unit(times) if unit is None else unit
    return times // 1000 if unit < 1 else times * int(unit)


def _newest(keys: Int64s, times: Int64s, stored: int) -> Int64s:
    """The newest entry of each key, by key. A key occurs at most once among the ``stored`` first entries, and once
    among the others, which count as newer at one time.
    """
    last = 2 * keys
    last[stored:] += 1
    order = np.argsort(last)
    first = np.flatnonzero(keys[order[1:]] == keys[order[:-1]])
    older = times[order[first + 1]] < times[order[first]]
    kept = np.ones(len(keys), np.bool_)
    kept[first + older] = False
    return order[kept]


@dataclass(frozen=True)
class _Base:
    """Rows of users, as one ragged array.

    Attributes:
        users: ids of the model's users, then of the others.
        row: the row of each user, or −1, ``(len(users),)``.
        indptr: bounds of the rows.
        items: item numbers, ascending within a row.
        values: aligned with ``items``.
    """

    users: Ids
    row: Int32s
    indptr: Int64s
    items: Int32s
    values: Values


@dataclass
class _State:
    base: _Base
    frozen: _Overlay = field(default_factory=dict)  # rows that are being folded
    live: _Overlay = field(default_factory=dict)


def joined(rows: Sequence[tuple[npt.NDArray[Any], Floats | None]]) -> tuple[Int64s, Int64s, Floats | None]:
    """Histories in compressed-row form: bounds, item numbers, and strengths where any row has some (None: 1 each)."""
    indptr = np.zeros(len(rows) + 1, np.int64)
    np.cumsum([len(items) for items, _ in rows], out=indptr[1:])
    items = np.concatenate([np.empty(0, np.int64), *(items for items, _ in rows)])
    if all(own is None for _, own in rows):
        return indptr, items, None
    return indptr, items, np.concatenate([np.ones(len(its), np.float32) if own is None else own for its, own in rows])


class LiveHistories:
    """The histories of all users, in the numbers of one model. Made by ``Journal.bind``."""

    def __init__(self, item_ids: Ids, user_ids: Ids, stored: Stored) -> None:
        """Start with the stored histories alone."""
        self.item_ids, self.user_ids, self.stored = item_ids, user_ids, stored
        self._unit = stored.unit
        empty = None if stored.rule == "one" else np.empty(0, np.float32 if stored.rule == "weight" else np.int64)
        self._empty: tuple[Int32s, Values] = np.empty(0, np.int32), empty
        rows = np.full(len(user_ids), -1, np.int32)
        self._state = _State(_Base(user_ids, rows, np.zeros(1, np.int64), *self._empty))

    # What readers ask

    def row(self, user: Id) -> tuple[Int32s, Floats | None]:
        """The history of one user: item numbers, ascending, and strengths (None: 1 each); empty for a stranger.

        Args:
            user: external id, in the type of the model.
        """
        found, stored = self._raw(user)
        return found[0], self._strengths(found[1], stored)

    def stored_entries(self, user: Id, items: set[Id], removed: set[Id | None]) -> list[HistoryEntry]:
        """What the model stores of a user's history, but for some items and what was removed; the newest first."""
        kept = [one for one in self._stored(user, removed) if one[0] not in items]
        kept.sort(key=lambda one: -one[2])
        return [HistoryEntry(item, None, None, weight, None if time == _NEVER else time) for item, weight, time in kept]

    def _stored(self, user: Id, removed: set[Id | None]) -> list[tuple[Id, float, int]]:
        """Item, weight and time of what the model stores of a user, without what was removed."""
        number = self.user_ids.find(user)
        if number < 0 or None in removed:
            return []
        bounds = slice(self.stored.indptr[number], self.stored.indptr[number + 1])
        strengths, items = self.stored.strengths, self.item_ids.decode(self.stored.indices[bounds]).tolist()
        weights = [1.0] * len(items) if strengths is None else strengths[bounds].tolist()
        found = zip(items, weights, self.stored.microseconds(bounds).tolist(), strict=True)
        return [one for one in found if one[0] not in removed]

    def knows(self, user: Id) -> bool:
        """Whether a user has a history that is not empty."""
        return len(self._raw(user)[0][0]) > 0

    def nbytes(self) -> int:
        """Bytes of memory that the rows take, about; what is mapped from the model's file does not count."""
        state = self._state
        changed = [*state.frozen.values(), *state.live.values()]
        base = state.base.row.nbytes + state.base.indptr.nbytes + state.base.items.nbytes
        base += 0 if state.base.values is None else state.base.values.nbytes
        per_row = 300  # of a dictionary's entry and of the arrays' headers
        return base + sum(per_row + 8 * len(items) for items, _ in changed)

    def _raw(self, user: Id) -> tuple[tuple[Int32s, Values], bool]:
        """The row of a user, and whether it is the model's own, whose values are strengths as they are."""
        state = self._state
        found = state.live.get(user)
        if found is None:
            found = state.frozen.get(user)
        if found is not None:
            return found, False
        base, number = state.base, state.base.users.find(user)
        if number < 0:
            return self._empty, False
        row = base.row[number]
        if row >= 0:
            bounds = slice(base.indptr[row], base.indptr[row + 1])
            return (base.items[bounds], None if base.values is None else base.values[bounds]), False
        if number >= len(self.user_ids):
            return self._empty, False
        bounds = slice(self.stored.indptr[number], self.stored.indptr[number + 1])
        strengths = self.stored.strengths
        return (self.stored.indices[bounds], None if strengths is None else strengths[bounds]), True

    def _strengths(self, values: Values, stored: bool) -> Floats | None:
        if values is None or stored or self.stored.rule != "decay":
            return values
        return faded((values.max(initial=_NEVER) - values) / self._unit, self.stored.half_life or 1.0)

    # What the journal tells; one thread calls these

    def apply(self, rows: Sequence[Row]) -> list[Id]:
        """Take events that were written; the users whose rows the journal must tell anew (see ``replace``)."""
        by_user: dict[Id, list[Row]] = {}
        for row in rows:
            by_user.setdefault(row.user, []).append(row)
        return [user for user, own in by_user.items() if len(own) > _FEW or not all(map(self._add, own))]

    def _add(self, row: Row) -> bool:
        """Put the item of an event into a row; False where the journal must tell what the row is now."""
        number = self.item_ids.find(row.item)
        if number < 0:
            return True
        (items, values), stored = self._raw(row.user)
        rule = self.stored.rule
        place = int(items.searchsorted(np.int32(number)))
        if place < len(items) and items[place] == number:
            return rule == "one"
        if stored and rule == "decay":
            return False  # its values are strengths, and times are needed
        wider = np.empty(len(items) + 1, np.int32)
        wider[:place], wider[place], wider[place + 1 :] = items[:place], number, items[place:]
        if values is not None:
            more = np.empty(len(items) + 1, values.dtype)
            more[:place], more[place + 1 :] = values[:place], values[place:]
            more[place] = row.weight if rule == "weight" else row.time
            values = more
        self._state.live[row.user] = wider, values
        return True

    def replace(self, user: Id, events: Iterable[tuple[Id, float, int]], removed: set[Id | None]) -> None:
        """Make the row of a user anew.

        Args:
            user: external id.
            events: item, weight and time of all their events, by time.
            removed: items that do not count from the stored history; all where None is among them.
        """
        found: dict[int, tuple[int, float]] = {}
        for item, weight, time in (*self._stored(user, removed), *events):
            code = self.item_ids.find(item)
            if code >= 0 and time >= found.get(code, (time,))[0]:
                found[code] = time, weight
        codes = np.array(sorted(found), np.int32)
        self._state.live[user] = codes, self._values([found[code] for code in codes.tolist()])

    def _values(self, entries: Sequence[tuple[int, float]]) -> Values:
        if self.stored.rule == "one":
            return None
        if self.stored.rule == "weight":
            return np.array([weight for _, weight in entries], np.float32)
        return np.array([time for time, _ in entries], np.int64)

    def load(self, pairs: Pairs, removals: Sequence[tuple[Id, Id | None]]) -> None:
        """Take all events and removals of a journal at once; before anything else."""
        base = self._state.base
        width, known = max(len(self.item_ids), 1), len(self.user_ids)
        users, number = base.users.add(pairs.user_ids)
        users, removed = users.add([user for user, _ in removals]) if removals else (users, np.empty(0, np.int64))
        code = self.item_ids.encode(pairs.item_ids, on_unknown="mark")
        kept = np.flatnonzero(code[pairs.items] >= 0)
        owner, item = number[pairs.users[kept]], code[pairs.items[kept]]
        touched = np.zeros(len(users), np.bool_)
        touched[owner] = touched[removed] = True
        gone_users, gone_pairs = self._gone(removals, removed, width)
        # Stored entries of those who have a row here come first: of one time, an event goes before them.
        own = np.flatnonzero(touched[:known] & ~np.isin(np.arange(known), gone_users))
        bounds, entries = rows_of((self.stored.indptr, np.arange(len(self.stored.indices))), own)
        stored_keys = np.repeat(own, np.diff(bounds)) * width + self.stored.indices[entries]
        alive = ~np.isin(stored_keys, gone_pairs)
        keys = np.concatenate([stored_keys[alive], owner * width + item])
        entries = entries[alive]
        values: Values = None
        if self.stored.rule == "one":
            keys.sort()
            keys = keys[np.append(True, keys[1:] != keys[:-1])[: len(keys)]]
        else:
            times = np.concatenate([self.stored.microseconds(entries), pairs.times[kept]])
            order = _newest(keys, times, len(entries))
            keys, values = keys[order], times[order]
            if self.stored.rule == "weight" and self.stored.strengths is not None:
                values = np.concatenate([self.stored.strengths[entries], pairs.weights[kept]])[order]
        rows = np.flatnonzero(touched)
        row = np.full(len(users), -1, np.int32)
        row[rows] = np.arange(len(rows), dtype=np.int32)
        indptr = np.searchsorted(keys, np.append(rows, len(users)) * width).astype(np.int64)
        self._state = _State(_Base(users, row, indptr, (keys % width).astype(np.int32), values))

    def _gone(self, removals: Sequence[tuple[Id, Id | None]], users: Int64s, width: int) -> tuple[Int64s, Int64s]:
        """Numbers of the users that were removed, and keys of the pairs."""
        whole = np.array([item is None for _, item in removals], np.bool_)
        items = self.item_ids.encode([item for _, item in removals if item is not None], on_unknown="mark")
        pairs = users[~whole][items >= 0] * width + items[items >= 0]
        return users[whole], pairs

    # Folding: the rows that changed are taken into the ragged array by another thread

    def freeze(self) -> bool:
        """Set the changed rows aside to be folded, where they are many and none are set aside; whether it did."""
        state = self._state
        if state.frozen or len(state.live) < max(_FOLDED, len(state.base.indptr) // 8):
            return False
        self._state = _State(state.base, state.live)
        return True

    def folded(self) -> _Base:
        """The ragged array with the rows that were set aside."""
        base, changed = self._state.base, self._state.frozen
        users, numbers = base.users.add(list(changed))
        row = np.full(len(users), -1, np.int32)
        row[: len(base.row)] = base.row
        kept = np.ones(len(base.indptr) - 1, np.bool_)
        old = row[numbers]
        kept[old[old >= 0]] = False
        entries = np.repeat(kept, np.diff(base.indptr))
        renumbered = (np.cumsum(kept) - 1).astype(np.int32)
        row[row >= 0] = np.where(kept, renumbered, -1)[row[row >= 0]]
        row[numbers] = kept.sum() + np.arange(len(numbers), dtype=np.int32)
        sizes = np.concatenate([np.diff(base.indptr)[kept], [len(items) for items, _ in changed.values()]])
        items = np.concatenate([base.items[entries], *(items for items, _ in changed.values())])
        values: Values = None
        if base.values is not None:
            values = np.concatenate([base.values[entries], *(own for _, own in changed.values() if own is not None)])
        return _Base(users, row, np.append(0, np.cumsum(sizes)).astype(np.int64), items, values)

    def thaw(self, base: _Base) -> None:
        """Let a folded array take the place of the old one and of the rows that were set aside."""
        self._state = _State(base, {}, self._state.live)
