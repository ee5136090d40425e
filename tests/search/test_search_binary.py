"""Models that are binary on both sides: Hamming search, with the same engines and filters."""

from __future__ import annotations

import numpy as np
import pytest

from hashlgn.scoring.codes import hamming
from hashlgn.scoring.exclusion import Exclusion
from hashlgn.scoring.items import binary_items, binary_queries
from hashlgn.search import build_searcher


@pytest.mark.parametrize("name", ["exact", "kernel", "fastscan", "decoded"])
@pytest.mark.parametrize("bits", [32, 64, 128, 256, 512])
def test_scores_are_hamming_distances_and_ties_go_by_item(name: str, bits: int) -> None:
    rng = np.random.default_rng(bits)
    items, users = (rng.integers(0, 256, (n, bits // 8), np.uint8) for n in (3000, 9))
    items[1500:] = items[:1500]  # every distance twice
    users[0] = items[7]
    distances = hamming(users, items)
    searcher = build_searcher(binary_items(items), name, 1)
    deny = np.arange(0, 3000, 3)
    allowed = np.setdiff1d(np.arange(3000), deny)
    hits = searcher.search(binary_queries(users), 50, Exclusion.build(3000, deny=deny))
    for row in range(9):
        want = allowed[np.lexsort((allowed, distances[row, allowed]))][:50]
        found, scores = hits.row(row)
        np.testing.assert_array_equal(found, want)
        np.testing.assert_array_equal(scores, bits - 2 * distances[row, want])
    radius = int(np.quantile(distances, 0.01))
    near = searcher.search_above(binary_queries(users), bits - 2 * radius - 1)
    assert [len(near.row(row)[0]) for row in range(9)] == (distances <= radius).sum(axis=1).tolist()
