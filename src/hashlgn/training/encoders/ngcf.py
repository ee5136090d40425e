"""NGCF: messages that grow with how alike the two ends of an edge are."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hashlgn.training.encoders.base import FreeEmbeddings
from hashlgn.training.graph import Graph

__all__ = ["NGCF"]

_SLOPE = 0.2  # of LeakyReLU below 0; TensorFlow's default, which the authors' code has


class NGCF(FreeEmbeddings):
    """``e_u' = LeakyReLU(W_1 e_u + Σ_{i∈H_u} (d_u d_i)^-1/2 (W_1 e_i + W_2 (e_i ⊙ e_u)))``, for items alike, and the
    embedding is the concatenation of ``e^(0) … e^(K)``.

    Source: Wang, He, Wang, Feng, Chua: *Neural Graph Collaborative Filtering*, SIGIR 2019, equations 3 to 9. Without
    its dropout of messages and nodes; the authors' code also divides each layer's output by its length, the paper does
    not.
    """

    def __init__(self, n_users: int, n_items: int, dim: int = 64, layers: int = 3) -> None:
        super().__init__(n_users, n_items, dim, layers, concatenated=True)
        widths = [self.width if layer else self.users.shape[1] for layer in range(layers)]
        self.first = nn.ModuleList(nn.Linear(before, self.width, bias=False) for before in widths)  # W_1
        self.second = nn.ModuleList(nn.Linear(before, self.width, bias=False) for before in widths)  # W_2
        for layer in (*self.first, *self.second):
            nn.init.xavier_uniform_(layer.weight)

    def forward(self, graph: Graph) -> tuple[Tensor, Tensor]:
        """Embeddings of users ``(n_users, dim)`` and items ``(n_items, dim)``."""
        users: Tensor = self.users
        items: Tensor = self.items
        parts = [(users, items)]
        for first, second in zip(self.first, self.second, strict=True):
            near_users, near_items = graph.propagate(users, items)
            # Σ s_ui (e_i ⊙ e_u) = e_u ⊙ Σ s_ui e_i
            users, items = (
                nn.functional.leaky_relu(first(own + near) + second(own * near), _SLOPE)
                for own, near in ((users, near_users), (items, near_items))
            )
            parts.append((users, items))
        return torch.cat([part[0] for part in parts], dim=1), torch.cat([part[1] for part in parts], dim=1)
