"""The spectral encoder: a low-pass filter of the user-item graph, in closed form. Nothing is trained."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hashlgn.config import ModelConfig
from hashlgn.errors import ArgumentError
from hashlgn.training.graph import Graph

__all__ = ["Spectral"]


class Spectral(nn.Module):
    """Users ``S V σ^-1``, items ``D_i^1/2 V σ^(power + 1)`` for the top singular vectors V and values σ of S =
    D_u^-1/2 R D_i^-1/2.

    The inner product of the two is the linear filter ``D_u^-1/2 R D_i^-1/2 V h(σ) Vᵀ D_i^1/2`` of GF-CF (Shen et
    al., *How Powerful is Graph Convolution for Recommendation?*, CIKM 2021) with ``h(σ) = σ^power``; the factor
    ``D_u^-1/2`` changes no user's ranking. The factor σ stands with the items: users are then the left singular
    vectors, with orthonormal columns, and the distance between an item and its code is the error of its scores.

    Args:
        vectors: V, ``(n_items, dim)``.
        values: σ, ``(dim,)``, scaled so that the largest is 1.
        power: exponent of the filter; 0 is the ideal low-pass filter.
    """

    def __init__(self, vectors: Tensor, values: Tensor, power: float = 0.0) -> None:
        super().__init__()
        if not 0 <= power <= 8:
            raise ArgumentError(f"power must lie in 0 … 8 (got {power!r})")
        self.dim, self.power = vectors.shape[1], float(power)
        self.vectors: Tensor
        self.values: Tensor
        self.register_buffer("vectors", vectors)
        self.register_buffer("values", values)

    @classmethod
    def create(cls, graph: Graph, config: ModelConfig, seed: int = 0) -> Spectral:
        """The encoder of this graph; a power below 0 counts as 0."""
        values, vectors = graph.singular_vectors(config.dim, seed)
        return cls(torch.from_numpy(vectors), torch.from_numpy(values / values[0]), max(config.power, 0.0))

    def cut(self, dim: int, power: float) -> Spectral:
        """The same encoder with the first ``dim`` vectors alone, and another filter."""
        return Spectral(self.vectors[:, :dim].contiguous(), self.values[:dim], power)

    def forward(self, graph: Graph) -> tuple[Tensor, Tensor]:
        """Embeddings of users ``(n_users, dim)`` and items ``(n_items, dim)``."""
        users, _ = graph.propagate(self.vectors.new_zeros(graph.n_users, self.dim), self.vectors)
        degree = torch.from_numpy(graph.item_degree).to(self.vectors)
        return users * self._inverse(), degree.sqrt()[:, None] * self.vectors * self.values ** (self.power + 1)

    def fold_in(self, graph: Graph) -> Tensor:
        """``p_i = d_i^-1/2 V_i σ^-1``, ``(n_items, dim)``."""
        degree = torch.from_numpy(graph.item_degree).to(self.vectors).clamp(min=1)
        return self.vectors * self._inverse() / degree.sqrt()[:, None]

    def _inverse(self) -> Tensor:
        """``σ^-1``, and 0 for vectors without any user."""
        return torch.where(self.values > 1e-4, 1 / self.values, 0.0)
