"""A user is a history: whoever is asked about by name is answered as the same history given, bit for bit."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hashlgn
from conftest import clusters
from hashlgn.data import Interactions
from hashlgn.data.synthetic import synthetic
from hashlgn.errors import ArgumentError
from hashlgn.experiments.benchmarks.call import random_model
from hashlgn.inference.artifact import bytes_by_part
from hashlgn.inference.recommender import Recommender
from hashlgn.inference.stored import Stored
from hashlgn.inference.tables import Table
from hashlgn.scoring.items import FloatItems

FEW = {"student.epochs": 3, "student.distillation_epochs": 2, "student.code_epochs": 2, "student.settle_epochs": 1}
SHORT = FEW | {"model.dim": 32, "student.teacher": "labels"}
CODES = ("kernel", "ivf", "fastscan", "decoded", "exact")
FORMS: list[dict[str, object]] = [{}, {"model.answers": "floats"}, {"model.histories": "floats"}]


def shuffled(model: Recommender, seed: int = 0) -> dict[Any, list[Any]]:
    """The stored history of every user, in a random order."""
    rng, served = np.random.default_rng(seed), model.model
    indptr, indices = served.seen
    items = served.item_ids.decode(indices)
    return {
        user: rng.permutation(items[indptr[code] : indptr[code + 1]]).tolist()
        for code, user in enumerate(served.user_ids.decode(np.arange(len(served.user_ids))).tolist())
    }


def same(one: Table, other: Table, without: tuple[str, ...] = ()) -> None:
    """Equal to the last bit; a column that only one of them has must be named."""
    assert set(one) ^ set(other) == set(without)
    for name in set(one) - set(without):
        a, b = np.asarray(one[name]), np.asarray(other[name])
        assert a.dtype == b.dtype
        if a.dtype.kind == "f":
            a, b = (x.view(f"u{x.itemsize}") for x in (a, b))
        np.testing.assert_array_equal(a, b, err_msg=name)


def check(model: Recommender, folder: Path, alone: int | None = None, engines: tuple[str, ...] | None = None) -> None:
    """Named and given users are answered alike by every engine, in batches and alone, before and after a save.

    Titles are compared for users alone: in batches, of every engine, they would take most of the time.
    """
    given = shuffled(model)
    users = list(given)
    model.save(folder / "model")
    again = hashlgn.load(folder / "model")
    want = model.recommend(users, 10)
    cut = float(np.median(want["score"]))
    bare = [dataclasses.replace(one.model, titles=None, genres=None) for one in (model, again)]
    plain = Recommender(bare[0])
    over = plain.recommend(users, threshold=cut)
    chance = {"threshold": 0.1, "calibrated": True} if model.model.calibration is not None else {"threshold": cut}
    likely = plain.recommend(users, **chance)
    titled = ("title",) if "title" in set(want) else ()
    if engines is None:
        engines = ("flat", "exact") if isinstance(model.model.items, FloatItems) else CODES
    for engine in ("auto", *engines):
        for asked in (Recommender(one, engine=engine) for one in bare):
            answered = asked.recommend(history=given, k=10)
            same(answered, asked.recommend(users, 10))
            if engine == "ivf":  # which is approximate
                continue
            same(answered, want, without=titled)
            same(asked.recommend(history=given, threshold=cut), over)
            same(asked.recommend(history=given, **chance), likely)
    bounds = np.searchsorted(model.model.user_ids.encode(want["user"]), np.arange(len(users) + 1))
    for place in range(len(users))[:alone]:
        part = Table({name: column[bounds[place] : bounds[place + 1]] for name, column in want.items()})
        same(model.recommend([users[place]], 10), part)
        same(again.recommend(history=given[users[place]], k=10), part, without=("user",))


@pytest.fixture(scope="module", params=FORMS, ids=str)
def model(request: pytest.FixtureRequest) -> Recommender:
    return hashlgn.HashLGN(64, history_bits=64, config=SHORT | request.param).fit(synthetic(300, 200, 6000, seed=1))


def test_named_and_given_are_one_and_the_same(model: Recommender, tmp_path: Path) -> None:
    check(model, tmp_path)


def test_who_is_asked_twice_or_beside_others_gets_the_same(model: Recommender) -> None:
    users = [7, 3, 7, 250, 3]
    users = model.model.user_ids.decode(np.array(users)).tolist()
    table = model.recommend(users, 4)
    parts = [model.recommend([user], 4) for user in users]
    same(Table.concatenate(parts), table)


def test_a_history_without_what_was_not_seen_is_left_out_by_default_too(model: Recommender) -> None:
    given = shuffled(model)
    user = next(iter(given))
    answered = model.recommend(history=given[user], k=1000)
    assert not set(answered["item"].tolist()) & set(given[user])
    assert len(answered) + len(given[user]) == len(model.model.item_ids)
    whole = model.recommend(history=given[user], k=1000, filter_seen=False)
    assert len(whole) == len(model.model.item_ids)
    same(whole, model.recommend([user], 1000, filter_seen=False), without=("user",))


# Somebody of whom nothing is known


def counted(model: Recommender) -> list[int]:
    """Items by the number of their users, ties by number."""
    counts = np.bincount(model.model.seen[1], minlength=len(model.model.item_ids))
    return np.argsort(-counts, kind="stable").tolist()


def test_an_empty_history_gets_what_most_people_have(model: Recommender) -> None:
    ids, counts = model.model.item_ids, np.bincount(model.model.seen[1], minlength=200)
    for empty in ([], {"ann": []}, {"ann": {}}):
        table = model.recommend(history=empty, k=5)
        assert table["item"].tolist() == ids.decode(np.array(counted(model)[:5])).tolist()
        assert table["score"].tolist() == np.sort(counts)[::-1][:5].tolist()
        assert (table["score"] > 0).all() and set(table["source"].tolist()) == {"popular"}
    unknown = model.recommend(
        history=["nothing"] if isinstance(ids.values[0], str) else [10**9], k=5, on_unknown="skip"
    )
    assert unknown["item"].tolist() == table["item"].tolist()


def test_the_known_and_the_unknown_in_one_batch(model: Recommender) -> None:
    given = shuffled(model)
    user = next(iter(given))
    names = {"a": [], "b": given[user], "c": [], "d": given[user]}
    table = model.recommend(history=names, k=3)
    assert table["user"].tolist() == [name for name in "abcd" for _ in range(3)]
    assert table["source"].tolist() == [*["popular"] * 3, *["model"] * 3] * 2
    assert table["rank"].tolist() == [1, 2, 3] * 4
    alone = model.recommend(history=given[user], k=3)
    assert table["item"].tolist()[3:6] == table["item"].tolist()[9:] == alone["item"].tolist()
    np.testing.assert_array_equal(table["score"][3:6], alone["score"])


def test_limits_hold_for_the_popular_too(model: Recommender) -> None:
    order = model.model.item_ids.decode(np.array(counted(model))).tolist()
    assert model.recommend(history=[], k=3, deny=order[:2])["item"].tolist() == order[2:5]
    assert model.recommend(history=[], k=3, allow=order[50:52])["item"].tolist() == order[50:52]
    lists = {"ann": order[9:11][::-1], "bob": order[70:75]}
    table = model.recommend(history={"ann": [], "bob": []}, k=4, allow=lists)
    assert table["item"].tolist() == order[9:11] + order[70:74]
    table = model.recommend(history={"ann": [], "bob": []}, k=2, deny={"bob": order[:1]})
    assert table["item"].tolist() == order[:2] + order[1:3]
    assert len(model.recommend(history=[], k=10**6)) == len(order)


def test_the_unknown_are_skipped_or_refused_where_asked_and_pass_no_threshold(model: Recommender) -> None:
    given = shuffled(model)
    user = next(iter(given))
    history = {"ann": [], "bob": given[user]}
    skipped = model.recommend(history=history, k=3, on_empty="skip")
    assert set(skipped["user"].tolist()) == {"bob"} and set(skipped["source"].tolist()) == {"model"}
    with pytest.raises(ArgumentError, match=r"history must hold at least one known item .*'ann'"):
        model.recommend(history=history, k=3, on_empty="raise")
    for threshold in (-1e9, -1.0, 0.0, 0.3):
        assert "ann" not in model.recommend(history=history, threshold=threshold)["user"].tolist()
    assert len(model.recommend(history=[], threshold=-1e9)) == 0
    calibrated = model.recommend(history=history, k=3, calibrated=True)
    assert np.isnan(calibrated["probability"][:3]).all() and (calibrated["probability"][3:] > 0).all()
    assert set(model.recommend(history=history, threshold=1e-6, calibrated=True)["user"].tolist()) <= {"bob"}


def test_a_user_of_the_training_without_interactions_is_one_of_them() -> None:
    data = clusters()
    lonely = int(data.user_ids.values[5])
    part = data.select(data.rows != 5)
    model = hashlgn.HashLGN(32, history_bits=32, config=SHORT).fit(part)
    table = model.recommend([lonely, 1000], k=3)
    assert table["source"].tolist() == ["popular"] * 3 + ["model"] * 3
    same(model.recommend(history={lonely: []}, k=3), model.recommend([lonely], k=3))
    assert len(model.recommend([lonely], on_empty="skip")) == 0
    assert len(model.recommend([lonely], threshold=-10)) == 0
    with pytest.raises(ArgumentError, match=f"history must hold at least one known item .*{lonely}"):
        model.recommend([lonely, 1000], on_empty="raise")


def test_where_times_are_known_recent_popularity_counts() -> None:
    data = clusters()
    # Item 7 is the latest of 5 users, item 3 of 4; nobody has had another item lately. Before that item 1 led.
    times = np.arange(len(data)) % 50
    latest = {7: 5, 3: 4}
    for item, count in latest.items():
        places = np.flatnonzero(data.item_ids.values[data.indices] == item)[:count]
        times[places] = 1000
    share = sum(latest.values()) / len(data)
    timed = Interactions(data.user_ids, data.item_ids, data.indptr, data.indices, times=times)
    model = hashlgn.HashLGN(32, history_bits=32, config=SHORT).fit(timed)
    assert model.model.times is not None and share < 0.1
    newest = times >= np.quantile(times, 0.9)
    recent = np.bincount(data.indices[newest], minlength=40)
    ever = np.bincount(data.indices, minlength=40)
    order = sorted(range(40), key=lambda item: (-recent[item], -ever[item], item))
    table = model.recommend(history=[], k=6)
    assert table["item"].tolist() == data.item_ids.values[order[:6]].tolist()
    assert table["score"].tolist() == recent[order[:6]].tolist()


# Strengths


def test_strengths_count_and_only_their_ratios(model: Recommender) -> None:
    items = model.model.item_ids.decode(np.arange(4)).tolist()
    plain = model.recommend(history=items, k=20)
    same(model.recommend(history={"x": dict.fromkeys(items, 1.0)}, k=20), plain, without=("user",))
    same(model.recommend(history={"x": dict.fromkeys(items, 8)}, k=20), plain, without=("user",))
    one = dict(zip(items, (8.0, 0.5, 1.0, 2.0), strict=True))
    other = {item: one[item] for item in reversed(items)}
    weighted = model.recommend(history={"x": one}, k=20)
    same(weighted, model.recommend(history={"x": other}, k=20))
    assert weighted["score"].tolist() != plain["score"].tolist()
    served = model.model
    single = [served.queries(np.array([0, 1]), np.array([code])) for code in range(4)]
    lengths = [np.linalg.norm(served.histories.vectors([0, 1], [code])) for code in range(4)]
    v = sum(s * length * q for s, length, q in zip(one.values(), lengths, single, strict=True))
    found = served.queries(np.array([0, 4]), np.arange(4), np.array([*one.values()], np.float32))
    np.testing.assert_allclose(found, v / np.linalg.norm(v), rtol=1e-4, atol=1e-5)
    for wrong in (0, -1.0, float("nan"), float("inf"), 1e38):
        with pytest.raises(ArgumentError, match="a strength in history must be from 1e-6 to 1e12"):
            model.recommend(history={"x": {items[0]: wrong}})


@pytest.mark.parametrize("history", [[[1, 2], [3]], [1, (2,)], np.ones((2, 2), np.int64)])
def test_several_histories_without_names_are_refused_in_plain_words(model: Recommender, history: Any) -> None:
    with pytest.raises(ArgumentError, match="history must be one list of items, or a mapping from names to such lists"):
        model.recommend(history=history)


def test_stored_strengths_are_given_strengths(model: Recommender, tmp_path: Path) -> None:
    rng, served = np.random.default_rng(2), model.model
    strengths = (rng.random(len(served.seen[1])) + 0.1).astype(np.float32)
    weighted = Recommender(dataclasses.replace(served, stored=Stored.of(*served.seen, strengths)))
    weighted.save(tmp_path / "model")
    given: dict[Any, dict[Any, float]] = {}
    for code, user in enumerate(served.user_ids.values.tolist()):
        places = rng.permutation(np.arange(served.seen[0][code], served.seen[0][code + 1]))
        items = served.item_ids.decode(served.seen[1][places]).tolist()
        given[user] = dict(zip(items, strengths[places].tolist(), strict=True))
    users = list(given)
    table = weighted.recommend(users, k=10)
    assert table["score"].tolist() != model.recommend(users, k=10)["score"].tolist()
    same(weighted.recommend(history=given, k=10), table)
    same(hashlgn.load(tmp_path / "model").recommend(users, k=10), table)
    np.testing.assert_array_equal(
        weighted.score(table["user"], table["item"]).view(np.uint32), np.asarray(table["score"]).view(np.uint32)
    )


# Probabilities


def test_calibrated_thresholds_return_exactly_what_is_more_likely(model: Recommender) -> None:
    users = list(shuffled(model))
    whole = model.recommend(users, k=200, calibrated=True)
    chances = whole["probability"]
    for user in users[:50]:
        mine = chances[whole["user"] == user]
        assert (np.diff(mine) <= 0).all()  # it rises with the score
    picked = np.quantile(chances, [0.3, 0.9, 0.99])
    for threshold in (*picked.astype(float).tolist(), 0.02, 0.2, 0.9999):
        found = model.recommend(users, threshold=threshold, calibrated=True)
        keep = whole["probability"].astype(np.float64) > threshold
        # The column is rounded to float32: rows whose chance is that close to the threshold may be on either side.
        close = np.abs(chances.astype(np.float64) - threshold) < 1e-7 * threshold
        rows = set(zip(found["user"].tolist(), found["item"].tolist(), strict=True))
        sure = keep & ~close
        assert rows >= set(zip(whole["user"][sure].tolist(), whole["item"][sure].tolist(), strict=True))
        assert rows <= set(zip(whole["user"][keep | close].tolist(), whole["item"][keep | close].tolist(), strict=True))
    for wrong in (0.0, 1.0, -0.1, 2):
        with pytest.raises(ArgumentError, match="threshold must lie between 0 and 1"):
            model.recommend(users, threshold=wrong, calibrated=True)
    with pytest.raises(ArgumentError, match="calibrated needs a model that was calibrated"):
        Recommender(dataclasses.replace(model.model, calibration=None)).recommend(users, calibrated=True)


# Bytes


@pytest.mark.parametrize(
    ("bits", "given", "history_bits", "most"), [(128, None, 320, 64), (128, 128, 128, 40), (64, None, 256, 48)]
)
def test_bytes_per_item_and_none_per_user(
    bits: int, given: int | None, history_bits: int, most: float, tmp_path: Path
) -> None:
    data = synthetic(100, 512, 3000, seed=2)  # whole blocks of items
    config = {"student.epochs": 1, "student.teacher": "labels", "student.code_epochs": 0, "student.settle_epochs": 0}
    model = hashlgn.HashLGN(bits, history_bits=given, dim=16, config=config).fit(data)
    file = model.save(tmp_path / "model")
    parts, info = bytes_by_part(file), hashlgn.load(file).info()
    assert info == model.info()
    constants = (bits + history_bits) // 4 * 16 * 16 * 4
    per_item = (parts["items"] + parts["histories"] - constants) / 512
    levels = len(np.unique(model.model.histories.weight)) * 2
    assert info["bytes"]["per_item"] == pytest.approx(per_item - levels / 512)
    assert bits / 8 + history_bits / 8 + 7 <= per_item <= most
    assert info["bytes"]["per_user"] == 0 and "users" not in parts
    assert sum(parts.values()) == file.stat().st_size == info["bytes"]["total"] + parts["manifest"]
    assert info["bytes"]["histories"]["weight"] == 512  # one byte each


def test_numbers_in_numbers_out_are_what_recommend_says(model: Recommender) -> None:
    served = model.model
    users = served.user_ids.decode(np.arange(9))
    table = model.recommend(users.tolist(), 7)
    bounds, indices = served.seen[0][:10], served.seen[1][: served.seen[0][9]].astype(np.int64)
    strengths = None if served.strengths is None else served.strengths[: len(indices)]
    hits = model.answer(bounds, indices, strengths, k=7)
    assert served.item_ids.decode(hits.items).tolist() == table["item"].tolist()
    np.testing.assert_array_equal(hits.scores, table["score"])
    empty = model.answer(np.array([0, 0]), np.empty(0, np.int64), k=3)
    assert served.item_ids.decode(empty.items).tolist() == model.recommend(history=[], k=3)["item"].tolist()


def test_strengths_without_a_name_are_refused() -> None:
    model = Recommender(random_model(300, 60, 6))
    with pytest.raises(ArgumentError, match="mapping from names to lists"):
        model.recommend(history={318: 2.0, 27: 1.0})
    assert len(model.recommend(history={"me": {218: 2.0, 27: 1.0}}, k=3)) == 3
