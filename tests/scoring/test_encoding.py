"""Sub-codes of vectors under given codewords: compiled, in NumPy, and beside all that there are."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hashlgn.scoring import encoding, products
from hashlgn.scoring.codes import unpack_subcodes
from hashlgn.scoring.encoding import Coder

LENGTH = 3.0


def made(n: int, subcodes: int, width: int = 8, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Codewords, and vectors of the length at which they are searched."""
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((n, width)).astype(np.float32)
    vectors *= np.float32(LENGTH) / np.linalg.norm(vectors, axis=1, keepdims=True)
    return rng.standard_normal((subcodes, 16, width)).astype(np.float32), vectors


def coded(codewords: np.ndarray, vectors: np.ndarray, beam: int, rounds: int) -> np.ndarray:
    coder = Coder(codewords, np.eye(vectors.shape[1], dtype=np.float32), LENGTH, beam, rounds)
    return unpack_subcodes(coder.code(vectors)[0])


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 2**32 - 1), st.sampled_from([1, 3, 8, 40]), st.integers(0, 2), st.integers(1, 3), st.floats(-9, 9)
)
def test_compiled_and_numpy_give_the_same_bits(seed: int, beam: int, rounds: int, bytes_: int, size: float) -> None:
    codewords, vectors = made(3, 2 * bytes_, seed=seed)
    vectors[1:] *= np.float32(10**size)
    vectors[2] = 0
    metric = np.diag(np.arange(1, 9)).astype(np.float32)
    fast = Coder(codewords, metric, LENGTH, beam, rounds).code(vectors)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoding, "_compiled", None)
        patch.setattr(products, "_compiled", None)
        plain = Coder(codewords, metric, LENGTH, beam, rounds).code(vectors)
    for one, other in zip(fast, plain, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_vector_alone_has_the_code_that_it_has_with_others() -> None:
    codewords, vectors = made(130, 4)
    vectors *= np.linspace(0.1, 5, 130, dtype=np.float32)[:, None]
    coder = Coder(codewords, np.diag(np.arange(1, 9)).astype(np.float32), LENGTH)
    together = coder.code(vectors)
    for row in range(130):
        alone = coder.code(vectors[row : row + 1])
        for one, other in zip(alone, together, strict=True):
            np.testing.assert_array_equal(one[0], other[row])


@pytest.mark.skipif(encoding._compiled is None, reason="the kernel was not compiled when HashLGN was installed")
def test_scales_have_the_same_bits_before_they_are_rounded() -> None:
    codewords, vectors = made(40, 20)
    coder = Coder(codewords, np.diag(np.arange(1, 9)).astype(np.float32), LENGTH)
    packed, scales = np.empty((40, 10), np.uint8), np.empty(40)
    coder.held.code(vectors, packed, scales)
    assert scales.tolist() == [coder._coded(x)[1] for x in vectors.astype(np.float64)]


def test_a_wide_beam_finds_the_best_of_all() -> None:
    codewords, vectors = made(5, 2)
    every = np.array(list(itertools.product(range(16), repeat=2)))
    sums = codewords[0, every[:, 0]] + codewords[1, every[:, 1]]
    best = ((vectors[:, None] - sums) ** 2).sum(axis=2).argmin(axis=1)
    np.testing.assert_array_equal(coded(codewords, vectors, 16, 3), every[best])


def test_rounds_never_make_it_worse() -> None:
    codewords, vectors = made(50, 8)
    errors = []
    for rounds in range(4):
        subcodes = coded(codewords, vectors, 2, rounds)
        errors.append(((vectors - codewords[np.arange(8), subcodes].sum(axis=1)) ** 2).sum(axis=1))
    for before, after in itertools.pairwise(errors):
        assert (after <= before + 1e-4).all()
    assert errors[-1].sum() < errors[0].sum()


def test_scales_bring_what_is_decoded_closest() -> None:
    codewords, vectors = made(20, 8)
    vectors *= np.linspace(0.1, 5, 20, dtype=np.float32)[:, None]
    packed, scales = Coder(codewords, np.eye(8, dtype=np.float32), LENGTH).code(vectors)
    sums = codewords[np.arange(8), unpack_subcodes(packed)].sum(axis=1)
    np.testing.assert_allclose(scales, (sums * vectors).sum(axis=1) / (sums**2).sum(axis=1), rtol=2e-3)
