"""The histories that a model stores: rows of interactions by user, in parts, so that a change copies what changes.

The first part has a row for each user of the training. Each change adds a part with the rows that it changes, whole.
The newest part that has a user counts. Parts at least halve from one to the next, since small ones are joined: an
interaction is copied few times, and there are few parts.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from hashlgn._kernel import compiled
from hashlgn.errors import ArgumentError

__all__ = ["Part", "Stored"]

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
_compiled: Any = compiled()
_COLUMNS = ("indices", "strengths", "times", "newer")
_SMALL = 4096  # rows and interactions of two parts that are joined, however much the second is smaller


@dataclass(frozen=True, eq=False)
class Part:
    """Rows of some users.

    Attributes:
        indptr: bounds of the rows, int64.
        indices: item numbers, strictly ascending within a row, int32.
        strengths: ``a_ui``, positive float32, aligned with ``indices``; 1 where None.
        times: int64, aligned with ``indices``, or None.
        newer: whether an interaction is newer than the training, aligned with ``indices``; none is where None.
        users: who they are, ascending; row r is that of user r where None.
    """

    indptr: Ints
    indices: npt.NDArray[np.int32]
    strengths: npt.NDArray[np.float32] | None = None
    times: Ints | None = None
    newer: Mask | None = None
    users: Ints | None = None

    def __len__(self) -> int:
        return len(self.indptr) - 1

    def __getstate__(self) -> dict[str, Any]:
        """The arrays; what is made of them is made again."""
        return {one.name: getattr(self, one.name) for one in fields(self)}

    @classmethod
    def from_kernel(cls, columns: tuple[Any, ...]) -> Part:
        """What the kernel gives back: users, bounds and columns."""
        users, indptr, *others = columns
        return cls(indptr, **dict(zip(_COLUMNS, others, strict=True)), users=users)

    @cached_property
    def held(self) -> Any:
        """The rows for the kernel."""
        return _compiled.Rows(self.users, self.indptr, self.indices, self.strengths, self.times, self.newer)

    @cached_property
    def latest(self) -> int:
        """The newest time; 0 where there is none."""
        return 0 if self.times is None else int(self.times.max(initial=0))

    def find(self, users: Ints) -> Ints:
        """The row of each of some users, −1 where there is none."""
        if self.users is None:
            return np.where(users < len(self), users, -1)
        places = np.minimum(np.searchsorted(self.users, users), len(self.users) - 1)
        return np.where(self.users[places] == users, places, -1)

    def who(self, item: int) -> Ints:
        """The users who have an item, ascending."""
        rows = np.searchsorted(self.indptr, np.flatnonzero(self.indices == item), side="right") - 1
        return rows if self.users is None else self.users[rows]


class Stored:
    """The histories of ``len`` users; it does not change."""

    def __init__(self, parts: tuple[Part, ...], count: int) -> None:
        self.parts, self._count = parts, count

    @classmethod
    def of(
        cls,
        indptr: Ints,
        indices: npt.NDArray[np.int32],
        strengths: npt.NDArray[np.float32] | None = None,
        times: Ints | None = None,
        newer: Mask | None = None,
    ) -> Stored:
        """The histories of all users, in compressed-row form; columns as of ``Part``."""
        return cls((Part(indptr, indices, strengths, times, newer),), len(indptr) - 1)

    def __len__(self) -> int:
        return self._count

    def __getstate__(self) -> dict[str, Any]:
        """What is stored; what is made of it is made again."""
        return {"parts": self.parts, "_count": self._count}

    @cached_property
    def held(self) -> list[Any]:
        """The parts for the kernel."""
        return [part.held for part in self.parts]

    @cached_property
    def flat(self) -> Part:
        """All rows in one part."""
        if len(self.parts) == 1 and len(self.parts[0]) == self._count:
            return self.parts[0]
        return replace(self.part(np.arange(self._count)), users=None)

    @property
    def latest(self) -> int:
        """The newest time that was ever stored; 0 where there is none."""
        return max(part.latest for part in self.parts)

    @property
    def newer(self) -> Mask:
        """Whether each interaction is newer than the training."""
        flat = self.flat
        return np.zeros(len(flat.indices), np.bool_) if flat.newer is None else flat.newer

    def rows(self, users: Ints) -> tuple[Ints, Ints, npt.NDArray[np.float32] | None]:
        """Rows of some users, in the order asked: bounds, items as int64, and strengths."""
        if _compiled is not None:
            bounds, items, strengths = _compiled.gather(self.held, np.ascontiguousarray(users, np.int64), self._count)
            return bounds, items, strengths
        found = self.part(users)
        return found.indptr, found.indices.astype(np.int64), found.strengths

    def part(self, users: Ints | None = None) -> Part:
        """Rows of some users, with all columns, in the order asked; of all that the parts name where None."""
        if _compiled is not None:
            return Part.from_kernel(
                _compiled.columns(self.held, None if users is None else np.ascontiguousarray(users, np.int64))
            )
        if users is None:
            users = np.unique(np.concatenate([part.users for part in self.parts if part.users is not None]))
        owner, row = np.full(len(users), -1), np.zeros(len(users), np.int64)
        for number, part in enumerate(self.parts):
            found = part.find(users)
            owner[found >= 0], row[found >= 0] = number, found[found >= 0]
        lengths, places = np.zeros(len(users), np.int64), []
        for number, part in enumerate(self.parts):
            mine = row[owner == number]
            starts, ends = part.indptr[mine], part.indptr[mine + 1]
            lengths[owner == number] = ends - starts
            before = np.cumsum(ends - starts) - (ends - starts)
            places.append(np.arange(int((ends - starts).sum())) + np.repeat(starts - before, ends - starts))
        indptr = np.concatenate(([0], np.cumsum(lengths)))
        into = np.repeat(owner, lengths)
        made: dict[str, Any] = {}
        for name in _COLUMNS:
            values = [getattr(part, name) for part in self.parts]
            if all(value is None for value in values):
                continue
            column = np.zeros(int(indptr[-1]), next(value for value in values if value is not None).dtype)
            for number, value in enumerate(values):
                if value is not None:
                    column[into == number] = value[places[number]]
            made[name] = column
        return Part(indptr, **made, users=users)

    def who(self, item: int) -> Ints:
        """The users who have an item, ascending."""
        if _compiled is not None:
            users: Ints = _compiled.who(self.held, item)
            return users
        found: list[Ints] = []
        for number, part in enumerate(self.parts):
            users = part.who(item)
            for later in self.parts[number + 1 :]:
                users = users[later.find(users) < 0]
            found.append(users)
        return found[0] if len(found) == 1 else np.sort(np.concatenate(found))

    def strengths(self, users: Ints, items: Ints) -> npt.NDArray[np.float32]:
        """``a_ui`` of the item beside each of some users, ``(n,)``; 0 where the user does not have it."""
        if _compiled is not None:
            held: npt.NDArray[np.float32] = _compiled.strengths(self.held, *map(np.ascontiguousarray, (users, items)))
            return held
        asked, rows = np.unique(users, return_inverse=True)
        found = self.part(asked)
        if not len(found.indices):
            return np.zeros(len(users), np.float32)
        n_items = int(max(found.indices.max(), items.max(initial=0))) + 1
        keys = np.repeat(np.arange(len(asked)) * n_items, np.diff(found.indptr)) + found.indices
        places = np.minimum(np.searchsorted(keys, rows * n_items + items), len(keys) - 1)
        strengths = np.float32(1) if found.strengths is None else found.strengths[places]
        return np.where(keys[places] == rows * n_items + items, strengths, np.float32(0))

    def extended(self, users: Ints, items: Ints, strengths: npt.NDArray[np.float32] | None, times: Ints | None) -> Part:
        """Rows of the users of new interactions, which are added as newer than the training.

        Args:
            users: of each interaction, ``(n,)``.
            items: which the user does not have, each once, ``(n,)``.
            strengths: 1 where None; left out where none are stored.
            times: 0 where None; left out where none are stored.
        """
        if _compiled is not None:
            flat = (np.ascontiguousarray(users, np.int64), np.ascontiguousarray(items, np.int64))
            return Part.from_kernel(_compiled.extended(self.held, *flat, strengths, times))
        whose, rows = np.unique(users, return_inverse=True)
        old, count = self.part(whose), len(users)
        fresh: dict[str, Any] = {"indices": items.astype(np.int32), "newer": np.ones(count, np.bool_)}
        if old.times is not None:
            fresh["times"] = np.zeros(count, np.int64) if times is None else times
        if old.strengths is not None:
            fresh["strengths"] = np.ones(count, np.float32) if strengths is None else strengths
        before = {"newer": np.zeros(len(old.indices), np.bool_)} if old.newer is None else {}
        owners = np.concatenate((np.repeat(np.arange(len(whose)), np.diff(old.indptr)), rows))
        keys = (owners << 32) + np.concatenate((old.indices, fresh["indices"]))
        order = np.argsort(keys, kind="stable")  # long runs ascend: a merge, and no sort
        columns = {
            name: np.concatenate((before.get(name, getattr(old, name)), values))[order]
            for name, values in fresh.items()
        }
        return Part(np.searchsorted(owners[order], np.arange(len(whose) + 1)), users=whose, **columns)

    def changed(self, part: Part | None, count: int) -> Stored:
        """The histories of ``count`` users, with the rows of some users in place of those they have."""
        parts = self.parts if part is None else (*self.parts, part)
        while len(parts) > 1 and _size(parts[-2]) < max(2 * _size(parts[-1]), _SMALL - _size(parts[-1])):
            last = Stored(parts[-2:], count)
            # Only the first part has a row for each user.
            parts = (last.flat,) if len(parts) == 2 else (*parts[:-2], last.part())
        return Stored(parts, count)

    def check(self, n_users: int, n_items: int, contents: bool) -> None:
        """Check arrays that come from elsewhere.

        Raises:
            ArgumentError: they do not fit together.
        """
        if len(self) != n_users or len(self.parts[0]) > n_users:
            raise ArgumentError(f"seen.indptr must have shape ({n_users + 1},) (got {self.parts[0].indptr.shape})")
        for part in self.parts:
            if part.__dict__.get("_checked", 0) < 1 + contents:
                _check(part, n_items, contents)
                part.__dict__["_checked"] = 1 + contents


def _size(part: Part) -> int:
    return len(part.indices) + len(part)


def _check(part: Part, n_items: int, contents: bool) -> None:
    indptr, indices = part.indptr, part.indices
    for name, array, kind, length in (
        ("seen.indptr", indptr, "int64", None),
        ("seen.indices", indices, "int32", None),
        ("strengths", part.strengths, "float32", len(indices)),
        ("times", part.times, "int64", len(indices)),
        ("live.newer", part.newer, "bool", len(indices)),
    ):
        if array is None and name not in ("seen.indptr", "seen.indices"):
            continue
        if not isinstance(array, np.ndarray) or array.dtype.name != kind:
            got = array.dtype.name if isinstance(array, np.ndarray) else type(array).__name__
            raise ArgumentError(f"{name} must be an array of {kind} (got {got})")
        if array.ndim != 1 or length not in (None, len(array)):
            raise ArgumentError(f"{name} must have shape ({length},) (got {array.shape})")
    if not len(indptr) or indptr[0] != 0 or indptr[-1] != len(indices) or (indptr[1:] < indptr[:-1]).any():
        raise ArgumentError(f"seen.indptr must ascend from 0 to the number of indices ({len(indices)})")
    if not contents:  # who answers checks the rows that are asked for
        return
    if part.strengths is not None and not (np.isfinite(part.strengths) & (part.strengths > 0)).all():
        raise ArgumentError("strengths must be finite and positive")
    if len(indices) and (indices.min() < 0 or indices.max() >= n_items):
        raise ArgumentError(f"seen.indices must lie in 0 … {n_items - 1} (got {indices.min()} … {indices.max()})")
    rising = np.ones(len(indices) + 1, np.bool_)
    rising[1:-1] = indices[1:] > indices[:-1]
    rising[indptr] = True  # where a user's list begins, it may fall
    if not rising.all():
        raise ArgumentError("seen.indices must be strictly ascending within each user")
