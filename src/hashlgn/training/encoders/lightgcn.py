"""LightGCN: linear propagation of free embeddings over the user-item graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

import torch
from torch import Tensor

from hashlgn.config import ModelConfig
from hashlgn.errors import ArgumentError, positive_int
from hashlgn.training.encoders.base import FreeEmbeddings
from hashlgn.training.graph import Graph

__all__ = ["LightGCN"]


class LightGCN(FreeEmbeddings):
    """``E^(k+1) = D^-1/2 A D^-1/2 E^(k)``, ``E = Σ_k α_k E^(k)``, and only ``E^(0)`` is trained.

    Source: He, Deng, Wang, Li, Zhang, Wang: *LightGCN: Simplifying and Powering Graph Convolution Network for
    Recommendation*, SIGIR 2020, equations 3, 4 and 8.

    Args beside those of ``FreeEmbeddings``, where 0 layers are matrix factorization:
        weights: ``α_0 … α_K``, at least 0 each; ``1 / (K + 1)`` each where None.

    Raises:
        ArgumentError: there are not K + 1 weights.
    """

    has_layer_weights: ClassVar[bool] = True

    def __init__(
        self, n_users: int, n_items: int, dim: int = 64, layers: int = 3, weights: Sequence[float] | None = None
    ) -> None:
        super().__init__(n_users, n_items, dim, layers)
        if weights is not None and len(weights) != layers + 1:
            raise ArgumentError(f"weights must be {layers + 1}, one for each layer and E^(0) (got {len(weights)})")
        # α_k = weights_k / divisor
        self.weights, self.divisor = ((1.0,) * (layers + 1), layers + 1) if weights is None else (tuple(weights), 1)

    @classmethod
    def create(cls, graph: Graph, config: ModelConfig, seed: int = 0) -> Self:
        """An encoder for this graph, its parameters drawn by PyTorch's generator."""
        dim = positive_int("dim", config.dim)
        return cls(graph.n_users, graph.n_items, dim, config.layers, config.layer_weights)

    def forward(self, graph: Graph) -> tuple[Tensor, Tensor]:
        """Embeddings of users ``(n_users, dim)`` and items ``(n_items, dim)``."""
        users: Tensor = self.users
        items: Tensor = self.items
        user_sum, item_sum = _times(users, self.weights[0]), _times(items, self.weights[0])
        for weight in self.weights[1:]:
            users, items = graph.propagate(users, items)
            user_sum, item_sum = user_sum + _times(users, weight), item_sum + _times(items, weight)
        return user_sum / self.divisor, item_sum / self.divisor

    def fold_in(self, graph: Graph) -> Tensor:
        """``p_i = d_i^-1/2 Σ_{k<K} α_{k+1} e_i^(k)``: what item i sends along one edge over all layers, ``(n_items,
        dim)``. With K = 0 nothing is sent, and ``p_i = d_i^-1/2 α_0 e_i^(0)`` stands in for it.
        """
        users: Tensor = self.users
        items: Tensor = self.items
        total = torch.zeros_like(items)
        for layer, weight in enumerate(self.weights[1:] or self.weights):
            if layer:
                users, items = graph.propagate(users, items)
            total = total + _times(items, weight)
        degree = torch.from_numpy(graph.item_degree).to(items).clamp(min=1)
        return total / degree.sqrt()[:, None] / self.divisor


def _times(x: Tensor, weight: float) -> Tensor:
    return x if weight == 1 else weight * x  # no copy of all embeddings in the usual case
