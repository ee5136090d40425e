"""Recommenders of others as served models: popularity, EASE, SLIM and implicit's ALS, tuned on a validation slice.

``RECOMMENDERS`` is the table of choices. A baseline is tuned once on (fit, held out) and then builds a model of any
interactions; what it builds is searched and evaluated as every other model is. The budget of tuning is stated: one
model for each entry of the baseline's ``grid``.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import linalg, sparse
from scipy.sparse.linalg import eigsh

from hashlgn.data import Interactions
from hashlgn.errors import DataError, choose, need
from hashlgn.evaluation.full_ranking import evaluate
from hashlgn.inference.model import ServedModel
from hashlgn.inference.recommender import Recommender
from hashlgn.inference.stored import Stored
from hashlgn.scoring.decoders import Floats
from hashlgn.scoring.items import FloatItems

_LARGEST = 8 * 2**30  # bytes of the dense matrices of EASE and SLIM
_ROUNDS, _TOLERANCE = 200, 1e-4  # of SLIM's alternating directions
_RELAXED = 1.6  # a step goes so far towards the new solution: fewer rounds

Doubles = npt.NDArray[np.float64]
Factors = tuple[Floats, Floats]  # queries (n_users, width), items (n_items, width): the score is their inner product


@dataclass(frozen=True)
class Baseline:
    """How a baseline is computed, and the settings to choose from."""

    build: Callable[[Interactions, Mapping[str, Any], int, int | None], Factors]  # data, settings, seed, threads
    fold_in: Callable[[Interactions, Floats, Mapping[str, Any]], Floats]  # histories of new users, items, settings
    grid: Sequence[Mapping[str, Any]] = ({},)  # settings, of which the best on validation is taken


@dataclass(frozen=True)
class Tuned:
    """A baseline with its settings chosen."""

    name: str  # key of ``RECOMMENDERS``
    settings: Mapping[str, Any]
    values: tuple[float, ...] = ()  # the validation metric of every setting of the grid, where there is a choice
    seed: int = 0
    threads: int | None = None

    def build(self, data: Interactions, given: Interactions | None = None) -> ServedModel:
        """The baseline computed from interactions, as a model that is served.

        Args:
            data: what it is computed from.
            given: histories of users who are not in it, over the same catalogues: who is answered then. Default: the
                users of ``data``.
        """
        baseline = RECOMMENDERS[self.name]
        users, items = baseline.build(data, self.settings, self.seed, self.threads)
        if given is not None:
            users = baseline.fold_in(given, items, self.settings)
        answered = data if given is None else given
        return ServedModel(
            kind=self.name,
            config=dict(self.settings),
            user_ids=answered.user_ids,
            item_ids=data.item_ids,
            users=np.ascontiguousarray(users, np.float32),
            items=FloatItems(np.ascontiguousarray(items, np.float32)),
            stored=Stored.of(answered.indptr, answered.indices),
        )


def tuned(
    name: str, fit: Interactions, held_out: Interactions, *, k: int = 50, seed: int = 0, threads: int | None = None
) -> Tuned:
    """Choose a baseline's settings by Recall@k of the held-out interactions, which have the catalogues of ``fit``.

    Raises:
        ArgumentError: an unknown name.
        DataError: nothing is held out, or a dense model would not fit in memory.
        MissingExtraError: a package of the extra ``references`` is not installed.
    """
    grid = choose("baseline", name, RECOMMENDERS).grid
    if len(grid) == 1:
        return Tuned(name, grid[0], (), seed, threads)
    values = []
    for settings in grid:
        model = Recommender(Tuned(name, settings, (), seed, threads).build(fit), threads=threads)
        values.append(evaluate(model, held_out, k, metrics=("recall",)).cutoffs[0].mean("recall"))
    return Tuned(name, grid[int(np.argmax(values))], tuple(values), seed, threads)


def _popularity(data: Interactions, settings: Mapping[str, Any], seed: int, threads: int | None) -> Factors:
    """The share of all interactions that is the item's, for everybody alike."""
    counts = np.bincount(data.indices, minlength=data.n_items)
    return np.ones((data.n_users, 1), np.float32), (counts / max(len(data), 1)).astype(np.float32)[:, None]


def _ease(data: Interactions, settings: Mapping[str, Any], seed: int, threads: int | None) -> Factors:
    """``B = I − P diag(1 / diag P)`` with ``P = (Xᵀ W X + λI)⁻¹``, ``W = diag(d_u^user_weight)``, d_u the number of
    items of user u: weighted least squares of X by XB with a zero diagonal.

    The query is the user's row of X, and item i the column ``B[:, i]``. ``user_weight`` 0 is the published form; −0.5
    keeps a few heavy users from deciding everything. Source: Steck, *Embarrassingly shallow autoencoders for sparse
    data*, WWW 2019.
    """
    inverse = _inverse(_gram(data, settings["user_weight"]), settings["regularization"])
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    return _rows(data), weights.T.astype(np.float32)


