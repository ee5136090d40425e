"""How a model scores: decoders, tables, fold-in; and the exclusion that goes with a search."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hashlgn.errors import ArgumentError
from hashlgn.filters import Exclusion
from hashlgn.scoring import CodebookDecoder, CodedItems, FoldIn, ReweightDecoder, word_scores


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
        np.testing.assert_allclose(word_scores(table, words), want, rtol=1e-4, atol=1e-4)


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


def test_coded_items_check_their_parts() -> None:
    decoder, packed = decoders(8)[1], np.zeros((3, 1), np.uint8)
    assert CodedItems(packed, decoder, np.ones(3, np.float16)).bytes_per_item == 3
    for wrong, message in (
        ((np.zeros((3, 2), np.uint8), decoder), "packed must have shape"),
        ((packed, decoder, np.ones(2, np.float16)), "scale must have shape"),
        ((packed, decoder, np.array([1, 0, 1], np.float16)), "scale must be positive"),
        ((packed, decoder, np.array([1, np.inf, 1], np.float16)), "scale must be positive"),
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
    unit = FoldIn(vectors, ((np.eye(2, dtype=np.float32) * 5, np.zeros(2, np.float32)),))
    np.testing.assert_allclose(unit.compress(np.array([[3, 4]], np.float32)), [[0.6, 0.8]], rtol=1e-6)


lists = st.lists(st.lists(st.integers(0, 9), max_size=12), max_size=6)


@given(lists, st.none() | st.lists(st.integers(0, 9)), st.none() | st.lists(st.integers(0, 9)))
def test_exclusion_says_what_its_lists_say(
    seen: list[list[int]], allow: list[int] | None, deny: list[int] | None
) -> None:
    indptr = np.cumsum([0, *map(len, seen)])
    exclude = Exclusion.build(
        10, seen=(indptr, np.array([item for row in seen for item in row], np.int64)), allow=allow, deny=deny
    )

    def out(row: int, item: int) -> bool:
        return item in seen[row] or (allow is not None and item not in allow) or (deny is not None and item in deny)

    want = np.array([[out(row, item) for item in range(10)] for row in range(len(seen))], bool).reshape(len(seen), 10)
    np.testing.assert_array_equal(exclude.masks(len(seen)), want)
    rows, items = np.meshgrid(np.arange(len(seen)), np.arange(10), indexing="ij")
    np.testing.assert_array_equal(exclude.excluded(rows, items), want)
    order = np.arange(len(seen))[::-1]
    np.testing.assert_array_equal(exclude.take(order).masks(len(seen)), want[order])
    kept = np.array([1, 4, 5, 9])
    own = np.array([[item in row for item in kept.tolist()] for row in seen], bool).reshape(len(seen), 4)
    np.testing.assert_array_equal(exclude.within(kept).masks(len(seen)), own)


def test_exclusion_refuses_what_is_no_item() -> None:
    for lists, message in (
        ({"allow": [10]}, "allow must hold item numbers in 0 … 9"),
        ({"deny": [-1]}, "deny must hold item numbers"),
        ({"deny": [0.5]}, "deny must be a flat list"),
        ({"seen": (np.array([0, 2]), np.array([1]))}, "seen must be"),
        ({"seen": (np.array([0, 1]), np.array([11]))}, "seen must hold item numbers"),
    ):
        with pytest.raises(ArgumentError, match=message):
            Exclusion.build(10, **lists)
