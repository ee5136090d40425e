"""Titles are found by the beginnings of their words; attributes by their values."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hashlgn.data import Ids
from hashlgn.serve.attributes import Attributes, Filters, key_of
from hashlgn.serve.titles import Titles

NAMES = [
    "Star Wars (1977)",
    "The Empire Strikes Back",
    "Amélie",
    "Wars of the Stars",
    "Backdraft",
    "",
    "War\nand Peace",
]
WORDS = st.lists(st.sampled_from(["star", "stars", "war", "wars", "the", "back", "é", "(a)", "ba"]), max_size=4)


def test_words_prefixes_accents_and_popularity() -> None:
    titles = Titles(NAMES, np.array([1.0, 2, 3, 4, 5, 6, 7]))
    assert titles.search("star wars", 9) == [0, 3]  # the title that begins so comes first
    assert titles.search("war", 9) == [6, 3, 0]
    assert titles.search("BACK", 9) == [4, 1]
    assert titles.search("amelie", 9) == titles.search("AMÉ", 9) == [2]
    assert titles.search("tar", 9) == titles.search("", 9) == titles.search("(", 0) == []
    assert titles.search("(1977)", 9) == [0] and titles.search("war", 1) == [6]


@given(st.lists(WORDS.map(" ".join), min_size=1, max_size=8), WORDS.map(" ".join))
def test_a_search_finds_what_a_look_at_every_title_does(names: list[str], text: str) -> None:
    found = Titles(names, np.zeros(len(names))).search(text, 100)
    wanted = text.replace("é", "e").split()

    def has(title: str, word: str) -> bool:
        plain = title.replace("é", "e")
        starts = [n for n in range(len(plain)) if not (n and plain[n - 1].isalnum())]
        return any(plain.startswith(word, n) for n in starts)

    right = {n for n, name in enumerate(names) if wanted and all(has(name, word) for word in wanted)}
    assert set(found) == right and len(found) == len(right)


def test_attributes_are_there_after_a_restart(tmp_path: Path) -> None:
    held = Attributes(tmp_path / "items.db")
    held.put(5, {"shelf": ["a"], "price": 2.0})
    held.put(5, {"shelf": "b"})
    held.close()
    again = Attributes(tmp_path / "items.db")
    assert again.items == {"5": {"shelf": "b"}}
    again.close()
    assert [key_of(value) for value in (True, 2.0, 2, "x", 2.5)] == ["true", "2", "2", "x", "2.5"]
    assert [key_of(value) for value in (1_000_000.0, 1234567.25)] == ["1000000", "1234567.25"]  # to the last digit


VALUES = st.one_of(st.booleans(), st.integers(0, 2), st.sampled_from(["a", "b", "Drama"]))
TOLD = st.dictionaries(st.sampled_from(["genre", "shelf", "new"]), VALUES | st.lists(VALUES, max_size=2), max_size=3)


@given(st.lists(st.tuples(st.integers(0, 4), TOLD, st.sampled_from(["a", "b", "Drama", "true", "1"])), max_size=9))
@pytest.mark.parametrize("kept", [1, 64])
def test_filters_are_what_a_look_at_every_item_gives(kept: int, steps: list[tuple[int, dict[str, Any], str]]) -> None:
    genres: list[tuple[str, ...]] = [("Drama",), ("a", "Drama"), (), ("b",)]
    model: Any = SimpleNamespace(item_ids=Ids(np.arange(4)), genres=genres)
    filters, told = Filters(model, Attributes(None)), [dict[str, Any]() for _ in genres]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hashlgn.serve.attributes._BITMAPS", kept)
        for item, values, value in steps:
            filters.put(item, values)
            if item < 4:
                told[item] = values
            for name in ("genre", "shelf", "new"):
                every = [{"genre": list(own)} | said for own, said in zip(genres, told, strict=True)]
                held = [one.get(name, []) for one in every]
                right = [value in map(key_of, one if isinstance(one, list) else [one]) for one in held]
                assert (~filters.banned([(name, (value,))])).tolist() == right
            assert filters.banned([("genre", ())]).all() and len(filters._bits) <= kept
