"""Quantizers of a float model's items that learn nothing from interactions: the references at equal bytes.

Every quantizer turns item vectors into our own ``CodedItems``, so that search, certificates and evaluation are those
of a trained code. ``o ≈ scale · Σ_m C_m[subcode_m]`` with 4-bit sub-codes for the additive ones; for those by signs

    o ≈ scale · Pᵀ c,   c = sign(P o) ∈ {±1}^bits,   score = scale · (P q) · c

which is the reweighting decoder with α = β = 1 and ``P q`` for the query: asymmetric, the query stays float. The names
that end in ``-hamming`` take ``sign(P q)`` for the query, so that the score is ``bits − 2 · Hamming distance``.

Sources: Charikar, *Similarity estimation techniques from rounding algorithms*, STOC 2002 (random hyperplanes); Gong et
al., *Iterative quantization*, TPAMI 2013; Jégou et al., *Product quantization*, TPAMI 2011, with the rotation of Ge et
al., *Optimized product quantization*, CVPR 2013; Chen et al., *Residual vector quantization*, Sensors 2010; Martinez et
al., *LSQ++*, ECCV 2018. The last four are Faiss's implementations.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import faiss as faiss_module
import numpy as np
import torch

from hashlgn.errors import ArgumentError, choose
from hashlgn.scoring.codes import check_bits, pack_signs, pack_subcodes, unpack_subcodes
from hashlgn.scoring.decoders import CodebookDecoder, Floats, ReweightDecoder
from hashlgn.scoring.items import CodedItems
from hashlgn.training.hashes.signs import iterative_quantization

faiss: Any = faiss_module  # its type stubs lack half of the quantizers
_ENOUGH = 256  # vectors below which Faiss will not cluster


@dataclass(frozen=True)
class Quantized:
    """Codes of the items, and what the queries become."""

    items: CodedItems
    projection: Floats | None = None  # P, (bits, dim); None where queries stay as they are
    signs: bool = False  # whether queries are reduced to the signs of P q

    def queries(self, queries: Floats) -> Floats:
        """Queries as the items' searcher takes them: ``(q, dim)`` → ``(q, width)``."""
        if self.projection is None:
            return queries
        projected = np.ascontiguousarray(queries @ self.projection.T, np.float32)
        return np.where(projected >= 0, 1.0, -1.0).astype(np.float32) if self.signs else projected


def quantize(vectors: Floats, name: str, bits: int, *, scale: bool = False, seed: int = 0) -> Quantized:
    """Quantize item vectors.

    Args:
        vectors: ``(n, dim)``.
        name: a key of ``QUANTIZERS``.
        bits: length of a code, a multiple of 8, scale not included.
        scale: quantize directions, and store ``‖o‖ / ‖g(c)‖`` as two more bytes per item.
        seed: fixes every draw.

    Raises:
        ArgumentError: an unknown name, a length that breaks its rule, too few items to cluster, or a scale asked of
            Hamming distances, which have none.
    """
    function = choose("quantizer", name, QUANTIZERS)
    bits = check_bits(bits)
    if scale and name.endswith("-hamming"):
        raise ArgumentError(
            f"scale must be False for quantizer {name!r}, whose scores are distances of bits (got True)"
        )
    if len(vectors) < 16:
        raise ArgumentError(f"vectors must hold at least 16 items, one a codeword (got {len(vectors)})")
    lengths = np.maximum(np.linalg.norm(vectors, axis=1), 1e-12)
    target = vectors / lengths[:, None] if scale else vectors
    found: Quantized = function(np.ascontiguousarray(target, np.float32), bits, seed)
    if not scale:
        return found
    norms = np.maximum(np.linalg.norm(found.items.decode(), axis=1), 1e-12)
    scales = np.clip(lengths / norms, 1e-7, 6e4).astype(np.float16)  # what float16 holds
    return replace(found, items=CodedItems(found.items.packed, found.items.decoder, scales))


def _signs(vectors: Floats, projection: Floats, *, hamming: bool) -> Quantized:
    codes = np.where(vectors @ projection.T >= 0, 1, -1).astype(np.int8)
    ones = np.ones(len(projection), np.float32)
    return Quantized(CodedItems(pack_signs(codes), ReweightDecoder(ones, ones)), projection, hamming)


