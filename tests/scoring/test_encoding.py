"""Sub-codes of vectors under given codewords: compiled, in NumPy, and beside all that there are."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from hashlgn.scoring import encoding


def made(n: int, subcodes: int, width: int = 8, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    codewords = rng.standard_normal((16 * subcodes, width)).astype(np.float32)
    return codewords, rng.standard_normal((n, width)).astype(np.float32), codewords @ codewords.T


@pytest.mark.parametrize("beam", [1, 3, 8, 40])
@pytest.mark.parametrize("rounds", [0, 2])
def test_compiled_and_numpy_give_the_same_subcodes(beam: int, rounds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    codewords, vectors, gram = made(7, 6)
    fast = encoding.encode(vectors @ codewords.T, gram, beam, rounds)
    monkeypatch.setattr(encoding, "_compiled", None)
    np.testing.assert_array_equal(fast, encoding.encode(vectors @ codewords.T, gram, beam, rounds))


def test_a_wide_beam_finds_the_best_of_all() -> None:
    codewords, vectors, gram = made(5, 2)
    every = np.array(list(itertools.product(range(16), repeat=2)))
    sums = codewords[every[:, 0]] + codewords[16 + every[:, 1]]
    best = ((vectors[:, None] - sums) ** 2).sum(axis=2).argmin(axis=1)
    np.testing.assert_array_equal(encoding.encode(vectors @ codewords.T, gram, 16), every[best])


def test_rounds_never_make_it_worse() -> None:
    codewords, vectors, gram = made(50, 8)
    errors = []
    for rounds in range(4):
        subcodes = encoding.encode(vectors @ codewords.T, gram, 2, rounds)
        errors.append(((vectors - codewords[subcodes + 16 * np.arange(8)].sum(axis=1)) ** 2).sum(axis=1))
    for before, after in itertools.pairwise(errors):
        assert (after <= before + 1e-4).all()
    assert errors[-1].sum() < errors[0].sum()
