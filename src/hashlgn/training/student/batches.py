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
from hashlgn.training.objectives import Entries

__all__ = ["Batch", "Candidates", "History", "candidates", "sampling_chances", "user_batches", "users_at_once"]

Ints = npt.NDArray[np.int64]


class History(NamedTuple):
    """Entries of histories by user: entry k is item ``items[k]`` of row ``rows[k]``, with its strength."""

    size: int  # number of rows
    rows: Tensor  # ``(entries,)`` int64, ascending
    items: Tensor  # ``(entries,)`` int64
    strengths: Tensor  # ``(entries,)`` float32

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
    """Users of one step."""

    users: Ints  # their numbers, ``(b,)`` int64
    history: History  # all that they have

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


def users_at_once(n_items: int) -> int:
    """Users whose scores of a whole catalogue take at most 128 MB, 512 at most."""
    return max(1, min(512, 2**25 // n_items))


def user_batches(data: Interactions, size: int, rng: np.random.Generator) -> Iterator[Ints]:
    """Users who have interactions, in random order, in batches of nearly equal size."""
    active = rng.permutation(np.flatnonzero(np.diff(data.indptr)))
    yield from np.array_split(active, max(1, round(len(active) / size)))


class Candidates(NamedTuple):
    """The items of a softmax."""

    items: Tensor | None  # their numbers, ``(n,)``; None where it is the whole catalogue
    log_weight: Tensor  # ln of how many items each stands for, ``(n,)``
    # For every item of the catalogue its place among the candidates, or −1; None for the whole catalogue
    places: Tensor | None

    def entries(self, history: History) -> Entries:
        """Entries (row, place) of a history, as far as its items are candidates."""
        if self.places is None:
            return history.rows, history.items
        columns = self.places[history.items]
        inside = columns >= 0
        return history.rows[inside], columns[inside]


def candidates(
    n_items: int, chances: Tensor | None, exact: Tensor, places: Tensor, rng: np.random.Generator
) -> Candidates:
    """The whole catalogue, or a sample of it: the items ``exact``, each for itself, and others by chance. One that was
    drawn with chance π stands for 1 / π items, so that the sum inside the softmax is unbiased.

    Args:
        n_items: number of items.
        chances: π of each item, ``(n_items,)``; None for the whole catalogue.
        exact: distinct item numbers.
        places: ``(n_items,)`` int64, −1 everywhere; whoever is done with the candidates makes it so again.
        rng: source of the sample.
    """
    if chances is None:
        return Candidates(None, torch.zeros(n_items, device=exact.device), None)
    drawn = torch.from_numpy(rng.random(n_items, np.float32)).to(exact.device) < chances
    drawn[exact] = False
    others = drawn.nonzero()[:, 0]
    items = torch.cat((exact, others))
    places[items] = torch.arange(len(items), device=items.device)
    log_weight = torch.zeros(len(items), device=items.device)
    log_weight[len(exact) :] = -chances[others].log()
    return Candidates(items, log_weight, places)


def sampling_chances(degree: Tensor, limit: int) -> Tensor | None:
    """Chances ``π_i = min(1, c d_i^¾)`` whose sum is ``limit``, ``(n_items,)`` float32: items that many people have
    weigh more in a softmax, and are drawn more often. None where the catalogue has no more items than the limit.
    """
    if len(degree) <= limit:
        return None
    wanted = degree.double() ** 0.75
    low, high = 0.0, 1.0 / float(wanted.min())
    for _ in range(60):  # bisection: the sum grows with c
        middle = (low + high) / 2
        low, high = (middle, high) if float((middle * wanted).clamp(max=1).sum()) < limit else (low, middle)
    return (high * wanted).clamp(max=1).float()
