"""From vectors to codes: residual quantization in the metric of what the vectors meet, and a scale beside it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hashlgn.training.hashes import Residual
from hashlgn.training.student.forms import Codes

__all__ = ["coded"]


def coded(vectors: Tensor, bits: int, partners: Tensor, weights: Tensor) -> Codes:
    """Codes of vectors whose inner products with ``partners`` shall keep: the direction by residual quantization in the
    metric of the partners' second moment, then the length that brings the decoded vector closest.

    Args:
        vectors: ``(n, dim)``.
        bits: length of a code.
        partners: ``(m, dim)``: queries for answers, answers for histories.
        weights: how much the error of each vector counts, ``(n,)``.
    """
    quantizer = Residual(len(vectors), vectors.shape[1], bits).to(vectors.device)
    start = quantizer.start(nn.functional.normalize(vectors), weights, partners)
    assert start.codewords is not None
    powers = torch.tensor([1, 2, 4, 8], device=vectors.device)
    subcodes = ((quantizer.codes.view(len(vectors), -1, 4) > 0) * powers).sum(dim=2).to(torch.uint8)
    return Codes.fitted(subcodes, start.codewords, vectors)
