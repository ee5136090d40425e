"""Ordered products: the compiled form gives the bits of the NumPy form, whatever the batch and the instruction set."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hashlgn._kernel import compiled
from hashlgn.scoring import products
from hashlgn.scoring.products import (
    chosen_products,
    histograms,
    norms,
    ordered_product,
    single_product,
    unit_rows,
    weighted_sums,
)

kernel = compiled()
SETS = [] if kernel is None else kernel.instruction_sets()
seeds = st.integers(0, 2**32 - 1)


@contextmanager
def by_numpy() -> Iterator[None]:
    """The definitions, without the compiled module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(products, "_compiled", None)
        yield


def bits(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values).view(np.uint64)


def numbers(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Numbers of very different sizes and both signs, nearly cancelling sums, zeros of both signs."""
    drawn = rng.standard_normal(shape) * 10.0 ** rng.integers(-30, 10, shape)
    drawn[rng.random(shape) < 0.2] = 0.0
    drawn[rng.random(shape) < 0.1] = -0.0
    drawn[rng.random(shape) < 0.1] = 1e-45
    return drawn.astype(np.float32)


@settings(deadline=None, max_examples=100)
@given(seeds, st.integers(0, 11), st.integers(0, 70), st.integers(0, 70), st.booleans())
def test_products_have_the_bits_of_the_definition(seed: int, q: int, n: int, width: int, double: bool) -> None:
    rng = np.random.default_rng(seed)
    x, y = numbers(rng, q, n), numbers(rng, n, width)
    x = x * np.float64(1 / 3) if double else x
    with by_numpy():
        want = ordered_product(x, y)
    by_hand = np.zeros((q, width))
    for j in range(n):
        by_hand += x[:, j, None].astype(np.float64) * y[j].astype(np.float64)
    np.testing.assert_array_equal(bits(by_hand), bits(want))
    for isa in SETS:
        np.testing.assert_array_equal(bits(ordered_product(x, y, isa)), bits(want))
        for cut in range(q):
            np.testing.assert_array_equal(bits(ordered_product(x[cut : cut + 3], y, isa)), bits(want[cut : cut + 3]))


@settings(deadline=None, max_examples=100)
@given(seeds, st.integers(0, 11), st.integers(0, 70), st.integers(0, 70), st.integers(-290, 290))
def test_products_in_single_precision_have_the_bits_of_the_definition(
    seed: int, q: int, n: int, width: int, exponent: int
) -> None:
    rng = np.random.default_rng(seed)
    x, y = numbers(rng, q, n).astype(np.float64) / 3, np.clip(numbers(rng, n, width), -1e6, 1e6)
    with by_numpy():
        want = single_product(x, y)
    by_hand = np.zeros((q, width), np.float32)
    power = 2.0 ** -np.frexp(np.abs(x).max(axis=1, initial=0))[1]
    with np.errstate(under="ignore"):
        for j in range(n):
            by_hand += (x[:, j] * power).astype(np.float32)[:, None] * y[j]
    np.testing.assert_array_equal(bits(by_hand.astype(np.float64)), bits(want * power[:, None]))
    sizes = np.abs(x) @ np.abs(y).astype(np.float64)
    assert (np.abs(want - x @ y.astype(np.float64)) <= 1e-5 * sizes + 1e-37 * np.abs(x).sum(axis=1)[:, None]).all()
    for isa in SETS:
        np.testing.assert_array_equal(bits(single_product(x, y, isa)), bits(want))
        for cut in range(q):
            np.testing.assert_array_equal(bits(single_product(x[cut : cut + 3], y, isa)), bits(want[cut : cut + 3]))
    far = np.ldexp(x, exponent)  # only ratios count, as long as all numbers stay inside float64
    if np.abs(x[x != 0]).min(initial=1) > 1e-200:
        for isa in ("auto", *SETS)[: 1 + len(SETS)]:
            np.testing.assert_array_equal(bits(single_product(far, y, isa)), bits(np.ldexp(want, exponent)))


@pytest.mark.parametrize("broken", [np.inf, -np.inf, np.nan])
def test_what_is_not_finite_counts_where_its_factor_is_not_zero(broken: float) -> None:
    x, y = np.eye(6, dtype=np.float32)[:, :5], np.ones((5, 20), np.float32)
    y[1, 3] = broken
    with by_numpy():
        want = ordered_product(x, y)
    assert np.flatnonzero(~np.isfinite(want)).tolist() == [20 + 3]
    for isa in SETS:
        np.testing.assert_array_equal(ordered_product(x, y, isa), want)


@settings(deadline=None, max_examples=60)
@given(seeds, st.integers(0, 5), st.integers(0, 40), st.integers(0, 20))
def test_chosen_products_are_entries_of_the_whole_product(seed: int, q: int, n: int, length: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = numbers(rng, q, n), numbers(rng, 9, n)
    chosen = rng.integers(0, 9, (q, length))
    want = np.take_along_axis(ordered_product(x, np.ascontiguousarray(y.T)), chosen, axis=1)
    np.testing.assert_array_equal(bits(chosen_products(x, y, chosen)), bits(want))
    with by_numpy():
        np.testing.assert_array_equal(bits(chosen_products(x, y, chosen)), bits(want))


@settings(deadline=None, max_examples=60)
@given(seeds, st.lists(st.integers(0, 9), max_size=6), st.integers(0, 40), st.integers(1, 9))
def test_sums_and_histograms_have_the_bits_of_the_definition(
    seed: int, counts: list[int], width: int, n_bytes: int
) -> None:
    rng = np.random.default_rng(seed)
    indptr = np.concatenate(([0], np.cumsum(counts))).astype(np.int64)
    indices = rng.integers(0, 12, int(indptr[-1]))
    weights = numbers(rng, len(indices)).astype(np.float64) / 3
    vectors, packed = numbers(rng, 12, width), rng.integers(0, 256, (12, n_bytes), np.uint8)
    sums, found = weighted_sums(indptr, indices, weights, vectors), histograms(indptr, indices, weights, packed)
    with by_numpy():
        np.testing.assert_array_equal(bits(weighted_sums(indptr, indices, weights, vectors)), bits(sums))
        np.testing.assert_array_equal(bits(histograms(indptr, indices, weights, packed)), bits(found))
    for row in range(len(counts)):
        total, table = np.zeros(width), np.zeros((2 * n_bytes, 16))
        for entry in range(indptr[row], indptr[row + 1]):
            total += weights[entry] * vectors[indices[entry]]
            for m in range(2 * n_bytes):
                table[m, packed[indices[entry], m // 2] >> 4 * (m % 2) & 15] += weights[entry]
        np.testing.assert_array_equal(bits(sums[row]), bits(total))
        np.testing.assert_array_equal(bits(found[row]), bits(table.ravel()))


@given(seeds, st.integers(1, 9), st.integers(0, 50))
def test_lengths_do_not_depend_on_the_batch(seed: int, n: int, width: int) -> None:
    vectors = np.random.default_rng(seed).standard_normal((n, width)).astype(np.float32)
    whole = norms(vectors)
    np.testing.assert_allclose(whole, np.linalg.norm(vectors.astype(np.float64), axis=1), rtol=1e-12)
    for row in range(n):
        np.testing.assert_array_equal(bits(norms(vectors[row : row + 1])), bits(whole[row : row + 1]))
        np.testing.assert_array_equal(bits(norms(np.asfortranarray(vectors))), bits(whole))


@given(seeds, st.integers(0, 5), st.integers(1, 3), st.integers(1, 20), st.booleans(), st.booleans())
def test_queries_in_one_call_have_the_bits_of_the_steps(
    seed: int, q: int, n_bytes: int, width: int, half: bool, weighted: bool
) -> None:
    rng = np.random.default_rng(seed)
    packed, codewords = rng.integers(0, 256, (9, n_bytes), np.uint8), numbers(rng, 32 * n_bytes, width)
    weight = (rng.standard_normal(9) * 10.0 ** rng.integers(-7, 4, 9)).astype(np.float16 if half else np.float32)
    lists = [np.flatnonzero(rng.random(9) < 0.4) for _ in range(q)]
    indptr = np.cumsum([0, *map(len, lists)], dtype=np.int64)
    indices = np.concatenate([np.empty(0, np.int64), *lists]).astype(np.int64)
    strengths = rng.lognormal(0, 2, len(indices)).astype(np.float32) if weighted else None
    with by_numpy():
        ones = np.ones(len(indices)) if strengths is None else strengths.astype(np.float64)
        found = single_product(histograms(indptr, indices, ones * weight[indices], packed), codewords)
        want = unit_rows(found)
    np.testing.assert_array_equal(unit_rows(found).view(np.uint32), want.view(np.uint32))
    if kernel is not None:
        held = kernel.HistoryCodes(
            *([side[start : start + 4] for start in (0, 4, 8)] for side in (packed, weight)), codewords
        )
        table = np.empty((q, 32 * n_bytes))
        held.histogram(indptr, indices, ones, table)
        np.testing.assert_array_equal(
            table.view(np.uint64), histograms(indptr, indices, ones * weight[indices], packed).view(np.uint64)
        )
        got = held.queries(indptr, indices, strengths)
        np.testing.assert_array_equal(got.view(np.uint32), want.view(np.uint32))
        assert held.queries(indptr, indices - 9, strengths) is None or not len(indices)


@pytest.mark.parametrize("size", [5e-324, 1e-310, 1e-200, 1.0, 1e200, 1.7e308])
def test_rows_of_any_size_become_unit_rows(size: float) -> None:
    v = np.array([[3.0, -4.0, 0.0], [0.0, 0.0, 0.0]]) * np.float64(size if size < 1e308 else size / 4)
    with by_numpy():
        want = unit_rows(v)
        assert unit_rows(np.array([[np.inf, 1.0]])) is None and unit_rows(np.array([[np.nan]])) is None
    np.testing.assert_array_equal(unit_rows(v).view(np.uint32), want.view(np.uint32))
    np.testing.assert_allclose(want, [[0.6, -0.8, 0], [0, 0, 0]], rtol=1e-6)
    assert unit_rows(np.array([[np.inf, 1.0]])) is None and unit_rows(np.array([[np.nan]])) is None


@pytest.mark.skipif(kernel is None, reason="the search kernel was not compiled when HashLGN was installed")
def test_the_compiled_forms_refuse_arrays_that_do_not_fit() -> None:
    x, y, out = np.zeros((2, 3)), np.zeros((3, 4), np.float32), np.zeros((2, 4))
    rows, ones = np.array([0, 1, 2]), np.ones(2)
    for call, message in (
        (lambda: kernel.product(x, y[:2].copy(), out), "x and y must fit"),
        (lambda: kernel.product(x, y, out[:1]), "out must have the shape"),
        (lambda: kernel.single(x, y[:2].copy(), out), "x and y must fit"),
        (lambda: kernel.single(x, y, out[:1]), "out must have the shape"),
        (lambda: kernel.chosen(np.zeros((2, 4)), y, np.zeros((1, 1), np.int64), out[:1, :1].copy()), "items must fit"),
        (lambda: kernel.chosen(np.zeros((1, 4)), y, np.full((1, 1), 3), np.zeros((1, 1))), "must lie inside"),
        (lambda: kernel.sums(rows, np.array([0, -1]), ones, y, out), "must lie inside"),
        (lambda: kernel.sums(np.array([0, 2, 1]), np.array([0, 1]), ones, y, out), "indptr must ascend"),
        (lambda: kernel.sums(np.array([0, 1, 3]), np.array([0, 1]), ones, y, out), "indptr must stay inside"),
        (
            lambda: kernel.histogram(rows, np.array([0, 1]), ones[:1], np.zeros((3, 1), np.uint8), out),
            "weights must have",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            call()
