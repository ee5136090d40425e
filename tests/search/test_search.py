"""Every searcher against brute force that shares no code with it."""

from __future__ import annotations

import math
import warnings

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hashlgn.errors import ArgumentError
from hashlgn.scoring.decoders import CodebookDecoder, ReweightDecoder
from hashlgn.scoring.exclusion import Exclusion
from hashlgn.scoring.items import CodedItems, FloatItems, Items
from hashlgn.search import SEARCHERS, FastScan, Flat, Hits, Kernel, build_searcher, overfetch
from hashlgn.search.fastscan import MOST_BITS
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
    k=st.integers(1, 40) | st.sampled_from([10_000, 10**30]),
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
    for name in ("exact", "kernel", "decoded", "fastscan"):
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
    exact = rescore(prepared, searcher.exact.subcodes, items, np.tile(np.arange(300), (4, 1)))
    for level in (np.full(4, np.nan), np.quantile(exact, 0.9, axis=1), np.quantile(exact, 0.1, axis=1)):
        for length in (1, 20, 150):
            fetched, found = searcher.fetch(prepared, length, level)
            ceiling = searcher.ceiling(prepared, fetched[:, -1], level)
            missed = np.ones((4, 300), np.bool_)
            missed[np.arange(4)[:, None], found] = False
            assert (np.where(missed, exact, -np.inf) <= ceiling[:, None]).all()


@pytest.mark.parametrize(("kind", "name"), PAIRS)
@pytest.mark.parametrize("size", [1e-44, 1e-41, 1e-38, 1e-36, 1e-30, 1e20])
def test_queries_near_the_ends_of_float32(kind: str, name: str, size: float) -> None:
    rng = np.random.default_rng(3)
    items, width = catalogue(kind, 1500, 64, rng, whole=kind == "float")
    queries = rng.integers(-2, 3, (6, width)).astype(np.float32) * np.float32(size)
    searcher, oracle = build_searcher(items, name, 1), build_searcher(items, "exact")
    threshold = float(np.median(oracle.search(queries, 15).scores))
    for got, want in (
        (searcher.search(queries, 10), oracle.search(queries, 10)),
        (searcher.search_above(queries, threshold), oracle.search_above(queries, threshold)),
    ):
        np.testing.assert_array_equal(got.indptr, want.indptr)
        np.testing.assert_array_equal(got.items, want.items)
        np.testing.assert_array_equal(got.scores, want.scores)


@pytest.mark.parametrize(("kind", "name"), PAIRS)
@pytest.mark.parametrize("n", [40, 1500])
def test_bits_do_not_depend_on_the_batch_or_the_engine(kind: str, name: str, n: int) -> None:
    """Nearly cancelling products, and scores that round to −0.0: all engines give +0.0."""
    rng = np.random.default_rng(7)
    items, width = catalogue(kind, n, 64, rng, whole=False)
    queries = (rng.standard_normal((30, width)) * 10.0 ** rng.integers(-3, 4, (30, width))).astype(np.float32)
    queries[:, 1:] -= queries[:, :-1]
    queries[20:25] *= np.float32(1e-42)
    queries[25:] = -np.float32(1e-45)
    if isinstance(items, CodedItems):
        scale = np.full(n, 1e-7, np.float16) if items.scale is not None else None
        items = CodedItems(items.packed, items.decoder, scale)
    searcher, oracle = build_searcher(items, name, 1), build_searcher(items, "exact")
    for ask in (lambda engine, q: engine.search(q, 9), lambda engine, q: engine.search_above(q, -1e-3)):
        want = ask(oracle, queries)
        assert not np.signbit(want.scores[want.scores == 0]).any()
        for cut in (slice(0, 30), slice(0, 1), slice(4, 7), slice(11, 29), slice(27, 30)):
            got = ask(searcher, queries[cut])
            for row, number in enumerate(range(30)[cut]):
                np.testing.assert_array_equal(got.row(row)[0], want.row(number)[0])
                np.testing.assert_array_equal(got.row(row)[1].view(np.uint32), want.row(number)[1].view(np.uint32))


