"""Encoders: a graph in, user and item embeddings out. One file each; ``ENCODERS`` is the table of choices.

Every encoder is built by ``create(graph, config, seed)`` or by its class's own arguments, holds only parameters and
buffers, and maps a graph to ``(users, items)``. It also says what an item sends to a user without an embedding of
their own (``fold_in``), so that a history alone is enough to serve someone new.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from hashlgn.training.encoders.base import FreeEmbeddings
from hashlgn.training.encoders.dgcf import DGCF
from hashlgn.training.encoders.gcn import GCN
from hashlgn.training.encoders.lightgcn import LightGCN
from hashlgn.training.encoders.ngcf import NGCF
from hashlgn.training.encoders.sage import Sage
from hashlgn.training.encoders.spectral import Spectral
from hashlgn.training.graph import Graph

__all__ = ["DGCF", "ENCODERS", "GCN", "NGCF", "Encoder", "FreeEmbeddings", "LightGCN", "Sage", "Spectral"]


class Encoder(Protocol):
    """Maps a graph to embeddings."""

    dim: int

    def __call__(self, graph: Graph) -> tuple[Tensor, Tensor]:
        """Embeddings of users ``(n_users, dim)`` and items ``(n_items, dim)``."""

    def fold_in(self, graph: Graph) -> Tensor:
        """``p``, ``(n_items, dim)``: a user known by a history H alone has ``|H|^-1/2 Σ_{i∈H} p_i``."""


ENCODERS: dict[str, type[FreeEmbeddings] | type[Spectral]] = {
    "lightgcn": LightGCN,
    "spectral": Spectral,
    "gcn": GCN,
    "ngcf": NGCF,
    "dgcf": DGCF,
    "sage": Sage,
}
