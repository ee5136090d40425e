"""Every searcher against brute force that shares no code with it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hashlgn.errors import ArgumentError
from hashlgn.filters import Exclusion
from hashlgn.scoring import CodebookDecoder, CodedItems, FloatItems, Items, ReweightDecoder
from hashlgn.search import SEARCHERS, Hits, build_searcher
from hashlgn.search.fastscan import FastScan
from hashlgn.search.flat import rescore

KINDS = ("float", "reweight", "reweight scaled", "codebook", "codebook scaled")
PAIRS = [
    (kind, name) for kind in KINDS for name in SEARCHERS if name == "exact" or (name == "flat") == (kind == "float")
]


def catalogue(kind: str, n: int, bits: int, rng: np.random.Generator, *, whole: bool) -> tuple[Items, int]:
    """Items of a kind and the width of a query; ``whole`` draws small integers, which make sums exact and ties many."""

    def numbers(*shape: int) -> np.ndarray:
        drawn = rng.integers(-2, 3, shape) if whole else rng.standard_normal(shape)
        return drawn.astype(np.float32)

    if kind == "float":
        return FloatItems(numbers(n, 6)), 6
    distinct = rng.integers(0, 256, (max(1, n // 3 if whole else n), bits // 8), np.uint8)
    packed = distinct[rng.integers(0, len(distinct), n)]
    scale = None
    if kind.endswith("scaled"):
        scale = (rng.choice([0.5, 1.0, 2.0], n) if whole else rng.uniform(0.6, 1.4, n)).astype(np.float16)
    if kind.startswith("reweight"):
        return CodedItems(packed, ReweightDecoder(*np.abs(numbers(2, bits))), scale), bits
    return CodedItems(packed, CodebookDecoder(numbers(bits // 4, 16, 6)), scale), 6


def scores_of(items: Items, queries: np.ndarray) -> np.ndarray:
    """All scores, from the definition ``scale_i · f · g(c_i)``, bit by bit."""
    if isinstance(items, FloatItems):
        return queries.astype(np.float64) @ items.vectors.T.astype(np.float64)
    bits = np.unpackbits(items.packed, axis=1, bitorder="little")
    if isinstance(items.decoder, ReweightDecoder):
        decoded = np.where(bits == 1, items.decoder.alpha, -items.decoder.beta).astype(np.float64)
    else:
        words = bits.reshape(len(bits), items.decoder.bits // 4, 4) @ np.array([1, 2, 4, 8])
        decoded = np.zeros((len(bits), items.width))
        for m in range(words.shape[1]):
            decoded += items.decoder.codewords[m, words[:, m]].astype(np.float64)
    scale = 1.0 if items.scale is None else items.scale.astype(np.float64)
    return (queries.astype(np.float64) @ decoded.T) * scale


def brute_force(scores: np.ndarray, taken: np.ndarray, k: int | None, threshold: float | None) -> list[list[int]]:
    answers = []
    for row, out in zip(scores.astype(np.float32).tolist(), taken, strict=True):
        best = sorted((-score, item) for item, score in enumerate(row) if not out[item])
        answers.append([item for score, item in best if threshold is None or -score > threshold][:k])
    return answers


def listed(hits: Hits) -> list[list[int]]:
    return [hits.row(r)[0].tolist() for r in range(len(hits))]


def exclusion(rng: np.random.Generator, q: int, n: int, how: str) -> tuple[Exclusion, np.ndarray]:
    """An exclusion and what it leaves out, ``(q, n)`` bool."""
    taken = rng.random((q, n)) < {"none": 0.0, "some": 0.3, "all": 1.0, "lists": 0.2}[how]
    indptr = np.concatenate(([0], np.cumsum(taken.sum(axis=1))))
    seen = (indptr, np.nonzero(taken)[1])
    if how != "lists":
        return Exclusion.build(n, seen=seen), taken
    allow, deny = np.flatnonzero(rng.random(n) < 0.7), np.flatnonzero(rng.random(n) < 0.2)
    banned = np.ones(n, np.bool_)
    banned[allow] = False
    banned[deny] = True
    return Exclusion.build(n, seen=seen, allow=allow, deny=deny), taken | banned


@pytest.mark.parametrize(("kind", "name"), PAIRS)
@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(0, 60) | st.integers(300, 700),
    q=st.integers(0, 6),
    bits=st.sampled_from([8, 16, 64, 128, 256]),
    k=st.integers(1, 40) | st.just(10_000),
    how=st.sampled_from(["none", "some", "all", "lists"]),
)
def test_equals_brute_force_with_ties_lists_and_everything_seen(
    kind: str, name: str, seed: int, n: int, q: int, bits: int, k: int, how: str
) -> None:
    rng = np.random.default_rng(seed)
    items, width = catalogue(kind, n, bits, rng, whole=True)
    queries = rng.integers(-2, 3, (q, width)).astype(np.float32)
    exclude, taken = exclusion(rng, q, n, how)
    searcher = build_searcher(items, name, threads=1)
    scores = scores_of(items, queries)
    top = searcher.search(queries, k, exclude)
    assert listed(top) == brute_force(scores, taken, k, None)
    threshold = float(rng.choice(scores.ravel())) if scores.size else 0.0  # a score itself: strictly greater is asked
    above = searcher.search_above(queries, threshold, exclude)
    assert listed(above) == brute_force(scores, taken, None, threshold)
    for hits in (top, above):
        rows = np.repeat(np.arange(q), np.diff(hits.indptr))
        np.testing.assert_array_equal(hits.scores, scores[rows, hits.items].astype(np.float32))


@pytest.mark.parametrize(("kind", "name"), PAIRS)
@pytest.mark.parametrize("n", [50, 3000])
def test_equals_the_oracle_on_real_numbers(kind: str, name: str, n: int) -> None:
    rng = np.random.default_rng(n)
    items, width = catalogue(kind, n, 64, rng, whole=False)
    queries = rng.standard_normal((40, width)).astype(np.float32)
    exclude, taken = exclusion(rng, 40, n, "some")
    searcher, oracle = build_searcher(items, name), build_searcher(items, "exact")
    threshold = float(np.quantile(scores_of(items, queries), 0.97))
    for got, want in (
        (searcher.search(queries, 20, exclude), oracle.search(queries, 20, exclude)),
        (searcher.search_above(queries, threshold, exclude), oracle.search_above(queries, threshold, exclude)),
    ):
        if kind == "float":  # Faiss and NumPy add in different orders
            np.testing.assert_allclose(got.scores, want.scores, rtol=1e-5, atol=1e-5)
        else:
            np.testing.assert_array_equal(got.items, want.items)
            np.testing.assert_array_equal(got.scores, want.scores)
        np.testing.assert_array_equal(got.indptr, want.indptr)
        rows = np.repeat(np.arange(40), np.diff(got.indptr))
        assert not taken[rows, got.items].any()


@pytest.mark.parametrize(("kind", "name"), PAIRS)
def test_infinite_thresholds_and_lists_larger_than_a_few(kind: str, name: str) -> None:
    rng = np.random.default_rng(0)
    items, width = catalogue(kind, 900, 32, rng, whole=True)
    queries = rng.integers(-2, 3, (3, width)).astype(np.float32)
    searcher = build_searcher(items, name)
    assert np.diff(searcher.search_above(queries, -math.inf).indptr).tolist() == [900] * 3
    assert np.diff(searcher.search_above(queries, math.inf).indptr).tolist() == [0] * 3
    allowed = np.arange(0, 900, 3)
    for exclude in (
        Exclusion.build(900, allow=allowed),
        Exclusion.build(900, deny=np.setdiff1d(np.arange(900), allowed)),
    ):
        taken = np.broadcast_to(np.arange(900) % 3 != 0, (3, 900))
        for _ in range(2):  # the second time from the part that was kept
            assert listed(searcher.search(queries, 5, exclude)) == brute_force(
                scores_of(items, queries), taken, 5, None
            )


def test_worked_by_hand() -> None:
    # Two bits matter, weights 1 and 2: the codes score +3, +1, −1, −3 for the query of ones.
    alpha = np.array([1, 2, 0, 0, 0, 0, 0, 0], np.float32)
    packed = np.array([[0b01], [0b11], [0b00], [0b10]], np.uint8)
    for name in ("exact", "decoded", "fastscan"):
        searcher = build_searcher(CodedItems(packed, ReweightDecoder(alpha, alpha)), name)
        hits = searcher.search(np.ones((1, 8), np.float32), 3)
        assert (hits.items.tolist(), hits.scores.tolist()) == ([1, 3, 0], [3, 1, -1])
        assert searcher.search_above(np.ones((1, 8), np.float32), 1.0).items.tolist() == [1]


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    bits=st.sampled_from([8, 64, 128, 256]),
    kind=st.sampled_from(KINDS[1:]),
    skew=st.sampled_from([1.0, 30.0]),
)
def test_nothing_unfetched_lies_over_the_ceiling(seed: int, bits: int, kind: str, skew: float) -> None:
    """The certificate itself: the bound holds for every item and every length, whatever the level."""
    rng = np.random.default_rng(seed)
    items, width = catalogue(kind, 300, bits, rng, whole=False)
    queries = (rng.standard_normal((4, width)) * skew ** rng.standard_normal((4, width))).astype(np.float32)
    searcher = FastScan(items, 1)
    prepared = searcher.prepare(queries)
    exact = rescore(prepared, searcher._words, items, np.tile(np.arange(300), (4, 1)))
    for level in (np.full(4, np.nan), np.quantile(exact, 0.9, axis=1), np.quantile(exact, 0.1, axis=1)):
        for length in (1, 20, 150):
            fetched, found = searcher.fetch(prepared, length, level)
            ceiling = searcher.ceiling(prepared, fetched[:, -1], level)
            missed = np.ones((4, 300), np.bool_)
            missed[np.arange(4)[:, None], found] = False
            assert (np.where(missed, exact, -np.inf) <= ceiling[:, None]).all()


@pytest.mark.parametrize(("kind", "name"), PAIRS)
def test_bad_questions_are_named(kind: str, name: str) -> None:
    items, width = catalogue(kind, 20, 16, np.random.default_rng(0), whole=True)
    searcher = build_searcher(items, name)
    good = np.ones((2, width), np.float32)
    broken = good.copy()
    broken[1, 0] = np.nan
    for queries, message in (
        (good[:, :-1], "queries must have shape"),
        (good[0], "queries must have shape"),
        (broken, "queries must be finite"),
        (good.astype(str), "queries must be numbers"),
    ):
        with pytest.raises(ArgumentError, match=message):
            searcher.search(queries, 3)
        with pytest.raises(ArgumentError, match=message):
            searcher.search_above(queries, 0.0)
    for k in (0, -1, 2.5, True):
        with pytest.raises(ArgumentError, match="k must be a positive integer"):
            searcher.search(good, k)
    for threshold in (math.nan, "high", None):
        with pytest.raises(ArgumentError, match="threshold must be a number"):
            searcher.search_above(good, threshold)
    with pytest.raises(ArgumentError, match="exclude must be for 20 items"):
        searcher.search(good, 3, Exclusion.build(19))
    with pytest.raises(ArgumentError, match="exclude must have 2 rows"):
        searcher.search(good, 3, Exclusion.build(20, seen=(np.array([0, 0]), np.array([], np.int64))))


def test_engines_say_what_they_take() -> None:
    rng = np.random.default_rng(0)
    floats, codes = (catalogue(kind, 10, 16, rng, whole=True)[0] for kind in ("float", "codebook"))
    for items, name in ((floats, "fastscan"), (floats, "decoded"), (codes, "flat")):
        with pytest.raises(ArgumentError, match=f"engine '{name}'"):
            build_searcher(items, name)
    with pytest.raises(ArgumentError, match="engine must be one of 'auto', 'exact'"):
        build_searcher(codes, "hnsw")
    with pytest.raises(ArgumentError, match="threads must be a positive integer"):
        build_searcher(codes, threads=0)
