"""What a validation slice says of a teacher or a student."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from hashlgn.data import Interactions
from hashlgn.evaluation.metrics import METRICS, Judged
from hashlgn.scoring.exclusion import rows_of
from hashlgn.training.student.batches import Candidates
from hashlgn.training.student.loop import Data
from hashlgn.training.student.teachers import Teacher

__all__ = ["Validation"]

_BATCH = 512


@dataclass(frozen=True)
class Validation:
    """Held-out interactions of some users, against the whole catalogue with what was fitted masked.

    Attributes:
        data: histories of the users.
        held_out: what is to be found.
        name: key of ``METRICS``.
        k: cutoff.
    """

    data: Data
    held_out: Interactions
    name: str
    k: int

    @torch.no_grad()
    def metric(self, teacher: Teacher) -> float:
        """Mean metric at k over the users who have held-out interactions."""
        n_items, device = self.held_out.n_items, self.data.device
        users, k = np.flatnonzero(np.diff(self.held_out.indptr)), min(self.k, n_items)
        everything = Candidates(None, torch.zeros(n_items, device=device), None)
        values = []
        for start in range(0, len(users), _BATCH):
            chunk = users[start : start + _BATCH]
            batch = self.data.batch(chunk)
            scores = teacher.scores(batch, everything)
            scores[batch.history.rows, batch.history.items] = -torch.inf
            top = scores.topk(k, dim=1).indices.cpu().numpy()
            truth = rows_of((self.held_out.indptr, self.held_out.indices), chunk)
            values.append(METRICS[self.name](Judged.build(np.arange(len(chunk) + 1) * k, top.ravel(), *truth), k))
        return float(np.concatenate(values).mean())
