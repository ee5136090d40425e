"""The compiled kernel against NumPy: every instruction set, at the seams of blocks, chunks and first looks.

Scores are float64 sums in the order of the words, rounded to float32 once, on both sides: they must be equal bit for
bit, and so must the order of ties. There is no tolerance.
"""

from __future__ import annotations

import copy
import functools
import math
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hashlgn.errors import ArgumentError, ArtifactError
from hashlgn.scoring.decoders import CodebookDecoder, ReweightDecoder
from hashlgn.scoring.exclusion import Exclusion
from hashlgn.scoring.items import CodedItems, binary_items, binary_queries
from hashlgn.search import Exact, FastScan, Hits, InvertedFile, Kernel

SETS = Kernel.instruction_sets()
pytestmark = pytest.mark.skipif(not SETS, reason="the search kernel was not compiled when HashLGN was installed")
each_set = pytest.mark.parametrize("isa", SETS)

SCALES = ("none", "alike", "few", "spread")
TABLES = ("whole", "real", "reweight", "binary", "heavy", "skewed", "constant")


def scales(kind: str, n: int, rng: np.random.Generator) -> np.ndarray | None:
    if kind == "none":
        return None
    if kind == "few":  # ties across blocks
        return rng.choice([0.5, 1.0, 2.0], n).astype(np.float32)
    spread = {"alike": 0.05, "spread": 3.0}[kind]
    return np.exp(spread * rng.standard_normal(n)).clip(1e-6, 6e4).astype(np.float16)


