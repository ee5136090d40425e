"""The model: encoder → hash → decoder, scored against compressed queries.

    symbol      shape                     here
    E^(0), E    (n_users + n_items, dim)  inside the encoder
    q_u, o_i    (dim,)                    user and item embedding: ``encoder(graph)``
    c_i = h(o)  (bits,) of ±1             ``hash(o)``
    g(c)        (width,)                  ``decoder(c)``
    f(q)        (width,)                  ``compression(q)``
    ŷ_ui        scalar                    ``f(q_u) · x_i``, ``x_i = scale_i · g(c_i)``

With ``similarity = cosine`` queries and items are divided by their lengths. The scale of a coded item is ``l_i /
‖g(c_i)‖``, so that ``l_i`` is the length of ``x_i``: it starts as that of ``o_i``, 1 under the cosine, and is learned
for each item. Without a scale, lengths are left to the decoder, and a penalty ``mean (‖g(c_i)‖ − 1)²`` holds them near
1 under the cosine.
With ``compression = hash`` users are codes as well, ``f(q) = h(q)``, and ``ŷ_ui = bits − 2 · Hamming distance``.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from hashlgn.config import ModelConfig
from hashlgn.errors import ArgumentError, choose
from hashlgn.scoring.codes import pack_signs
from hashlgn.scoring.fold_in import FoldIn
from hashlgn.scoring.items import CodedItems, FloatItems, Items
from hashlgn.training.decoders import DECODERS, DecodingFunction, compression, compression_layers, start_compression
from hashlgn.training.encoders import Encoder
from hashlgn.training.graph import Graph
from hashlgn.training.hashes import HASHES, Hash
from hashlgn.training.resolve import check_parts

__all__ = ["Model", "Vectors"]

_TINY = 1e-12


class Vectors(NamedTuple):
    """What one forward pass yields."""

    queries: Tensor  # f(q), (n_users, width)
    items: Tensor  # x, (n_items, width)
    penalty: Tensor  # scalar, added to the loss as it is


class Model(nn.Module):
    """HashLGN, or with ``kind = "float"`` the same frame without hash and decoder.

    The graph is given to every call; the model owns no data, no device and no optimizer. Until ``start_codes`` is
    called, it scores with float embeddings, ``ŷ = q · o``: that is how the encoder is pre-trained.

    Raises:
        ArgumentError: a name is unknown, a number out of range, or hash and decoder do not fit.
    """

    def __init__(self, encoder: Encoder, n_items: int, config: ModelConfig) -> None:
        super().__init__()
        self.config, self.encoder = config, encoder
        self.coding = False
        self.binary = config.compression == "hash"  # on both sides
        if config.similarity is None:
            raise ArgumentError("similarity must be 'cosine' or 'inner' (got None)")
        if config.kind == "float":
            return
        check_parts(config)
        self.decoder: DecodingFunction = choose("decoder", config.decoder, DECODERS)(config.bits, encoder.dim)
        self.hash: Hash = choose("hash", config.hash, HASHES)(n_items, encoder.dim, config.bits)
        if config.scale:
            self.log_lengths = nn.Parameter(torch.zeros(n_items))
        if not self.binary:
            random = config.code_start == "random"
            self.compression = compression(config.compression, encoder.dim, self.decoder.width, random=random)

    def start_codes(self, graph: Graph) -> None:
        """Let hash, decoder and compression join. They start from the encoder's present embeddings, or, with
        ``code_start = "random"``, from their own draw.
        """
        self.eval()  # those that would be served
        self.coding = True
        with torch.no_grad():
            queries, items = self.embeddings(graph)
            lengths = items.norm(dim=1)
            if self.config.scale:
                self.log_lengths.copy_(lengths.clamp(min=_TINY).log())
            if self.config.code_start == "random":
                return
            # Where all are of one length, an item's error counts by how often it is met.
            degree = torch.from_numpy(graph.item_degree).to(items)
            weights = (1 + degree).sqrt() if self.config.similarity == "cosine" else lengths.square()
            fitted = self.hash.start(self._hashed(items), weights, queries)
            self.decoder.start(fitted)
            if fitted.projection is not None and self.config.decoder != "codebook" and not self.binary:
                start_compression(self.compression, fitted.projection)

    def guide(self, probability: float) -> None:
        """Let rows pass the hash as they are with a probability (HashGNN's guidance)."""
        if self.coding:
            self.hash.guided = probability

    def embeddings(self, graph: Graph) -> tuple[Tensor, Tensor]:
        """``q`` and ``o``, divided by their lengths under the cosine."""
        q, o = self.encoder(graph)
        if self.config.similarity == "cosine":
            q, o = nn.functional.normalize(q), nn.functional.normalize(o)
        return q, o

    def forward(self, graph: Graph) -> Vectors:
        """Queries and items whose inner product is the score."""
        q, o = self.embeddings(graph)
        if not self.coding:
            return Vectors(q, o, q.new_zeros(()))
        hashed = self._hashed(o)
        decoded = self.decoder(self.hash(hashed))
        norms = decoded.norm(dim=1, keepdim=True).clamp(min=_TINY)
        if not self.hash.has_sign:
            # A hash without a gradient is passed straight by: d loss / d o = d loss / d g(c).
            decoded = decoded + (hashed - hashed.detach())
        queries = self.hash(self._hashed(q)) if self.binary else self.compression(q)
        if self.config.similarity == "cosine":
            queries = nn.functional.normalize(queries)
        if self.config.scale:
            lengths = self.log_lengths.exp()[:, None]
            return Vectors(queries, lengths * nn.functional.normalize(decoded), q.new_zeros(()))
        penalty = (
            self.config.norm_penalty * ((norms - 1) ** 2).mean()
            if self.config.similarity == "cosine"
            else 0 * norms.sum()
        )
        return Vectors(queries, decoded, penalty)

    @torch.no_grad()
    def export(self, graph: Graph) -> tuple[Tensor, Items, FoldIn]:
        """The trained model as it is served: queries ``(n_users, width)``, items, and the fold-in of new users."""
        self.eval()
        cosine = self.config.similarity == "cosine"
        fold_in = FoldIn(self.encoder.fold_in(graph).cpu().numpy(), normalise=cosine)
        queries, items, _ = self(graph)
        if not self.coding:
            return queries.cpu(), FloatItems(items.cpu().numpy()), fold_in
        _, o = self.embeddings(graph)
        codes = self.hash(self._hashed(o))
        scale = None
        if self.config.scale:
            norms = self.decoder(codes).norm(dim=1).clamp(min=_TINY)
            lengths = self.log_lengths.exp()
            # float16 holds 6e-8 … 65504; an item nobody has touched may have length 0, and a scale is positive
            scale = (lengths / norms).clamp(1e-7, 6e4).cpu().numpy().astype("float16")
        coded = CodedItems(pack_signs(codes.cpu().numpy()), self.decoder.export(), scale)
        if self.binary:  # a tanh before the hash's sign changes no sign
            layers = compression_layers(self.hash)
            directions = self.config.hash_directions
            return queries.cpu(), coded, FoldIn(fold_in.item_vectors, layers, normalise=directions, signs=True)
        fold_in = FoldIn(fold_in.item_vectors, compression_layers(self.compression), normalise=cosine)
        return queries.cpu(), coded, fold_in

    def _hashed(self, embeddings: Tensor) -> Tensor:
        """What the hash sees of embeddings: their directions, or the embeddings as they are."""
        return nn.functional.normalize(embeddings) if self.config.hash_directions else embeddings
