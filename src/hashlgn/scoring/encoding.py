"""Sub-codes of vectors under codewords that stay, for items that arrive after the training."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from hashlgn._kernel import compiled
from hashlgn.scoring.decoders import Floats

__all__ = ["encode"]

_compiled: Any = compiled()


def encode(dots: Floats, gram: Floats, beam: int = 4, rounds: int = 3) -> npt.NDArray[np.uint8]:
    """Sub-codes k with a small error ``‖x − Σ_m c_m[k_m]‖²`` for each vector x: a beam search over the sub-quantizers
    in order (Babenko and Lempitsky, *Additive Quantization*, CVPR 2014), then each sub-code in turn is set to its best
    value while the others stay.

    Inner products alone enter, so those of another metric than the Euclidean one may be given. Runs compiled where the
    kernel could be compiled; the NumPy form gives the same sub-codes.

    Args:
        dots: inner products of vectors and codewords, ``(n, 16 M)``.
        gram: inner products of codewords, ``(16 M, 16 M)``.
        beam: partial codes that are kept after each sub-quantizer.
        rounds: times that every sub-code has its turn.

    Returns:
        ``(n, M)`` uint8.
    """
    words = np.empty((len(dots), len(gram) // 16), np.uint8)
    if _compiled is not None:
        _compiled.encode(
            np.ascontiguousarray(dots, np.float32), np.ascontiguousarray(gram, np.float32), beam, rounds, words
        )
        return words
    gram = np.asarray(gram, np.float32)
    for row, products in zip(words, np.asarray(dots, np.float32), strict=True):
        row[:] = _improved(*_searched(products, gram, beam), gram, rounds)
    return words


def _searched(dots: Floats, gram: Floats, beam: int) -> tuple[npt.NDArray[np.int64], Floats]:
    """The best sub-codes of a beam search ``(M,)``, and ``c · (Σ − x)`` for every codeword c."""
    errors, away, words = np.zeros(1, np.float32), -dots[None], np.empty((1, 0), np.int64)
    for block in range(0, len(gram), 16):
        squares = gram.diagonal()[block : block + 16]
        found = (errors[:, None] + (2 * away[:, block : block + 16] + squares)).ravel()
        kept = np.argsort(found, kind="stable")[:beam]
        errors, away = found[kept], away[kept // 16] + gram[block + kept % 16]
        words = np.column_stack((words[kept // 16], kept % 16))
    total = -dots
    for m, word in enumerate(words[0].tolist()):
        total = total + gram[16 * m + word]
    return words[0], total


def _improved(words: npt.NDArray[np.int64], away: Floats, gram: Floats, rounds: int) -> npt.NDArray[np.int64]:
    for _ in range(rounds):
        for m, old in enumerate(words.tolist()):
            block = slice(16 * m, 16 * m + 16)
            row = gram[16 * m + old]
            new = int((2 * (away[block] - row[block]) + gram.diagonal()[block]).argmin())
            if new != old:
                words[m] = new
                away = away + (gram[16 * m + new] - row)
    return words
