"""Ragged arrays: the compiled checks and gathers agree with NumPy's."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hashlgn.scoring import rows as module
from hashlgn.scoring.rows import ascending_rows, entries_of, rows_of

lists = st.lists(st.lists(st.integers(-1, 6), max_size=5), max_size=5)


@given(lists, st.data())
def test_rows_are_gathered_and_checked_as_by_hand(rows: list[list[int]], data: st.DataObject) -> None:
    indptr = np.cumsum([0, *map(len, rows)], dtype=np.int64)
    indices = np.array([item for row in rows for item in row], np.int32)
    want = all(sorted(set(row)) == row and min([*row, 0]) >= 0 and max([*row, 0]) < 6 for row in rows)
    chosen = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=6)) if rows else []
    for compiled in (module._compiled, None):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "_compiled", compiled)
            assert ascending_rows(indptr, indices.astype(np.int64), 6) == want
            for bad in (indptr + 1, np.append(indptr, 0), indptr[::-1].copy()):
                if len(indices):
                    assert not ascending_rows(bad, indices.astype(np.int64), 6)
            bounds, entries = rows_of((indptr, indices), np.array(chosen, np.int64))
            assert [entries[a:b].tolist() for a, b in pairwise(bounds.tolist())] == [rows[row] for row in chosen]
            again, places = entries_of(indptr, np.array(chosen, np.int64))
            assert again.tolist() == bounds.tolist() and indices[places].tolist() == entries.tolist()