def _slim(data: Interactions, settings: Mapping[str, Any], seed: int, threads: int | None) -> Factors:
    """``min_B ½ ‖X − XB‖² + l2/2 ‖B‖² + l1 ‖B‖₁`` with ``B ≥ 0`` and a zero diagonal: sparse item-item weights.

    Solved for all items at once by the alternating direction method of multipliers, over-relaxed; B is the constrained
    copy, so that its zeros are zeros. Sources: Ning and Karypis, *SLIM*, ICDM 2011; Steck, Dimakopoulou, Riabov,
    Jebara, *ADMM SLIM*, WSDM 2020; for the relaxation Boyd et al., *Distributed optimization and statistical learning
    via the alternating direction method of multipliers*, 2011.
    """
    gram, l1, l2 = _gram(data), settings["l1"], settings["l2"]
    # The penalty of the split changes the number of rounds alone: the root of least times largest curvature takes few.
    largest = float(eigsh(gram, 1, v0=np.ones(len(gram)), return_eigenvectors=False)[0])
    rho = float(np.sqrt(l2 * (l2 + largest)))
    exact = _inverse(gram, l2 + rho)
    start, diagonal, inverse = (part.astype(np.float32) for part in (exact @ gram, np.diag(exact), exact))
    del exact, gram
    sparse_copy, dual = np.zeros_like(start), np.zeros_like(start)
    for _ in range(_ROUNDS):
        dense = start + inverse @ (rho * sparse_copy - dual)
        dense -= inverse * (np.diag(dense) / diagonal)
        relaxed = _RELAXED * dense + (1 - _RELAXED) * sparse_copy
        before, sparse_copy = sparse_copy, np.maximum(relaxed + (dual - l1) / rho, 0)
        np.fill_diagonal(sparse_copy, 0)
        dual += rho * (relaxed - sparse_copy)
        scale = _TOLERANCE * max(float(np.linalg.norm(sparse_copy)), 1e-12)
        if max(np.linalg.norm(relaxed - sparse_copy), np.linalg.norm(sparse_copy - before)) < scale:
            break
    return _rows(data), sparse_copy.T


def _als(data: Interactions, settings: Mapping[str, Any], seed: int, threads: int | None) -> Factors:
    """Alternating least squares with weight ``alpha`` on what a user has and 1 on all else.

    ``1 / alpha`` is the weight of the unobserved, relative to the observed. The package's regularization is the same
    for all users and items; it offers none that grows with their interactions. Source: Hu, Koren, Volinsky,
    *Collaborative filtering for implicit feedback datasets*, ICDM 2008, as the package ``implicit`` computes it.
    """
    need("implicit", "references", "the baseline ALS")
    from implicit.cpu.als import AlternatingLeastSquares

    with warnings.catch_warnings():
        # It warns of slow threads where OpenBLAS has its own too: that matters for times alone, and these are seconds.
        warnings.simplefilter("ignore", RuntimeWarning)
        model = AlternatingLeastSquares(**settings, random_state=seed, num_threads=threads or 0)
    model.fit(data.matrix.astype(np.float32), show_progress=False)
    return model.user_factors, model.item_factors


def _als_fold_in(given: Interactions, items: Floats, settings: Mapping[str, Any]) -> Floats:
    """``q_u = (YᵀY + (α − 1) Y_HᵀY_H + λI)⁻¹ α Σ_{i∈H} y_i``: one more least squares, items as they are.

    Source: as ``_als``.
    """
    y = items.astype(np.float64)
    gram = y.T @ y + settings["regularization"] * np.eye(y.shape[1])
    queries = np.zeros((given.n_users, y.shape[1]))
    for user in np.flatnonzero(np.diff(given.indptr)).tolist():
        own = y[given.row(user)]
        system = gram + (settings["alpha"] - 1) * own.T @ own
        queries[user] = linalg.solve(system, settings["alpha"] * own.sum(axis=0), assume_a="pos")
    return queries.astype(np.float32)


def _gram(data: Interactions, user_weight: float = 0.0) -> Doubles:
    """``Xᵀ diag(d_u^user_weight) X``, dense.

    Raises:
        DataError: it and what is computed from it would not fit in memory.
    """
    size = 4 * data.n_items * (data.n_users + 12 * data.n_items)
    if size > _LARGEST:
        raise DataError(f"EASE and SLIM hold dense matrices of at most {_LARGEST:,} bytes (these would be {size:,})")
    x = data.matrix.astype(np.float64)
    weights = np.maximum(np.diff(data.indptr), 1).astype(np.float64) ** user_weight
    return np.asarray((x.T @ sparse.diags_array(weights) @ x).todense())


def _inverse(gram: Doubles, regularization: float) -> Doubles:
    """``(G + λI)⁻¹``: half of it by Cholesky, and the other half mirrored."""
    shifted = gram.copy()
    shifted[np.diag_indices_from(shifted)] += regularization
    half = linalg.lapack.dpotri(linalg.cholesky(shifted, overwrite_a=True, check_finite=False))[0]
    return np.asarray(np.triu(half) + np.triu(half, 1).T)


def _rows(data: Interactions) -> Floats:
    return np.asarray(data.matrix.astype(np.float32).todense())


def _own_rows(given: Interactions, items: Floats, settings: Mapping[str, Any]) -> Floats:
    """A linear model asks with the user's row, whoever it is."""
    return _rows(given)


# The settings of each: their number is the budget of tuning.
RECOMMENDERS: dict[str, Baseline] = {
    "popularity": Baseline(_popularity, lambda given, items, settings: np.ones((given.n_users, 1), np.float32)),
    "ease": Baseline(
        _ease,
        _own_rows,
        (
            *({"user_weight": 0.0, "regularization": value} for value in (100.0, 300.0, 1000.0)),
            *({"user_weight": -0.5, "regularization": value} for value in (10.0, 25.0, 50.0, 100.0, 200.0)),
        ),
    ),
    "slim": Baseline(
        _slim, _own_rows, tuple({"l1": l1, "l2": l2} for l1, l2 in product((0.5, 2.0), (100.0, 300.0, 1000.0)))
    ),
    "als": Baseline(
        _als,
        _als_fold_in,
        tuple(
            {"factors": factors, "regularization": regularization, "alpha": alpha, "iterations": 15}
            for factors, regularization, alpha in product((64, 128), (0.1, 1.0, 10.0), (2.0, 5.0, 20.0))
        ),
    ),
}
