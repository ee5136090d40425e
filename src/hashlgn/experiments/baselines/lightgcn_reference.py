"""LightGCN trained as its authors describe it, for timing against: full propagation for every batch of 2,048 pairs.

E = mean of E^(0) … E^(3) with E^(k+1) = A E^(k), A the symmetrically normalised adjacency of users and items together;
the loss of a batch is mean softplus(ŷ_uj − ŷ_ui) + λ/2 Σ ‖E^(0)‖² / batch over the rows of users u, items i and drawn
items j; Adam with learning rate 0.001, λ = 0.0001, d = 64, E^(0) from N(0, 0.1²). Source: He, Deng, Wang, Li, Zhang,
Wang: *LightGCN*, SIGIR 2020, sections 3 and 4.1; the batch of 2,048 and the normal start are those of the PyTorch
version that its authors publish.

Pairs are drawn by HashLGN's sampler, so that nothing but the training step differs.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from hashlgn.data import Interactions
from hashlgn.training.sampling import interaction_batches

BATCH, DIM, LAYERS, RATE, L2 = 2048, 64, 3, 1e-3, 1e-4


class Reference(nn.Module):
    """The recipe with PyTorch and its sparse product.

    Args:
        data: what to learn from.
        seed: fixes the start and the draws.
        device: where it is trained.
    """

    adjacency: Tensor
    start: Tensor  # E^(0)

    def __init__(self, data: Interactions, seed: int = 0, device: torch.device | str = "cpu") -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.data, self.seed, self.device, self.done = data, seed, device, 0
        self.nodes = data.n_users + data.n_items
        self.steps_per_epoch = -(-len(data) // BATCH)
        users = torch.from_numpy(data.rows.astype(np.int64))
        items = torch.from_numpy(data.indices.astype(np.int64)) + data.n_users
        edges = torch.cat((torch.stack((users, items)), torch.stack((items, users))), dim=1)
        degree = torch.bincount(edges[0], minlength=self.nodes).float()
        weights = (degree[edges[0]] * degree[edges[1]]).rsqrt()
        with torch.sparse.check_sparse_tensor_invariants(False):  # type: ignore[no-untyped-call]  # so in PyTorch
            self.adjacency = torch.sparse_coo_tensor(edges, weights, (self.nodes, self.nodes)).coalesce().to(device)
        self.start = nn.Parameter(0.1 * torch.randn(self.nodes, DIM))
        self.to(device)
        self.optimizer = torch.optim.Adam(self.parameters(), lr=RATE)

    def propagate(self) -> Tensor:
        """E, ``(n_users + n_items, DIM)``."""
        layer = total = self.start
        for _ in range(LAYERS):
            layer = torch.sparse.mm(self.adjacency, layer)
            total = total + layer
        return total / (LAYERS + 1)

    def epoch(self) -> Iterator[float]:
        """One pass over the interactions in random order; the loss after every step."""
        rng = np.random.default_rng([self.seed, self.done])
        self.done += 1
        for users, positives, negatives in interaction_batches(self.data, BATCH, rng):
            items = positives + self.data.n_users, negatives + self.data.n_users
            u, i, j = (torch.from_numpy(rows).to(self.device) for rows in (users, *items))
            embedding = self.propagate()
            difference = (embedding[u] * (embedding[j] - embedding[i])).sum(dim=1)
            squares = sum(self.start[rows].square().sum() for rows in (u, i, j))
            loss = nn.functional.softplus(difference).mean() + L2 / 2 * squares / len(u)
            self.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # so in PyTorch
            self.optimizer.step()
            yield loss.item()
