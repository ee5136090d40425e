"""Encoders: a graph in, user and item embeddings out. One file each; ``ENCODERS`` is the table of choices.

``Encoder`` says what an encoder is. It also says what an item sends to a user without an embedding of their own
(``fold_in``), so that a history alone is enough to serve someone new.
"""

from __future__ import annotations

from hashlgn.training.encoders.base import Encoder, FreeEmbeddings
from hashlgn.training.encoders.dgcf import DGCF
from hashlgn.training.encoders.gcn import GCN
from hashlgn.training.encoders.lightgcn import LightGCN
from hashlgn.training.encoders.ngcf import NGCF
from hashlgn.training.encoders.sage import Sage
from hashlgn.training.encoders.spectral import Spectral

__all__ = ["DGCF", "ENCODERS", "GCN", "NGCF", "Encoder", "FreeEmbeddings", "LightGCN", "Sage", "Spectral"]


ENCODERS: dict[str, type[Encoder]] = {
    "lightgcn": LightGCN,
    "spectral": Spectral,
    "gcn": GCN,
    "ngcf": NGCF,
    "dgcf": DGCF,
    "sage": Sage,
}