def test_products_that_float32_rounds_to_nothing() -> None:
    # 6e-46 is nothing in float32, and so are sums of it; the table adds four of them first: 2.4e-45 is something.
    weights = np.full(64, 1e-25, np.float32)
    packed = np.random.default_rng(0).integers(0, 256, (1500, 8), np.uint8)
    items, queries = CodedItems(packed, ReweightDecoder(weights, weights)), np.full((2, 64), 6e-21, np.float32)
    want = build_searcher(items, "exact").search(queries, 10)
    assert want.scores.max() > 0
    for name in ("kernel", "decoded", "fastscan"):
        got = build_searcher(items, name).search(queries, 10)
        np.testing.assert_array_equal(got.items, want.items)
        np.testing.assert_array_equal(got.scores, want.scores)


@pytest.mark.parametrize(("kind", "name"), PAIRS)
def test_scores_that_float32_cannot_hold_are_refused(kind: str, name: str) -> None:
    items, width = catalogue(kind, 600, 64, np.random.default_rng(0), whole=True)
    searcher = build_searcher(items, name)
    queries = np.ones((3, width), np.float32)
    queries[2] = 3e38
    with pytest.raises(ArgumentError, match=r"queries must give scores under 1e.30 .row 2 may reach"):
        searcher.search(queries, 3)
    with pytest.raises(ArgumentError, match="queries must be finite"), warnings.catch_warnings():
        warnings.simplefilter("error")
        searcher.search_above(np.full((1, width), 1e300), 0.0)


@pytest.mark.parametrize("broken", [np.nan, np.inf, 1e38])
def test_items_that_are_not_finite_are_refused(broken: float) -> None:
    floats = FloatItems(np.full((2, 3), broken, np.float32))
    codes = CodedItems(np.zeros((2, 1), np.uint8), CodebookDecoder(np.full((2, 16, 3), broken, np.float32)))
    for items, names in ((floats, ("exact", "flat")), (codes, ("exact", "kernel", "decoded", "fastscan"))):
        for name in names:
            with pytest.raises(ArgumentError, match="items must be finite and give scores under"):
                build_searcher(items, name)


