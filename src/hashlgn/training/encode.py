"""Codes of given vectors: additive quantization in the directions of the queries, and a scale."""

from __future__ import annotations

import numpy as np
import torch

from hashlgn.scoring.codes import pack_signs
from hashlgn.scoring.decoders import CodebookDecoder, Floats
from hashlgn.scoring.items import CodedItems
from hashlgn.training.hashes.residual import Residual, whitening

__all__ = ["coded_items"]


def coded_items(items: Floats, queries: Floats | None, bits: int, seed: int) -> CodedItems:
    """Codes, codewords and scales of vectors; see ``hashlgn.encode``."""
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _coded(torch.from_numpy(items), None if queries is None else torch.from_numpy(queries), bits)


def _coded(vectors: torch.Tensor, queries: torch.Tensor | None, bits: int) -> CodedItems:
    size = vectors.norm(dim=1).max()  # the vectors' own unit must not matter
    unit = vectors / size
    quantizer = Residual(len(unit), unit.shape[1], bits)
    codewords = quantizer.start(unit, None, queries).codewords
    assert codewords is not None
    codes = CodedItems(pack_signs(quantizer.codes.numpy()), CodebookDecoder((codewords * size).numpy()))
    close = torch.from_numpy(codes.decoder.decode(codes.packed)) / size
    turn = torch.eye(unit.shape[1]) if queries is None else whitening(queries)[0]
    wanted, held = unit @ turn, close @ turn
    scale = (wanted * held).sum(dim=1) / held.square().sum(dim=1).clamp(min=1e-30)
    return CodedItems(codes.packed, codes.decoder, scale.clamp(min=6e-5, max=6e4).numpy().astype(np.float16))
