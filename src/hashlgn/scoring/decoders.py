"""Decoders of codes, folded into query tables: ``T[q, m, k] = f_q · C_m[k]``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import numpy.typing as npt

from hashlgn.scoring.codes import Bytes, unpack_signs, unpack_subcodes
from hashlgn.scoring.products import Doubles, ordered_product

__all__ = ["CodebookDecoder", "Decoder", "Floats", "ReweightDecoder"]

Floats = npt.NDArray[np.float32]
_CHUNK = 128  # queries whose tables are made at a time


class Decoder(Protocol):
    """A decoding function ``g`` that is a sum over 4-bit sub-codes: ``g(c) = Σ_m C_m[subcode_m]`` in R^width."""

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

    def __repr__(self) -> str:
        return f"ReweightDecoder({self.bits} bits, width {self.width})"

    @property
    def width(self) -> int:
        """Length of a decoded vector: the number of bits."""
        return int(self.alpha.shape[0])

    @property
    def bits(self) -> int:
        """Length of a code."""
        return int(self.alpha.shape[0])

    def tables(self, queries: Floats) -> Floats:
        """Sixteen partial sums of ``f ⊙ g`` over each sub-code's four bits: ``(q, bits)`` → ``(q, bits / 4, 16)``."""
        weights = np.stack((-self.beta, self.alpha), axis=1).astype(np.float64).reshape(-1, 4, 2)

        def sums(chunk: Floats) -> Doubles:  # bit by bit, ascending: the order of ``ordered_product``
            products = chunk.astype(np.float64).reshape(len(chunk), -1, 4, 1) * weights  # (q, M, 4, 2)
            total = products[:, :, 0] + 0.0
            for bit in range(1, 4):
                total = (total[:, :, None, :] + products[:, :, bit, :, None]).reshape(*total.shape[:2], -1)
            return total

        return _by_chunks(queries, self.bits // 4, sums)

    def decode(self, packed: Bytes) -> Floats:
        """Decoded vectors, ``(n, bits)``."""
        signs = unpack_signs(packed)
        return np.where(signs > 0, self.alpha, -self.beta).astype(np.float32)


@dataclass(frozen=True)
class CodebookDecoder:
    """Each 4-bit sub-code selects one of sixteen learned vectors: ``g(c) = Σ_m C_m[subcode_m]``.

    Attributes:
        codewords: ``(M, 16, width)`` float32.
    """

    codewords: Floats

    def __repr__(self) -> str:
        return f"CodebookDecoder({self.bits} bits, width {self.width})"

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
        return _by_chunks(queries, len(self.codewords), lambda chunk: ordered_product(chunk, self.columns))

    @cached_property
    def columns(self) -> Floats:
        """The codewords as columns, ``(width, 16 M)``."""
        return np.ascontiguousarray(self.codewords.reshape(-1, self.width).T, np.float32)

    def decode(self, packed: Bytes) -> Floats:
        """Decoded vectors, ``(n, width)``."""
        subcodes = unpack_subcodes(packed)
        decoded = np.zeros((len(subcodes), self.width), np.float32)
        for m, codewords in enumerate(self.codewords):
            decoded += codewords[subcodes[:, m]]
        return decoded


def _by_chunks(queries: Floats, count: int, sums: Callable[[Floats], Doubles]) -> Floats:
    """Query tables ``(q, count, 16)`` from float64 sums over some queries at a time: what is large stays in cache."""
    tables = np.empty((len(queries), count, 16), np.float32)
    for start in range(0, len(queries), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        tables[chunk] = sums(queries[chunk]).reshape(-1, count, 16)
    return tables
