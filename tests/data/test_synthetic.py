"""Made-up data: exactly as many pairs as asked, with the structure that was planted; written and read back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hashlgn.data.synthetic as room
from hashlgn.data import Ids, Interactions, random_ratio, read_interactions
from hashlgn.data.synthetic import synthetic, write_lightgcn
from hashlgn.errors import ArgumentError, DataError


@settings(deadline=None)
@given(st.integers(1, 30), st.integers(1, 30), st.floats(0, 1), st.integers(1, 8), st.sampled_from([0, 0.8, 1, 2.5]))
def test_exactly_as_many_distinct_pairs_as_asked(
    n_users: int, n_items: int, density: float, clusters: int, skew: float
) -> None:
    wanted = max(1, round(density * n_users * n_items))
    data = synthetic(n_users, n_items, wanted, clusters=clusters, skew=skew, seed=1)
    assert (len(data), data.n_users, data.n_items) == (wanted, n_users, n_items)  # that pairs differ is checked inside
    assert len(data.titles) == len(data.genres) == n_items


def test_blocks_join_without_a_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_BLOCK", 100)
    data = synthetic(200, 300, 5000, seed=2)
    assert len(data) == 5000
    assert (np.diff(data.indptr) >= 1).all()
    assert np.diff(data.indptr).max() > 100  # a user larger than a block
    full = synthetic(20, 30, 600, seed=2)
    assert (np.diff(full.indptr) == 30).all()


def test_the_seed_fixes_every_draw() -> None:
    first, again, other = (synthetic(300, 200, 4000, seed=s).fingerprint() for s in (5, 5, 6))
    assert first == again
    assert first != other


def test_clusters_are_planted_and_named() -> None:
    data = synthetic(1000, 4000, 15_000, clusters=8, affinity=0.8, seed=0)
    cluster = np.array([int(genre[0].removeprefix("Cluster ")) for genre in data.genres])
    assert np.bincount(cluster).tolist() == [500] * 8
    assert data.titles[3] == "Item 3"
    per_user = np.zeros((1000, 8))
    np.add.at(per_user, (data.rows, cluster[data.indices]), 1)
    own = per_user.max(axis=1).sum() / len(data)
    assert 0.7 < own < 0.9  # 0.8 + 0.2 / 8, less what large users draw again
    flat = synthetic(1000, 4000, 15_000, clusters=8, affinity=0, seed=0)
    np.add.at(per_user := np.zeros((1000, 8)), (flat.rows, cluster[flat.indices]), 1)
    assert per_user.max(axis=1).sum() / len(flat) < 0.35


def test_popularity_follows_the_power_law() -> None:
    data = synthetic(200_000, 1600, 1_000_000, clusters=16, skew=0.8, seed=0, titles=False)
    assert data.titles is None
    counts = np.sort(np.bincount(data.indices, minlength=1600))[::-1].reshape(100, 16).mean(axis=1)
    slope = np.polyfit(np.log(np.arange(5, 101)), np.log(counts[4:]), 1)[0]
    assert -0.9 < slope < -0.7
    even = np.bincount(synthetic(20_000, 100, 200_000, skew=0, clusters=1).indices)
    assert even.max() / even.min() < 1.3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_users": 0}, r"n_users must be a positive integer \(got 0\)"),
        ({"n_items": 1.5}, r"n_items must be a positive integer \(got 1.5\)"),
        ({"interactions": 101}, r"interactions must be at most n_users \* n_items = 100 \(got 101\)"),
        ({"clusters": 0}, "clusters must be a positive integer"),
        ({"affinity": 1.1}, r"affinity must be a number from 0 to 1 \(got 1.1\)"),
        ({"affinity": float("nan")}, "affinity must be"),
        ({"skew": -1}, r"skew must be a number from 0 to 10 \(got -1\)"),
    ],
)
def test_bad_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        synthetic(**({"n_users": 10, "n_items": 10, "interactions": 20} | arguments))


@pytest.mark.parametrize("block", [7, 1 << 22])
def test_written_and_read_back(tmp_path: Path, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_BLOCK", block)
    monkeypatch.setattr(room, "_USERS", block)
    data = synthetic(60, 40, 500, seed=3)
    train, test = random_ratio(data, seed=3)
    write_lightgcn(tmp_path / "new" / "folder", train, test)
    assert read_interactions(tmp_path / "new" / "folder").fingerprint() == train.without_empty().fingerprint()
    read = read_interactions(tmp_path / "new" / "folder", part="test")
    assert read.fingerprint() == test.without_empty().fingerprint()
    assert (
        read_interactions(tmp_path / "new" / "folder", part="all").fingerprint() == data.without_empty().fingerprint()
    )


def test_written_lines(tmp_path: Path) -> None:
    ids, items = Ids([3, 4, 9]), Ids([70, 80])
    train = Interactions(ids, items, np.array([0, 2, 2, 3]), np.array([0, 1, 1], np.int32))
    test = Interactions(ids, items, np.array([0, 0, 1, 1]), np.array([0], np.int32))
    write_lightgcn(tmp_path, train, test)
    assert (tmp_path / "train.txt").read_bytes() == b"3 70 80\n4\n9 80\n"
    assert (tmp_path / "test.txt").read_bytes() == b"4 70\n"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["test.txt", "train.txt"]


def test_what_cannot_be_written(tmp_path: Path) -> None:
    data = synthetic(3, 3, 4)
    with pytest.raises(ArgumentError, match=r"train must have integer ids from 0 for this format \(got Ids"):
        write_lightgcn(tmp_path, replace(data, user_ids=Ids(["a", "b", "c"])), data)
    with pytest.raises(ArgumentError, match="test must have integer ids from 0"):
        write_lightgcn(tmp_path, data, replace(data, item_ids=Ids([-1, 0, 1])))
    with pytest.raises(DataError, match="test has no interactions"):
        write_lightgcn(tmp_path, data, data.select(np.zeros(4, np.bool_)))
    (tmp_path / "file").write_text("")
    with pytest.raises(ArgumentError, match="folder must be a place to write to"):
        write_lightgcn(tmp_path / "file", data, data)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