def made(n: int, bits: int, tables: str, scale: str, seed: int, q: int = 5) -> tuple[CodedItems, np.ndarray]:
    """Items and queries; most kinds of table have many equal scores."""
    rng = np.random.default_rng(seed)
    distinct = rng.integers(0, 256, (max(1, n // 2), bits // 8), np.uint8)
    packed = distinct[rng.integers(0, len(distinct), n)]
    if tables == "binary":
        return binary_items(packed), binary_queries(rng.integers(0, 256, (q, bits // 8), np.uint8))
    held = scales(scale, n, rng)
    if tables == "reweight":
        weights = np.abs(rng.standard_normal((2, bits))).astype(np.float32)
        return CodedItems(packed, ReweightDecoder(*weights), held), rng.standard_normal((q, bits)).astype(np.float32)
    codewords = rng.standard_normal((bits // 4, 16, 6)).astype(np.float32)
    queries = rng.standard_normal((q, 6)).astype(np.float32)
    if tables == "whole":
        codewords, queries = np.rint(codewords), np.rint(queries)
    elif tables == "heavy":  # a few items are far ahead of all others
        codewords[0, 15] += 1000 * queries[0]
        packed[:, 0] &= 0xF7
        packed[rng.random(n) < 0.001, 0] |= 0x0F
    elif tables == "skewed":  # nearly all sums are small, and most of the table's span lies below them
        codewords[:, 1:] *= np.exp(2 * rng.standard_normal((bits // 4, 1, 1)))
        codewords[:, 0] *= 0.01
        packed &= rng.choice(np.array([0, 0x0F, 0xF0], np.uint8), packed.shape, p=[0.96, 0.02, 0.02])
    elif tables == "constant":
        codewords[:, 1:] = codewords[:, :1]
    return CodedItems(packed, CodebookDecoder(codewords), held), queries


def excluded(how: str, q: int, n: int, rng: np.random.Generator) -> Exclusion:
    """Seen lists with and without the global ones; ``gathered`` allows so few that they are scored one by one."""
    share = {"nothing": 0.0, "everything": 1.0}.get(how, 0.2)
    taken = rng.random((q, n)) < share
    taken[0] &= how == "everything"  # one query with an empty list
    seen = (np.concatenate(([0], np.cumsum(taken.sum(axis=1)))), np.nonzero(taken)[1])
    if how in ("nothing", "everything", "seen"):
        return Exclusion.build(n, seen=seen)
    allowed = np.flatnonzero(rng.random(n) < (0.01 if how == "gathered" else 0.6))
    return Exclusion.build(n, seen=seen, allow=allowed, deny=np.flatnonzero(rng.random(n) < 0.3))


def same(got: Hits, want: Hits) -> None:
    np.testing.assert_array_equal(got.indptr, want.indptr)
    np.testing.assert_array_equal(got.items, want.items)
    np.testing.assert_array_equal(got.scores, want.scores)


@each_set
@settings(deadline=None, max_examples=60)
@given(
    n=st.sampled_from([1, 63, 64, 65, 127, 128, 129, 255, 257, 700, 2047, 2048, 2049]),
    bits=st.sampled_from([8, 16, 24, 32, 40, 64, 72, 128, 136, 256, 264]),
    tables=st.sampled_from(TABLES),
    scale=st.sampled_from(SCALES),
    k=st.integers(1, 30) | st.sampled_from([2048, 10**6]),
    how=st.sampled_from(["nothing", "everything", "seen", "lists", "gathered"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_equals_the_oracle(isa: str, n: int, bits: int, tables: str, scale: str, k: int, how: str, seed: int) -> None:
    items, queries = made(n, bits, tables, scale, seed)
    exclude = excluded(how, len(queries), n, np.random.default_rng(seed))
    kernel, oracle = Kernel(items, 1, isa=isa), Exact(items)
    want = oracle.search(queries, k, exclude)
    same(kernel.search(queries, k, exclude), want)
    for threshold in (float(np.median(want.scores)) if len(want.scores) else 0.0, 0.0, -1.5):
        same(kernel.search_above(queries, threshold, exclude), oracle.search_above(queries, threshold, exclude))


@functools.lru_cache(1)  # the oracle answers once for all instruction sets, which are tried one after the other
def long_codes(bits: int) -> list[tuple[CodedItems, np.ndarray, Hits]]:
    cases = [made(300, bits, tables, "none", bits) for tables in ("whole", "real", "binary")]
    return [(items, queries, Exact(items).search(queries, 20)) for items, queries in cases]


@each_set
@pytest.mark.parametrize("bits", [504, 520, 1032, 4096])
def test_long_codes(isa: str, bits: int) -> None:
    for items, queries, want in long_codes(bits):
        same(Kernel(items, 1, isa=isa).search(queries, 20), want)


@functools.lru_cache(1)
def seams(n: int, scale: str) -> list[tuple[CodedItems, np.ndarray, list[tuple[int, Exclusion, Hits]], float, Hits]]:
    """Items, queries, the best answers by (k, exclusion), a threshold and the answers above it."""
    cases = []
    for tables, bits in (("real", 32), ("heavy", 64), ("skewed", 128), ("whole", 16)):
        items, queries = made(n, bits, tables, scale, n, q=9)  # a tile of eight and one alone
        oracle, best = Exact(items), []
        for how, k in (("nothing", 10), ("lists", 100), ("gathered", 10)):
            exclude = excluded(how, 9, n, np.random.default_rng(1))
            best.append((k, exclude, oracle.search(queries, k, exclude)))
        level = float(np.quantile(oracle.search(queries, 50).scores, 0.5))
        cases.append((items, queries, best, level, oracle.search_above(queries, level)))
    return cases


@each_set
@pytest.mark.parametrize("n", [8191, 8192, 8193, 65535, 65536, 65537, 75_000])
@pytest.mark.parametrize("scale", ["none", "alike", "spread"])
def test_seams_of_chunks_and_of_the_warm_up_pass(isa: str, n: int, scale: str) -> None:
    """In bytes over the whole span of a ``heavy`` or ``skewed`` table, most items look alike."""
    for items, queries, best, level, above in seams(n, scale):
        kernel = Kernel(items, 1, isa=isa)
        for k, exclude, want in best:
            same(kernel.search(queries, k, exclude), want)
        same(kernel.search_above(queries, level), above)


def crowded(first_words: np.ndarray) -> CodedItems:
    """Items of 16 bits whose first sub-code alone says who is ahead; the others have equal values, not equal scores."""
    codewords = np.tile(np.arange(16, dtype=np.float32)[:, None] / 128, (4, 1, 1))
    codewords[0] = 0
    codewords[0, 15] = 65_536
    words = np.random.default_rng(0).integers(0, 15, (len(first_words), 4)).astype(np.uint8)
    words[:, 0] = first_words
    return CodedItems(words[:, ::2] | words[:, 1::2] << 4, CodebookDecoder(codewords), None)


@each_set
def test_equal_values_do_not_hide_the_best_item(isa: str) -> None:
    query = np.ones((1, 1), np.float32)
    items = crowded(np.where(np.arange(65_536) % 10, 0, 15))
    items.packed[20_000] = 255  # the best, once
    for k in (1, 10):
        same(Kernel(items, 1, isa=isa).search(query, k), Exact(items).search(query, k))


@each_set
@pytest.mark.parametrize("inverted", [False, True])
def test_a_warm_up_pass_over_a_second_segment_keeps_the_hits_of_the_first(isa: str, inverted: bool) -> None:
    query = np.ones((1, 1), np.float32)
    items = crowded(np.repeat([0, 15], [40_000, 15_000]))
    items.packed[:5] = 255
    first = items.take(np.arange(40_000))
    kernel = InvertedFile(first, 1, lists=2, probes=2, isa=isa) if inverted else Kernel(first, 1, isa=isa)
    kernel.append(items.packed[40_000:])
    kernel.remove(np.arange(5, 40_000))
    deny = Exclusion.build(len(items), deny=np.arange(5, 40_000))
    same(kernel.search(query, 10), Exact(items).search(query, 10, deny))


@pytest.mark.parametrize("dtype", ["f8", ">f8", "f4", "f2", ">f2", "i8", "u1"])
def test_scales_of_any_type_are_rounded_once_for_every_engine(dtype: str) -> None:
    items, queries = made(700, 64, "real", "none", 0)
    values = np.random.default_rng(0).uniform(1, 9, 700).astype(dtype)
    rounded = values.astype(np.float16 if dtype.endswith("f2") else np.float32)
    taken = CodedItems(items.packed, items.decoder, values)
    assert taken.scale is not None and taken.scale.dtype == rounded.dtype
    want = Exact(CodedItems(items.packed, items.decoder, rounded)).search(queries, 50)
    appended = Kernel(taken.take(np.arange(300)), 1)
    appended.append(items.packed[300:], values[300:])
    for engine in (Exact(taken), Kernel(taken, 1), FastScan(taken, 1), appended):
        same(engine.search(queries, 50), want)


@each_set
def test_the_scan_ends_where_no_scale_can_reach_the_bar(isa: str) -> None:
    items, queries = made(150_000, 64, "real", "spread", 0, q=4)
    kernel = Kernel(items, 1, isa=isa)
    same(kernel.search(queries, 10), Exact(items).search(queries, 10))
    assert kernel.profile(queries, 10)["scanned"] < 0.8 * 4 * 150_000


@each_set
@pytest.mark.parametrize("tables", TABLES)
def test_thresholds_at_the_ends(isa: str, tables: str) -> None:
    items, queries = made(900, 40, tables, "spread", 2)
    kernel, oracle = Kernel(items, 1, isa=isa), Exact(items)
    for threshold, count in ((-math.inf, 900), (-1e300, 900), (math.inf, 0), (1e300, 0)):
        assert np.diff(kernel.search_above(queries, threshold).indptr).tolist() == [count] * len(queries)
    best = oracle.search(queries, 7)
    for threshold in (1e30, -1e30, 1e-300, -1e-300, *best.scores.tolist()):  # a score itself does not pass
        same(kernel.search_above(queries, threshold), oracle.search_above(queries, threshold))
        below = float(np.nextafter(np.float32(threshold), np.float32(-np.inf)))
        same(kernel.search_above(queries, below), oracle.search_above(queries, below))
    with pytest.raises(ArgumentError, match="threshold must be a number"):
        kernel.search_above(queries, math.nan)


@each_set
@pytest.mark.parametrize("size", [1e-44, 1e-38, 1e-30, 1.0, 1e20])
@pytest.mark.parametrize("shift", [0.0, -3.0, 1e4])
def test_tables_of_any_size_and_sign(isa: str, size: float, shift: float) -> None:
    rng = np.random.default_rng(5)
    codewords = (rng.standard_normal((10, 16, 1)) + shift).astype(np.float32)
    packed = rng.integers(0, 256, (3000, 5), np.uint8)
    for scale in ("none", "spread"):
        items = CodedItems(packed, CodebookDecoder(codewords), scales(scale, 3000, rng))
        queries = (np.array([[1], [-1], [0], [0.3]]) * size).astype(np.float32)
        same(Kernel(items, 1, isa=isa).search(queries, 25), Exact(items).search(queries, 25))


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), scale=st.sampled_from(SCALES), inverted=st.booleans())
def test_appended_and_removed_items_are_as_if_built_anew(seed: int, scale: str, inverted: bool) -> None:
    rng = np.random.default_rng(seed)
    items, queries = made(1200, 32, "whole", scale, seed)

    def some(first: int, last: int) -> CodedItems:
        return items.take(np.arange(first, last))

    last = int(rng.integers(3, 400))  # an inverted file has at most a list an item
    kernel = InvertedFile(some(0, last), 1, lists=3, probes=3) if inverted else Kernel(some(0, last), 1)
    removed: list[int] = []
    while last < 1200:
        if rng.random() < 0.3:
            gone = rng.integers(0, last, int(rng.integers(1, 5)))
            kernel.remove(gone)
            removed += gone.tolist()
        more = some(last, min(1200, last + int(rng.choice([1, 2, 50, 500]))))
        np.testing.assert_array_equal(kernel.append(more.packed, more.scale), np.arange(last, last + len(more)))
        last += len(more)
        exclude = excluded("lists", len(queries), last, rng)
        deny = np.union1d(np.flatnonzero(exclude.banned), removed) if exclude.banned is not None else removed
        whole = Exclusion.build(last, seen=(exclude.indptr, exclude.indices), deny=np.asarray(deny, np.int64))
        oracle = Exact(some(0, last))
        same(kernel.search(queries, 20, exclude), oracle.search(queries, 20, whole))
        same(kernel.search_above(queries, 0.5, exclude), oracle.search_above(queries, 0.5, whole))
    assert len(kernel) == 1200


def test_threads_and_concurrent_calls_change_nothing() -> None:
    items, queries = made(10_000, 64, "real", "alike", 0, q=200)
    seen = excluded("seen", 200, 10_000, np.random.default_rng(0))
    one = Kernel(items, 1)
    want, above = one.search(queries, 50, seen), one.search_above(queries, 9.0, seen)
    assert 200 < len(above.items) < 200 * 10_000
    for threads in (2, 5):
        many = Kernel(items, threads)
        same(many.search(queries, 50, seen), want)
        with ThreadPoolExecutor(8) as pool:
            for got in list(pool.map(lambda _: many.search(queries, 50, seen), range(16))):  # noqa: B023
                same(got, want)
            for got in list(pool.map(lambda _: many.search_above(queries, 9.0, seen), range(16))):  # noqa: B023
                same(got, above)


def test_a_search_during_changes_sees_the_catalogue_before_or_after_each() -> None:
    items, queries = made(4000, 64, "real", "alike", 0, q=3)
    kernel = Kernel(items.take(np.arange(2000)), 1)
    wanted = [Exact(items.take(np.arange(n))).search(queries, 10) for n in range(2000, 4001, 100)]
    possible = {(hits.items.tobytes(), hits.scores.tobytes()) for hits in wanted}

    def change() -> None:
        for n in range(2000, 4000, 100):
            more = items.take(np.arange(n, n + 100))
            kernel.append(more.packed, more.scale)

    with ThreadPoolExecutor(4) as pool:
        writer = pool.submit(change)
        while not writer.done():
            for hits in pool.map(lambda _: kernel.search(queries, 10), range(3)):
                assert (hits.items.tobytes(), hits.scores.tobytes()) in possible
        writer.result()
    same(kernel.search(queries, 10), wanted[-1])


@pytest.mark.parametrize("scale", SCALES)
def test_an_index_on_disk_gives_the_same_answers(tmp_path: Path, scale: str) -> None:
    items, queries = made(3000, 72, "real", scale, 0)
    kernel = Kernel(items.take(np.arange(2000)), 1)
    rest = items.take(np.arange(2000, 3000))
    kernel.append(rest.packed, rest.scale)
    kernel.remove([5, 2500])
    for _ in range(2):  # the second time it is replaced
        assert kernel.save(tmp_path / "index") == tmp_path / "index" / "model.safetensors"
    for verify in (True, False):
        opened = Kernel.open(tmp_path / "index", 1, verify=verify)
        assert (len(opened), opened.nbytes) == (3000, kernel.nbytes)
        same(opened.search(queries, 30), kernel.search(queries, 30))
        same(opened.search_above(queries, 1.0), kernel.search_above(queries, 1.0))
    opened.append(rest.packed, rest.scale)  # in memory alone
    same(Kernel.open(tmp_path / "index", 1).search(queries, 30), kernel.search(queries, 30))


def test_an_inverted_file_on_disk_is_one_again(tmp_path: Path) -> None:
    items, queries = made(3000, 64, "real", "alike", 0)
    index = InvertedFile(items, 1, lists=30, probes=3)
    index.save(tmp_path)
    opened = InvertedFile.open(tmp_path, 1)
    assert type(opened) is InvertedFile and (opened.lists, opened.probes) == (30, 3)
    same(opened.search(queries, 20), index.search(queries, 20))
    assert 0 < opened.agreement(queries, 20) < 1
    for one in (index, opened):
        one.append(items.packed[:50], items.scale[:50])
    same(opened.search(queries, 20), index.search(queries, 20))
    same(Kernel.open(tmp_path, 1).search(queries, 20), Exact(items).search(queries, 20))
    Kernel(items, 1).save(tmp_path)
    with pytest.raises(ArtifactError, match="holds no lists"):
        InvertedFile.open(tmp_path, 1)


@pytest.mark.parametrize("inverted", [False, True])
def test_an_index_that_has_answered_can_be_pickled_and_copied(inverted: bool) -> None:
    items, queries = made(1000, 64, "real", "alike", 0)
    kernel = InvertedFile(items, 1, lists=10, probes=2) if inverted else Kernel(items, 1)
    want = kernel.search(queries, 20)
    for again in (pickle.loads(pickle.dumps(kernel)), copy.deepcopy(kernel)):
        same(again.search(queries, 20), want)
        again.append(items.packed[:10], items.scale[:10])
        assert (len(again), len(kernel)) == (1010, 1000)


def test_an_exclusion_from_before_an_append_is_answered_as_before() -> None:
    items, queries = made(1000, 64, "real", "alike", 0)
    first = items.take(np.arange(600))
    rng = np.random.default_rng(0)
    for how in ("seen", "lists", "gathered"):
        kernel = Kernel(first, 1)
        exclude = excluded(how, len(queries), 600, rng)
        want = Exact(first).search(queries, 20, exclude)
        kernel.append(items.packed[600:], items.scale[600:])
        same(kernel.search(queries, 20, exclude), want)
        for n in (599, 1001):
            with pytest.raises(ArgumentError, match="exclude must be for"):
                kernel.search(queries, 20, Exclusion(n))


def test_filtered_searches_beside_appends_are_never_refused() -> None:
    items, queries = made(3000, 64, "real", "alike", 0, q=3)
    kernel = Kernel(items.take(np.arange(1000)), 1)

    def change() -> None:
        for n in range(1000, 3000, 20):
            kernel.append(items.packed[n : n + 20], items.scale[n : n + 20])

    with ThreadPoolExecutor(1) as pool:
        writer = pool.submit(change)
        while not writer.done():
            n = len(kernel)
            exclude = Exclusion.build(n, deny=[0, 1, 2])
            found = kernel.search(queries, 10, exclude).items
            assert found.max() < n
        writer.result()


def test_an_inverted_file_reports_what_it_misses() -> None:
    items, queries = made(6000, 64, "real", "alike", 0, q=40)
    index, exact = InvertedFile(items, 1, lists=60, probes=6), Exact(items)
    found, wanted = index.search(queries, 20), exact.search(queries, 20)
    right = [len(set(found.row(r)[0]) & set(wanted.row(r)[0])) for r in range(40)]
    assert index.agreement(queries, 20) == pytest.approx(sum(right) / 800)
    assert 0.3 < index.agreement(queries, 20) < 1
    same(index.search_above(queries, 8.0), exact.search_above(queries, 8.0))
    same(index.exact().search(queries, 20), wanted)
    few = Exclusion.build(6000, allow=np.arange(0, 6000, 200))
    same(index.search(queries, 20, few), exact.search(queries, 20, few))
    index.probes = 60
    same(index.search(queries, 20), wanted)