@pytest.mark.parametrize("name", ["exact", "kernel", "decoded", "fastscan"])
@pytest.mark.parametrize("n", [2, 900])
def test_thresholds_are_not_rounded_to_float32(name: str, n: int) -> None:
    # The score of a set bit is float32(0.1) = 0.10000000149, which is greater than 0.1.
    alpha = np.array([0.1, 0, 0, 0, 0, 0, 0, 0], np.float32)
    packed = np.zeros((n, 1), np.uint8)
    packed[1] = 1
    searcher = build_searcher(CodedItems(packed, ReweightDecoder(alpha, alpha)), name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # 1e300 is no float32
        found = [
            searcher.search_above(np.ones((1, 8), np.float32), t).items.tolist() for t in (0.1, float(alpha[0]), 1e300)
        ]
        assert found == [[1], [], []]
        assert len(searcher.search_above(np.ones((1, 8), np.float32), -1e300).items) == n


@pytest.mark.parametrize("kind", KINDS[1:])
def test_the_longest_codes_of_fastscan(kind: str) -> None:
    """Every word at its highest: the sums of 8-bit entries come closest to 2^16."""
    rng = np.random.default_rng(0)
    packed = rng.integers(0, 256, (1200, MOST_BITS // 8 + 1), np.uint8)
    packed[:100] = 255
    packed[:100][rng.random((100, packed.shape[1])) < 0.02] = 254
    scale = rng.uniform(0.6, 1.4, 1200).astype(np.float16) if kind.endswith("scaled") else None

    def items(bits: int) -> CodedItems:
        steps = np.broadcast_to(np.arange(16, dtype=np.float32)[None, :, None], (bits // 4, 16, 6))
        reweight = ReweightDecoder(*np.ones((2, bits), np.float32))
        decoder = reweight if kind.startswith("reweight") else CodebookDecoder(steps.copy())
        return CodedItems(packed[:, : bits // 8], decoder, scale)

    longest = items(MOST_BITS)
    queries = np.ones((3, longest.width), np.float32)
    got, want = (build_searcher(longest, name).search(queries, 10) for name in ("fastscan", "exact"))
    np.testing.assert_array_equal(got.items, want.items)
    with pytest.raises(ArgumentError, match=r"at most 1016 bits .got 1024"):
        build_searcher(items(MOST_BITS + 8), "fastscan")
    assert isinstance(build_searcher(items(MOST_BITS + 8)), Kernel)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_fetched_at_a_time_is_bounded(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    items, width = catalogue(kind, 2000, 64, rng, whole=True)
    queries = rng.integers(-2, 3, (30, width)).astype(np.float32)
    scores = scores_of(items, queries)
    threshold = float(np.quantile(scores, 0.8))
    searcher = build_searcher(items, "flat" if kind == "float" else "fastscan", threads=1)
    sizes: list[int] = []
    fetch = searcher.fetch

    def counted(prepared: np.ndarray, length: int, level: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        sizes.append(len(prepared) * length)
        return fetch(prepared, length, level)

    monkeypatch.setattr(searcher, "fetch", counted)
    monkeypatch.setattr(overfetch, "_CELLS", 1000)
    nothing = np.zeros(scores.shape, bool)
    assert listed(searcher.search_above(queries, threshold)) == brute_force(scores, nothing, None, threshold)
    assert listed(searcher.search(queries, 100)) == brute_force(scores, nothing, 100, None)
    assert len(sizes) > 2 and max(sizes) <= 1000


def test_threads_of_faiss_are_as_they_were() -> None:
    items, width = catalogue("codebook", 900, 32, np.random.default_rng(0), whole=True)
    before = faiss.omp_get_max_threads()
    build_searcher(items, "fastscan", threads=before + 1).search(np.ones((2, width), np.float32), 3)
    assert faiss.omp_get_max_threads() == before


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
    assert isinstance(build_searcher(floats), Flat) and isinstance(build_searcher(codes), Kernel)
    with pytest.raises(ArgumentError, match="threads must be a positive integer"):
        build_searcher(codes, threads=0)


@pytest.mark.parametrize("scales", ["equal", "a few tiny", "a few zero-like", "wide"])
def test_whatever_the_scales_the_scan_certifies_most_answers(scales: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    items, width = catalogue("codebook", 3000, 64, rng, whole=False)
    scale = {"equal": np.full(3000, 0.7), "wide": np.exp(rng.uniform(-1.5, 1.5, 3000))}.get(
        scales, rng.uniform(0.8, 1.2, 3000)
    )
    if scales.startswith("a few"):
        scale[:5] = 1e-3 if scales == "a few tiny" else 1e-7
    items = CodedItems(items.packed, items.decoder, scale.astype(np.float16))
    queries = rng.standard_normal((60, width)).astype(np.float32)
    searcher, oracle, whole = FastScan(items, 1), build_searcher(items, "exact"), []
    real = searcher._everything
    monkeypatch.setattr(
        searcher, "_everything", lambda q, rows, *rest: (whole.append(len(rows)), real(q, rows, *rest))[1]
    )
    threshold = float(np.quantile(scores_of(items, queries), 0.99))
    for got, want in (
        (searcher.search(queries, 20), oracle.search(queries, 20)),
        (searcher.search_above(queries, threshold), oracle.search_above(queries, threshold)),
    ):
        np.testing.assert_array_equal(got.items, want.items)
        np.testing.assert_array_equal(got.scores, want.scores)
    assert sum(whole) <= 12  # of 120
