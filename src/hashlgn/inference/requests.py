"""What a caller asks, made into numbers at the edge: rows to answer, and what may be answered to each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from hashlgn.data.arrays import WEIGHT_RULE, is_weight
from hashlgn.data.ids import Ids
from hashlgn.errors import ArgumentError, choose, shown
from hashlgn.inference.stored import Stored
from hashlgn.scoring.exclusion import Exclusion
from hashlgn.scoring.rows import entries_of, rows_of

__all__ = ["UNKNOWN", "Limits", "Rows", "encoded", "listed", "ragged", "skips"]

UNKNOWN = {"raise": False, "skip": True}
Ints = npt.NDArray[np.int64]
Strengths = npt.NDArray[np.float32] | None
Pairs = tuple[Ints, Ints]  # rows and items
Ragged = tuple[Ints, npt.NDArray[np.integer[Any]]]  # indptr (q + 1,) and the numbers of all rows


def skips(on_unknown: Any) -> bool:
    """Whether unknown ids are skipped.

    Raises:
        ArgumentError: ``on_unknown`` is neither ``raise`` nor ``skip``.
    """
    return bool(choose("on_unknown", on_unknown, UNKNOWN))


def listed(name: str, values: Any) -> Any:
    """The ids that a caller gave, read once: one id means a list of one, an iterator or a set becomes a list.

    Raises:
        ArgumentError: it is a mapping, or a masked array with masked entries.
    """
    if type(values) is list:
        return values
    if isinstance(values, Mapping):
        raise ArgumentError(f"{name} must be a list of ids (got the mapping {shown(values)})")
    if isinstance(values, np.ma.MaskedArray):
        if np.ma.getmaskarray(values).any():
            raise ArgumentError(f"{name} must have no masked entries (got {shown(values)})")
        values = values.data
    if isinstance(values, np.ndarray) and not values.ndim:
        values = values.item()
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        return [values]
    return list(values) if isinstance(values, Iterator | AbstractSet | range) else values


def encoded(ids: Ids, name: str, values: Any, skip: bool) -> Ints:
    """Internal numbers of the ids that a caller gave; unknown ones are left out where ``skip``.

    Raises:
        UnknownIdError: an id is unknown, and not ``skip``.
        DataError: a value is no id.
    """
    codes = ids.encode(listed(name, values), name=name, on_unknown="mark" if skip else "raise")
    return codes[codes >= 0]


def ragged(ids: Ids, name: str, lists: Sequence[Any], skip: bool) -> Ragged:
    """Lists of ids as numbers in compressed-row form, ascending within each row, each once.

    Raises:
        UnknownIdError: an id is unknown, and not ``skip``.
        DataError: a value is no id.
    """
    plain = [values.tolist() if isinstance(values, np.ndarray) else list(values) for values in lists]
    owners = np.repeat(np.arange(len(plain)), [len(values) for values in plain])
    codes = ids.encode(list(chain.from_iterable(plain)), name=name, on_unknown="mark" if skip else "raise")
    known = codes >= 0
    return _joined(len(plain), len(ids), owners[known], codes[known])


class Rows:
    """The rows of an answer, in the order asked.

    Args:
        lists: item numbers of each row, in compressed-row form, ascending: a user's history. None where they are
            ``stored``.
        strengths: ``a_ui``, aligned with the items of the lists; 1 where None.
        codes: internal number of each row ``(q,)``, None where rows are histories that the caller gave.
        ids: external ids of these numbers.
        names: names of histories ``(q,)``; None for one row without a name.
        stored: the histories of users ``codes``, which are read when they are first asked for.
        asked: position of each row among what the caller listed, ``(q,)``; all of them in order where None.
        n_asked: how many rows the caller listed, those included that were skipped; the number of rows where None.
    """

    __slots__ = (
        "_asked",
        "_lists",
        "_strengths",
        "codes",
        "given_names",
        "ids",
        "n_asked",
        "stored",
    )

    def __init__(
        self,
        lists: Ragged | None = None,
        strengths: Strengths = None,
        codes: Ints | None = None,
        ids: Ids | None = None,
        names: npt.NDArray[Any] | None = None,
        stored: Stored | None = None,
        asked: Ints | None = None,
        n_asked: int | None = None,
    ) -> None:
        self._lists, self._strengths, self.codes, self.ids, self.given_names = lists, strengths, codes, ids, names
        self.stored, self._asked, self.n_asked = stored, asked, len(self) if n_asked is None else n_asked

    def __len__(self) -> int:
        if self.codes is not None:
            return len(self.codes)
        assert self._lists is not None  # rows have numbers, or lists
        return len(self._lists[0]) - 1

    @property
    def lists(self) -> Ragged:
        """Item numbers of each row, in compressed-row form."""
        if self._lists is None:
            assert self.stored is not None and self.codes is not None
            bounds, items, self._strengths = self.stored.rows(self.codes)
            self._lists = bounds, items
        return self._lists

    @property
    def strengths(self) -> Strengths:
        """``a_ui``, aligned with the items of the lists; 1 where None."""
        return self._strengths if self.lists else None

    @property
    def asked(self) -> Ints:
        """Position of each row among what the caller listed, ``(q,)``."""
        return np.arange(len(self)) if self._asked is None else self._asked

    @property
    def names(self) -> npt.NDArray[Any] | None:
        """External id or name of each row, ``(q,)``; None for one row without a name."""
        return self.given_names if self.codes is None or self.ids is None else self.ids.decode(self.codes)

    @property
    def named(self) -> bool:
        """Whether rows have names."""
        return self.codes is not None or self.given_names is not None

    @property
    def counts(self) -> Ints:
        """Items in the list of each row, ``(q,)``."""
        return np.diff(self.lists[0])

    def some_empty(self) -> bool:
        """Whether a list is empty."""
        return not self.counts.all()

    def part(self, start: int, stop: int) -> Rows:
        """The rows ``start … stop − 1``."""
        if not start and stop >= len(self):
            return self
        return self._take(np.arange(start, min(stop, len(self))))

    def _take(self, rows: Ints) -> Rows:
        made = Rows(
            codes=None if self.codes is None else self.codes[rows],
            ids=self.ids,
            names=None if self.given_names is None else self.given_names[rows],
            stored=self.stored,
            lists=(np.zeros(1, np.int64), rows[:0]) if self.stored is None else None,
            asked=self.asked[rows],
            n_asked=self.n_asked,
        )
        if self.stored is None:
            bounds, places = entries_of(self.lists[0], rows)
            made._lists = bounds, self.lists[1][places]
            made._strengths = None if self.strengths is None else self.strengths[places]
        return made

    def not_empty(self, skip: bool | None) -> Rows:
        """The rows with a list: all where ``skip`` is None, else without the empty ones, which are errors where it is
        False.

        Raises:
            ArgumentError: a list is empty, and ``skip`` is False.
        """
        if skip is None or not self.some_empty():
            return self
        if not skip:
            names, first = self.names, int(np.flatnonzero(self.counts == 0)[0])
            which = "" if names is None else f" for {shown(names[first])}"
            raise ArgumentError(f"history must hold at least one known item for every user (got none{which})")
        return self._take(np.flatnonzero(self.counts > 0))

    @classmethod
    def of_ids(cls, ids: Ids, name: str, values: Any, skip: bool, stored: Stored | None = None) -> Rows:
        """Rows that have a number.

        Args:
            ids: their ids.
            name: what the argument is called in errors.
            values: ids as the caller gave them; all where None.
            skip: whether unknown ids are skipped.
            stored: the list of every number; the number itself, which it leaves out, where None.

        Raises:
            UnknownIdError: an id is unknown, and not ``skip``.
        """
        if values is None:
            codes = np.arange(len(ids))
        else:
            codes = ids.encode(listed(name, values), name=name, on_unknown="mark" if skip else "raise")
        asked, n_asked = None, len(codes)
        if skip and len(codes) and codes.min() < 0:
            asked = np.flatnonzero(codes >= 0)
            codes = codes[asked]
        lists = (np.arange(len(codes) + 1), codes) if stored is None else None
        return cls(lists, codes=codes, ids=ids, stored=stored, asked=asked, n_asked=n_asked)

    @classmethod
    def given(cls, ids: Ids, history: Any, skip: bool) -> Rows:
        """Histories that the caller gave: one list of item ids, or a mapping from names to such lists. In a mapping a
        history may itself be a mapping, from items to strengths.

        Raises:
            ArgumentError: a strength is outside of ``WEIGHTS``, or names are not all integers or all strings.
            UnknownIdError: an item is unknown, and not ``skip``.
        """
        named = isinstance(history, Mapping)
        names, given = (list(history), list(history.values())) if named else ([None], [history])
        if named:
            bare = next((value for value in given if isinstance(value, int | float | np.number)), None)
            if bare is not None:
                raise ArgumentError(
                    "history must be a list of items, or a mapping from names to lists or to mappings from items to "
                    f"strengths: of one person {{'me': {{318: 2.0}}}} (got the value {shown(bare)})"
                )
        plain = [listed("history", list(items) if isinstance(items, Mapping) else items) for items in given]
        if not named and (getattr(plain[0], "ndim", 1) > 1 or any(map(_is_list, plain[0]))):
            raise ArgumentError(
                "history must be one list of items, or a mapping from names to such lists, as {'me': [318], 'you': "
                f"[2, 5]}} (got the list of lists {shown(history)})"
            )
        lists = ragged(ids, "history", plain, skip)
        strengths = None
        if any(isinstance(items, Mapping) for items in given):
            strengths = _strengths(ids, given, lists, skip)
        return cls(lists, strengths, names=_names(names) if named else None)


class Limits(NamedTuple):
    """What may be answered beside what a row leaves out itself."""

    n_items: int  # size of the catalogue
    allow: Ints | None = None  # the only items that any row may be answered, or None for all
    deny: Ints | None = None  # items that no row may be answered, or None
    row_allow: Ragged | None = None  # the same row by row, in compressed-row form, or None
    row_deny: Ragged | None = None  # the same row by row, or None

    @classmethod
    def build(cls, ids: Ids, row_ids: Ids, rows: Rows, allow: Any, deny: Any, skip: bool) -> Limits:
        """Read ``allow`` and ``deny`` as a caller gave them: one list for all, a list per row, or a mapping.

        Args:
            ids: of what is answered.
            row_ids: of the rows.
            rows: what is asked about.
            allow: a list of ids for all rows; a list with one list per row; or a mapping from rows to lists, which
                must name every row.
            deny: the same; a mapping may leave rows out.
            skip: whether unknown ids are skipped.

        Raises:
            ArgumentError: lists are too few or too many, or ``allow`` misses a row.
            UnknownIdError: an id is unknown, and not ``skip``.
        """
        found: dict[str, Any] = {}
        for name, values in (("allow", allow), ("deny", deny)):
            values = values if values is None or isinstance(values, Mapping) else listed(name, values)
            lists = None if values is None else _row_lists(name, values, row_ids, rows, skip)
            if lists is not None:
                found[f"row_{name}"] = ragged(ids, name, lists, skip)
            elif values is not None:
                found[name] = encoded(ids, name, values, skip)
        return cls(len(ids), **found)

    def exclusion(self, start: int, rows: Rows, own: bool) -> Exclusion:
        """What the rows from ``start`` on leave out: their own lists where ``own``, and what is not allowed."""
        n, mine = len(rows), rows.lists if own else None
        denied = None if self.row_deny is None else rows_of(self.row_deny, np.arange(start, start + n))
        if mine is not None and denied is not None:
            owners = [np.repeat(np.arange(n), np.diff(indptr)) for indptr, _ in (mine, denied)]
            mine = _joined(n, self.n_items, np.concatenate(owners), np.concatenate((mine[1], denied[1])))
        return Exclusion.build(self.n_items, seen=denied if mine is None else mine, allow=self.allow, deny=self.deny)

    def candidates(self, start: int, n: int) -> Pairs | None:
        """Rows and items of all that may be answered to ``n`` rows from ``start`` on, where each has a list."""
        if self.row_allow is None:
            return None
        indptr, items = rows_of(self.row_allow, np.arange(start, start + n))
        return np.repeat(np.arange(n), np.diff(indptr)), items


def _row_lists(name: str, values: Any, row_ids: Ids, rows: Rows, skip: bool) -> list[Any] | None:
    """One list of ids per row, or None where there is one list for all."""
    if isinstance(values, Mapping):
        lists = {key: listed(name, items) for key, items in values.items()}
        if rows.codes is None:
            if rows.given_names is None:
                raise ArgumentError(f"{name} must be one list where the history has no name (got {shown(values)})")
            by_row = [lists.get(key) for key in rows.given_names.tolist()]
        else:
            codes = row_ids.encode(list(lists), name=f"{name}'s keys", on_unknown="mark" if skip else "raise")
            numbered = dict(zip(codes.tolist(), lists.values(), strict=True))
            by_row = [numbered.get(code) for code in rows.codes.tolist()]
        missing = [row for row, items in enumerate(by_row) if items is None]
        if missing and name == "allow":
            names = rows.names
            label = None if names is None else names[missing[0]]
            raise ArgumentError(
                f"allow must have a list for everybody who is asked about (got none for {shown(label)})"
            )
        return [[] if items is None else items for items in by_row]
    if isinstance(values, list | tuple) and values and all(_is_list(part) for part in values):
        if len(values) != rows.n_asked:
            raise ArgumentError(f"{name} must have {rows.n_asked} lists, one per row asked (got {len(values)})")
        return [listed(name, values[place]) for place in rows.asked.tolist()]
    return None


def _strengths(ids: Ids, given: list[Any], lists: Ragged, skip: bool) -> npt.NDArray[np.float32]:
    """The strengths of histories, aligned with their lists; 1 where a history has none."""
    strengths = np.ones(len(lists[1]), np.float32)
    for row, items in enumerate(given):
        if isinstance(items, Mapping):
            codes = ids.encode(list(items), name="history", on_unknown="mark" if skip else "raise")
            values = np.array([_strength(value) for value in items.values()], np.float32)
            first, last = lists[0][row], lists[0][row + 1]
            place = np.searchsorted(lists[1][first:last], codes[codes >= 0])
            strengths[first + place] = values[codes >= 0]
    return strengths


def _strength(value: Any) -> np.float32:
    """A strength that a caller gave.

    Raises:
        ArgumentError: it is no number, or outside of ``WEIGHTS``.
    """
    number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    try:
        with np.errstate(over="ignore", under="ignore"):
            strength = np.float32(value if number else np.nan)
    except OverflowError:
        strength = np.float32(np.inf)
    if not is_weight(np.asarray(strength)):
        raise ArgumentError(f"a strength in history must be {WEIGHT_RULE} (got {shown(value)})")
    return strength


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple | AbstractSet | np.ndarray | range | Iterator)


def _joined(n_rows: int, n_items: int, owners: Ints, codes: Ints) -> Ragged:
    """Loose pairs in compressed-row form, ascending within each row, each once."""
    keys = np.unique(owners * max(n_items, 1) + codes)
    indptr = np.searchsorted(keys, np.arange(n_rows + 1) * max(n_items, 1))
    return indptr.astype(np.int64), keys % max(n_items, 1)


def _names(names: list[Any]) -> npt.NDArray[Any]:
    """Names of histories as a column: integers or strings."""
    if all(isinstance(name, str) for name in names):
        return np.array([*names, None], np.object_)[:-1]
    if all(isinstance(name, int | np.integer) and not isinstance(name, bool) for name in names):
        try:
            return np.array(names, np.int64)
        except OverflowError:
            pass
    raise ArgumentError(f"names in history must be all strings, or all integers of 64 bits (got {shown(names)})")
