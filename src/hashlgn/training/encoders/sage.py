"""The encoder of HashGNN: means over sampled neighbours, two layers for users and one for items."""

from __future__ import annotations

from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from hashlgn.config import ModelConfig
from hashlgn.errors import positive_int
from hashlgn.training.encoders.base import FreeEmbeddings
from hashlgn.training.graph import Graph

__all__ = ["Sage"]

_FAN_OUT = (10, 5)  # neighbours drawn for a node, and for each of those
_SLOPE = 0.2  # of LeakyReLU below 0, as in the authors' code


class Sage(FreeEmbeddings):
    """With ``[a; b]`` two vectors after one another, σ = LeakyReLU and ⟨·⟩ the mean over neighbours,

        h_u = σ(W_1 [e_u; ⟨e_i⟩_u]),    h_i = σ(W_1 [e_i; ⟨e_u⟩_i])
        q_u = σ(W_2 [h_u; ⟨h_i⟩_u]),    o_i = σ(V [e_i; ⟨e_u⟩_i])

    In training ⟨·⟩_u and that of ``o_i`` are means over 10 neighbours drawn with replacement, that of ``h_i`` over 5;
    else over all neighbours, so that what is served does not depend on a draw.

    Source: Tan, Liu, Zhao, Yang, Zhou, Hu: *Learning to Hash with Graph Neural Networks for Recommender Systems*, WWW
    2020, and its authors' code, which has the fan-outs and one layer for items. There neighbours are drawn for every
    pair of a batch, here once a step for every node. The code's dense layer between ``e`` and ``W`` is left out.
    """

    has_layers: ClassVar[bool] = False

    def __init__(self, n_users: int, n_items: int, dim: int = 64) -> None:
        super().__init__(n_users, n_items, dim, layers=2)
        self.near, self.far, self.item = (nn.Linear(2 * dim, dim, bias=False) for _ in range(3))  # W_1, W_2, V
        for layer in (self.near, self.far, self.item):
            nn.init.xavier_uniform_(layer.weight)

    @classmethod
    def create(cls, graph: Graph, config: ModelConfig, seed: int = 0) -> Self:
        """An encoder for this graph, its parameters drawn by PyTorch's generator."""
        return cls(graph.n_users, graph.n_items, positive_int("dim", config.dim))

    def forward(self, graph: Graph) -> tuple[Tensor, Tensor]:
        """Embeddings of users ``(n_users, dim)`` and items ``(n_items, dim)``."""
        users: Tensor = self.users
        items: Tensor = self.items
        first, second = _FAN_OUT if self.training else (None, None)
        hidden = _layer(self.near, items, graph.to_items.mean(users, second))
        # One draw of a user's items for both layers.
        near, far = graph.to_users.mean(torch.cat((items, hidden), dim=1), first).chunk(2, dim=1)
        q = _layer(self.far, _layer(self.near, users, near), far)
        return q, _layer(self.item, items, graph.to_items.mean(users, first))


def _layer(weights: nn.Module, own: Tensor, near: Tensor) -> Tensor:
    return nn.functional.leaky_relu(weights(torch.cat((own, near), dim=1)), _SLOPE)
