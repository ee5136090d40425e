"""GCN: graph convolution with weights and a nonlinearity in every layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hashlgn.training.encoders.base import FreeEmbeddings
from hashlgn.training.graph import Graph

__all__ = ["GCN"]


class GCN(FreeEmbeddings):
    """``E^(k+1) = relu(Â E^(k) W^(k) + b^(k))`` with ``Â = (D + I)^-1/2 (A + I) (D + I)^-1/2``, and ``E`` the
    concatenation of ``E^(0) … E^(K)``.

    The rule is that of Kipf and Welling, *Semi-supervised classification with graph convolutional networks*, ICLR
    2017, equation 2; the free embeddings and the concatenation of all layers are those of the baseline GCN in the
    code of NGCF's authors. (GC-MC, van den Berg et al., 2017, is the other form in use, with a dense layer after the
    convolution.) Without dropout.
    """

    def __init__(self, n_users: int, n_items: int, dim: int = 64, layers: int = 3) -> None:
        super().__init__(n_users, n_items, dim, layers, concatenated=True)
        widths = [self.width if layer else self.users.shape[1] for layer in range(layers)]
        made = [nn.Linear(before, self.width) for before in widths]
        for layer in made:
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.convolutions = nn.ModuleList(made)

    def forward(self, graph: Graph) -> tuple[Tensor, Tensor]:
        """Embeddings of users ``(n_users, dim)`` and items ``(n_items, dim)``."""
        users: Tensor = self.users
        items: Tensor = self.items
        # (D + I)^-1/2 is √(d / (d + 1)) of what the graph's own normalisation divides by.
        degrees = (torch.from_numpy(degree).to(users)[:, None] for degree in (graph.user_degree, graph.item_degree))
        user_share, item_share = ((degree / (degree + 1)).sqrt() for degree in degrees)
        parts = [(users, items)]
        for convolution in self.convolutions:
            near_users, near_items = graph.propagate(users * user_share, items * item_share)
            users = torch.relu(convolution(near_users * user_share + users * (1 - user_share**2)))
            items = torch.relu(convolution(near_items * item_share + items * (1 - item_share**2)))
            parts.append((users, items))
        return torch.cat([part[0] for part in parts], dim=1), torch.cat([part[1] for part in parts], dim=1)
