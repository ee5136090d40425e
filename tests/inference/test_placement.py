"""Where items are placed: beside the definition, compiled and in NumPy, alone and with others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hashlgn import HashLGN
from hashlgn.data import Ids, Interactions
from hashlgn.data.synthetic import synthetic
from hashlgn.inference import people as people_module
from hashlgn.inference import placement as module
from hashlgn.inference.model import ServedModel
from hashlgn.inference.people import People, people_of, place
from hashlgn.inference.placement import Placement
from hashlgn.inference.stored import Stored
from hashlgn.scoring.decoders import CodebookDecoder
from hashlgn.scoring.histories import CodedHistories, FloatHistories
from hashlgn.scoring.items import CodedItems, FloatItems

USERS, ITEMS = 40, 12


@pytest.fixture(params=["compiled", "numpy"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The modules compiled, and in NumPy."""
    if request.param == "numpy":
        monkeypatch.setattr(module, "_compiled", None)
        monkeypatch.setattr(people_module, "_compiled", None)


def constants(rng: np.random.Generator, width: int, axes: int) -> Placement:
    metrics = rng.standard_normal((2, width, 2 * width)).astype(np.float32)
    metrics = (metrics @ metrics.transpose(0, 2, 1) / width).astype(np.float32)
    sides = rng.standard_normal((3, axes + 2, width)).astype(np.float32)
    vectors = rng.random((2, 2)).astype(np.float32) + 1, np.array([USERS], np.float32)
    signal = (rng.random(axes) + 0.1).astype(np.float32)
    axes_ = np.ascontiguousarray(sides[2, :-2].T)
    return Placement(sides[2, -1], axes_, signal, sides[0], sides[1], metrics, *vectors[0], vectors[1])


def model_of(rng: np.random.Generator, width: int, *, weighted: bool = True) -> tuple[ServedModel, np.ndarray]:
    """A float model, and its strengths as a matrix; one user has nothing but item 0."""
    matrix = (rng.random((USERS, ITEMS)) + 0.1) * (rng.random((USERS, ITEMS)) < 0.4)
    matrix[0], matrix[0, 0] = 0, 0.5
    matrix = (matrix if weighted else matrix > 0).astype(np.float32)
    chosen = matrix > 0
    p, o = rng.standard_normal((2, ITEMS, width)).astype(np.float32)
    bounds = np.append(0, chosen.sum(axis=1).cumsum())
    stored = Stored.of(bounds, np.nonzero(chosen)[1].astype(np.int32), matrix[chosen] if weighted else None)
    ids = Ids.range(USERS), Ids.range(ITEMS)
    return ServedModel("hashlgn", {}, *ids, FloatItems(o), stored, FloatHistories(p)), matrix


def defined(placement: Placement, matrix: np.ndarray, p: np.ndarray, item: int) -> tuple[np.ndarray, np.ndarray]:
    """Both vectors of an item, as the equations of the module have them; the draw as a problem of least squares."""
    everybody = np.flatnonzero(matrix[:, item])
    who = [user for user in everybody if np.count_nonzero(matrix[user]) > 1]
    left = matrix[who].astype(np.float64) @ p - matrix[who, item, None] * p[item].astype(np.float64)
    lengths = np.linalg.norm(left, axis=1)
    units, weights, total = left / lengths[:, None], lengths**-0.25, len(everybody)
    worth = weights.sum() ** 2 / (weights**2).sum()
    z = (weights @ units / weights.sum() - placement.mean) @ placement.axes
    most = 4 * np.sqrt(placement.signal + 1 / worth)
    z = np.maximum(-most, np.minimum(most, z)) / (placement.signal + 0.7 / worth)
    factors = np.concatenate((z, [1, np.log1p(total)]))
    o, history = factors @ placement.answers, factors @ placement.histories * (total / (total + 100))
    level = max(placement.levels[0] + placement.levels[1] * np.log1p(times * total) for times in (1, 8))
    share = (total / (total + 3) * total / len(who)) ** 0.5
    others = np.linalg.cholesky(0.005 * USERS * placement.metrics[0].astype(np.float64)).T
    rows = np.vstack((share * units, others, np.eye(len(o))))
    step = np.linalg.lstsq(rows, np.concatenate((share * (level - units @ o), np.zeros(2 * len(o)))))[0]
    return o + step, history


@pytest.mark.usefixtures("form")
@pytest.mark.parametrize("weighted", [True, False])
def test_items_go_where_the_definition_has_them(weighted: bool) -> None:
    """A person with nothing but the item counts as one, and says nothing."""
    rng = np.random.default_rng(weighted)
    model, matrix = model_of(rng, 6, weighted=weighted)
    placement, numbers = constants(rng, 6, 4), np.array([0, 3, 7])
    placed = place(model, placement, numbers, people_of(model.stored, numbers))
    for row, item in enumerate(numbers):
        o, p = defined(placement, matrix, model.histories.items, item)  # type: ignore[union-attr]
        np.testing.assert_allclose(placed.answers[row], o, rtol=2e-4, atol=2e-4)
        np.testing.assert_allclose(placed.histories[row], p, rtol=1e-4, atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(0, 8), st.lists(st.integers(0, 9), max_size=5))
