"""Pages hold what an array would, and a change leaves the pages before it as they were."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hashlgn.utils import pages as module
from hashlgn.utils.pages import Pages

changes = st.lists(st.tuples(st.sets(st.integers(0, 40), min_size=1), st.integers(0, 6)), max_size=6)


@settings(max_examples=60)
@given(st.integers(0, 40), changes, st.booleans())
def test_pages_equal_an_array(count: int, changes: list[tuple[set[int], int]], flat: bool) -> None:
    array = np.arange(3 * count).reshape(count, 3)
    array = array[:, 0].copy() if flat else array
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_BITS", 2)
        patch.setattr(module, "_SIZE", 4)
        states = [(Pages.of(array), array)]
        for some, more in changes:
            pages, array = states[-1]
            numbers = np.array([*(n for n in some if n < len(array)), *range(len(array), len(array) + more)], np.int64)
            rows = -np.arange(len(numbers) * 3).reshape(-1, 3) - 1
            array = np.concatenate((array, np.zeros((more, *array.shape[1:]), array.dtype)))
            array[numbers] = rows[:, 0] if flat else rows
            states.append((pages.put(numbers, rows[:, 0] if flat else rows), array))
            after, changed = states[-1][0].pages, Pages.places(numbers)
            kept = [place for place in range(len(pages.pages)) if place not in changed]
            assert all(after[place] is pages.pages[place] for place in kept)
            assert [*range(len(after))] == sorted({*kept, *changed})
        for pages, array in states:
            order = np.random.default_rng(0).permutation(len(array))
            assert len(pages) == len(array)
            for same in (pages, pickle.loads(pickle.dumps(pages))):
                np.testing.assert_array_equal(same.take(order), array[order])
                np.testing.assert_array_equal(same.whole, array)
                np.testing.assert_array_equal(same.take(order), array[order])


@given(st.integers(1, 40), st.lists(st.integers(0, 39), max_size=9))
def test_numbers_are_increased_as_often_as_they_are_named(count: int, named: list[int]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_BITS", 2)
        patch.setattr(module, "_SIZE", 4)
        numbers = np.array([number % count for number in named], np.int64)
        before = Pages.of(np.arange(count))
        after = before.increased(numbers)
        assert after.whole.tolist() == (np.arange(count) + np.bincount(numbers, minlength=count)).tolist()
        assert before.whole.tolist() == [*range(count)]
        for number in numbers[:1]:
            assert after.take(numbers[:1]).tolist() == [after.whole[number]]


def test_a_change_shares_the_other_pages() -> None:
    before = Pages.of(np.arange(3 * module._SIZE))
    after = before.put(np.array([module._SIZE + 5]), -1)
    assert [one is other for one, other in zip(after.pages, before.pages, strict=True)] == [True, False, True]
    assert before.whole[module._SIZE + 5] == module._SIZE + 5
