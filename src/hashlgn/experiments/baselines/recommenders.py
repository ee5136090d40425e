"""Outside references as served models: popularity, EASE and implicit's ALS, tuned on a validation slice.

``REFERENCES`` is the table of choices. A reference is tuned once on (fit, held out) and then builds a model of any
interactions; what it builds is searched and judged as every other model is.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import linalg

from hashlgn.data import Interactions
from hashlgn.errors import DataError, choose, need
from hashlgn.evaluation.full_ranking import evaluate
from hashlgn.inference.model import ServedModel
from hashlgn.inference.recommender import Recommender
from hashlgn.scoring.decoders import Floats
from hashlgn.scoring.items import FloatItems

__all__ = ["REFERENCES", "Reference", "Tuned", "tuned"]

_LARGEST = 8 * 2**30  # bytes of EASE's dense matrices

Built = tuple[Floats, Floats]  # queries (n_users, width), items (n_items, width): the score is their inner product


@dataclass(frozen=True)
class Reference:
    """How a reference is computed, and the settings to choose from.

    Attributes:
        build: ``(data, settings, seed, threads)`` → queries and items.
        grid: settings, of which the best on validation is taken.
    """

    build: Callable[[Interactions, Mapping[str, Any], int, int | None], Built]
    grid: Sequence[Mapping[str, Any]] = ({},)


@dataclass(frozen=True)
class Tuned:
    """A reference with its settings chosen.

    Attributes:
        name: key of ``REFERENCES``.
        settings: the chosen ones.
        values: the validation metric of every setting of the grid, in its order; empty where there is no choice.
        seed: fixes every draw.
        threads: processor threads; all where None.
    """

    name: str
    settings: Mapping[str, Any]
    values: tuple[float, ...]
    seed: int = 0
    threads: int | None = None

    def build(self, data: Interactions) -> ServedModel:
        """The reference computed from interactions, as a model that is served."""
        return _served(self.name, self.settings, data, self.seed, self.threads)


def tuned(
    name: str, fit: Interactions, held_out: Interactions, *, k: int = 50, seed: int = 0, threads: int | None = None
) -> Tuned:
    """Choose a reference's settings by Recall@k of the held-out interactions.

    Args:
        name: a key of ``REFERENCES``.
        fit: what it is computed from while its settings are chosen.
        held_out: what decides, over the same catalogues.
        k: cut of the recall.
        seed: fixes every draw.
        threads: processor threads; all where None.

    Raises:
        ArgumentError: an unknown name.
        DataError: nothing is held out, or a dense model would not fit in memory.
        MissingExtraError: a package of the extra ``references`` is not installed.
    """
    grid = choose("reference", name, REFERENCES).grid
    if len(grid) == 1:
        return Tuned(name, grid[0], (), seed, threads)
    values = []
    for settings in grid:
        model = Recommender(_served(name, settings, fit, seed, threads), threads=threads)
        values.append(evaluate(model, held_out, k, metrics=("recall",)).cuts[0].mean("recall"))
    return Tuned(name, grid[int(np.argmax(values))], tuple(values), seed, threads)


def _served(name: str, settings: Mapping[str, Any], data: Interactions, seed: int, threads: int | None) -> ServedModel:
    users, items = REFERENCES[name].build(data, settings, seed, threads)
    return ServedModel(
        kind=name,
        config=dict(settings),
        user_ids=data.user_ids,
        item_ids=data.item_ids,
        users=np.ascontiguousarray(users, np.float32),
        items=FloatItems(np.ascontiguousarray(items, np.float32)),
        seen=(data.indptr, data.indices),
    )


def _popularity(data: Interactions, settings: Mapping[str, Any], seed: int, threads: int | None) -> Built:
    """The share of all interactions that is the item's, for everybody alike."""
    counts = np.bincount(data.indices, minlength=data.n_items)
    return np.ones((data.n_users, 1), np.float32), (counts / max(len(data), 1)).astype(np.float32)[:, None]


def _ease(data: Interactions, settings: Mapping[str, Any], seed: int, threads: int | None) -> Built:
    """``B = I − P diag(1 / diag P)`` with ``P = (XᵀX + λI)⁻¹``: least squares of X by XB with a zero diagonal.

    The query is the user's row of X, and item i the column ``B[:, i]``. Source: Steck, *Embarrassingly shallow
    autoencoders for sparse data*, WWW 2019.
    """
    n = data.n_items
    size = 4 * n * (data.n_users + 4 * n)
    if size > _LARGEST:
        raise DataError(f"EASE holds dense matrices of at most {_LARGEST:,} bytes (these would be {size:,})")
    x = data.matrix.astype(np.float64)
    gram = np.asarray((x.T @ x).todense())
    gram[np.diag_indices(n)] += settings["regularisation"]
    # Half of the symmetric inverse, by Cholesky; the other half is mirrored.
    inverse = linalg.lapack.dpotri(linalg.cholesky(gram, overwrite_a=True, check_finite=False))[0]
    inverse = np.triu(inverse) + np.triu(inverse, 1).T
    weights = -inverse / np.diag(inverse)
    weights[np.diag_indices(n)] = 0
    return np.asarray(x.astype(np.float32).todense()), weights.T.astype(np.float32)


def _als(data: Interactions, settings: Mapping[str, Any], seed: int, threads: int | None) -> Built:
    """Alternating least squares on confidences ``1 + α``. Source: Hu, Koren, Volinsky, *Collaborative filtering for
    implicit feedback datasets*, ICDM 2008, as the package ``implicit`` computes it.
    """
    need("implicit", "references", "the reference ALS")
    from implicit.cpu.als import AlternatingLeastSquares

    with warnings.catch_warnings():
        # It warns of slow threads where OpenBLAS has its own too: that matters for times alone, and these are seconds.
        warnings.simplefilter("ignore", RuntimeWarning)
        model = AlternatingLeastSquares(**settings, random_state=seed, num_threads=threads or 0)
    model.fit(data.matrix.astype(np.float32), show_progress=False)
    return model.user_factors, model.item_factors


REFERENCES: dict[str, Reference] = {
    "popularity": Reference(_popularity),
    "ease": Reference(_ease, tuple({"regularisation": value} for value in (100.0, 300.0, 1000.0))),
    "als": Reference(
        _als,
        tuple(
            {"factors": 64, "regularization": regularisation, "alpha": alpha, "iterations": 15}
            for regularisation in (0.01, 10.0)
            for alpha in (1.0, 5.0, 20.0)
        ),
    ),
}
