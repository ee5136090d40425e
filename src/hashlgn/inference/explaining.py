"""Why an item was recommended: the share of its score that each item of the history has.

A score is linear in the vectors of the history before these are normalised:

    q_u · o = Σ_{i∈H_u} a_ui (p_i · o) / ‖v_u‖,      v_u = Σ_{i∈H_u} a_ui p_i

so the summands are exact shares: they add up to the score, but for the rounding of the query and the score to float32.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hashlgn.errors import ArgumentError
from hashlgn.inference.model import ServedModel
from hashlgn.scoring.decoders import Floats
from hashlgn.scoring.fold_in import FoldIn

__all__ = ["explainable", "shares"]

Ints = npt.NDArray[np.int64]


def explainable(model: ServedModel) -> bool:
    """Whether scores of a model are sums over a history: not where an encoder with layers folds histories in."""
    return model.histories is not None and not isinstance(model.histories, FoldIn)


def shares(model: ServedModel, history: Ints, strengths: Floats | None, items: Ints) -> npt.NDArray[np.float64]:
    """The share of each item of a history in the score of each item that is answered.

    Args:
        model: a model whose users are histories.
        history: item numbers ``(h,)``, each once.
        strengths: ``a_ui``, ``(h,)``; 1 where None.
        items: item numbers ``(n,)``.

    Returns:
        ``(n, h)`` float64; each row adds up to the score.

    Raises:
        ArgumentError: the model's scores are no sums over histories, or the history is malformed.
    """
    if model.histories is None or isinstance(model.histories, FoldIn):
        raise ArgumentError("explain needs a model whose scores are sums over a history (this one's are not)")
    parts = model.histories.vectors(np.arange(len(history) + 1), history, strengths)
    length = float(np.linalg.norm(parts.sum(axis=0)))
    answers = model.items.take(items).decode().astype(np.float64)
    found: npt.NDArray[np.float64] = answers @ parts.T / (length or 1.0)
    return found
