"""How much each interaction counts in its user's history: ``a_ui``."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from hashlgn.data.arrays import Int64s
from hashlgn.data.interactions import Interactions
from hashlgn.errors import ArgumentError, choose

__all__ = ["decayed", "faded", "strengths_of"]


def decayed(indptr: Int64s, times: Int64s, half_life: float) -> npt.NDArray[np.float32]:
    """Strengths of all entries of histories in compressed-row form, by their age: see ``faded``.

    Args:
        indptr: bounds of the histories.
        times: of the entries; ages count from the newest of a history.
        half_life: in the unit of the times.
    """
    filled = np.flatnonzero(np.diff(indptr))
    newest = np.maximum.reduceat(times, indptr[filled]) if len(filled) else times
    return faded(np.repeat(newest, np.diff(indptr)[filled]) - times, half_life)


def faded(ages: npt.NDArray[Any], half_life: float) -> npt.NDArray[np.float32]:
    """``2^(−age / half_life)``, at least 1e-6: an interaction from long ago still counts a little."""
    return np.maximum(np.exp2(-ages / half_life), 1e-6).astype(np.float32)


def strengths_of(data: Interactions, rule: str, half_life: float | None = None) -> npt.NDArray[np.float32] | None:
    """Strengths of all interactions, aligned with ``data.indices``, positive; None means 1 for each.

    Args:
        data: the interactions.
        rule: ``one``; ``weight``: the interaction's own; or ``decay``: ``2^(−age / half_life)``, with the age counted
            from the user's newest interaction: a strength does not change while the user is away.
        half_life: in the unit of the data's times.

    Raises:
        ArgumentError: the rule is unknown, or the data lacks what it needs.
    """
    choose("model.strength", rule, dict.fromkeys(("one", "weight", "decay")))
    if rule == "one":
        return None
    if rule == "weight":
        if data.weights is None:
            raise ArgumentError("model.strength 'weight' needs interactions with weights (these have none)")
        return data.weights
    if data.times is None or half_life is None:
        raise ArgumentError(
            "model.strength 'decay' needs interactions with times, and model.half_life (one of them is None)"
        )
    return decayed(data.indptr, data.times, half_life)
