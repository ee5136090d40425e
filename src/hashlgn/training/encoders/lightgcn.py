"""LightGCN: linear propagation of free embeddings over the user-item graph."""

from __future__ import annotations

import torch
from torch import Tensor

from hashlgn.training.encoders.base import FreeEmbeddings
from hashlgn.training.graph import Graph

__all__ = ["LightGCN"]


class LightGCN(FreeEmbeddings):
    """``E^(k+1) = D^-1/2 A D^-1/2 E^(k)``, ``E = Σ_k E^(k) / (K + 1)``, and only ``E^(0)`` is trained.

    Source: He, Deng, Wang, Li, Zhang, Wang: *LightGCN: Simplifying and Powering Graph Convolution Network for
    Recommendation*, SIGIR 2020, equations 3, 4 and 8.

    Args:
        n_users: number of users.
        n_items: number of items.
        dim: length of an embedding.
        layers: K, the number of propagation steps; 0 is matrix factorisation.
    """

    def __init__(self, n_users: int, n_items: int, dim: int = 64, layers: int = 3) -> None:
        super().__init__(n_users, n_items, dim, layers)

    def forward(self, graph: Graph) -> tuple[Tensor, Tensor]:
        """Embeddings of users ``(n_users, dim)`` and items ``(n_items, dim)``."""
        users: Tensor = self.users
        items: Tensor = self.items
        user_sum, item_sum = users, items
        for _ in range(self.layers):
            users, items = graph.propagate(users, items)
            user_sum, item_sum = user_sum + users, item_sum + items
        return user_sum / (self.layers + 1), item_sum / (self.layers + 1)

    def fold_in(self, graph: Graph) -> Tensor:
        """``p_i = d_i^-1/2 Σ_{k<K} e_i^(k) / (K + 1)``: what item i sends along one edge over all layers,
        ``(n_items, dim)``. With K = 0 nothing is sent, and ``p_i = d_i^-1/2 e_i^(0)`` stands in for it.
        """
        users: Tensor = self.users
        items: Tensor = self.items
        total = torch.zeros_like(items)
        for layer in range(max(self.layers, 1)):
            total = total + items
            if layer + 1 < self.layers:
                users, items = graph.propagate(users, items)
        degree = torch.from_numpy(graph.item_degree).to(items).clamp(min=1)
        return total / degree.sqrt()[:, None] / (self.layers + 1)
