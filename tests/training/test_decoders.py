"""Decoders and compressions are the NumPy functions that they export."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from hashlgn.errors import ArgumentError
from hashlgn.scoring.codes import pack_signs, unpack_subcodes
from hashlgn.scoring.fold_in import FoldIn
from hashlgn.scoring.items import subcode_scores
from hashlgn.training.decoders import COMPRESSIONS, DECODERS, Codebook, compression, compression_layers
from hashlgn.training.hashes import sign

pytestmark = pytest.mark.usefixtures("seeded")


@pytest.mark.parametrize("name", DECODERS)
def test_a_decoder_exports_the_function_it_is(name: str) -> None:
    decoder = DECODERS[name](16, 6)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.add_(torch.randn_like(parameter))
    codes = sign(torch.randn(30, 16))
    packed = pack_signs(codes.numpy())
    exported = decoder.export()
    np.testing.assert_allclose(decoder(codes).detach().numpy(), exported.decode(packed), rtol=1e-5, atol=1e-6)
    soft = codes.clone().requires_grad_()  # the corner of the differentiable form
    np.testing.assert_allclose(decoder(soft).detach().numpy(), exported.decode(packed), rtol=1e-5, atol=1e-5)
    decoder(soft).sum().backward()
    assert soft.grad is not None and soft.grad.abs().sum() > 0


@pytest.mark.parametrize("name", DECODERS)
def test_tables_score_what_the_decoder_decodes(name: str) -> None:
    decoder = DECODERS[name](16, 6)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.add_(torch.randn_like(parameter))
    codes, queries = sign(torch.randn(30, 16)), torch.randn(4, decoder.width)
    scale = np.random.default_rng(0).uniform(0.5, 2, 30).astype(np.float16)
    words, tables = unpack_subcodes(pack_signs(codes.numpy())), decoder.export().tables(queries.numpy())
    want = (queries @ decoder(codes).T).detach().numpy() * scale
    got = np.stack([subcode_scores(table, words, scale) for table in tables])
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_slopes_at_the_corners() -> None:
    """The codebook's slope along a bit is half of what flipping it changes; the paper's is its weight."""
    book, paper = Codebook(8, 5), DECODERS["reweight"](8, 8)
    with torch.no_grad():
        paper.raw_alpha.uniform_(-1, 1)
        paper.raw_beta.uniform_(-1, 1)
    corner, direction = sign(torch.randn(1, 8)), torch.randn(5)
    soft = corner.clone().requires_grad_()
    (slopes,) = torch.autograd.grad((book(soft) @ direction).sum(), soft)
    for j in range(8):
        up, down = corner.clone(), corner.clone()
        up[0, j], down[0, j] = 1, -1
        torch.testing.assert_close(slopes[0, j], ((book(up) - book(down)) @ direction / 2)[0])
    (slopes,) = torch.autograd.grad(paper(soft).sum(), soft)
    torch.testing.assert_close(slopes, torch.where(corner > 0, paper.alpha, paper.beta))


def test_weights_of_the_paper_are_never_negative() -> None:
    decoder = DECODERS["reweight"](8, 8)
    torch.testing.assert_close(decoder(sign(torch.randn(4, 8))).abs(), torch.ones(4, 8), rtol=1e-3, atol=1e-3)
    with torch.no_grad():
        decoder.raw_alpha.fill_(-50)
        decoder.raw_beta.uniform_(-5, 5)
    exported = decoder.export()
    assert (exported.alpha >= 0).all() and (exported.beta >= 0).all()


def test_a_codebook_can_be_the_paper() -> None:
    """Every bit acting alone is a case of the codebook."""
    paper = DECODERS["reweight"](8, 8)
    codes = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=8)))
    book = Codebook(8, 8)
    with torch.no_grad():
        paper.raw_alpha.uniform_(-1, 1)
        book.codewords.zero_()
        for word, value, bit in itertools.product(range(2), range(16), range(4)):
            j = 4 * word + bit
            book.codewords[word, value, j] = paper.alpha[j] if value >> bit & 1 else -paper.beta[j]
    torch.testing.assert_close(book(codes), paper(codes))


@pytest.mark.parametrize("kind", COMPRESSIONS)
@pytest.mark.parametrize("width", [6, 8])
def test_compression_is_what_serving_applies(kind: str, width: int) -> None:
    f = compression(kind, 6, width)
    q = torch.randn(5, 6)
    if width == 6:
        torch.testing.assert_close(f(q), q)
    with torch.no_grad():
        for parameter in f.parameters():
            parameter.add_(torch.randn_like(parameter))
    served = FoldIn(np.zeros((1, 6), np.float32), compression_layers(f), normalise=False)
    np.testing.assert_allclose(served.compress(q.numpy()), f(q).detach().numpy(), rtol=1e-4, atol=1e-5)
    with pytest.raises(ArgumentError, match="compression must be one of"):
        compression("deep", 6, 6)
