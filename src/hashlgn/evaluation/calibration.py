"""Fitting the map from scores to probabilities, and saying how far it can be trusted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import isotonic_regression, minimize
from scipy.special import expit

from hashlgn.errors import ArgumentError
from hashlgn.evaluation.tables import text_table
from hashlgn.scoring.calibration import Calibration

__all__ = ["Reliability", "fit_calibration", "reliability"]

_KNOTS = 24
_FEWEST = 20  # held-out items that a knot stands on, at least

Doubles = npt.NDArray[np.float64]


def fit_calibration(
    scores: Doubles, counts: Doubles, labels: npt.NDArray[np.bool_], share: float
) -> Calibration | None:
    """Logistic regression on score and length of the history, then an isotonic polygon through its deciles.

    Args:
        scores: one score per pair of user and item, ``(n,)``; the pairs are the best items of each user, those in the
            history left out.
        counts: items in the history of the pair's user, ``(n,)``.
        labels: whether the user interacted with the item in the held-out part, ``(n,)``.
        share: part of each history that was held out.

    Returns:
        The map; None where there is nothing to fit: fewer than 20 held-out items among the pairs, or scores that do not
        tell them from the others.

    Source: Platt, *Probabilistic outputs for support vector machines*, 1999; for the isotonic regression Zadrozny and
    Elkan, *Transforming classifier scores into accurate multiclass probability estimates*, KDD 2002.
    """
    if labels.sum() < _FEWEST:
        return None
    features = np.stack((scores, np.log1p(counts), np.ones(len(scores))), axis=1).astype(np.float64)
    spread = features.std(axis=0)
    if not spread[0] > 1e-9 * np.abs(scores).max():
        return None
    spread[spread <= 1e-9 * np.abs(features).max(axis=0)] = 1.0  # the constant, and what is one for these users
    design, target = features / spread, labels.astype(np.float64)

    def loss(weights: Doubles) -> tuple[float, Doubles]:
        z = design @ weights
        return float(np.mean(np.logaddexp(0, z) - target * z)), design.T @ (expit(z) - target) / len(z)

    def curvature(weights: Doubles) -> Doubles:
        chances = expit(design @ weights)
        product: Doubles = design.T @ ((chances * (1 - chances))[:, None] * design) / len(chances)
        return product

    # With second derivatives a third of the passes over the pairs suffice.
    found = minimize(loss, np.zeros(3), jac=True, hess=curvature, method="trust-exact")
    slope, activity, _ = found.x / spread
    if not slope > 0:
        return None
    z = slope * features[:, 0] + activity * features[:, 1]
    order = np.argsort(z, kind="stable")
    # Knots stand on equal numbers of held-out items: most pairs have small chances, and few matter.
    hits = np.cumsum(target[order])
    knots = int(np.clip(hits[-1] // _FEWEST, 1, _KNOTS))
    ends = np.searchsorted(hits, hits[-1] * np.arange(1, knots) / knots)
    parts = [part for part in np.split(order, ends) if len(part)]
    sizes = np.array([len(part) for part in parts], np.float64)
    means = np.array([z[part].mean() for part in parts])
    rates = np.array([(target[part].sum() + 0.5) / (len(part) + 1) for part in parts])
    rates = np.asarray(isotonic_regression(rates, weights=sizes).x)
    rising = np.concatenate(([True], (np.diff(rates) > 1e-9) & (np.diff(means) > 1e-9 * np.abs(means).max())))
    return Calibration(float(slope), float(activity), share, means[rising], rates[rising])


@dataclass(frozen=True, eq=False, repr=False)
class Reliability:
    """Predicted and observed chances, by bins of equal numbers of pairs.

    Attributes:
        predicted: mean probability of each bin, ``(bins,)``.
        observed: share of its pairs that were interactions, ``(bins,)``.
        sizes: pairs in each bin, ``(bins,)``.
        horizon: the probabilities are of being among the next ``horizon · n`` items of a user who has n; None where
            they are of something else.
    """

    predicted: Doubles
    observed: Doubles
    sizes: npt.NDArray[np.int64]
    horizon: float | None = None

    @property
    def error(self) -> float:
        """Expected calibration error: ``Σ_b size_b · |predicted_b − observed_b| / Σ_b size_b``.

        Source: Naeini, Cooper, Hauskrecht, *Obtaining well calibrated probabilities using Bayesian binning*, AAAI 2015.
        """
        return float(np.average(np.abs(self.predicted - self.observed), weights=self.sizes))

    def to_dict(self) -> dict[str, Any]:
        """Error and bins, ready for JSON."""
        columns = {name: getattr(self, name).tolist() for name in ("predicted", "observed", "sizes")}
        return {"error": self.error, "horizon": self.horizon, **columns}

    def rows(self) -> list[list[str]]:
        """The bins as a table of text, its head first."""
        bins = zip(self.predicted.tolist(), self.observed.tolist(), self.sizes.tolist(), strict=True)
        return [["predicted", "observed", "pairs"], *([f"{p:.4f}", f"{o:.4f}", f"{n:,}"] for p, o, n in bins)]

    def note(self) -> str:
        """The error in words."""
        return f"expected calibration error {self.error:.4f} over {int(self.sizes.sum()):,} probabilities"

    def __repr__(self) -> str:
        return "\n".join([text_table(self.rows()), self.note()])


def reliability(
    probabilities: Doubles, labels: npt.NDArray[np.bool_], bins: int = 15, *, horizon: float | None = None
) -> Reliability:
    """Compare probabilities with what happened.

    Args:
        probabilities: of pairs of user and item, ``(n,)``.
        labels: whether each was an interaction, ``(n,)``.
        bins: number of bins, of equal numbers of pairs.
        horizon: what the probabilities are of, see ``Reliability``.

    Raises:
        ArgumentError: there is no pair.
    """
    if not len(probabilities):
        raise ArgumentError("probabilities must hold at least one pair (got none)")
    parts = [part for part in np.array_split(np.argsort(probabilities, kind="stable"), bins) if len(part)]
    return Reliability(
        np.array([probabilities[part].mean() for part in parts]),
        np.array([labels[part].mean() for part in parts]),
        np.array([len(part) for part in parts]),
        horizon,
    )
