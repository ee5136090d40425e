"""Who has interacted with what: the one form in which data enters training, search and evaluation."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy import sparse

from hashlgn.data.arrays import Int32s, Int64s, finite, move, positive, remainders, whole
from hashlgn.data.ids import Ids
from hashlgn.data.lookup import Texts
from hashlgn.data.statistics import inequality, summary
from hashlgn.errors import ArgumentError, DataError, choose, counted, need, positive_int

__all__ = ["Dropped", "Interactions"]

_ALIGNED = ("ratings", "times", "weights")  # what an interaction may have beside its user and item


@dataclass(frozen=True)
class Dropped:
    """What ``encode_like`` left out, because the training data does not know it.

    Attributes:
        users: distinct users who are unknown.
        items: distinct items that are unknown.
        interactions: interactions with an unknown user or item.
    """

    users: int
    items: int
    interactions: int


@dataclass(frozen=True, eq=False)
class Interactions:
    """Distinct (user, item) pairs in compressed-row form, with the catalogues that name both sides.

    User ``u`` has interacted with the items ``indices[indptr[u]:indptr[u + 1]]``, ascending, each once. A
    catalogue may name users and items without any interaction (the parts of a split share the catalogues of
    the whole).

    Attributes:
        user_ids: external ids of the users.
        item_ids: external ids of the items.
        indptr: ``(n_users + 1,)`` int64.
        indices: item numbers, ``(interactions,)`` int32.
        ratings: float32, aligned with ``indices``, or None.
        times: int64 (seconds, as a rule: only their order matters), aligned with ``indices``, or None.
        weights: strengths of the interactions, positive finite float32, aligned with ``indices``, or None.
        titles: one per item, empty where unknown, or None.
        genres: one tuple per item, empty where unknown, or None.
        notes: what reading did without being asked, one sentence each.
    """

    user_ids: Ids
    item_ids: Ids
    indptr: Int64s
    indices: Int32s
    ratings: npt.NDArray[np.float32] | None = None
    times: Int64s | None = None
    titles: Sequence[str] | None = None
    genres: Sequence[tuple[str, ...]] | None = None
    weights: npt.NDArray[np.float32] | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        indptr, indices = self.indptr, self.indices
        if indptr.dtype != np.int64 or indices.dtype != np.int32:
            raise ArgumentError(f"indptr must be int64 and indices int32 (got {indptr.dtype} and {indices.dtype})")
        rises = len(indptr) == len(self.user_ids) + 1 and indptr[0] == 0 and (indptr[1:] >= indptr[:-1]).all()
        if not rises or indptr[-1] != len(indices):
            raise ArgumentError(f"indptr must rise from 0 to {len(indices)} in {len(self.user_ids) + 1} steps")
        if len(indices):
            if indices.min() < 0 or indices.max() >= len(self.item_ids):
                low, high = indices.min(), indices.max()
                raise ArgumentError(f"indices must lie in 0 … {len(self.item_ids) - 1} (got {low} … {high})")
            rising = np.empty(len(indices) + 1, np.bool_)  # one place more, for users without items at the end
            rising[1:-1] = indices[1:] > indices[:-1]
            rising[indptr] = True
            if not rising[:-1].all():
                raise ArgumentError("indices must ascend within each row, each item once")
        lengths = dict.fromkeys(_ALIGNED, len(indices)) | dict.fromkeys(("titles", "genres"), len(self.item_ids))
        for name, length in lengths.items():
            values = getattr(self, name)
            if values is not None and len(values) != length:
                raise ArgumentError(f"{name} must have length {length} (got {len(values)})")
        if self.weights is not None:
            positive(self.weights, len(indices))

    @classmethod
    def from_pairs(
        cls,
        users: Any,
        items: Any,
        ratings: npt.ArrayLike | None = None,
        times: npt.ArrayLike | None = None,
        *,
        weights: npt.ArrayLike | None = None,
        duplicates: str = "first",
    ) -> Interactions:
        """Build from aligned columns of external ids, one row per interaction, in any order.

        Args:
            users: external user ids (int or str; array, list or Arrow column).
            items: external item ids.
            ratings: one finite number per row, or None.
            times: one integer per row, or None.
            weights: one positive finite number per row, or None.
            duplicates: which row stands for a pair that occurs more than once: the ``"first"`` or the ``"last"``,
                by time where there are times, in row order where these are equal or absent.

        Raises:
            DataError: lengths differ, an id is missing or no id, a rating is not finite, a time is no
                integer.
        """
        user_ids, user_codes = Ids.from_values(users, name="users")
        item_ids, item_codes = Ids.from_values(items, name="items")
        codes = user_ids, item_ids, user_codes, item_codes
        return cls.from_codes(*codes, ratings, times, weights=weights, duplicates=duplicates)

    @classmethod
    def from_codes(
        cls,
        user_ids: Ids,
        item_ids: Ids,
        user_codes: npt.NDArray[np.integer],
        item_codes: npt.NDArray[np.integer],
        ratings: npt.ArrayLike | None = None,
        times: npt.ArrayLike | None = None,
        *,
        weights: npt.ArrayLike | None = None,
        duplicates: str = "first",
    ) -> Interactions:
        """Build from internal numbers: as ``from_pairs``, with the catalogues given.

        Raises:
            DataError: as ``from_pairs``.
        """
        n = len(user_codes)
        if len(item_codes) != n:
            raise DataError(f"users and items must have one length (got {n} and {len(item_codes)})")
        for name, codes, ids in (("user_codes", user_codes, user_ids), ("item_codes", item_codes, item_ids)):
            if n and (codes.min() < 0 or codes.max() >= len(ids)):
                raise DataError(f"{name} must lie in 0 … {len(ids) - 1} (got {codes.min()} … {codes.max()})")
        keys = user_codes.astype(np.int64)
        keys *= max(len(item_ids), 1)
        keys += item_codes
        columns = {
            "keys": keys,
            "ratings": None if ratings is None else finite(ratings, n),
            "times": None if times is None else whole(times, n),
            "weights": None if weights is None else positive(weights, n),
        }
        del keys
        return cls.from_keys(user_ids, item_ids, columns, duplicates=duplicates)

    @classmethod
    def from_keys(
        cls, user_ids: Ids, item_ids: Ids, columns: dict[str, npt.NDArray[Any] | None], *, duplicates: str = "first"
    ) -> Interactions:
        """Build from one number a pair: what ``from_codes`` and the readers have in common.

        Args:
            user_ids: external ids of the users.
            item_ids: external ids of the items.
            columns: ``keys``, user number · number of items + item number, int64, in any order, sorted in place;
                ``ratings``, finite float32, ``times``, int64, and ``weights``, positive float32, or None. Emptied on
                the way, so that nothing is held longer than needed.
            duplicates: as ``from_pairs``.

        Raises:
            DataError: there are too many items.
        """
        last = choose("duplicates", duplicates, {"first": False, "last": True})
        if len(item_ids) > np.iinfo(np.int32).max:
            raise DataError(f"at most {np.iinfo(np.int32).max} items are supported (got {len(item_ids)})")
        keys = columns.pop("keys")
        aligned: dict[str, Any] = {name: column for name in _ALIGNED if (column := columns.pop(name, None)) is not None}
        assert keys is not None
        width, order, n = max(len(item_ids), 1), None, len(keys)
        if (keys[1:] <= keys[:-1]).any():
            if "times" in aligned:  # first and last by time, and by row where times are equal
                order = np.lexsort((aligned["times"], keys))
            elif aligned:
                order = np.argsort(keys, kind="stable")
            keys.sort()
            changes = np.ones(len(keys), np.bool_)
            np.not_equal(keys[1:], keys[:-1], out=changes[1:])
            if not changes.all():
                n = move(keys, changes)
                if order is not None:
                    order = order[: move(order, np.append(changes[1:], True) if last else changes)]
            del changes
        indptr = np.searchsorted(keys[:n], np.arange(len(user_ids) + 1, dtype=np.int64) * width)
        indices = remainders(keys, n, width)
        del keys
        if order is not None:
            aligned = {name: column[order] for name, column in aligned.items()}
        return cls(user_ids, item_ids, indptr, indices, **aligned)

    def _aligned(self, rows: Any = slice(None)) -> dict[str, Any]:
        """Ratings, times and weights, those that there are, of some interactions."""
        return {name: values[rows] for name in _ALIGNED if (values := getattr(self, name)) is not None}

    @property
    def n_users(self) -> int:
        """Users in the catalogue."""
        return len(self.user_ids)

    @property
    def n_items(self) -> int:
        """Items in the catalogue."""
        return len(self.item_ids)

    def __len__(self) -> int:
        return len(self.indices)

    def __repr__(self) -> str:
        return f"Interactions({self.sizes})"

    @property
    def sizes(self) -> str:
        """Numbers of users, items and interactions, in words."""
        sizes = {"user": self.n_users, "item": self.n_items, "interaction": len(self)}
        return ", ".join(counted(count, noun) for noun, count in sizes.items())

    @cached_property
    def matrix(self) -> sparse.csr_matrix:
        """Ones where a user has interacted with an item: ``(n_users, n_items)`` float32."""
        shape = (self.n_users, self.n_items)
        return sparse.csr_matrix((np.ones(len(self), np.float32), self.indices, self.indptr), shape=shape)

    @property
    def rows(self) -> Int64s:
        """The user number of each interaction, aligned with ``indices``."""
        return np.repeat(np.arange(self.n_users), np.diff(self.indptr))

    def row(self, user: int) -> Int32s:
        """The items of one user number, ascending."""
        return self.indices[self.indptr[user] : self.indptr[user + 1]]

    def fingerprint(self, *, numbered: bool = False) -> str:
        """SHA-256 over ids and pairs: equal for equal data, whatever the file format and the order of rows.

        Args:
            numbered: tell data apart whose ids have other numbers, because they arrived in another order.
        """
        users, items = (np.arange(len(ids)) if numbered else ids.order() for ids in (self.user_ids, self.item_ids))
        indptr, indices = self.indptr, self.indices
        if (users[1:] < users[:-1]).any() or (items[1:] < items[:-1]).any():
            keys = np.argsort(users)[self.rows] * max(self.n_items, 1)
            keys += np.argsort(items)[indices]
            keys.sort()
            indptr = np.concatenate(([0], np.cumsum(np.diff(indptr)[users])))
            indices = (keys % max(self.n_items, 1)).astype(np.int32)
        digest = hashlib.sha256()
        for ids, order in ((self.user_ids, users), (self.item_ids, items)):
            array = ids.to_arrow().take(pa.array(order, pa.int64()))
            digest.update(f"{ids.id_type} {len(ids)} ".encode())
            parts = Texts(array).buffers if ids.id_type == "str" else (array.to_numpy(zero_copy_only=False),)
            for part in parts:
                digest.update(part.astype(part.dtype.newbyteorder("<"), copy=False).data)
        for part, kind in ((indptr, "<i8"), (indices, "<i4")):
            digest.update(len(part).to_bytes(8, "little"))
            digest.update(np.ascontiguousarray(part, kind).data)
        return digest.hexdigest()

    def to_arrow(self) -> pa.Table:
        """One row per interaction with external ids: columns ``user``, ``item`` and, where there are any, ``rating``,
        ``time`` and ``weight``; by user number, then item number.
        """
        columns = {
            "user": self.user_ids.to_arrow().take(pa.array(self.rows)),
            "item": self.item_ids.to_arrow().take(pa.array(self.indices)),
        }
        columns |= {name.removesuffix("s"): pa.array(values) for name, values in self._aligned().items()}
        return pa.table(columns)

    def to_pandas(self) -> Any:
        """``to_arrow`` as a pandas DataFrame.

        Raises:
            MissingExtraError: pandas is not installed.
        """
        need("pandas", "pandas", "Interactions.to_pandas")
        return self.to_arrow().to_pandas()

    def stats(self) -> dict[str, float | int | dict[str, float | int]]:
        """Counts of the data, ready for JSON.

        ``density`` is interactions / (users · items); ``popularity_gini`` is 0 where all items are equally
        popular and tends to 1 where a few items have all interactions.
        """
        per_user, per_item = np.diff(self.indptr), np.bincount(self.indices, minlength=self.n_items)
        pairs = self.n_users * self.n_items
        return {
            "users": self.n_users,
            "items": self.n_items,
            "interactions": len(self),
            "density": len(self) / pairs if pairs else 0.0,
            "per_user": summary(per_user),
            "per_item": summary(per_item),
            "popularity_gini": inequality(per_item),
        }

    def select(self, mask: npt.NDArray[np.bool_]) -> Interactions:
        """The interactions where ``mask``, ``(interactions,)`` bool, is set; the catalogues stay as they are.

        Raises:
            ArgumentError: ``mask`` has another shape or type.
        """
        if mask.shape != self.indices.shape or mask.dtype != np.bool_:
            raise ArgumentError(f"mask must be ({len(self)},) bool (got {mask.shape} {mask.dtype})")
        kept = np.zeros(len(self) + 1, np.int64)
        np.cumsum(mask, out=kept[1:])
        return replace(self, indptr=kept[self.indptr], indices=self.indices[mask], **self._aligned(mask))

    def encode_like(self, train: Interactions) -> tuple[Interactions, Dropped]:
        """These interactions in the user and item numbers of ``train``, and what had to be left out for it.

        Titles and genres are those of ``train``.
        """
        users = train.user_ids.encode(self.user_ids, on_unknown="mark")
        items = train.item_ids.encode(self.item_ids, on_unknown="mark")
        rows = self.rows
        known = (users[rows] >= 0) & (items[self.indices] >= 0)
        codes = users[rows[known]], items[self.indices[known]]
        encoded = Interactions.from_codes(train.user_ids, train.item_ids, *codes, **self._aligned(known))
        seen_users, seen_items = np.diff(self.indptr) > 0, np.bincount(self.indices, minlength=self.n_items) > 0
        dropped = Dropped(
            int((seen_users & (users < 0)).sum()), int((seen_items & (items < 0)).sum()), int((~known).sum())
        )
        return replace(encoded, titles=train.titles, genres=train.genres), dropped

    def rated_at_least(self, low: float) -> Interactions:
        """The interactions with a rating of at least ``low``, rounded to float32 as the ratings are; the catalogues
        shrink with them.

        Raises:
            DataError: there are no ratings, or none is so high.
        """
        if self.ratings is None:
            raise DataError("the data: min_rating needs a column of ratings (name it with rating=)")
        kept = self.ratings >= np.float32(low)
        if not kept.any():
            raise DataError(f"the data: none of {len(self)} ratings reaches min_rating ({low:g})")
        return self if kept.all() else self.select(kept).without_empty()

    def k_core(self, user_k: int, item_k: int) -> Interactions:
        """The largest part in which every user has ``user_k`` interactions and every item ``item_k``, at least.

        Users and items that fall short are removed in rounds until none does; the catalogues shrink with them.

        Raises:
            ArgumentError: a bound is no positive integer.
            DataError: nothing is left.
        """
        user_k, item_k = positive_int("user_k", user_k), positive_int("item_k", item_k)
        rows, kept, before = self.rows, np.ones(len(self), np.bool_), -1
        while kept.sum() != before:
            before = kept.sum()
            users = np.bincount(rows[kept], minlength=self.n_users) >= user_k
            items = np.bincount(self.indices[kept], minlength=self.n_items) >= item_k
            kept &= users[rows] & items[self.indices]
        if not before:
            raise DataError(f"no interactions are left of {len(self)} in the core of user_k={user_k}, item_k={item_k}")
        return self.select(kept).without_empty()

    def without_empty(self) -> Interactions:
        """The same interactions over smaller catalogues: only users and items that have any."""
        users = np.flatnonzero(np.diff(self.indptr))
        items = np.flatnonzero(np.bincount(self.indices, minlength=self.n_items))
        number = np.full(self.n_items, -1, np.int32)
        number[items] = np.arange(len(items), dtype=np.int32)
        return replace(
            self,
            user_ids=self.user_ids.take(users),
            item_ids=self.item_ids.take(items),
            indptr=np.append(self.indptr[users], len(self)).astype(np.int64),
            indices=number[self.indices],
            titles=None if self.titles is None else [self.titles[i] for i in items.tolist()],
            genres=None if self.genres is None else [self.genres[i] for i in items.tolist()],
        )
