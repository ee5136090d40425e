"""What must not be answered: seen items a query, and deny and allow lists for all queries, as one exclusion form."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from hashlgn.errors import ArgumentError, shown
from hashlgn.scoring.rows import ascending_rows, rows_of

__all__ = ["Exclusion"]

Ids = npt.NDArray[np.integer]


@dataclass(frozen=True)
class Exclusion:
    """Items left out of the answers.

    Attributes:
        n_items: size of the catalogue.
        indptr: ``(q + 1,)``, or None where no query has a list of its own. Row r of the batch leaves out
            ``indices[indptr[r]:indptr[r + 1]]``.
        indices: sorted within each row.
        banned: ``(n_items,)`` bool, left out for every query (denied, or not on the allow list), or None.
    """

    n_items: int
    indptr: npt.NDArray[np.int64] | None = None
    indices: Ids | None = None
    banned: npt.NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        if self.banned is not None and (self.banned.shape != (self.n_items,) or self.banned.dtype != np.bool_):
            raise ArgumentError(f"banned must be {self.n_items} bool, one per item (got {self.banned.dtype})")
        if self.indptr is None and self.indices is None:
            return
        if self.indptr is None or self.indices is None:
            raise ArgumentError("indptr and indices must come together")
        if self.indices.dtype == np.int64 and ascending_rows(self.indptr, self.indices, self.n_items):
            return
        _check_rows(self.indptr, len(self.indices))
        if len(self.indices) and (self.indices.min() < 0 or self.indices.max() >= self.n_items):
            bad = self.indices[(self.indices < 0) | (self.indices >= self.n_items)][0]
            raise ArgumentError(f"seen must hold item numbers in 0 … {self.n_items - 1} (got {bad})")

    @classmethod
    def build(
        cls,
        n_items: int,
        *,
        seen: tuple[npt.NDArray[np.int64], Ids] | None = None,
        allow: Iterable[int] | Ids | None = None,
        deny: Iterable[int] | Ids | None = None,
    ) -> Exclusion:
        """Combine seen lists (``indptr``, ``indices``), an allow list and a deny list of item numbers.

        An empty allow list allows nothing; an item both allowed and denied is denied.

        Raises:
            ArgumentError: an item number is outside ``0 … n_items − 1``, or ``seen`` is malformed.
        """
        banned = None
        if allow is not None:
            banned = np.ones(n_items, np.bool_)
            banned[_item_numbers("allow", allow, n_items)] = False
        if deny is not None:
            banned = np.zeros(n_items, np.bool_) if banned is None else banned
            banned[_item_numbers("deny", deny, n_items)] = True
        if seen is None:
            return cls(n_items, banned=banned)
        if not isinstance(seen, tuple | list) or len(seen) != 2:
            raise ArgumentError(f"seen must be (indptr, indices) in compressed-row form (got {shown(seen)})")
        bounds = np.asarray(seen[0])
        if bounds.dtype.kind not in "iu":
            raise ArgumentError(f"seen must have an indptr of integers (got {shown(seen[0])})")
        indptr = np.ascontiguousarray(bounds, np.int64)
        if type(seen[1]) is np.ndarray and seen[1].dtype == np.int64 and ascending_rows(indptr, seen[1], n_items):
            return cls(n_items, indptr, seen[1], banned)
        indices = _item_numbers("seen", seen[1], n_items)
        _check_rows(indptr, len(indices))
        rows = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
        keys = rows * n_items + indices
        if (np.diff(keys) < 0).any():
            indices = np.sort(keys) % n_items
        return cls(n_items, indptr, indices, banned)

    def also(self, banned: npt.NDArray[np.bool_] | None) -> Exclusion:
        """The same, and more items left out for every query, ``(n_items,)`` bool."""
        if banned is None:
            return self
        return replace(self, banned=banned if self.banned is None else self.banned | banned)

    def take(self, rows: Ids) -> Exclusion:
        """The exclusion for some rows of the batch, in the order given."""
        if self.indptr is None or self.indices is None:
            return self
        indptr, indices = rows_of((self.indptr, self.indices), rows)
        return Exclusion(self.n_items, indptr, indices, self.banned)

    def within(self, kept: Ids) -> Exclusion:
        """The rows' own lists, for a catalogue of the items ``kept`` alone (ascending), in its numbers."""
        if self.indptr is None or self.indices is None:
            return Exclusion(len(kept))
        number = np.full(self.n_items, -1, np.int64)
        number[kept] = np.arange(len(kept))
        numbers = number[self.indices]
        before = np.concatenate(([0], np.cumsum(numbers >= 0)))
        return Exclusion(len(kept), before[self.indptr], numbers[numbers >= 0])

    def counts(self, n_queries: int) -> npt.NDArray[np.int64]:
        """How many items each query leaves out by its own list, ``(n_queries,)``."""
        return np.zeros(n_queries, np.int64) if self.indptr is None else np.diff(self.indptr)

    def masks(self, n_queries: int) -> npt.NDArray[np.bool_]:
        """The items left out for each query of the batch, ``(n_queries, n_items)`` bool."""
        masks = np.zeros((n_queries, self.n_items), np.bool_)
        if self.banned is not None:
            masks[:] = self.banned
        if self.indptr is not None and self.indices is not None:
            masks[np.repeat(np.arange(n_queries), np.diff(self.indptr)), self.indices] = True
        return masks

    def excluded(self, rows: Ids, items: Ids) -> npt.NDArray[np.bool_]:
        """Whether each pair (row of the batch, item) is left out; both arrays have one shape, and so has the answer."""
        out = np.zeros(np.shape(items), np.bool_) if self.banned is None else self.banned[items]
        if self.indptr is not None and self.indices is not None and len(self.indices):
            keys = np.repeat(np.arange(len(self.indptr) - 1), np.diff(self.indptr)) * self.n_items + self.indices
            wanted = np.asarray(rows, np.int64) * self.n_items + items
            place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
            out |= keys[place] == wanted
        return out


def _check_rows(indptr: npt.NDArray[np.int64], count: int) -> None:
    if indptr.ndim != 1 or not len(indptr) or indptr[0] != 0 or indptr[-1] != count or (indptr[1:] < indptr[:-1]).any():
        raise ArgumentError("seen must be (indptr, indices) in compressed-row form, indptr from 0 to len(indices)")


def _item_numbers(name: str, values: Iterable[int] | Ids, n_items: int) -> npt.NDArray[np.int64]:
    if isinstance(values, np.ma.MaskedArray):
        raise ArgumentError(f"{name} must not be masked: drop what is masked first")
    if not isinstance(values, Iterable):
        raise ArgumentError(f"{name} must be a flat list of item numbers (got {shown(values)})")
    array = np.asarray(values if isinstance(values, np.ndarray) else list(values))
    if array.size == 0:
        return np.empty(0, np.int64)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise ArgumentError(
            f"{name} must be a flat list of item numbers (got dtype {array.dtype}, shape {array.shape})"
        )
    if array.min() < 0 or array.max() >= n_items:
        bad = array[(array < 0) | (array >= n_items)][0]
        raise ArgumentError(f"{name} must hold item numbers in 0 … {n_items - 1} (got {bad})")
    return array.astype(np.int64)
