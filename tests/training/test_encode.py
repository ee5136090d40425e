"""Codes for vectors from elsewhere."""

from __future__ import annotations

import re
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hashlgn
from hashlgn.errors import ArgumentError, MissingExtraError
from hashlgn.scoring.items import FloatItems
from hashlgn.search import Exact, build_searcher


def vectors(n: int, dim: int, seed: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Vectors of unlike lengths whose later directions are weaker."""
    rng = np.random.default_rng(seed)
    found = rng.standard_normal((n, dim)) * np.arange(1, dim + 1) ** -0.7 * rng.lognormal(0, 0.5, (n, 1))
    return found.astype(np.float32)


def recall(found: hashlgn.search.Hits, items: Any, queries: Any, k: int) -> float:
    best = Exact(FloatItems(items)).search(queries, k)
    return float(np.mean([len(set(found.row(r)[0]) & set(best.row(r)[0])) / k for r in range(len(queries))]))


def test_the_float_ranking_is_kept_better_by_longer_codes_and_by_queries() -> None:
    items, rng = vectors(1500, 24, 0), np.random.default_rng(1)
    turn = np.diag(np.arange(24, 0, -1) ** -1.5)[::-1]  # queries ask for what is weak in items
    asked, queries = (rng.standard_normal((500, 24)) @ turn for _ in range(2))
    queries = queries.astype(np.float32)
    found = {
        (bits, known): recall(
            hashlgn.encode(items, asked if known else None, bits).search(queries, 10), items, queries, 10
        )
        for bits, known in ((32, True), (128, True), (32, False))
    }
    assert found[128, True] > 0.9 > found[32, True] > found[32, False] + 0.1


def test_scores_are_those_of_decoded_items_in_every_engine() -> None:
    items, queries = vectors(400, 12, 2), vectors(20, 12, 3)
    encoded = hashlgn.encode(items, queries, 48, threads=1)
    assert encoded.items.packed.shape == (400, 6) and encoded.items.bytes_per_item == 8
    hits, decoded = encoded.search(queries, 30), encoded.items.decode()
    for engine in ("exact", "fastscan", "decoded"):
        other = build_searcher(encoded.items, engine).search(queries, 30)
        assert np.array_equal(other.items, hits.items) and np.array_equal(other.scores, hits.scores)
    for row, query in enumerate(queries):
        numbers, scores = hits.row(row)
        assert np.allclose(decoded[numbers] @ query, scores, rtol=1e-4, atol=1e-5)
        above = encoded.search_above(queries[row : row + 1], float(scores[9]))
        assert np.array_equal(above.items, numbers[scores > scores[9]])


def test_the_same_seed_gives_the_same_codes_and_leaves_the_callers_draws_alone() -> None:
    torch = pytest.importorskip("torch", reason="the extra 'train' is not installed")
    items = vectors(300, 8, 4)
    torch.manual_seed(1)
    first = hashlgn.encode(items, bits=16)
    drawn = torch.rand(3)
    torch.manual_seed(1)
    assert torch.equal(drawn, torch.rand(3))
    second = hashlgn.encode(items, bits=16)
    assert np.array_equal(first.items.packed, second.items.packed)
    assert np.array_equal(first.items.scale, second.items.scale)


@settings(max_examples=15)
@given(
    n=st.integers(1, 40),
    dim=st.integers(1, 9),
    bits=st.sampled_from([8, 24, 64]),
    power=st.sampled_from([-12, -3, 0, 3, 12]),
    seed=st.integers(0, 99),
)
def test_small_catalogues_of_any_unit_are_encoded(n: int, dim: int, bits: int, power: int, seed: int) -> None:
    items = vectors(n, dim, seed) * np.float32(10.0**power)
    items[n // 2 :: 3] = 0 if n > 2 else items[n // 2 :: 3]
    encoded = hashlgn.encode(items, vectors(5, dim, seed + 1), bits, threads=1)
    assert np.isfinite(encoded.items.decode()).all()
    assert len(encoded.search(vectors(2, dim, seed + 2), n).items) == 2 * n


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1.0, 2.0],), r"items must be vectors, \(n, dim\)"),
        ((np.zeros((0, 4)),), "items must be vectors"),
        ((np.full((3, 2), "x"),), "items must be vectors"),
        ((np.array([[1.0, np.nan]]),), "items must be finite"),
        ((np.array([[1.0, 1e60]]),), "items must be finite"),
        ((np.zeros((3, 2)),), "items must be finite, not all zero"),
        ((np.ones((3, 2)), np.ones((3, 4))), "queries must have the width of items, 2 "),
        ((np.ones((3, 2)), np.zeros((3, 2))), "queries must be finite, not all zero"),
        ((np.ones((3, 2)), None, 12), "bits must be a positive multiple of 8"),
    ],
)
def test_what_is_wrong_is_named(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        hashlgn.encode(*arguments)


def test_without_pytorch_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError, match=re.escape("pip install 'hashlgn[train]'")):
        hashlgn.encode(vectors(20, 4, 0))