def test_compiled_and_numpy_place_alike(seed: int, width: int, axes: int, counts: list[int]) -> None:
    rng = np.random.default_rng(seed)
    placement = constants(rng, width, axes)
    v = rng.standard_normal((7, width)) * np.exp(rng.standard_normal((7, 1)))
    v[0] = 0
    rows, bounds = rng.integers(0, 7, sum(counts)), np.cumsum([0, *counts])
    strengths = rng.random(len(rows)).astype(np.float32)
    own = rng.standard_normal((len(counts), width)).astype(np.float32)
    more = np.array(counts, np.int64) + rng.integers(0, 3, len(counts))
    fast = placement.estimates(v, rows, strengths, bounds, own, more)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_compiled", None)
        plain = placement.estimates(v, rows, strengths, bounds, own, more)
    for one, other in zip(fast, plain, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3 * max(1, np.abs(other).max(initial=0)))


@pytest.mark.parametrize("weighted", [True, False])
def test_people_with_coded_histories_place_alike_compiled_and_in_numpy(
    weighted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(weighted)
    model, _ = model_of(rng, 6, weighted=weighted)
    packed, codewords = rng.integers(0, 256, (ITEMS - 2, 2), np.uint8), rng.standard_normal((4, 16, 6))
    histories = CodedHistories(packed, codewords.astype(np.float32), rng.random(ITEMS - 2).astype(np.float16))
    model, numbers = model.changed(histories=histories), np.arange(ITEMS)  # the last two items have no code yet
    people, trained = people_of(model.stored, numbers), np.arange(ITEMS - 2)
    monkeypatch.setattr(people_module, "_ITEMS", 5)  # of the NumPy form
    monkeypatch.setattr(people_module, "_ROWS", 7)
    found = []
    for compiled in (module._compiled, None):
        monkeypatch.setattr(module, "_compiled", compiled)
        monkeypatch.setattr(people_module, "_compiled", compiled)
        placement = constants(np.random.default_rng(0), 6, 4)
        own, o, p = np.full((3, ITEMS, 6), np.nan, np.float32)
        if compiled is None:
            people_module._estimated(histories, placement, numbers, people, own, o, p)
        else:
            where = numbers, people.users, people.bounds, people.counts
            placement.held.place(histories.held, people.stored.held, len(people.stored), *where, own, o, p)
        found.append((own, o, p, place(model, placement, trained, people_of(model.stored, trained)).answers))
    np.testing.assert_array_equal(found[0][0], found[1][0])
    assert not found[0][0][-2:].any() and found[0][0][:-2].all()
    for one, other in zip(found[0][1:], found[1][1:], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)


@pytest.mark.usefixtures("form")
@pytest.mark.parametrize("coded", [True, False])
def test_an_item_alone_is_placed_as_with_others(coded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    model, _ = model_of(rng, 6)
    items: Any = model.items
    histories: Any = model.histories
    if coded:
        codewords = rng.standard_normal((2, 4, 16, 6)).astype(np.float32)
        packed, scale = rng.integers(0, 256, (2, ITEMS, 2), np.uint8), np.ones(ITEMS, np.float16)
        items = CodedItems(packed[0], CodebookDecoder(codewords[0]), scale)
        histories = CodedHistories(packed[1], codewords[1], scale)
    model = model.changed(items=items, histories=histories)
    placement, numbers = constants(rng, 6, 4), np.arange(ITEMS)
    together = place(model, placement, numbers, people_of(model.stored, numbers))
    monkeypatch.setattr(people_module, "_ITEMS", 5)  # of the NumPy form
    monkeypatch.setattr(people_module, "_ROWS", 3)
    in_parts = place(model, placement, numbers, people_of(model.stored, numbers))
    for number in numbers:
        alone = place(model, placement, numbers[number : number + 1], people_of(model.stored, numbers[number:][:1]))
        for name in ("answers", "scale", "histories", "weight", "counts"):
            if getattr(alone, name) is not None:
                np.testing.assert_array_equal(getattr(alone, name)[0], getattr(together, name)[number])
                np.testing.assert_array_equal(getattr(alone, name)[0], getattr(in_parts, name)[number])


@pytest.mark.skipif(module._compiled is None, reason="the kernel was not compiled when HashLGN was installed")
def test_many_items_of_many_people_go_where_each_goes_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    rng, n_users, n_items = np.random.default_rng(2), 2200, 300
    chosen = rng.random((n_users, n_items)) < np.linspace(0.001, 0.14, n_items)
    chosen[np.arange(n_users), rng.integers(0, n_items, n_users)] = True
    stored = Stored.of(np.append(0, chosen.sum(axis=1).cumsum()), np.nonzero(chosen)[1].astype(np.int32))
    codewords, packed = rng.standard_normal((4, 16, 6)).astype(np.float32), rng.integers(0, 256, (n_items, 2), np.uint8)
    histories = CodedHistories(packed, codewords, (rng.random(n_items) + 0.5).astype(np.float16))
    items = FloatItems(rng.standard_normal((n_items, 6)).astype(np.float32))
    model = ServedModel("hashlgn", {}, Ids.range(n_users), Ids.range(n_items), items, stored, histories)
    placement, numbers = constants(rng, 6, 4), np.arange(n_items)
    people = people_of(stored, numbers)
    assert people.counts.max() > people_module._MOST and len(np.unique(people.users)) > 2048
    together = place(model, placement, numbers, people)
    for number in (0, 15, 16, 255, 256, 272, 299):
        alone = place(model, placement, numbers[number:][:1], people_of(stored, numbers[number:][:1]))
        for name in ("answers", "histories", "weight", "counts"):
            np.testing.assert_array_equal(getattr(alone, name)[0], getattr(together, name)[number])
    monkeypatch.setattr(module, "_compiled", None)
    monkeypatch.setattr(people_module, "_compiled", None)
    plain = place(model, placement, numbers, people)
    np.testing.assert_allclose(together.answers, plain.answers, rtol=1e-3, atol=1e-4)


@pytest.mark.skipif(module._compiled is None, reason="the kernel was not compiled when HashLGN was installed")
def test_the_compiled_form_refuses_what_does_not_fit() -> None:
    kernel: Any = module._compiled
    zero, ones = np.zeros(1, np.int64), np.ones(1, np.int64)
    rows = kernel.Rows(None, np.array([0, 1]), np.array([1], np.int32))
    held = kernel.HistoryCodes([np.zeros((2, 1), np.uint8)], [np.ones(2, np.float16)], np.zeros((32, 6), np.float32))
    wide = kernel.HistoryCodes([np.zeros((2, 1), np.uint8)], [np.ones(2, np.float16)], np.zeros((32, 7), np.float32))
    fits = {"histories": held, "stored": [rows], "users": 1, "numbers": zero, "asked": zero, "bounds": np.array([0, 1])}
    fits |= {"totals": ones} | {name: np.zeros((1, 6), np.float32) for name in ("own", "o", "p")}
    placement = constants(np.random.default_rng(0), 6, 4)
    placement.held.place(**fits)
    for wrong, message in (
        ({"histories": wide}, "of this width"),
        ({"stored": [None]}, "must not be None"),
        ({"users": 0}, "numbers of users"),
        ({"numbers": -ones}, "must not be negative"),
        ({"bounds": np.array([0, 2])}, "inside what it divides"),
        ({"bounds": np.array([1, 0])}, "must ascend"),
        ({"bounds": zero}, "must fit numbers"),
        ({"totals": np.ones(2, np.int64)}, "must fit numbers"),
        ({"own": np.zeros((1, 5), np.float32)}, "one row per item"),
        ({"p": np.zeros((2, 6), np.float32)}, "one row per item"),
    ):
        with pytest.raises(ValueError, match=message):
            placement.held.place(**fits | wrong)


def test_of_many_people_some_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(people_module, "_MOST", 4)
    chosen = np.zeros((10, 2), np.bool_)
    chosen[:, 0], chosen[2:5, 1] = True, True
    stored = Stored.of(np.append(0, chosen.sum(axis=1).cumsum()), np.nonzero(chosen)[1].astype(np.int32))
    people = people_of(stored, np.arange(2))
    assert isinstance(people, People) and people.counts.tolist() == [10, 3] and people.bounds.tolist() == [0, 4, 7]
    assert people.users.tolist() == [0, 3, 5, 8, 2, 3, 4]
    told = people_module.given([(np.arange(11), np.arange(10)), (np.arange(3), np.arange(2))], np.arange(2))
    assert told.counts.tolist() == [10, 2] and told.users.tolist() == [0, 3, 5, 8, 10, 11]


def test_new_items_of_new_people_do_not_draw_each_other_on() -> None:
    """People of new items have new items in their histories: to place them again and again must lead nowhere."""
    rng, people, new = np.random.default_rng(0), np.arange(1000, 1030), np.arange(1000, 1010)
    small = {"model.dim": 16, "model.bits": 32, "model.history_bits": 32, "student.epochs": 3, "student.code_epochs": 2}
    model = HashLGN(config=small, seed=0).fit(synthetic(300, 120, 6000, clusters=4), progress=False)
    chosen = [np.concatenate((rng.choice(new, 6, replace=False), rng.choice(120, 4, replace=False))) for _ in people]
    model.update(Interactions.from_pairs(np.repeat(people, 10), np.concatenate(chosen)))
    shares = []
    for _ in range(8):
        lengths = np.linalg.norm(model.model.items.decode(), axis=1)
        assert lengths[120:].max() < 1.5 * lengths[:120].max()
        shares.append((model.recommend(people.tolist(), 10)["item"] >= 1000).mean())
        model.update_items(new.tolist())
    assert max(shares) < 0.45 and shares[-1] < shares[0] + 0.1
