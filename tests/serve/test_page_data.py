"""What the page asks of a model: a map of the catalogue, and one item with its codes as bits."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import numpy.testing as npt
import pytest

from conftest import clusters
from hashlgn.inference.model import ServedModel
from hashlgn.inference.stored import Stored
from hashlgn.scoring.codes import pack_subcodes
from hashlgn.scoring.decoders import CodebookDecoder
from hashlgn.scoring.histories import CodedHistories, FloatHistories
from hashlgn.scoring.items import CodedItems, FloatItems
from hashlgn.serve import page
from hashlgn.serve.page import item_details, map_of, plane

GENRES = [("War", "Drama"), ("Comedy",), (), ("Comedy", "War")]


def model(n_items: int = 40, bits: int = 16, width: int = 6) -> ServedModel:
    """A model of random codes over groups of users and items."""
    rng, data = np.random.default_rng(0), clusters(n_items=n_items)
    packed = pack_subcodes(rng.integers(0, 16, (n_items, bits // 4)))
    codewords = rng.normal(size=(bits // 4, 16, width)).astype(np.float32)
    scale = rng.uniform(0.5, 2, n_items).astype(np.float16)
    return ServedModel(
        kind="hashlgn",
        config={},
        user_ids=data.user_ids,
        item_ids=data.item_ids,
        items=CodedItems(packed, CodebookDecoder(codewords), scale),
        stored=Stored.of(data.indptr, data.indices),
        histories=CodedHistories(packed[::-1].copy(), codewords, scale),
        titles=[f"Title {number}" for number in range(n_items)],
        genres=[GENRES[number % 4] for number in range(n_items)],
    )


def test_the_map_has_every_item_once_most_popular_first() -> None:
    served = model()
    found = map_of(served)
    counts = np.bincount(served.seen[1], minlength=40)
    numbers = served.item_ids.encode(found["items"])
    assert sorted(numbers.tolist()) == list(range(40)) and found["catalogue"] == 40
    assert (np.diff(counts[numbers]) <= 0).all()
    assert found["genres"] == ["Comedy", "War"]  # first genres alone, frequent ones first
    first = [GENRES[number % 4][:1] for number in numbers.tolist()]
    assert [found["genres"][place : place + 1] if place >= 0 else [] for place in found["genre"]] == list(
        map(list, first)
    )
    assert json.loads(json.dumps(found)) == found


def test_coordinates_fill_the_longer_axis() -> None:
    found = map_of(model())
    assert min(found["x"]) == min(found["y"]) == 0
    assert max(*found["x"], *found["y"]) == 65_535


def test_the_plane_is_that_of_a_singular_value_decomposition(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "_BLOCK", 7)
    items = model().items
    numbers = np.array([3, 1, 39, *range(10, 30)])
    vectors = items.decode()[numbers].astype(np.float64)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors -= vectors.mean(axis=0)
    axes = np.linalg.svd(vectors)[2][:2].T
    axes *= np.sign(axes[np.abs(axes).argmax(axis=0), [0, 1]])
    npt.assert_allclose(plane(items, numbers), vectors @ axes, atol=1e-5)


def test_a_large_catalogue_shows_its_most_popular_items(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = map_of(model())
    monkeypatch.setattr(page, "MAP_ITEMS", 15)
    part = map_of(model())
    assert part["items"] == whole["items"][:15] and part["catalogue"] == 40 and len(part["x"]) == 15


@pytest.mark.parametrize("width", [1, 2])
def test_narrow_vectors_have_a_place(width: int) -> None:
    vectors = np.random.default_rng(0).normal(size=(5, width)).astype(np.float32)
    assert np.isfinite(plane(FloatItems(vectors), np.arange(5))).all()


def test_equal_items_and_a_model_without_genres_have_a_map() -> None:
    served = model()
    same = FloatItems(np.ones((40, 6), np.float32))
    found = map_of(replace(served, items=same, titles=None, genres=None, contents=True))
    assert found["genres"] == [] and set(found["genre"]) == {-1}
    assert len(found["x"]) == 40


def test_the_bits_of_an_item_are_those_of_its_sub_codes() -> None:
    served = model()
    found = item_details(served, 3)
    assert (found["item"], found["title"], found["genres"]) == (4, "Title 3", ["Comedy", "War"])
    assert found["users"] == np.count_nonzero(served.seen[1] == 3)
    assert found["scale"] == float(served.items.scale[3])
    for name, packed in (("code", served.items.packed[3]), ("history_code", served.histories.packed[3])):
        halves = [half for byte in packed.tolist() for half in (byte & 15, byte >> 4)]
        groups = [found[name][start : start + 4] for start in range(0, 16, 4)]
        assert [int(group[::-1], 2) for group in groups] == halves  # the first bit is the least significant
    assert json.loads(json.dumps(found)) == found


def test_a_model_of_floats_has_no_bits() -> None:
    vectors = np.ones((40, 6), np.float32)
    floats = replace(model(), items=FloatItems(vectors), histories=FloatHistories(vectors), contents=True)
    found = item_details(floats, 0)
    assert found["code"] is None and found["history_code"] is None and found["scale"] is None
