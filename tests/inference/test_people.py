"""Who is asked where an item goes."""

from __future__ import annotations

import numpy as np
import pytest

from hashlgn.inference.people import people_of
from hashlgn.inference.stored import Stored


@pytest.mark.parametrize(("stay", "asked"), [(None, 128), (0.0, 128), (0.5, 64), (0.999, 16), (1.0, 16)])
def test_an_item_that_mostly_stays_asks_fewer_people(stay: float | None, asked: int) -> None:
    stored = Stored.of(np.arange(501), np.zeros(500, np.int32))
    people = people_of(stored, np.zeros(1, np.int64), None if stay is None else np.array([stay], np.float32))
    assert people.counts.tolist() == [500] and people.bounds.tolist() == [0, asked]
    assert (np.diff(people.users) > 0).all() and people.users[0] == 0 and people.users[-1] >= 500 - 500 // asked - 1


def test_few_people_are_all_asked() -> None:
    stored = Stored.of(np.arange(11), np.zeros(10, np.int32))
    assert people_of(stored, np.zeros(1, np.int64), np.ones(1, np.float32)).users.tolist() == list(range(10))
