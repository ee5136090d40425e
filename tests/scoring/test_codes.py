from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hashlgn.errors import ArgumentError
from hashlgn.scoring.codes import check_bits, hamming, pack_signs, pack_subcodes, unpack_signs, unpack_subcodes

shapes = st.tuples(st.integers(0, 20), st.integers(1, 8).map(lambda b: 8 * b))
signs = shapes.flatmap(lambda shape: arrays(np.int8, shape, elements=st.sampled_from([-1, 1])))


@given(signs)
def test_codes_there_and_back(codes: np.ndarray) -> None:
    packed = pack_signs(codes)
    assert packed.shape == (len(codes), codes.shape[1] // 8) and packed.dtype == np.uint8
    np.testing.assert_array_equal(unpack_signs(packed), codes)
    np.testing.assert_array_equal(pack_subcodes(unpack_subcodes(packed)), packed)


@given(signs)
def test_words_are_four_bits_the_first_least_significant(codes: np.ndarray) -> None:
    words = unpack_subcodes(pack_signs(codes))
    want = ((codes.reshape(len(codes), codes.shape[1] // 4, 4) > 0) * np.array([1, 2, 4, 8])).sum(axis=2)
    np.testing.assert_array_equal(words, want)


@given(signs)
def test_hamming_counts_differing_signs(codes: np.ndarray) -> None:
    packed = pack_signs(codes)
    np.testing.assert_array_equal(hamming(packed, packed), (codes[:, None] != codes[None]).sum(axis=2))


def test_by_hand() -> None:
    code = np.array([[1, -1, -1, -1, 0.0, 3.5, -2, -0.1]])  # zero counts as +1
    assert pack_signs(code).tolist() == [[0b00110001]]
    assert unpack_subcodes(pack_signs(code)).tolist() == [[0b0001, 0b0011]]
    assert hamming(np.array([[0b1011]], np.uint8), np.array([[0b0001]], np.uint8)).tolist() == [[2]]


@pytest.mark.parametrize("bits", [0, 4, 12, -8, 8.0, True, "8", None])
def test_lengths_that_are_no_multiple_of_eight(bits: object) -> None:
    with pytest.raises(ArgumentError, match="bits must be a positive multiple of 8"):
        check_bits(bits)


def test_bad_shapes_and_words() -> None:
    with pytest.raises(ArgumentError, match="codes must have shape"):
        pack_signs(np.ones(8))
    with pytest.raises(ArgumentError, match="multiple of 8"):
        pack_signs(np.ones((2, 7)))
    with pytest.raises(ArgumentError, match="even M"):
        pack_subcodes(np.ones((2, 3), int))
    with pytest.raises(ArgumentError, match="0 … 15"):
        pack_subcodes(np.full((1, 2), 16))
