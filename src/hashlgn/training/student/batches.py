"""Histories of a batch of users, and the items against which the batch is scored."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from hashlgn.data import Interactions
from hashlgn.training.student.objectives import Entries

__all__ = ["Batch", "Candidates", "History", "candidates", "user_batches"]

Ints = npt.NDArray[np.int64]


class History(NamedTuple):
    """Entries of histories by user: entry k is item ``items[k]`` of row ``rows[k]``, with its strength.

    Attributes:
        size: number of rows.
        rows: ``(entries,)`` int64, ascending.
        items: ``(entries,)`` int64.
        strengths: ``(entries,)`` float32.
    """

    size: int
    rows: Tensor
    items: Tensor
    strengths: Tensor

    def part(self, mask: Tensor) -> History:
        """The entries where ``mask`` is set."""
        return History(self.size, self.rows[mask], self.items[mask], self.strengths[mask])

    def queries(self, vectors: Tensor, columns: Tensor | None = None) -> Tensor:
        """``q_u = normalise(Σ a_ui p_i)``, ``(size, dim)``, differentiable in ``vectors``; see ``sums``."""
        return nn.functional.normalize(self.sums(vectors, columns))

    def sums(self, vectors: Tensor, columns: Tensor | None = None) -> Tensor:
        """``Σ a_ui p_i``, ``(size, dim)``, differentiable in ``vectors``.

        Args:
            vectors: ``p``, of all items, or the rows that ``columns`` counts.
            columns: for each entry its row of ``vectors``; the item's number where None.
        """
        bounds = torch.searchsorted(self.rows, torch.arange(self.size + 1, device=self.rows.device))
        sums: Tensor = nn.functional.embedding_bag(
            self.items if columns is None else columns,
            vectors,
            bounds,
            mode="sum",
            per_sample_weights=self.strengths,
            include_last_offset=True,
        )
        return sums


@dataclass(frozen=True)
class Batch:
    """Users of one step.

    Attributes:
        users: their numbers, ``(b,)`` int64.
        history: all that they have.
    """

    users: Ints
    history: History

    @classmethod
    def of(
        cls, data: Interactions, users: Ints, strengths: npt.NDArray[np.float32] | None, device: torch.device
    ) -> Batch:
        """Gather the histories of some users; the cost is that of their interactions alone."""
        counts = data.indptr[users + 1] - data.indptr[users]
        rows = np.repeat(np.arange(len(users)), counts)
        places = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts) + data.indptr[users][rows]
        own = np.ones(len(rows), np.float32) if strengths is None else strengths[places]
        parts = rows, data.indices[places].astype(np.int64), own
        return cls(users, History(len(users), *(torch.from_numpy(part).to(device) for part in parts)))


def user_batches(data: Interactions, size: int, rng: np.random.Generator) -> Iterator[Ints]:
    """Users who have interactions, in random order, in batches of nearly equal size."""
    active = rng.permutation(np.flatnonzero(np.diff(data.indptr)))
    yield from np.array_split(active, max(1, round(len(active) / size)))


class Candidates(NamedTuple):
    """The items of a softmax.

    Attributes:
        items: their numbers, ``(n,)``; None where it is the whole catalogue.
        log_weight: ln of how many items each stands for, ``(n,)``.
        places: for every item of the catalogue its place among the candidates, or −1; None for the whole catalogue.
    """

    items: Tensor | None
    log_weight: Tensor
    places: Tensor | None

    def entries(self, history: History) -> Entries:
        """Entries (row, place) of a history, as far as its items are candidates."""
        if self.places is None:
            return history.rows, history.items
        columns = self.places[history.items]
        inside = columns >= 0
        return history.rows[inside], columns[inside]


def candidates(n_items: int, limit: int, exact: Tensor, places: Tensor, rng: np.random.Generator) -> Candidates:
    """The whole catalogue, or where it has more than ``limit`` items a sample: the items ``exact``, each for itself,
    and uniform others that stand for the rest, so that the sum inside the softmax is unbiased.

    Args:
        n_items: number of items.
        limit: number of candidates, as far as ``exact`` leaves room.
        exact: distinct item numbers.
        places: ``(n_items,)`` int64, −1 everywhere; ``clear`` makes it so again.
        rng: source of the sample.
    """
    if n_items <= limit:
        return Candidates(None, torch.zeros(n_items, device=exact.device), None)
    count = min(max(limit - len(exact), limit // 8), n_items)
    drawn = torch.from_numpy(rng.choice(n_items, count, replace=False, shuffle=False)).to(exact.device)
    places[exact] = 0
    others = drawn[places[drawn] < 0]
    items = torch.cat((exact, others))
    places[items] = torch.arange(len(items), device=items.device)
    log_weight = torch.zeros(len(items), device=items.device)
    log_weight[len(exact) :] = float(np.log(max(n_items - len(exact), 1) / max(len(others), 1)))
    return Candidates(items, log_weight, places)
