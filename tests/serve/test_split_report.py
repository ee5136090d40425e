from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hashlgn.errors import DataError
from hashlgn.serve.journal import Event, Journal
from hashlgn.serve.splits import report_split

SECOND = 1_000_000
NOW = 1_700_000_000


def opened(path: Path) -> Journal:
    return Journal.open(path, ("str", "int"), clock=lambda: (NOW + 1000) * SECOND)


def test_hits_by_hand(tmp_path: Path) -> None:
    with opened(tmp_path / "events.db") as journal:
        for user, arm, items, time in [
            ("ann", "a", [1, 2], 0),  # ann takes 2 within the window: a hit
            ("ann", "a", [3], 0),  # and 3 too late
            ("bob", "a", [1], 50),  # bob took 1 before it was shown
            ("cy", "b", [5, 6], 0),  # at the last moment: a hit
            ("dan", "b", [], 0),
            ("eve", "b", [5], 0),  # another user's event
        ]:
            journal.exposure(user, arm, items, "request", (NOW + time) * SECOND)
        for user, item, time in [("ann", 2, 5), ("ann", 3, 101), ("bob", 1, 50), ("bob", 9, 60), ("cy", 6, 100)]:
            journal.append([Event(user, item, time=NOW + time)])
    found = report_split(tmp_path / "events.db", window=100)["arms"]
    assert {arm: (one["users"], one["answers"], one["hit_rate"]) for arm, one in found.items()} == {
        "a": (2, 3, pytest.approx((0.5 + 0) / 2)),
        "b": (3, 3, pytest.approx(1 / 3)),
    }
    assert found["b"]["difference"] == pytest.approx(1 / 3 - 1 / 4) and "difference" not in found["a"]
    low, high = found["b"]["difference_interval"]
    assert low < 1 / 3 - 1 / 4 < high


def test_a_true_difference_is_found(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    with opened(tmp_path / "events.db") as journal:
        events = []
        for user in range(800):
            arm = "ab"[user % 2]
            journal.exposure(f"u{user}", arm, [1], None, NOW * SECOND)
            if rng.random() < {"a": 0.2, "b": 0.4}[arm]:
                events.append(Event(f"u{user}", 1, time=NOW + 1))
        journal.append(events)
    found = report_split(tmp_path / "events.db")["arms"]
    low, high = found["b"]["difference_interval"]
    assert 0.05 < low < 0.2 < high < 0.35
    assert found == report_split(tmp_path / "events.db")["arms"]


def test_deleted_users_are_in_no_arm(tmp_path: Path) -> None:
    with opened(tmp_path / "events.db") as journal:
        journal.exposure("ann", "a", [1])
        journal.append([Event("ann", 1)])
        journal.exposure("ann", "a", [1])  # waits to be written, and is not
        journal.delete_user("ann").result()
    with pytest.raises(DataError, match="no exposures"):
        report_split(tmp_path / "events.db")
