"""What the vectors of a student start from."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from hashlgn.data import Interactions
from hashlgn.training.graph import Graph

__all__ = ["Spectrum", "singular_vectors", "start_vectors"]

Spectrum = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]  # singular values, and right vectors as columns

_INTERACTIONS = 2_000_000  # of a sample of users, from which the singular vectors come


def singular_vectors(data: Interactions, dim: int, seed: int) -> Spectrum:
    """The leading singular values of ``D_u^-1/2 R D_i^-1/2`` and their right vectors, ``(n_items, ≤ dim)``: as many as
    there are. Of large data a sample of users decides.
    """
    share = min(1.0, _INTERACTIONS / len(data))
    if share < 1:
        chosen = np.random.default_rng(seed).random(data.n_users) < share
        data = data.select(np.repeat(chosen, np.diff(data.indptr)))
    known = min(dim, data.n_users - 1, data.n_items - 1)
    return Graph(data).singular_vectors(known, seed)


def start_vectors(vectors: npt.NDArray[np.float32], dim: int, seed: int) -> Tensor:
    """Rows of unit length of the leading singular vectors, ``(n_items, dim)``. Where there are fewer, and for items
    without any users, the rest is random and small.
    """
    start = 0.01 / dim**0.5 * np.random.default_rng(seed).standard_normal((len(vectors), dim), dtype=np.float32)
    known = min(dim, vectors.shape[1])
    start[:, :known] += vectors[:, :known]
    return nn.functional.normalize(torch.from_numpy(start))
