"""How a model scores: decoders, tables, their bounds, fold-in."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hashlgn.errors import ArgumentError
from hashlgn.scoring.decoders import CodebookDecoder, ReweightDecoder
from hashlgn.scoring.fold_in import FoldIn
from hashlgn.scoring.items import CodedItems, FloatItems, score_bound, subcode_scores


def decoders(bits: int, seed: int = 0) -> list[ReweightDecoder | CodebookDecoder]:
    rng = np.random.default_rng(seed)
    return [
        ReweightDecoder(*rng.random((2, bits)).astype(np.float32)),
        CodebookDecoder(rng.standard_normal((bits // 4, 16, 5)).astype(np.float32)),
    ]


@pytest.mark.parametrize("which", [0, 1])
@given(st.integers(0, 2**32 - 1), st.sampled_from([8, 32, 64]))
@settings(deadline=None)
def test_tables_add_up_to_the_product_with_the_decoded_vector(which: int, seed: int, bits: int) -> None:
    rng = np.random.default_rng(seed)
    decoder = decoders(bits, seed)[which]
    packed = rng.integers(0, 256, (9, bits // 8), np.uint8)
    queries = rng.standard_normal((3, decoder.width)).astype(np.float32)
    tables = decoder.tables(queries)
    assert tables.shape == (3, bits // 4, 16)
    words = np.stack([packed & 15, packed >> 4], axis=2).reshape(9, -1)
    for table, query in zip(tables, queries, strict=True):
        want = decoder.decode(packed).astype(np.float64) @ query
        np.testing.assert_allclose(subcode_scores(table, words), want, rtol=1e-4, atol=1e-4)


@given(st.integers(0, 2**32 - 1))
def test_unit_weights_and_a_code_as_query_count_hamming(seed: int) -> None:
    rng = np.random.default_rng(seed)
    signs = rng.choice([-1.0, 1.0], (6, 16)).astype(np.float32)
    ones = np.ones(16, np.float32)
    packed = np.packbits(signs > 0, axis=1, bitorder="little")
    scores = ReweightDecoder(ones, ones).decode(packed) @ signs.T
    np.testing.assert_array_equal(scores, 16 - 2 * (signs[:, None] != signs[None]).sum(axis=2))


def test_tables_do_not_depend_on_the_batch() -> None:
    rng = np.random.default_rng(0)
    for decoder in decoders(128):
        queries = rng.standard_normal((100, decoder.width)).astype(np.float32)
        whole = decoder.tables(queries)
        for rows in (slice(0, 1), slice(3, 10), slice(50, 100)):
            np.testing.assert_array_equal(decoder.tables(queries[rows]), whole[rows])


@pytest.mark.parametrize("which", [0, 1])
def test_no_score_passes_the_reach(which: int) -> None:
    decoder = decoders(512 if which == 0 else 64)[which]  # wider than one block of unit vectors, and narrower
    packed = np.random.default_rng(1).integers(0, 256, (200, decoder.bits // 8), np.uint8)
    longest = float(np.linalg.norm(decoder.decode(packed), axis=1).max())
    assert longest <= score_bound(CodedItems(packed, decoder)) * (1 + 1e-6)
    assert score_bound(FloatItems(decoder.decode(packed))) == pytest.approx(longest)


def test_reach_by_hand() -> None:
    codewords = np.zeros((2, 16, 70), np.float32)
    codewords[0, 3, :2], codewords[0, 9, 69], codewords[1, 0, 68] = (3, 4), 2, 7  # lengths 5, 2 and 7
    assert score_bound(CodedItems(np.zeros((1, 1), np.uint8), CodebookDecoder(codewords))) == pytest.approx(12)
    assert score_bound(FloatItems(np.array([[1, 0], [-3, 4]], np.float32))) == 5
    assert score_bound(FloatItems(np.empty((0, 2), np.float32))) == 0


def test_coded_items_check_their_parts() -> None:
    decoder, packed = decoders(8)[1], np.zeros((3, 1), np.uint8)
    assert CodedItems(packed, decoder, np.ones(3, np.float16)).bytes_per_item == 3
    for wrong, message in (
        ((np.zeros((3, 2), np.uint8), decoder), "packed must have shape"),
        ((packed, decoder, np.ones(2, np.float16)), "scale must have shape"),
        ((packed, decoder, np.array([1, 0, 1], np.float16)), "scale must be positive"),
        ((packed, decoder, np.array([1, np.inf, 1], np.float16)), "scale must be positive"),
        ((packed, decoder, np.array([1, 1e39, 1])), "scale must be positive"),  # infinite in float32
        ((packed, decoder, np.array([1, 1e-50, 1])), "scale must be positive"),  # zero in float32
        ((packed, decoder, np.array(["1", "1", "1"])), "scale must be numbers"),
    ):
        with pytest.raises(ArgumentError, match=message):
            CodedItems(*wrong)


def test_fold_in_by_hand() -> None:
    vectors = np.array([[3, 0], [0, 4], [0, 0]], np.float32)
    bare = FoldIn(vectors, normalise=False)
    queries = bare.queries(np.array([0, 2, 2, 3]), np.array([0, 1, 2]))
    np.testing.assert_allclose(queries, [[3 / np.sqrt(2), 4 / np.sqrt(2)], [0, 0], [0, 0]], rtol=1e-6)
    layer = (np.array([[1, 1]], np.float32), np.array([-1], np.float32))
    np.testing.assert_allclose(
        FoldIn(vectors, (layer,), normalise=False).compress(np.array([[3, 4]], np.float32)), [[6]]
    )
    signs = FoldIn(vectors, (layer,), normalise=False, signs=True)
    np.testing.assert_array_equal(signs.compress(np.array([[3, 4], [1, 0], [0, 0]], np.float32)), [[1], [1], [-1]])
    unit = FoldIn(vectors, ((np.eye(2, dtype=np.float32) * 5, np.zeros(2, np.float32)),))
    np.testing.assert_allclose(unit.compress(np.array([[3, 4]], np.float32)), [[0.6, 0.8]], rtol=1e-6)


def test_what_is_large_is_told_in_a_line() -> None:
    codewords = np.zeros((4, 16, 3), np.float32)
    coded = CodedItems(np.zeros((1000, 2), np.uint8), CodebookDecoder(codewords), np.ones(1000, np.float16))
    assert repr(coded) == "CodedItems(1,000 items, 4 bytes per item, CodebookDecoder(16 bits, width 3))"
    assert repr(FloatItems(np.zeros((1000, 3), np.float32))) == "FloatItems(1,000 items, width 3)"
