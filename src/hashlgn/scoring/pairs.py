"""Scores of single (query, item) pairs: the numbers that every engine gives, without a scan."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hashlgn.scoring.codes import unpack_subcodes
from hashlgn.scoring.decoders import Floats
from hashlgn.scoring.items import CodedItems, FloatItems, Items, rounded
from hashlgn.scoring.products import chosen_products

__all__ = ["pair_scores"]

_CHUNK = 1 << 14  # pairs at a time


def pair_scores(items: Items, queries: Floats, rows: npt.NDArray[np.int64], numbers: npt.NDArray[np.int64]) -> Floats:
    """The score of query ``rows[j]`` for item ``numbers[j]``, for every j.

    Args:
        items: the catalogue.
        queries: ``(q, width)`` float32.
        rows: query of each pair, ``(p,)``.
        numbers: item of each pair, ``(p,)``.

    Returns:
        ``(p,)`` float32: of codes the float64 sum over the float32 table times the scale, of floats the ordered product
        in float64, each rounded once.
    """
    scores = np.empty(len(rows), np.float32)
    tables = items.decoder.tables(queries) if isinstance(items, CodedItems) else None
    for start in range(0, len(rows), _CHUNK):
        part = slice(start, start + _CHUNK)
        row, item = rows[part], numbers[part]
        if isinstance(items, FloatItems):
            scores[part] = rounded(chosen_products(queries[row], items.vectors, item[:, None])[:, 0])
        elif tables is not None:
            taken = items.take(item)
            subcodes, total = unpack_subcodes(taken.packed), np.zeros(len(row), np.float64)
            for m in range(subcodes.shape[1]):
                total += tables[row, m, subcodes[:, m]]
            scores[part] = rounded(total, taken.scale)
    return scores
