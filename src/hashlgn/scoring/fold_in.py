"""Fold-in: queries for users who were not in training, from their history alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hashlgn.scoring.decoders import Floats
from hashlgn.scoring.histories import sorted_rows
from hashlgn.scoring.products import norms, ordered_product, weighted_sums

__all__ = ["FoldIn"]

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class FoldIn:
    """Queries for users who were not in training, from their history alone, by the encoder's own propagation rule.

    A user with history H and no embedding of their own has ``q = |H|^-1/2 Σ_{i∈H} p_i``, where ``p_i`` gathers what
    item i sends along an edge in every layer. Compression ``f`` follows: affine layers with ReLU between them.

    Attributes:
        item_vectors: ``p``, ``(n_items, dim)``.
        layers: weights ``(out, in)`` and biases ``(out,)`` of ``f``; empty for the identity.
        normalise: whether queries are divided by their lengths, ``q`` before ``f`` and ``f(q)`` after it, as under the
            cosine.
        signs: whether queries are cut to ±1 in the end, as of a model that is binary on both sides.
    """

    item_vectors: npt.NDArray[np.floating]
    layers: tuple[tuple[Floats, Floats], ...] = ()
    normalise: bool = True
    signs: bool = False

    def queries(self, indptr: Ints, indices: npt.NDArray[np.integer]) -> Floats:
        """Queries for histories in compressed-row form: ``indptr (q + 1,)``, ``indices`` → ``(q, width)``.

        Sums run in float64 over ascending item numbers: neither the order of a history nor the batch changes a bit.

        Raises:
            ArgumentError: the arrays do not fit, or an item is not in the catalogue or twice in a history.
        """
        bounds, items, ones = sorted_rows(indptr, indices, None, len(self.item_vectors))
        gathered = self.item_vectors[items].astype(np.float32)
        sums = weighted_sums(bounds, np.arange(len(items)), ones, gathered)
        counts = np.maximum(np.diff(bounds), 1)
        return self.compress((sums / np.sqrt(counts[:, None])).astype(np.float32))

    def compress(self, q: Floats) -> Floats:
        """Apply normalisation, ``f`` and signs: ``(n, dim)`` → ``(n, width)``."""
        q = _unit(q) if self.normalise else q
        for depth, (weight, bias) in enumerate(self.layers):
            q = (ordered_product(np.maximum(q, 0) if depth else q, weight.T) + bias).astype(np.float32)
        if self.signs:
            return np.where(q >= 0, 1.0, -1.0).astype(np.float32)
        return np.ascontiguousarray(_unit(q) if self.normalise else q, np.float32)


def _unit(q: Floats) -> Floats:
    return (q / np.maximum(norms(q), 1e-12)[:, None]).astype(np.float32)
