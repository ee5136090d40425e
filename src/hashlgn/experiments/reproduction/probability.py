"""Answers whose scores and thresholds are probabilities, so that one threshold means the same for everybody."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import numpy.typing as npt

from hashlgn.errors import DataError
from hashlgn.inference.recommender import Recommender
from hashlgn.scoring.calibration import Calibration
from hashlgn.scoring.decoders import Floats
from hashlgn.scoring.exclusion import Exclusion
from hashlgn.search import Hits, Searcher

__all__ = ["ByProbability"]


class Calibrated:
    """A searcher whose scores are probabilities; the length of a history is the number of excluded items.

    Args:
        inner: searches by score.
        calibration: the map from scores to probabilities.
    """

    def __init__(self, inner: Searcher, calibration: Calibration) -> None:
        self.inner, self.calibration = inner, calibration

    def search(self, queries: Floats, k: int, exclude: Exclusion | None = None) -> Hits:
        """The k best items of each query."""
        return self._told(self.inner.search(queries, k, exclude), _counts(exclude, len(queries)))

    def search_above(self, queries: Floats, threshold: float, exclude: Exclusion | None = None) -> Hits:
        """Every item with a greater probability than ``threshold``, for each query."""
        counts = _counts(exclude, len(queries))
        lowest = float(self.calibration.threshold(threshold, counts).min(initial=np.inf))
        hits = self._told(self.inner.search_above(queries, lowest, exclude), counts)
        row = np.repeat(np.arange(len(hits)), np.diff(hits.indptr))
        over = hits.scores > threshold
        bounds = np.searchsorted(row[over], np.arange(len(hits.indptr))).astype(np.int64)
        return Hits(bounds, hits.items[over], hits.scores[over])

    def _told(self, hits: Hits, counts: npt.NDArray[np.int64]) -> Hits:
        chances = self.calibration.probability(hits.scores, np.repeat(counts, np.diff(hits.indptr)))
        return Hits(hits.indptr, hits.items, chances.astype(np.float32))


class ByProbability(Recommender):
    """Answers of a calibrated model by ``Calibrated``."""

    @cached_property
    def searcher(self) -> Searcher:
        """The searcher over the catalogue, built when first asked.

        Raises:
            DataError: the model has no calibration, as of very small data.
        """
        if self.model.calibration is None:
            raise DataError("thresholds by probability need more held-out items than this data set gives")
        return Calibrated(Recommender(self.model, threads=self.threads).searcher, self.model.calibration)


def _counts(exclude: Exclusion | None, users: int) -> npt.NDArray[np.int64]:
    return np.zeros(users, np.int64) if exclude is None else exclude.counts(users)
