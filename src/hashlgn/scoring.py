"""How a trained model scores, in NumPy alone: items, decoders folded into query tables, fold-in of new users.

A query ``f`` is a vector ``(width,)``: the user as the searcher takes them, compression already applied. Items are
either float vectors, scored ``f · o``, or packed codes, scored

    score(f, i) = scale_i · f · g(c_i) = scale_i · Σ_m T[m, word_im],        T = decoder.tables(f), shape (M, 16)

because every decoder here is a sum over the 4-bit words of a code (``scale_i`` is 1 where items carry none). Tables are
computed in float64 and rounded to float32 once, so that they do not depend on the batch; the sum over them is taken in
float64 and rounded to float32 once, at the end: that is *the* score, and every searcher
over codes returns exactly these numbers, ordered by (score descending, item ascending).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import numpy.typing as npt

from hashlgn.codes import Bytes, unpack_signs, unpack_words
from hashlgn.errors import ArgumentError

__all__ = [
    "CodebookDecoder",
    "CodedItems",
    "Decoder",
    "FloatItems",
    "FoldIn",
    "Items",
    "ReweightDecoder",
    "binary_items",
    "binary_queries",
    "reach",
    "word_scores",
]

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
_PART = 256  # queries whose tables are made at a time


class Decoder(Protocol):
    """A decoding function ``g`` that is a sum over words: ``g(c) = Σ_m C_m[word_m]`` in R^width."""

    @property
    def width(self) -> int:
        """Length of a decoded vector, and of a query."""

    @property
    def bits(self) -> int:
        """Length of a code."""

    def tables(self, queries: Floats) -> Floats:
        """Query tables ``T[q, m, k] = f_q · C_m[k]``: ``(q, width)`` → ``(q, M, 16)``."""

    def decode(self, packed: Bytes) -> Floats:
        """Decoded vectors ``g(c)``: ``(n, bits / 8)`` → ``(n, width)``."""


@dataclass(frozen=True)
class ReweightDecoder:
    """The paper's reweighting: ``g(c) = α ⊙ max(c, 0) + β ⊙ min(c, 0)``, so that width = bits.

    With α = β = 1 the score of a ±1 query is ``bits − 2 · Hamming distance``.

    Attributes:
        alpha: weight of a +1, ``(bits,)``, non-negative.
        beta: weight of a −1, ``(bits,)``, non-negative.
    """

    alpha: Floats
    beta: Floats

    @property
    def width(self) -> int:
        """Length of a decoded vector: the number of bits."""
        return int(self.alpha.shape[0])

    @property
    def bits(self) -> int:
        """Length of a code."""
        return int(self.alpha.shape[0])

    def tables(self, queries: Floats) -> Floats:
        """The sixteen partial sums of ``f ⊙ g`` over each word's four bits: ``(q, bits)`` → ``(q, bits / 4, 16)``."""
        set_bits = ((np.arange(16) >> np.arange(4)[:, None]) & 1).astype(np.float64)  # (4, 16)
        either = np.concatenate((set_bits, 1 - set_bits))  # (8, 16)
        signed = np.stack((self.alpha, -self.beta)).astype(np.float64).reshape(2, -1, 4).transpose(1, 0, 2)  # (M, 2, 4)

        def sums(wide: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
            products = wide.reshape(len(wide), -1, 1, 4) * signed  # (q, M, 2, 4)
            return products.reshape(-1, 8) @ either  # (q · M, 16)

        return _by_parts(queries, self.bits // 4, sums)

    def decode(self, packed: Bytes) -> Floats:
        """Decoded vectors, ``(n, bits)``."""
        signs = unpack_signs(packed)
        return np.where(signs > 0, self.alpha, -self.beta).astype(np.float32)


@dataclass(frozen=True)
class CodebookDecoder:
    """Each 4-bit word selects one of sixteen learned vectors: ``g(c) = Σ_m C_m[word_m]``.

    Attributes:
        codewords: ``(M, 16, width)`` float32.
    """

    codewords: Floats

    @property
    def width(self) -> int:
        """Length of a decoded vector."""
        return int(self.codewords.shape[2])

    @property
    def bits(self) -> int:
        """Length of a code."""
        return 4 * int(self.codewords.shape[0])

    def tables(self, queries: Floats) -> Floats:
        """Inner products of queries and codewords: ``(q, width)`` → ``(q, M, 16)``."""
        return _by_parts(queries, len(self.codewords), lambda wide: wide @ self._wide)

    @cached_property
    def _wide(self) -> npt.NDArray[np.float64]:
        return self.codewords.reshape(-1, self.width).T.astype(np.float64)

    def decode(self, packed: Bytes) -> Floats:
        """Decoded vectors, ``(n, width)``."""
        words = unpack_words(packed)
        decoded = np.zeros((len(words), self.width), np.float32)
        for m, codewords in enumerate(self.codewords):
            decoded += codewords[words[:, m]]
        return decoded


def _by_parts(
    queries: Floats, words: int, sums: Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]
) -> Floats:
    """Query tables ``(q, words, 16)`` from float64 sums over some queries at a time: what is large stays in cache."""
    tables = np.empty((len(queries), words, 16), np.float32)
    for start in range(0, len(queries), _PART):
        part = slice(start, start + _PART)
        tables[part] = sums(queries[part].astype(np.float64)).reshape(-1, words, 16)
    return tables


@dataclass(frozen=True)
class FloatItems:
    """Items as float vectors ``(n, width)``."""

    vectors: Floats

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def width(self) -> int:
        """Length of a query."""
        return int(self.vectors.shape[1])

    @property
    def bytes_per_item(self) -> float:
        """Bytes of one item as stored."""
        return float(self.vectors.itemsize * self.vectors.shape[1])

    def decode(self) -> Floats:
        """The vectors whose inner product with a query is the score, ``(n, width)``."""
        return self.vectors

    def take(self, items: Ints) -> FloatItems:
        """Some of the items."""
        return FloatItems(self.vectors[items])


@dataclass(frozen=True)
class CodedItems:
    """Items as packed codes ``(n, bits / 8)``, the decoder that reads them, and where there is one a scale ``(n,)``.

    The scale is positive and, in a saved model, float16; it is part of the item's bytes.
    """

    packed: Bytes
    decoder: Decoder
    scale: npt.NDArray[np.floating] | None = None

    def __post_init__(self) -> None:
        if self.packed.ndim != 2 or self.packed.shape[1] * 8 != self.decoder.bits:
            raise ArgumentError(
                f"packed must have shape (n, {self.decoder.bits // 8}), bits / 8 columns (got {self.packed.shape})"
            )
        if self.scale is not None:
            if self.scale.shape != (len(self.packed),):
                raise ArgumentError(f"scale must have shape ({len(self.packed)},) (got {self.scale.shape})")
            if not (np.isfinite(self.scale).all() and (self.scale > 0).all()):
                raise ArgumentError("scale must be positive and finite for every item")

    def __len__(self) -> int:
        return len(self.packed)

    @property
    def width(self) -> int:
        """Length of a query."""
        return self.decoder.width

    @property
    def bytes_per_item(self) -> float:
        """Bytes of one item as stored: code and scale."""
        return float(self.packed.shape[1] + (0 if self.scale is None else self.scale.itemsize))

    def decode(self) -> Floats:
        """The vectors whose inner product with a query is the score, ``(n, width)``: ``scale_i · g(c_i)``."""
        decoded = self.decoder.decode(self.packed)
        return decoded if self.scale is None else decoded * self.scale[:, None].astype(np.float32)

    def take(self, items: Ints) -> CodedItems:
        """Some of the items."""
        return CodedItems(self.packed[items], self.decoder, None if self.scale is None else self.scale[items])


Items = FloatItems | CodedItems


def binary_items(packed: Bytes) -> CodedItems:
    """Items of a model that is binary on both sides: a query of ±1 scores ``bits − 2 · Hamming distance``.

    Args:
        packed: codes, ``(n, bits / 8)``; queries are ``binary_queries`` of the users' codes.
    """
    ones = np.ones(8 * packed.shape[1], np.float32)
    return CodedItems(packed, ReweightDecoder(ones, ones))


def binary_queries(packed: Bytes) -> Floats:
    """Codes of users, ``(q, bits / 8)``, as queries of ±1, ``(q, bits)``, for ``binary_items``."""
    return unpack_signs(packed).astype(np.float32)


def reach(items: Items) -> float:
    """A bound over the sizes of scores: no score, and no sum on the way to it, passes ``reach · ‖f‖``.

    For float items the greatest ``‖o‖``; for codes ``Σ_m max_k ‖C_m[k]‖``, to be multiplied by the scales.
    """
    if isinstance(items, FloatItems):
        squares = np.einsum("ij,ij->i", items.vectors, items.vectors, dtype=np.float64)
        return float(np.sqrt(squares.max(initial=0.0)))
    width, squares = items.width, np.zeros((items.decoder.bits // 4, 16))
    for start in range(0, width, 64):  # the table of a unit vector is one component of every codeword
        units = np.eye(min(64, width - start), width, start, dtype=np.float32)
        with np.errstate(invalid="ignore"):  # infinity times 0: the answer is NaN then, and no bound
            squares += (items.decoder.tables(units).astype(np.float64) ** 2).sum(axis=0)
    return float(np.sqrt(squares).max(axis=1).sum())


def word_scores(table: Floats, words: Bytes, scale: npt.NDArray[np.float16] | None = None) -> Floats:
    """The score of every item for one query, as the model defines it.

    Args:
        table: query table, ``(M, 16)`` float32.
        words: words of the items, ``(n, M)``.
        scale: scales of the items, ``(n,)``, or None.

    Returns:
        ``(n,)`` float32.
    """
    total = np.zeros(len(words), np.float64)
    for m in range(words.shape[1]):
        total += table[m].astype(np.float64)[words[:, m]]
    if scale is not None:
        total *= scale
    return total.astype(np.float32)


@dataclass(frozen=True)
class FoldIn:
    """Queries for users who were not in training, from their history alone, by the encoder's own propagation rule.

    A user with history H and no embedding of their own has ``q = |H|^-1/2 Σ_{i∈H} p_i``, where ``p_i`` gathers what
    item i sends along an edge in every layer. Compression ``f`` follows: affine layers with ReLU between them.

    Attributes:
        item_vectors: ``p``, ``(n_items, dim)``.
        layers: weights ``(out, in)`` and biases ``(out,)`` of ``f``; empty for the identity.
        normalise: whether queries are divided by their lengths, ``q`` before ``f`` and ``f(q)`` after it, as under the
            cosine.
        signs: whether queries are cut to ±1 in the end, as of a model that is binary on both sides.
    """

    item_vectors: npt.NDArray[np.floating]
    layers: tuple[tuple[Floats, Floats], ...] = ()
    normalise: bool = True
    signs: bool = False

    def queries(self, indptr: Ints, indices: npt.NDArray[np.integer]) -> Floats:
        """Queries for histories in compressed-row form: ``indptr (q + 1,)``, ``indices`` → ``(q, width)``."""
        counts = np.diff(indptr)
        sums = np.zeros((len(counts), self.item_vectors.shape[1]), np.float32)
        filled = counts > 0
        if filled.any():
            gathered = self.item_vectors[indices].astype(np.float32)
            sums[filled] = np.add.reduceat(gathered, indptr[:-1][filled], axis=0)
            sums[filled] /= np.sqrt(counts[filled, None])
        return self.compress(sums)

    def compress(self, q: Floats) -> Floats:
        """Apply normalisation, ``f`` and signs: ``(n, dim)`` → ``(n, width)``."""
        q = _unit(q) if self.normalise else q
        for depth, (weight, bias) in enumerate(self.layers):
            q = (np.maximum(q, 0) if depth else q) @ weight.T + bias
        if self.signs:
            return np.where(q >= 0, 1.0, -1.0).astype(np.float32)
        return np.ascontiguousarray(_unit(q) if self.normalise else q, np.float32)


def _unit(q: Floats) -> Floats:
    lengths = np.maximum(np.linalg.norm(q, axis=1, keepdims=True), 1e-12)
    return np.asarray(q / lengths, np.float32)
