"""From vectors to codes: residual quantization in the metric of what the vectors meet, and a scale beside it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hashlgn.training.hashes import Residual
from hashlgn.training.hashes.residual import refine, whitening
from hashlgn.training.student.forms import Codes

__all__ = ["coded"]


def coded(
    vectors: Tensor, bits: int, partners: Tensor, weights: Tensor, known: Codes | None = None, *, rounds: int = 3
) -> Codes:
    """Codes of vectors whose inner products with ``partners`` shall keep: the direction by residual quantization in the
    metric of the partners' second moment, then the length that brings the decoded vector closest.

    Args:
        vectors: ``(n, dim)``.
        bits: length of a code.
        partners: ``(m, dim)``: queries for answers, answers for histories.
        weights: how much the error of each vector counts, ``(n,)``.
        known: codes of the same items for vectors that were a little different; local search brings sub-codes and
            codewords closer to the vectors. New ones are found where None, or where they have another length.
        rounds: of this local search.
    """
    if known is not None and 4 * known.subcodes.shape[1] == bits:
        turn, back = whitening(partners)
        scale = known.log_scale.exp()
        codewords = known.codewords.view(-1, 16, known.codewords.shape[1]) @ turn
        near = vectors / scale @ turn
        codewords, rows = refine(near, codewords, known.subcodes.long(), weights * scale[:, 0].square(), rounds)
        return Codes.fitted(rows.to(torch.uint8), codewords @ back, vectors)
    quantizer = Residual(len(vectors), vectors.shape[1], bits).to(vectors.device)
    start = quantizer.start(nn.functional.normalize(vectors), weights, partners)
    assert start.codewords is not None
    powers = torch.tensor([1, 2, 4, 8], device=vectors.device)
    subcodes = ((quantizer.codes.view(len(vectors), -1, 4) > 0) * powers).sum(dim=2).to(torch.uint8)
    return Codes.fitted(subcodes, start.codewords, vectors)
