"""Answers compared with the truth: what every metric of accuracy is computed from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hashlgn.errors import ArgumentError, positive_int
from hashlgn.evaluation.metrics.arrays import Floats, Ints, ragged, totals

__all__ = ["Evaluated"]


@dataclass(frozen=True, eq=False)
class Evaluated:
    """Answers compared with the truth: all that any metric needs, in the space of the hits alone."""

    sizes: Ints  # length of each answer, ``(q,)``
    relevant: Ints  # number of relevant items ``|T|``, ``(q,)``, at least 1
    rows: Ints  # the user of each hit, ``(hits,)``, ascending
    ranks: Ints  # the place of each hit in its answer, from 0, ``(hits,)``, ascending within each user

    @classmethod
    def build(
        cls,
        indptr: npt.ArrayLike,
        items: npt.ArrayLike,
        truth_indptr: npt.ArrayLike,
        truth_indices: npt.ArrayLike,
    ) -> Evaluated:
        """Mark the hits of a batch of ragged answers.

        Args:
            indptr: ``(q + 1,)``: answer r is ``items[indptr[r]:indptr[r + 1]]``, best first, each item once.
            items: item numbers.
            truth_indptr: ``(q + 1,)``: the relevant items of answer r, in the same form.
            truth_indices: item numbers, ascending within each user.

        Raises:
            ArgumentError: a ragged array is malformed, the two have different numbers of users, a user has no
                relevant item, the truth is not ascending, or an answer holds a relevant item twice.
        """
        bounds, answers = ragged("indptr", indptr, "items", items)
        truth_bounds, truth = ragged("truth_indptr", truth_indptr, "truth_indices", truth_indices)
        q = len(bounds) - 1
        sizes, relevant = np.diff(bounds), np.diff(truth_bounds)
        if len(relevant) != q:
            raise ArgumentError(f"truth_indptr must have {q} rows, one an answer (got {len(relevant)})")
        if (relevant == 0).any():
            row = int(np.flatnonzero(relevant == 0)[0])
            raise ArgumentError(f"every user must have a relevant item; leave the others out (row {row} has none)")

        n_items = int(max(answers.max(initial=-1), truth.max(initial=-1))) + 1
        if q * n_items >= 2**63:
            raise ArgumentError(f"item numbers must be below 2^63 / users (got {n_items - 1} with {q} users)")
        truth_keys = np.repeat(np.arange(q), relevant) * n_items + truth
        if (np.diff(truth_keys) <= 0).any():
            raise ArgumentError("truth_indices must be strictly ascending within each user")
        owner = np.repeat(np.arange(q), sizes)
        keys = owner * n_items + answers
        if not len(keys):
            return cls(sizes, relevant, np.empty(0, np.int64), np.empty(0, np.int64))
        place = np.minimum(np.searchsorted(truth_keys, keys), len(truth_keys) - 1)
        hit = np.flatnonzero(truth_keys[place] == keys)
        if len(np.unique(keys[hit])) != len(hit):
            raise ArgumentError("items must hold each item at most once within an answer")
        rows = owner[hit]
        return cls(sizes, relevant, rows, hit - bounds[rows])

    @classmethod
    def concatenate(cls, parts: Sequence[Evaluated]) -> Evaluated:
        """Join the batches of one evaluation, in order.

        Raises:
            ArgumentError: ``parts`` is empty.
        """
        if not parts:
            raise ArgumentError("parts must hold at least one batch (got none)")
        starts = np.cumsum([0] + [len(part) for part in parts[:-1]])
        return cls(
            np.concatenate([part.sizes for part in parts]),
            np.concatenate([part.relevant for part in parts]),
            np.concatenate([part.rows + start for part, start in zip(parts, starts, strict=True)]),
            np.concatenate([part.ranks for part in parts]),
        )

    def __len__(self) -> int:
        return len(self.sizes)

    def cutoff(self, k: int | None) -> Ints:
        """K for each user, ``(q,)``: ``k``, or the answer's size where ``k`` is None.

        Raises:
            ArgumentError: ``k`` is neither None nor a positive integer.
        """
        return self.sizes if k is None else np.full(len(self), positive_int("k", k), np.int64)

    def hits(self, k: int | None) -> Ints:
        """``h_K``, the hits within the cutoff, ``(q,)``."""
        return np.bincount(self.rows[self._within(k)], minlength=len(self)).astype(np.int64)

    def dcg(self, k: int | None) -> Floats:
        """``DCG@K = Σ_{j≤K} rel_j / log2(j + 1)``, ``(q,)``."""
        within = self._within(k)
        return totals(self.rows[within], 1 / np.log2(self.ranks[within] + 2), len(self))

    def _within(self, k: int | None) -> npt.NDArray[np.bool_]:
        return self.ranks < self.cutoff(k)[self.rows]
