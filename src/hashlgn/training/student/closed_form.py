"""A student in closed form: the linear graph filter, for catalogues that are too large for EASE."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from hashlgn.data import Interactions
from hashlgn.training.graph import Graph
from hashlgn.training.student.forms import Vectors
from hashlgn.training.student.teachers import FloatStudent
from hashlgn.training.student.validation import Validation
from hashlgn.training.validation import near_best

__all__ = ["closed_form"]

_POWERS = (2.0, 1.0, 0.5, 0.0)
_DIMS = (256, 512, 1024)
_FLOATS = 2**27  # the widest vectors stay within half a gigabyte


def closed_form(
    data: Interactions, validation: Validation, seed: int, device: torch.device
) -> tuple[FloatStudent, float, str]:
    """``p = D_i^-1/2 V σ^-1`` and ``o = D_i^1/2 V σ^(power + 1)`` for the top singular vectors V and values σ of
    ``D_u^-1/2 R D_i^-1/2``: users are left singular vectors, and the score is the filter ``h(σ) = σ^power``.

    Of the widths and powers that validate within one standard error of the best, it is the narrowest, then the filter
    that falls the most: a random slice is closer to what was fitted than what people do next.

    Returns:
        The student, its validation metric, and what it is.

    Source: Shen et al., *How Powerful is Graph Convolution for Recommendation?*, CIKM 2021.
    """
    largest = min(min(data.n_users, data.n_items) // 4, _FLOATS // (data.n_users + data.n_items))
    widths = sorted({max(1, min(dim, largest)) for dim in _DIMS})
    values, vectors = Graph(data).singular_vectors(widths[-1], seed)
    sigma = torch.from_numpy(values / values[0]).to(device)
    v = torch.from_numpy(vectors).to(device)
    root = torch.bincount(torch.from_numpy(data.indices), minlength=data.n_items).clamp(min=1).float().sqrt().to(device)

    def student(dim: int, power: float) -> FloatStudent:
        inverse = torch.where(sigma[:dim] > 1e-4, 1 / sigma[:dim], 0.0)
        p: Tensor = v[:, :dim] * inverse / root[:, None]
        o: Tensor = v[:, :dim] * sigma[:dim] ** (power + 1) * root[:, None]
        return FloatStudent(Vectors(p), Vectors(o), 1.0)

    ways = [(dim, power) for dim in widths for power in _POWERS]  # simplest first
    found = np.stack([validation.values(student(*way)) for way in ways])
    best = int(near_best(found)[0])
    dim, power = ways[best]
    return student(dim, power), float(found[best].mean()), f"filter of {dim} vectors, power {power:g}"