def _hyperplanes(vectors: Floats, bits: int, seed: int, *, hamming: bool = False) -> Quantized:
    normals = np.random.default_rng(seed).standard_normal((bits, vectors.shape[1]))
    return _signs(vectors, normals.astype(np.float32), hamming=hamming)


def _itq(vectors: Floats, bits: int, seed: int, *, hamming: bool = False) -> Quantized:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        projection = iterative_quantization(torch.tensor(vectors), bits).numpy()
    return _signs(vectors, np.ascontiguousarray(projection, np.float32), hamming=hamming)


def _product(vectors: Floats, bits: int, seed: int) -> Quantized:
    """Optimized product quantization: each sub-code has its own part of a rotated space, which is turned back."""
    dim, subcodes = vectors.shape[1], bits // 4
    wide = -(-dim // subcodes) * subcodes  # a multiple of the sub-codes, zeros where the vector ends
    padded = np.zeros((len(vectors), wide), np.float32)
    padded[:, :dim] = vectors
    quantizer = faiss.ProductQuantizer(wide, subcodes, 4)
    quantizer.cp.min_points_per_centroid, quantizer.cp.seed = 1, seed
    turn = faiss.OPQMatrix(wide, subcodes, wide)
    turn.pq, turn.max_train_points = quantizer, max(_ENOUGH, 50_000)
    sample = _enough(padded)
    turn.train(sample)
    quantizer.train(turn.apply(sample))
    packed = np.asarray(quantizer.compute_codes(turn.apply(padded)))
    parts = faiss.vector_to_array(quantizer.centroids).reshape(subcodes, 16, wide // subcodes)
    placed = np.zeros((subcodes, 16, wide), np.float32)
    for m in range(subcodes):
        placed[m, :, m * (wide // subcodes) : (m + 1) * (wide // subcodes)] = parts[m]
    rotation = faiss.vector_to_array(turn.A).reshape(wide, wide)  # rows are the new axes
    return _additive(placed @ rotation[:, :dim], packed, subcodes)


def _residual(vectors: Floats, bits: int, seed: int) -> Quantized:
    quantizer = faiss.ResidualQuantizer(vectors.shape[1], bits // 4, 4)
    quantizer.max_beam_size = 8
    quantizer.cp.min_points_per_centroid, quantizer.cp.seed = 1, seed
    return _fitted(quantizer, vectors)


def _local_search(vectors: Floats, bits: int, seed: int) -> Quantized:
    quantizer = faiss.LocalSearchQuantizer(vectors.shape[1], bits // 4, 4)
    quantizer.random_seed, quantizer.train_iters = seed, 10
    return _fitted(quantizer, vectors)


def _fitted(quantizer: Any, vectors: Floats) -> Quantized:
    quantizer.train(_enough(vectors))
    packed = np.asarray(quantizer.compute_codes(vectors))
    codewords = faiss.vector_to_array(quantizer.codebooks).reshape(-1, 16, vectors.shape[1])
    return _additive(codewords, packed, len(codewords))


def _additive(codewords: Floats, packed: Any, subcodes: int) -> Quantized:
    read = unpack_subcodes(packed[:, : subcodes // 2])
    return Quantized(CodedItems(pack_subcodes(read), CodebookDecoder(np.ascontiguousarray(codewords, np.float32))))


def _enough(vectors: Floats) -> Floats:
    """The vectors, repeated where they are too few for Faiss's clustering or least squares."""
    least = max(_ENOUGH, 4 * vectors.shape[1])
    return vectors if len(vectors) >= least else np.resize(vectors, (least, vectors.shape[1]))


QUANTIZERS: dict[str, Callable[[Floats, int, int], Quantized]] = {
    "hyperplanes": _hyperplanes,
    "hyperplanes-hamming": partial(_hyperplanes, hamming=True),
    "itq": _itq,
    "itq-hamming": partial(_itq, hamming=True),
    "product": _product,
    "residual-quantization": _residual,
    "local-search": _local_search,
}
