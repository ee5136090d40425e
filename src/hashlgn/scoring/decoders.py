"""Decoders of codes, folded into query tables: ``T[q, m, k] = f_q · C_m[k]``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import numpy.typing as npt

from hashlgn.scoring.codes import Bytes, unpack_signs, unpack_words

__all__ = ["CodebookDecoder", "Decoder", "Floats", "ReweightDecoder"]

Floats = npt.NDArray[np.float32]
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
