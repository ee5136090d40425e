"""Users as histories, from floats and from codes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hashlgn.errors import ArgumentError
from hashlgn.scoring.decoders import CodebookDecoder
from hashlgn.scoring.fold_in import FoldIn
from hashlgn.scoring.histories import CodedHistories, FloatHistories, Histories, queries


def made(kind: str, rng: np.random.Generator, n: int = 30) -> tuple[Histories, np.ndarray]:
    """Histories of a kind and the vectors ``p`` that they stand for."""
    if kind == "float":
        vectors = rng.standard_normal((n, 5)).astype(np.float32)
        return FloatHistories(vectors), vectors.astype(np.float64)
    packed, weight = rng.integers(0, 256, (n, 4), np.uint8), rng.uniform(0.5, 2, n).astype(np.float16)
    codewords = rng.standard_normal((8, 16, 5)).astype(np.float32)
    decoded = CodebookDecoder(codewords).decode(packed).astype(np.float64)
    return CodedHistories(packed, codewords, weight), decoded * weight[:, None].astype(np.float64)


@pytest.mark.parametrize("kind", ["float", "coded"])
@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, 12), max_size=6), st.booleans())
def test_sums_are_the_sums_of_the_vectors_in_any_order_and_batch(
    kind: str, seed: int, counts: list[int], weighted: bool
) -> None:
    rng = np.random.default_rng(seed)
    histories, p = made(kind, rng)
    rows = [rng.permutation(30)[:count] for count in counts]
    indptr = np.concatenate(([0], np.cumsum(counts))).astype(np.int64)
    indices = np.concatenate([np.empty(0, np.int64), *rows])
    weights = rng.uniform(0.1, 3, len(indices)) if weighted else None
    found, unit = histories.vectors(indptr, indices, weights), queries(histories, indptr, indices, weights)
    assert (found.dtype, unit.dtype) == (np.float64, np.float32)
    assert found.shape == unit.shape == (len(rows), histories.width)
    for row, items in enumerate(rows):
        own = np.ones(len(items)) if weights is None else weights[indptr[row] : indptr[row + 1]]
        want = own @ p[items]
        np.testing.assert_allclose(found[row], want, rtol=1e-5, atol=1e-5)
        if len(items):
            np.testing.assert_allclose(unit[row], want / np.linalg.norm(want), rtol=1e-4, atol=1e-4)
        other = rng.permutation(len(items))  # alone, and in another order: not a bit is different
        alone = ([0, len(items)], items[other], own[other])
        np.testing.assert_array_equal(histories.vectors(*alone)[0], found[row])
        np.testing.assert_array_equal(queries(histories, *alone)[0], unit[row])
    order = np.arange(len(rows))[::-1]
    assert [queries(histories, [0, len(rows[r])], rows[r]).shape for r in order] == [(1, 5)] * len(rows)


def test_by_hand() -> None:
    codewords = np.zeros((2, 16, 2), np.float32)
    codewords[0, 1], codewords[1, 2] = (3, 0), (0, 4)
    packed = np.array([[0x21], [0x20], [0x00]], np.uint8)  # (3, 4), (0, 4), nothing
    histories = CodedHistories(packed, codewords, np.array([1, 0.5, 1], np.float16))
    assert histories.vectors([0, 2, 3, 3], [1, 0, 2]).tolist() == [[3, 6], [0, 0], [0, 0]]
    assert histories.vectors([0, 1], [1], [6]).tolist() == [[0, 12]]
    np.testing.assert_array_equal(
        queries(histories, [0, 1, 2, 2], [0, 2]), np.array([[0.6, 0.8], [0, 0], [0, 0]], "f4")
    )
    assert (len(histories), histories.width, histories.bytes_per_item) == (3, 2, 3.0)
    floats = FloatHistories(np.ones((3, 4), np.float32))
    assert (len(floats), floats.width, floats.bytes_per_item) == (3, 4, 16.0)


@pytest.mark.parametrize("size", [1e-300, 1e-160, 1e160, 1e300])
def test_the_size_of_the_weights_cancels(size: float) -> None:
    histories, _ = made("float", np.random.default_rng(0))
    want = queries(histories, [0, 3], [1, 2, 3])
    np.testing.assert_allclose(queries(histories, [0, 3], [1, 2, 3], np.full(3, size)), want, rtol=1e-6)


@pytest.mark.parametrize("kind", ["float", "coded"])
@pytest.mark.parametrize(
    ("history", "message"),
    [
        (([0, 2], [3, 3]), "item 3 is there twice"),
        (([0, 2], [0, 30]), r"item numbers in 0 … 29 .got 30"),
        (([0, 2], [0, -1]), r"item numbers in 0 … 29 .got -1"),
        (([0, 1], [0, 1]), "indptr must ascend"),
        (([1, 2], [0, 1]), "indptr must ascend"),
        (([0, 2, 1, 2], [0, 1]), "indptr must ascend"),
        (([], []), "indptr must ascend"),
        (([0, 1], [0.5]), "indices must be a flat array of integers"),
        (([0, 1], [[0]]), "indices must be a flat array of integers"),
        (([0, 1], [0], [0.0]), "weights must be positive and finite"),
        (([0, 1], [0], [-1]), "weights must be positive and finite"),
        (([0, 1], [0], [np.nan]), "weights must be positive and finite"),
        (([0, 1], [0], [np.inf]), "weights must be positive and finite"),
        (([0, 1], [0], [1, 2]), "weights must be 1 numbers"),
        (([0, 1], [0], ["1"]), "weights must be 1 numbers"),
    ],
)
def test_histories_that_are_refused(kind: str, history: tuple, message: str) -> None:
    histories, _ = made(kind, np.random.default_rng(0))
    with pytest.raises(ArgumentError, match=message):
        histories.vectors(*history)
    with pytest.raises(ArgumentError, match=message):
        queries(histories, *history)


def test_sums_beyond_float64_are_refused() -> None:
    histories = FloatHistories(np.full((3, 2), 1e30, np.float32))
    with pytest.raises(ArgumentError, match="so small that the sum of a history is finite"):
        queries(histories, [0, 1], [0], [1e300])


def test_arrays_that_do_not_fit_together() -> None:
    codewords, packed, weight = np.zeros((8, 16, 3), np.float32), np.zeros((5, 4), np.uint8), np.ones(5, np.float16)
    for arrays, message in (
        ((packed[:, :3], codewords, weight), "packed must be uint8 with 8 / 2 columns"),
        ((packed.astype(np.int64), codewords, weight), "packed must be uint8 with 8 / 2 columns"),
        ((packed, codewords, weight.astype(np.int64)), "weight must be finite"),
        ((packed, codewords, weight.astype(np.float64)), "weight must be finite float16 or float32"),
        ((packed, codewords[:, :15], weight), "codewords must be finite"),
        ((packed, codewords + np.float32(np.inf), weight), "codewords must be finite"),
        ((packed, codewords, weight[:4]), "weight must be finite"),
        ((packed, codewords, weight * np.float16(np.nan)), "weight must be finite"),
    ):
        with pytest.raises(ArgumentError, match=message):
            CodedHistories(*arrays)
    with pytest.raises(ArgumentError, match="items must be finite float32"):
        FloatHistories(np.full((2, 2), np.nan, np.float32))
    with pytest.raises(ArgumentError, match="items must be finite float32"):
        FloatHistories(np.ones((2, 2)))


def test_fold_in_does_not_depend_on_the_order_of_events_or_the_batch() -> None:
    rng = np.random.default_rng(0)
    layers = tuple(
        (rng.standard_normal((7, 7)).astype(np.float32), rng.standard_normal(7).astype(np.float32)) for _ in "ab"
    )
    rows = [rng.permutation(40)[:count] for count in (3, 0, 17, 30, 1, 9)]
    indptr = np.concatenate(([0], np.cumsum([len(row) for row in rows])))
    for dtype in (np.float16, np.float32):
        fold_in = FoldIn(rng.standard_normal((40, 7)).astype(dtype), layers)
        whole = fold_in.queries(indptr, np.concatenate(rows))
        for row, query in zip(rows, whole, strict=True):
            alone = np.array([0, len(row)])
            np.testing.assert_array_equal(fold_in.queries(alone, row)[0], query)
            np.testing.assert_array_equal(fold_in.queries(alone, rng.permutation(row))[0], query)
        with pytest.raises(ArgumentError, match="twice"):
            fold_in.queries(np.array([0, 2]), np.array([5, 5]))
