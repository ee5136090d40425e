"""What a validation slice says of a teacher or a student."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from hashlgn.data import Interactions
from hashlgn.evaluation.metrics import METRICS, Evaluated
from hashlgn.scoring.rows import rows_of
from hashlgn.training.student.batches import Batch, Candidates, users_at_once
from hashlgn.training.student.loop import Data
from hashlgn.training.student.teachers import Teacher

__all__ = ["Validation"]

_PAIRS = 200  # items per user that a calibration looks at

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Validation:
    """Held-out interactions of some users, against the whole catalogue with what was fitted masked."""

    data: Data  # histories of the users
    held_out: Interactions  # what is to be found
    name: str  # key of ``METRICS``
    k: int  # cutoff

    @torch.no_grad()
    def metric(self, teacher: Teacher) -> float:
        """Mean metric at k over the users who have held-out interactions."""
        return float(self.values(teacher).mean())

    @torch.no_grad()
    def values(self, teacher: Teacher) -> Doubles:
        """The metric of each of those users."""
        values, k = [], min(self.k, self.held_out.n_items)
        for chunk, _, best in self._best(teacher, k):
            truth = rows_of((self.held_out.indptr, self.held_out.indices), chunk)
            top = best.indices.cpu().numpy().ravel()
            values.append(METRICS[self.name](Evaluated.build(np.arange(len(chunk) + 1) * k, top, *truth), k))
        return np.concatenate(values)

    @torch.no_grad()
    def pairs(self, teacher: Teacher) -> tuple[Doubles, Doubles, npt.NDArray[np.bool_]]:
        """What a calibration is fitted to: scores of the best items of each user among those that were not fitted,
        items in that user's history, and whether each is held out.
        """
        found: list[tuple[Doubles, Doubles, npt.NDArray[np.bool_]]] = []
        for chunk, batch, best in self._best(teacher, min(_PAIRS, self.held_out.n_items)):
            truth = torch.from_numpy(self.held_out.matrix[chunk].toarray() > 0).to(best.values.device)
            rows = best.values.isfinite()
            counts = torch.bincount(batch.history.rows, minlength=len(chunk)).double()[:, None].expand_as(rows)
            parts = (best.values.double()[rows], counts[rows], truth.gather(1, best.indices)[rows])
            scores, sizes, labels = (part.cpu().numpy() for part in parts)
            found.append((scores, sizes, labels))
        scores, sizes, labels = (np.concatenate(column) for column in zip(*found, strict=True))
        return scores, sizes, labels

    def _best(self, teacher: Teacher, k: int) -> Iterator[tuple[npt.NDArray[np.int64], Batch, Any]]:
        """Users who have held-out interactions, some at a time, with their histories and the k best other items."""
        users, size = np.flatnonzero(np.diff(self.held_out.indptr)), users_at_once(self.held_out.n_items)
        everything = Candidates(None, torch.zeros(self.held_out.n_items, device=self.data.device), None)
        for start in range(0, len(users), size):
            batch = self.data.batch(users[start : start + size])
            scores = teacher.scores(batch, everything)
            scores[batch.history.rows, batch.history.items] = -torch.inf
            yield batch.users, batch, scores.topk(k, dim=1)
