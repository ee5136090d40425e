"""DGCF: each edge divides its weight between several intents, and propagation tells which."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hashlgn.errors import ArgumentError, positive_int
from hashlgn.training.encoders.base import FreeEmbeddings
from hashlgn.training.graph import Graph, Rows

__all__ = ["DGCF"]


class DGCF(FreeEmbeddings):
    """An embedding is K parts of equal length, one an intent, each propagated over its own share of every edge.

    In a layer, with ``S_k(u, i) = 1`` at first, by turns:

        S̃_k(u, i) = exp S_k(u, i) / Σ_k' exp S_k'(u, i),    D_k(u) = Σ_i S̃_k(u, i),    D_k(i) = Σ_u S̃_k(u, i)
        u_k = Σ_{i∈H_u} S̃_k(u, i) (D_k(u) D_k(i))^-1/2 i_k⁰,    S_k(u, i) += u_k · tanh(i_k⁰)

    where ``i_k⁰`` is the layer's input and ``u_k`` of the last turn its output; items alike, with scores of their own.
    The embedding is the mean over the input and all layers. Source: Wang, Jin, Zhang, He, Xu, Chua: *Disentangled
    Graph Collaborative Filtering*, SIGIR 2020, section 3.

    As in the authors' code, the two vectors of an agreement are divided by their lengths, and layers are averaged,
    where the paper adds. Other than there, scores begin anew in each layer, and no gradient goes through them, which
    would cost hundreds of bytes per edge and layer. The paper's loss on the distance correlation of intents is left
    out: it is no part of the propagation, and losses here see queries and items alone.

    Args beside those of ``FreeEmbeddings``:
        intents: K, of which ``dim`` is a multiple.
        turns: of the routing in a layer; with 1, all intents have the same edges and this is LightGCN.
    """

    def __init__(
        self, n_users: int, n_items: int, dim: int = 64, layers: int = 3, intents: int = 4, turns: int = 2
    ) -> None:
        super().__init__(n_users, n_items, dim, layers)
        self.intents, self.turns = positive_int("intents", intents), positive_int("turns", turns)
        if dim % intents:
            raise ArgumentError(f"dim must be a multiple of the number of intents, {intents} (got {dim})")

    def forward(self, graph: Graph) -> tuple[Tensor, Tensor]:
        """Embeddings of users ``(n_users, dim)`` and items ``(n_items, dim)``."""
        users: Tensor = self.users
        items: Tensor = self.items
        user_sum, item_sum = users, items
        for _ in range(self.layers):
            users, items = self._layer(graph, users, items)
            user_sum, item_sum = user_sum + users, item_sum + items
        return user_sum / (self.layers + 1), item_sum / (self.layers + 1)

    def _layer(self, graph: Graph, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        before = list(zip(users.chunk(self.intents, dim=1), items.chunk(self.intents, dim=1), strict=True))
        weights: list[tuple[Tensor, Tensor] | None] = [None] * self.intents  # all edges alike: the graph's own
        scores = [users.new_ones(len(rows.columns), self.intents) for rows in (graph.to_users, graph.to_items)]
        with torch.no_grad():
            for _ in range(self.turns - 1):
                for k, (u, i) in enumerate(before):
                    new_u, new_i = graph.propagate(u, i, weights[k])
                    scores[0][:, k] += _agreement(graph.to_users, new_u, i)
                    scores[1][:, k] += _agreement(graph.to_items, new_i, u)
                shares = [score.softmax(dim=1) for score in scores]
                weights = [
                    (_balanced(graph.to_users, shares[0][:, k]), _balanced(graph.to_items, shares[1][:, k]))
                    for k in range(self.intents)
                ]
        after = [graph.propagate(u, i, own) for (u, i), own in zip(before, weights, strict=True)]
        return torch.cat([u for u, _ in after], dim=1), torch.cat([i for _, i in after], dim=1)


def _agreement(rows: Rows, new: Tensor, others: Tensor) -> Tensor:
    """``new · tanh(others)`` along each edge, both of unit length first."""
    return rows.inner(nn.functional.normalize(new), torch.tanh(nn.functional.normalize(others)))


def _balanced(rows: Rows, shares: Tensor) -> Tensor:
    """Weights of edges divided by the square roots of their sums at both ends, ``(edges,)``."""
    own = torch.repeat_interleave(rows.bounds.diff())
    sums = [shares.new_zeros(int(ends.max()) + 1).index_add_(0, ends, shares)[ends] for ends in (own, rows.columns)]
    return shares / (sums[0] * sums[1]).sqrt()
