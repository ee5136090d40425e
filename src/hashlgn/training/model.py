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

import dataclasses
import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from hashlgn.config import Config, ModelConfig
from hashlgn.errors import ArgumentError, choose, positive_int
from hashlgn.scoring.codes import check_bits, pack_signs
from hashlgn.scoring.fold_in import FoldIn
from hashlgn.scoring.items import CodedItems, FloatItems, Items
from hashlgn.training.decoders import (
    COMPRESSIONS,
    DECODERS,
    DecodingFunction,
    compression,
    compression_layers,
    start_compression,
)
from hashlgn.training.encoders import ENCODERS, Encoder
from hashlgn.training.graph import Graph
from hashlgn.training.hashes import HASHES, SIGNS, HashFunction, Residual
from hashlgn.training.losses import LOSSES

__all__ = ["Model", "Vectors", "checked"]

_TINY = 1e-12


class Vectors(NamedTuple):
    """What one forward pass yields."""

    queries: Tensor  # f(q), (n_users, width)
    items: Tensor  # x, (n_items, width)
    penalty: Tensor  # scalar, added to the loss as it is


class Model(nn.Module):
    """HashLGN, or with ``kind = "lightgcn"`` the same frame without hash and decoder.

    The graph is given to every call; the model owns no data, no device and no optimiser. Until ``start_codes`` is
    called, it scores with float embeddings, ``ŷ = q · o``: that is how the encoder is warmed up.

    Args:
        encoder: embeddings from a graph.
        n_items: number of items.
        config: bits, hash, decoder, compression, similarity and scale.

    Raises:
        ArgumentError: a name is unknown, a number out of range, or hash and decoder do not fit.
    """

    def __init__(self, encoder: nn.Module, n_items: int, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder: Encoder = encoder  # type: ignore[assignment]
        self.coding = False
        self.binary = config.compression == "hash"  # on both sides
        dim: int = self.encoder.dim
        if config.similarity not in ("cosine", "inner"):
            raise ArgumentError(f"similarity must be 'cosine' or 'inner' (got {config.similarity!r})")
        if config.kind == "lightgcn":
            return
        bits = check_bits(config.bits)
        if not 0 <= config.norm_penalty < math.inf:
            raise ArgumentError(f"norm_penalty must be finite and at least 0 (got {config.norm_penalty!r})")
        _check_parts(config)
        self.decoder: DecodingFunction = choose("decoder", config.decoder, DECODERS)(bits, dim)
        self.hash: HashFunction = choose("hash", config.hash, HASHES)(n_items, dim, bits, config.sign)
        if config.scale:
            self.log_lengths = nn.Parameter(torch.zeros(n_items))
        if not self.binary:
            self.compression = compression(config.compression, dim, self.decoder.width)

    def start_codes(self, graph: Graph) -> None:
        """Let hash, decoder and compression join, the hash started from the encoder's present embeddings."""
        self.eval()  # those that would be served
        with torch.no_grad():
            queries, items = self.embeddings(graph)
            lengths = items.norm(dim=1)
            # Where all are of one length, an item's error counts by how often it is met.
            degree = torch.from_numpy(graph.item_degree).to(items)
            weights = (1 + degree).sqrt() if self.config.similarity == "cosine" else lengths.square()
            fitted = self.hash.start(nn.functional.normalize(items), weights, queries)
            if self.config.scale:
                self.log_lengths.copy_(lengths.clamp(min=_TINY).log())
            self.decoder.start(fitted)
            if fitted.projection is not None and self.config.decoder != "codebook" and not self.binary:
                start_compression(self.compression, fitted.projection)
        self.coding = True

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
        codes = self.hash(nn.functional.normalize(o))
        decoded = self.decoder(codes)
        norms = decoded.norm(dim=1, keepdim=True).clamp(min=_TINY)
        if isinstance(self.hash, Residual):
            # A hash without a gradient is passed straight by: d loss / d o = d loss / d g(c).
            direction = nn.functional.normalize(o)
            decoded = decoded + (direction - direction.detach())
        queries = self.hash(nn.functional.normalize(q)) if self.binary else self.compression(q)
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
        codes = self.hash(nn.functional.normalize(o))
        scale = None
        if self.config.scale:
            norms = self.decoder(codes).norm(dim=1).clamp(min=_TINY)
            lengths = self.log_lengths.exp()
            # float16 holds 6e-8 … 65504; an item nobody has touched may have length 0, and a scale is positive
            scale = (lengths / norms).clamp(1e-7, 6e4).cpu().numpy().astype("float16")
        coded = CodedItems(pack_signs(codes.cpu().numpy()), self.decoder.export(), scale)
        if self.binary:  # the hash sees directions; a tanh before its sign changes no sign
            layers = compression_layers(self.get_submodule("hash"))
            return queries.cpu(), coded, FoldIn(fold_in.item_vectors, layers, normalise=True, signs=True)
        fold_in = FoldIn(fold_in.item_vectors, compression_layers(self.compression), normalise=cosine)
        return queries.cpu(), coded, fold_in

    @torch.no_grad()
    def continuous(self, graph: Graph) -> tuple[Tensor, Tensor]:
        """What the codes of users ``(n_users, bits)`` and items ``(n_items, bits)`` are signs of, where both have."""
        self.eval()
        net = self.get_submodule("hash.net")
        users, items = (net(nn.functional.normalize(side)) for side in self.embeddings(graph))
        return users, items


def _check_parts(config: ModelConfig) -> None:
    """Check that hash, decoder, compression and what else is about codes go together."""
    if config.hash == "residual" and config.decoder != "codebook":
        raise ArgumentError(f"hash 'residual' needs decoder 'codebook' (got decoder {config.decoder!r})")
    if config.hash == "residual" and config.guidance:
        raise ArgumentError("guidance needs a hash with a sign (got hash 'residual')")
    if config.compression != "hash":
        return
    if config.hash in ("residual", "free"):
        raise ArgumentError(f"compression 'hash' needs a hash that users can go through too (got hash {config.hash!r})")
    if config.decoder != "identity" or config.similarity == "cosine" or config.scale:
        raise ArgumentError(
            "compression 'hash' needs decoder 'identity', similarity 'inner' and no scale: its scores are Hamming "
            f"distances (got decoder {config.decoder!r}, similarity {config.similarity!r}, scale {config.scale})"
        )


def checked(config: Config) -> Config:
    """The same configuration with its automatic choices filled in.

    Raises:
        ArgumentError: a choice or a number breaks its rule.
    """
    model, settings = config.model, config.train
    tables: dict[str, dict[str, Any]] = {
        "kind": {"hashlgn": 0, "lightgcn": 0},
        "encoder": {"auto": 0, **ENCODERS},
        "hash": HASHES,
        "decoder": DECODERS,
    }
    tables |= {"sign": SIGNS, "compression": {**COMPRESSIONS, "hash": 0}}
    tables |= {"similarity": {"auto": 0, "cosine": 0, "inner": 0}}
    for name, choices in tables.items():
        choose(f"model.{name}", getattr(model, name), choices)
    check_bits(model.bits)
    if model.kind == "hashlgn":
        _check_parts(model)
    choose("train.loss", settings.loss, LOSSES)
    choose("train.joint_loss", settings.joint_loss, {"auto": 0, "distillation": 0, **LOSSES})
    if math.isnan(model.power):
        raise ArgumentError(f"model.power must be a number (got {model.power})")
    choose("train.monitor", settings.monitor, {"recall": 0, "ndcg": 0})
    choose("train.schedule", settings.schedule, {"cosine": 0, "constant": 0})
    if not 0 <= settings.warmup <= 1:
        raise ArgumentError(f"train.warmup must lie in 0 … 1 (got {settings.warmup})")
    if not 0 <= settings.seed < 2**63:
        raise ArgumentError(f"train.seed must lie in 0 … 2^63 − 1 (got {settings.seed})")
    for name in ("epochs", "validation_users"):
        if getattr(settings, name) < 0:
            raise ArgumentError(f"train.{name} must be at least 0 (got {getattr(settings, name)})")
    for name in ("patience", "validate_every", "monitor_k"):
        positive_int(f"train.{name}", getattr(settings, name))
    if not 0 < settings.validation_share < 1:
        raise ArgumentError(f"train.validation_share must lie between 0 and 1 (got {settings.validation_share})")
    for name in ("lr", "joint_lr", "code_lr", "l2"):
        if not getattr(settings, name) >= 0 or math.isinf(getattr(settings, name)):
            raise ArgumentError(f"train.{name} must be finite and at least 0 (got {getattr(settings, name)})")
    encoder, dim, similarity = model.encoder, model.dim, model.similarity
    if encoder == "auto" and model.kind == "lightgcn":
        encoder = "lightgcn"
    if encoder == "auto":  # the rest is filled in once the data have decided
        return config
    if not dim and encoder != "spectral":
        dim = 64 if model.kind == "lightgcn" else 128
    if similarity == "auto":
        similarity = "inner" if encoder == "spectral" or model.compression == "hash" else "cosine"
    joint_loss = settings.joint_loss
    if joint_loss == "auto":
        teaching = settings.loss == "softmax" and similarity == "cosine" and int(settings.warmup * settings.epochs) > 0
        joint_loss = "distillation" if teaching else settings.loss
    return dataclasses.replace(
        config,
        model=dataclasses.replace(model, encoder=encoder, dim=dim, similarity=similarity),
        train=dataclasses.replace(settings, joint_loss=joint_loss),
    )
