"""Codes of vectors under codewords that stay, for items that arrive after the training."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from hashlgn._kernel import compiled
from hashlgn.scoring.codes import Bytes, pack_subcodes
from hashlgn.scoring.decoders import Floats
from hashlgn.scoring.products import single_product

__all__ = ["Coder"]

_compiled: Any = compiled()
_UNIFORM_SHARE = 0.1  # of a metric: the part that is made the same in all directions
_LEAST, _MOST = 6e-5, 6e4  # scales, as float16 holds them


class Coder:
    """Sub-codes k with a small error ``‖x − Σ_m c_m[k_m]‖²`` for each vector x: a beam search over the sub-quantizers
    in order (Babenko and Lempitsky, *Additive Quantization*, CVPR 2014), then each sub-code in turn is set to its best
    value while the others stay.

    Runs compiled where the kernel could be compiled; the NumPy form gives the same bits.

    Args:
        codewords: ``(M, 16, width)``.
        metric: of the error: the second moment of what the vectors meet in inner products, ``(width, width)``.
        length: of decoded codes, before their scales; each vector is searched at this length.
        beam: partial codes that are kept after each sub-quantizer.
        rounds: times that every sub-code has its turn.
    """

    def __init__(self, codewords: Floats, metric: Floats, length: float, beam: int = 4, rounds: int = 3) -> None:
        flat = codewords.reshape(-1, codewords.shape[2])
        uniform = _UNIFORM_SHARE * np.trace(metric) / len(metric)
        metric = ((1 - _UNIFORM_SHARE) * metric + uniform * np.eye(len(metric))).astype(np.float32)
        self.products = np.ascontiguousarray(metric @ flat.T)  # (width, 16 M)
        self.gram = np.ascontiguousarray(flat @ self.products)
        self.length, self.beam, self.rounds = length, beam, rounds
        if _compiled is not None:
            self.held = _compiled.Coder(self.products, self.gram, length, _LEAST, _MOST, beam, rounds)

    def code(self, vectors: Floats) -> tuple[Bytes, npt.NDArray[np.float16]]:
        """Packed sub-codes ``(n, M / 2)`` of the directions, and the scales ``(n,)`` that bring the decoded vectors
        closest to the vectors.
        """
        packed, scales = np.empty((len(vectors), len(self.gram) // 32), np.uint8), np.empty(len(vectors))
        if _compiled is not None:
            self.held.code(vectors, packed, scales)
        else:
            for row, x in enumerate(vectors.astype(np.float64)):
                packed[row], scales[row] = self._coded(x)
        return packed, scales.astype(np.float16)

    def _coded(self, x: npt.NDArray[np.float64]) -> tuple[Bytes, float]:
        """The code of one vector, and its scale."""
        dots = single_product(x[None], self.products)[0]
        times = np.sqrt(max(np.cumsum(x * x)[-1], 1e-24)) / self.length
        searched = _searched((dots / times).astype(np.float32), self.gram, self.beam)
        words = _improved(*searched, self.gram, self.rounds)
        chosen = words + 16 * np.arange(len(words))
        square = np.cumsum(np.cumsum(self.gram[np.ix_(chosen, chosen)], axis=1, dtype=np.float64)[:, -1])[-1]
        scale = np.clip(np.cumsum(dots[chosen])[-1] / max(square, 1e-12), _LEAST, _MOST)
        return pack_subcodes(words[None])[0], float(scale)


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
