"""Scores as chances: the probability that a user will interact with an item.

A score orders the items of one user. Its size says little by itself: a user with a long history will interact with more
items at the same score than a user with a short one. For a score ``s`` of a user with ``n`` items in the history,

    z = slope · s + activity · ln(1 + n),      p = 1 − (1 − step(z))^(horizon / share)

where ``step`` is a rising polygon through a few knots. All of it is fitted on the validation slice
(``evaluation.calibration.fit_calibration``). ``share`` is the part of each history that this slice holds out, so
``step(z)`` is the chance that an item is in that part. The power turns it into the chance that the item is among the
next ``horizon · n`` items, for interactions that come at a constant rate. ``p`` rises with ``s`` for each user, so a
threshold on ``p`` is a threshold on ``s`` that depends on ``n`` alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hashlgn.errors import ArgumentError

__all__ = ["HORIZON", "Calibration"]

HORIZON = 0.25  # a test part of 20% is a quarter of the 80% that is left for training

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Calibration:
    """The map from scores to probabilities.

    Attributes:
        slope: positive.
        activity: weight of ``ln(1 + n)``.
        share: part of each history that was held out for the fit, between 0 and 1.
        z: knots of the polygon, ``(k,)`` float64, strictly ascending.
        p: its values there, ``(k,)`` float64, strictly ascending, each between 0 and 1. Left of the first knot and
            right of the last one a logistic curve through that knot continues the polygon.

    Raises:
        ArgumentError: an attribute breaks its rule.
    """

    slope: float
    activity: float
    share: float
    z: Doubles
    p: Doubles

    def __post_init__(self) -> None:
        if not (np.isfinite(self.slope) and self.slope > 0 and np.isfinite(self.activity) and 0 < self.share < 1):
            raise ArgumentError(
                "slope must be positive, activity finite and share between 0 and 1 "
                f"(got {self.slope}, {self.activity} and {self.share})"
            )
        knots = np.stack((self.z, self.p))
        rises = len(self.z) > 0 and bool((np.diff(knots, axis=1) > 0).all())
        if not (np.isfinite(knots).all() and rises and self.p[0] > 0 and self.p[-1] < 1):
            raise ArgumentError("z and p must be strictly ascending, p between 0 and 1")

    def probability(self, scores: npt.ArrayLike, counts: npt.ArrayLike, horizon: float = HORIZON) -> Doubles:
        """The chance that the item is among the user's next ``horizon · n`` items.

        Args:
            scores: scores ``s``, of any shape.
            counts: items in the history of the user of each score, ``n``; broadcast against the scores.
            horizon: positive, as a share of the history.

        Returns:
            float64, of the shape of the scores.
        """
        z = self.slope * np.asarray(scores, np.float64) + self.activity * np.log1p(np.asarray(counts, np.float64))
        odds = np.exp(np.minimum(z - self.z[0], 0.0) + np.maximum(z - self.z[-1], 0.0))
        inside = np.interp(z, self.z, self.p)
        held_out = np.minimum(inside * odds / (1 + inside * (odds - 1)), 1 - 1e-12)
        return np.asarray(-np.expm1(horizon / self.share * np.log1p(-held_out)))

    def threshold(self, probability: float, counts: npt.ArrayLike, horizon: float = HORIZON) -> Doubles:
        """For each user a score that no item with a greater probability falls below, ``(q,)`` float64.

        The bound lies a little too low, by rounding; who needs the exact answer compares probabilities afterwards.

        Raises:
            ArgumentError: the probability does not lie between 0 and 1.
        """
        if not 0 < probability < 1:
            raise ArgumentError(f"threshold must lie between 0 and 1 where it is calibrated (got {probability})")
        held_out = -np.expm1(self.share / horizon * np.log1p(-probability))
        inside = float(np.clip(held_out, self.p[0], self.p[-1]))
        z = float(np.interp(inside, self.p, self.z)) + (_logit(held_out) - _logit(inside))
        tolerance = 1e-6 * max(1.0, abs(z))
        return (z - tolerance - self.activity * np.log1p(np.asarray(counts, np.float64))) / self.slope


def _logit(p: float) -> float:
    return float(np.log(p) - np.log1p(-p))
