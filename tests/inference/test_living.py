"""A model that changes: sequences of changes beside a plain record of them, and beside models built at once."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import hashlgn
from hashlgn.data import Ids, Interactions, ids
from hashlgn.errors import ArgumentError, ArtifactError, UnknownIdError
from hashlgn.inference import attributes as attributes_module
from hashlgn.inference import stored
from hashlgn.inference.live import live_of
from hashlgn.inference.living import Updated
from hashlgn.inference.model import ServedModel
from hashlgn.inference.recommender import Recommender
from hashlgn.inference.stored import Stored
from hashlgn.scoring.codes import pack_subcodes
from hashlgn.scoring.decoders import CodebookDecoder
from hashlgn.scoring.histories import CodedHistories, FloatHistories
from hashlgn.scoring.items import CodedItems, FloatItems
from hashlgn.search import block_items
from hashlgn.utils import pages

USERS, ITEMS, WIDTH, SUBCODES = 9, 12, 6, 4


def served(form: str = "codes", *, strings: bool = False, times: bool = True, seed: int = 0) -> ServedModel:
    """A model of random vectors and histories, as a training would leave it."""
    rng = np.random.default_rng(seed)
    chosen = rng.random((USERS, ITEMS)) < 0.4
    chosen[np.arange(USERS), np.arange(USERS) % ITEMS] = True
    indices = np.nonzero(chosen)[1].astype(np.int32)
    items: Any = FloatItems(rng.standard_normal((ITEMS, WIDTH)).astype(np.float32))
    histories: Any = FloatHistories(rng.standard_normal((ITEMS, WIDTH)).astype(np.float32))
    if form == "codes":
        codewords = rng.standard_normal((2, SUBCODES, 16, WIDTH)).astype(np.float32)
        packed = pack_subcodes(rng.integers(0, 16, (2 * ITEMS, SUBCODES)))
        scale = (rng.random(2 * ITEMS) + 0.5).astype(np.float16)
        items = CodedItems(packed[:ITEMS], CodebookDecoder(codewords[0]), scale[:ITEMS])
        histories = CodedHistories(packed[ITEMS:], codewords[1], scale[ITEMS:])
    return ServedModel(
        kind="hashlgn",
        config={},
        user_ids=Ids([f"u{n}" for n in range(USERS)] if strings else np.arange(USERS) + 100),
        item_ids=Ids([f"i{n}" for n in range(ITEMS)] if strings else np.arange(ITEMS) + 1),
        items=items,
        stored=Stored.of(
            np.append(0, chosen.sum(axis=1).cumsum()), indices, times=np.arange(len(indices)) if times else None
        ),
        histories=histories,
        titles=[f"Title {n}" for n in range(ITEMS)],
        provenance={"created": "today"},
    )


def _weighted(model: ServedModel, strengths: np.ndarray) -> ServedModel:
    return replace(model, stored=Stored.of(*model.seen, strengths, model.times))


def at_once(model: ServedModel, seen: dict[Any, set[Any]]) -> ServedModel:
    """A model of the same vectors that never changed, with the histories given by id."""
    rows = [
        sorted(model.item_ids.encode(list(seen[user])).tolist()) if seen[user] else [] for user in model.user_ids.values
    ]
    items, histories = model.items, model.histories
    if isinstance(items, CodedItems):
        every = np.arange(len(items))
        items = CodedItems(items.packed.copy(), items.decoder, None if items.scale is None else items.scale.copy())
        assert np.array_equal(items.packed, model.items.take(every).packed)
    if isinstance(histories, CodedHistories):
        histories = CodedHistories(histories.packed.copy(), histories.codewords, histories.weight.copy())
    return replace(
        model,
        items=items,
        histories=histories,
        stored=Stored.of(np.cumsum([0, *map(len, rows)]), np.array([*itertools.chain(*rows)], np.int32)),
        user_ids=Ids(model.user_ids.values),
        item_ids=Ids(model.item_ids.values),
        titles=None if model.titles is None else list(model.titles),
    )


class Sequences(RuleBasedStateMachine):
    """Changes in any order, with searches between them."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    @initialize(form=st.sampled_from(["codes", "codes", "floats"]), strings=st.booleans(), times=st.booleans())
    def start(self, form: str, strings: bool, times: bool) -> None:
        model = served(form, strings=strings, times=times)
        self.file = Recommender(model).save(self.folder / "model")
        self.model = hashlgn.load(self.file, threads=1, journal=self.folder / "changes")
        self.strings, self.count = strings, 0
        rows = [model.item_ids.decode(row).tolist() for row in np.split(model.seen[1], model.seen[0][1:-1])]
        self.seen = dict(zip(model.user_ids.values.tolist(), map(set, rows), strict=True))
        self.items, self.removed = model.item_ids.values.tolist(), set[Any]()
        self.titles = dict(zip(self.items, model.titles or (), strict=True))
        self.past: list[Any] = []

    def keep(self) -> None:
        seen = {user: set(items) for user, items in self.seen.items()}
        self.past.append((seen, list(self.items), set(self.removed), dict(self.titles)))

    def new_id(self, letter: str) -> Any:
        self.count += 1
        return f"{letter}{1000 + self.count}" if self.strings else 1000 + self.count

    @rule(data=st.data(), count=st.integers(1, 3), how=st.sampled_from(["users", "histories", "nobody"]))
    def add(self, data: st.DataObject, count: int, how: str) -> None:
        ids = [self.new_id("i") for _ in range(count)]
        if self.removed and data.draw(st.booleans()):
            ids[0] = sorted(self.removed)[0]
        self.keep()
        people = [data.draw(st.lists(st.sampled_from(sorted(self.seen)), unique=True, max_size=4)) for _ in ids]
        titles = {ids[-1]: f"Title of {ids[-1]}"}
        if how == "histories":
            told = [
                [sorted(self.seen[u]) for u in one if self.seen[u] - {i}] for i, one in zip(ids, people, strict=True)
            ]
            self.model.add_items(ids, histories=told, titles=titles)
        else:
            self.model.add_items(ids, people if how == "users" else None, titles=titles)
        for item, users in zip(ids, people, strict=True):
            if item not in self.items:
                self.items.append(item)
                self.titles[item] = ""
            self.removed.discard(item)
            for user in users if how == "users" else ():
                self.seen[user].add(item)
        self.titles |= titles

    @rule(data=st.data())
    def place_anew(self, data: st.DataObject) -> None:
        there = [item for item in self.items if item not in self.removed]
        ids = data.draw(st.lists(st.sampled_from(there), unique=True, min_size=1, max_size=4))
        users = data.draw(st.none() | st.lists(st.sampled_from(sorted(self.seen)), unique=True, max_size=3))
        self.keep()
        self.model.update_items(ids, None if users is None else dict.fromkeys(ids, users))
        for user in users or ():
            self.seen[user] |= set(ids)

    @rule(data=st.data())
    @precondition(lambda self: len(self.items) - len(self.removed) > 2)
    def remove(self, data: st.DataObject) -> None:
        ids = data.draw(st.lists(st.sampled_from(self.items), unique=True, min_size=1, max_size=2))
        if not self.removed.issuperset(ids):  # else it is no change
            self.keep()
        self.model.remove_items(ids)
        self.removed |= set(ids)

    @rule(data=st.data())
    def rename(self, data: st.DataObject) -> None:
        item, title = data.draw(st.sampled_from(self.items)), data.draw(st.text("aé𝄞 ", max_size=5))
        self.keep()
        self.model.set_titles({item: title})
        self.titles[item] = title

    @rule(data=st.data(), new_users=st.integers(0, 2), new_items=st.integers(0, 2), timed=st.booleans())
    def take_in(self, data: st.DataObject, new_users: int, new_items: int, timed: bool) -> None:
        users = [self.new_id("u") for _ in range(new_users)]
        items = [self.new_id("i") for _ in range(new_items)]
        pair = st.tuples(st.sampled_from(sorted(self.seen) + users), st.sampled_from(self.items + items))
        pairs = data.draw(st.lists(pair, min_size=1, max_size=8))
        columns = list(zip(*pairs, strict=True))
        self.keep()
        told = Interactions.from_pairs(*map(list, columns), times=list(range(len(pairs))) if timed else None)
        done = self.model.update(told, budget=2)
        assert done.interactions == len({(u, i) for u, i in pairs if i not in self.seen.get(u, ())})
        if done == Updated(0, 0, 0, 0):  # no change
            self.past.pop()
        for user, item in pairs:
            self.seen.setdefault(user, set()).add(item)
            if item not in self.items:
                self.items.append(item)
                self.titles[item] = ""

    @rule()
    @precondition(lambda self: self.past)
    def undo(self) -> None:
        self.model.undo()
        self.seen, self.items, self.removed, self.titles = self.past.pop()

    @rule()
    def save(self) -> None:
        self.model.save(self.file)
        self.past.clear()

    @rule()
    def crash(self) -> None:
        """What is in memory is lost: the file and the journal give the same state."""
        before = self.model
        before._changes().journal.close()  # type: ignore[union-attr]
        self.model = hashlgn.load(self.file, threads=1, journal=self.folder / "changes", verify=True)
        assert live_of(self.model.model).changes == live_of(before.model).changes
        assert before.recommend(k=5) == self.model.recommend(k=5)
        self.past.clear()

    @invariant()
    def same(self) -> None:
        model = self.model.model
        assert model.item_ids.values.tolist() == self.items
        assert sorted(model.user_ids.values.tolist()) == sorted(self.seen)
        assert {item: model.titles[n] for n, item in enumerate(self.items)} == self.titles  # type: ignore[index]
        gone = set() if model.removed is None else {self.items[n] for n in np.flatnonzero(model.removed).tolist()}
        assert gone == self.removed
        whole = at_once(model, self.seen)
        assert np.array_equal(whole.seen[0], model.seen[0]) and np.array_equal(whole.seen[1], model.seen[1])
        users = model.user_ids.values.tolist()
        fresh = Recommender(whole, engine="exact" if isinstance(whole.items, CodedItems) else "flat", threads=1)
        for options in ({"k": 4}, {"threshold": 0.2, "filter_seen": False}, {"k": 3, "deny": self.items[:2]}):
            answer = self.model.recommend(users, on_empty="skip", **options)  # type: ignore[arg-type]
            assert answer == fresh.recommend(users, on_empty="skip", **options)  # type: ignore[arg-type]
            assert not self.removed & set(answer["item"].tolist())
        answer = self.model.recommend(users, k=3, allow=dict.fromkeys(users, self.items[3:]))
        assert not self.removed & set(answer["item"].tolist())
        assert not self.removed & set(self.model.similar_items(self.items[:3], 5)["similar"].tolist())
        some = [self.items[-1], self.items[0]]
        np.testing.assert_array_equal(self.model.score(users[0], some), fresh.score(users[0], some))


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages and segments so small that there are several."""
    sizes = [(pages, "_BITS", 2), (pages, "_SIZE", 4), *((one, "_SMALL", 1) for one in (block_items, stored, ids))]
    for module, name, value in sizes:
        monkeypatch.setattr(module, name, value)


TestSequences = Sequences.TestCase
TestSequences.settings = settings(max_examples=12, stateful_step_count=12, deadline=None)


def test_a_new_item_goes_to_the_people_who_had_it() -> None:
    """Items of the training, added again under other ids by the same people, come close to where they are."""
    rng = np.random.default_rng(1)
    n_users, n_items, width = 300, 120, 12
    groups = rng.standard_normal((6, width))
    p = (groups[np.arange(n_items) % 6] + 0.3 * rng.standard_normal((n_items, width))).astype(np.float32)
    chosen = (rng.random((n_users, n_items)) < 0.25) & ((np.arange(n_users)[:, None] - np.arange(n_items)) % 6 == 0)
    chosen[:, :6] |= rng.random((n_users, 6)) < 0.2
    model = ServedModel(
        kind="hashlgn",
        config={},
        user_ids=Ids.range(n_users),
        item_ids=Ids.range(n_items),
        items=FloatItems(2 * p),
        stored=Stored.of(np.append(0, chosen.sum(axis=1).cumsum()), np.nonzero(chosen)[1].astype(np.int32)),
        histories=FloatHistories(p),
    )
    recommender = Recommender(model, threads=1)
    twins = np.arange(6, 40)
    recommender.add_items((1000 + twins).tolist(), [np.flatnonzero(chosen[:, item]).tolist() for item in twins])
    vectors = recommender.model.items.decode()
    placed, trained = vectors[n_items:], 2 * p[twins]
    cosines = (placed * trained).sum(axis=1) / np.linalg.norm(placed, axis=1) / np.linalg.norm(trained, axis=1)
    assert np.median(cosines) > 0.9
    lone = Recommender(model, threads=1)
    lone.add_items([1000, 1001], [[int(np.flatnonzero(chosen[:, 6])[0])], []])
    short, average = lone.model.items.decode()[n_items:]
    assert np.linalg.norm(short - average) < np.linalg.norm(placed[0] - average)  # one person does not say much
    assert np.linalg.norm(average) < np.linalg.norm(trained, axis=1).mean()


def test_a_trained_item_moves_by_the_share_of_what_is_new() -> None:
    model = served("floats", times=False)
    recommender = Recommender(model, threads=1)
    recommender.update_items(model.item_ids.values.tolist())  # nothing is new
    np.testing.assert_array_equal(recommender.model.items.decode(), model.items.decode())
    assert recommender.model.histories is model.histories
    strangers = [user for user in range(100, 100 + USERS) if 1 not in _has(model, user)]
    recommender.update_items(1, strangers)
    moved = ~np.isclose(recommender.model.items.decode(), model.items.decode()).all(axis=1)
    assert moved.tolist() == [True] + [False] * (ITEMS - 1)


def test_update_places_items_anew_whose_interactions_have_doubled() -> None:
    model = Recommender(served(), threads=1)
    model.add_items(["20", "21", "22"], [[100, 101, 102], [], [100]])
    before = live_of(model.model).counts.whole[-3:]
    assert before.tolist() == [3, 0, 1]
    one_each = Interactions.from_pairs([103, 103, 103, 104, 104], [20, 21, 22, 20, 21])
    assert model.update(one_each).placed == 2  # 5 of 3, 2 of 0, 2 of 1
    assert live_of(model.model).counts.whole[-3:].tolist() == [3, 2, 2]
    assert model.update(Interactions.from_pairs([105, 106], [20, 21]), budget=0).placed == 0  # 6 of 3, 3 of 2
    assert model.update(Interactions.from_pairs([107, 107], [21, 22]), budget=1).placed == 1  # 6 of 3, 4 of 2, 3 of 2
    assert live_of(model.model).counts.whole[-3:].tolist() == [6, 2, 2]


def _has(model: ServedModel, user: int) -> list[int]:
    row = user - 100
    found: list[int] = model.item_ids.decode(model.seen[1][model.seen[0][row] : model.seen[0][row + 1]]).tolist()
    return found


def test_an_answer_sees_the_state_before_a_change_or_after_it() -> None:
    import threading

    model = Recommender(served(), threads=1)
    users = model.model.user_ids.values.tolist()
    states, seen, stop = {}, [], threading.Event()

    def ask() -> None:
        while not stop.is_set():
            seen.append(model.recommend(users, k=30, filter_seen=False))

    threads = [threading.Thread(target=ask) for _ in range(2)]
    states[ITEMS] = model.recommend(users, k=30, filter_seen=False)
    for thread in threads:
        thread.start()
    for number in range(30):
        model.add_items(1000 + number, users[:3])
        states[ITEMS + number + 1] = model.recommend(users, k=30, filter_seen=False)
    stop.set()
    for thread in threads:
        thread.join()
    known = list(states.values())
    assert seen and all(any(answer == state for state in known) for answer in seen[:: max(1, len(seen) // 50)])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.add_items([1]), "ids must be new"),
        (lambda m: m.add_items([50, 50]), "ids must name each item once"),
        (lambda m: m.add_items([]), "ids must name at least one item"),
        (lambda m: m.add_items([50, 51], [[100]]), "users must be a list with one list per id"),
        (lambda m: m.add_items([50], {51: [100]}), "users must have a list for each id"),
        (lambda m: m.add_items([50], [[100]], histories=[[[1]]]), "users and histories must not both be given"),
        (lambda m: m.add_items([50], titles=[1]), "titles must be strings"),
        (lambda m: m.add_items([50], titles={51: "a"}), "titles must be of ids that are given"),
        (lambda m: m.add_items([50], genres=["a"]), "genres must be tuples of strings"),
        (lambda m: m.add_items([50], titles=["\ud800"]), "titles must be valid Unicode"),
        (lambda m: m.set_titles(["a"]), "titles must be a mapping"),
        (lambda m: (m.remove_items(1), m.update_items(1)), "ids must be of items that were not removed"),
        (lambda m: m.update(Interactions.from_pairs([100], [1]), budget=-1), "budget must be 0 or a positive integer"),
        (lambda m: m.undo(), "undo needs a change"),
    ],
)
def test_bad_changes_are_refused(change: Any, message: str) -> None:
    model = Recommender(served(), threads=1)
    before = model.recommend(k=5)
    with pytest.raises(ArgumentError, match=message):
        change(model)
    if "removed" not in message:
        assert model.recommend(k=5) == before and model.model.live is None


def test_unknown_ids() -> None:
    model = Recommender(served(), threads=1)
    for change in (
        lambda: model.add_items([50], [[7]]),
        lambda: model.add_items([50], histories=[[[70]]]),
        lambda: model.update_items([50]),
        lambda: model.remove_items([50]),
        lambda: model.set_titles({50: "a"}),
    ):
        with pytest.raises(UnknownIdError):
            change()
    model.add_items([50], [[7, 100]], on_unknown="skip")
    assert 50 in _of_user(model, 100)


def _of_user(model: Recommender, user: int) -> list[int]:
    state = model.model
    row = int(state.user_ids.encode([user])[0])
    found: list[int] = state.item_ids.decode(state.seen[1][state.seen[0][row] : state.seen[0][row + 1]]).tolist()
    return found


def test_only_a_model_whose_users_are_their_histories_takes_items() -> None:
    model = served("floats")
    vectors = np.ones((USERS, WIDTH), np.float32)
    fixed = Recommender(replace(model, users=vectors, histories=None), threads=1)
    for change in (lambda: fixed.add_items([50]), lambda: fixed.update(Interactions.from_pairs([100], [1]))):
        with pytest.raises(ArgumentError, match="only to a model whose users are their histories"):
            change()
    fixed.remove_items([1])
    assert 1 not in fixed.recommend(k=20, filter_seen=False)["item"]


@pytest.mark.parametrize("engine", ["exact", "kernel", "ivf", "decoded", "fastscan"])
def test_every_engine_follows_a_change(engine: str) -> None:
    model = Recommender(served(), engine=engine, threads=1)
    plain = Recommender(served(), engine="exact", threads=1)
    for each in (model, plain):
        each.recommend(k=3)
        each.add_items([50, 51], [[100, 101, 102], [103]])
        each.update_items([2, 50], [[104], [104]])
        each.remove_items([51, 3])
    answer = model.recommend(k=6, filter_seen=False)
    assert answer == plain.recommend(k=6, filter_seen=False) and not {51, 3} & set(answer["item"].tolist())
    assert not {51, 3} & set(model.recommend(history=[], k=20)["item"].tolist())  # nor as popular items


def test_strengths_and_times_follow() -> None:
    model = served("floats")
    count = len(model.seen[1])
    weighted = Recommender(_weighted(model, np.full(count, 2, np.float32)), threads=1)
    weighted.update(Interactions.from_pairs([100, 200], [12, 12], times=[999, 1000], weights=[3.0, 4.0]))
    state = weighted.model
    assert state.strengths is not None and state.times is not None
    new = state.stored.newer
    assert (state.strengths[~new] == 2).all() and sorted(state.times[new].tolist())[-1] == 1000
    fading = replace(
        _weighted(model, np.ones(count, np.float32)), config={"model": {"strength": "decay", "half_life": 10.0}}
    )
    faded = Recommender(fading, threads=1)
    faded.update(Interactions.from_pairs([108], [50], times=[count + 9]))
    row = faded.model.strengths[faded.model.seen[0][8] :]  # type: ignore[index]
    assert row.max() == 1 and np.isclose(row.min(), 2.0 ** -((count + 9 - model.times[model.seen[0][8]]) / 10))  # type: ignore[index]


def journalled(folder: Path) -> tuple[Path, Path, Recommender]:
    file, journal = Recommender(served()).save(folder / "model"), folder / "changes"
    model = hashlgn.load(file, journal=journal, threads=1)
    model.add_items([50], [[100]], titles=["New"], genres=[("a", "b")])
    model.remove_items([3])
    return file, journal, model


def test_a_journal_holds_the_people_of_an_item_that_is_placed_anew(tmp_path: Path) -> None:
    _, journal, model = journalled(tmp_path)
    first = live_of(model.model)
    model.update_items([50, 1], [[101, 102], [100 + user for user in range(USERS)]])
    last = live_of(model.model)
    assert first.items == last.items == ITEMS and first.placement is last.placement is not None
    shutil.copy(journal, tmp_path / "copy")
    again = hashlgn.load(tmp_path / "model", journal=tmp_path / "copy", threads=1).model
    for one, other in zip(again.seen, model.model.seen, strict=True):
        np.testing.assert_array_equal(one, other)
    for name in ("mean", "answers", "metrics"):
        replayed = live_of(again).placement
        np.testing.assert_array_equal(getattr(replayed, name), getattr(first.placement, name))
    assert live_of(again).items == ITEMS


def test_a_torn_record_is_dropped_wherever_it_is_cut(tmp_path: Path) -> None:
    file, journal, model = journalled(tmp_path)
    whole = journal.read_bytes()
    model._changes().journal.close()  # type: ignore[union-attr]
    ends = [n + 1 for n, byte in enumerate(whole) if byte == 10]
    for cut in sorted({*range(0, len(whole), 997), *ends, *(end - 1 for end in ends), *(end + 3 for end in ends[:-1])}):
        journal.write_bytes(whole[:cut])
        again = hashlgn.load(file, journal=journal, threads=1)
        assert live_of(again.model).changes == max(0, sum(end <= cut for end in ends) - 1)
        again.set_titles({1: "after"})
        again._changes().journal.close()  # type: ignore[union-attr]
        assert hashlgn.load(file, journal=journal).model.titles[0] == "after"  # type: ignore[index]


@pytest.mark.parametrize("wrong", [-1, ITEMS, 2**31 - 1])
def test_a_change_of_a_model_whose_file_was_damaged_names_what_is_wrong(wrong: int) -> None:
    model = served()
    indptr, indices = (np.array(part) for part in model.seen)
    indices[3] = wrong
    damaged = Recommender(replace(model, stored=Stored.of(indptr, indices), contents=False), threads=1)
    with pytest.raises(ArgumentError, match=r"seen\.indices must lie in 0 … 11"):
        damaged.update_items([2], users=[[100]])


def test_a_damaged_journal_is_refused(tmp_path: Path) -> None:
    file, journal, model = journalled(tmp_path)
    model._changes().journal.close()  # type: ignore[union-attr]
    whole = journal.read_bytes()
    journal.write_bytes(whole[:-1].replace(b"New", b"Old") + b"\n")
    with pytest.raises(ArtifactError, match="damaged: line 2"):
        hashlgn.load(file, journal=journal)
    journal.write_bytes(whole)
    other = Recommender(replace(served(), provenance={"created": "tomorrow"})).save(tmp_path / "other")
    with pytest.raises(ArtifactError, match="of another model"):
        hashlgn.load(other, journal=journal)
    hashlgn.load(file, journal=journal, threads=1)


@pytest.mark.parametrize(
    "content", [b"user,item\n1,2\n", b"a line\nanother\n", b"no line", b"SQLite format 3\x00\x10\n\x00", b"\n", b"\n\n"]
)
def test_a_file_that_is_no_journal_is_refused_and_stays(content: bytes, tmp_path: Path) -> None:
    file, other = Recommender(served()).save(tmp_path / "model"), tmp_path / "other"
    other.write_bytes(content)
    with pytest.raises(ArtifactError, match="no journal of a model's changes"):
        hashlgn.load(file, journal=other)
    assert other.read_bytes() == content


def test_a_journal_has_one_writer(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    file, journal, model = journalled(tmp_path)
    with pytest.raises(ArtifactError, match="another process, or another model of this one, writes"):
        hashlgn.load(file, journal=journal)
    with pytest.raises(ArgumentError, match="journal must be given once"):
        model.follow(journal)


def test_a_change_that_cannot_be_written_is_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, journal, model = journalled(tmp_path)
    before, whole = model.model, journal.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    for change in (lambda: model.remove_items([1]), model.undo):
        with pytest.raises(ArtifactError, match="cannot be written"):
            change()
    assert model.model is before and journal.read_bytes() == whole


def test_a_save_ends_what_the_journal_holds(tmp_path: Path) -> None:
    file, journal, model = journalled(tmp_path)
    whole = journal.read_bytes()
    model.save(tmp_path / "backup")
    assert journal.read_bytes() == whole
    model.save(file)
    assert journal.read_bytes().count(b"\n") == 1
    with pytest.raises(ArgumentError, match="undo needs a change"):
        model.undo()
    model._changes().journal.close()  # type: ignore[union-attr]
    journal.write_bytes(whole)  # as if the machine had stopped before the journal began anew
    again = hashlgn.load(file, journal=journal, threads=1)
    assert live_of(again.model).changes == 2 and again.recommend(k=5) == model.recommend(k=5)
    state = again.model
    assert state.genres is not None and state.genres[ITEMS] == ("a", "b") and state.genres[0] == ()


def test_a_copy_goes_its_own_way(tmp_path: Path) -> None:
    import copy
    import pickle

    *_, model = journalled(tmp_path)
    for other in (copy.copy(model), pickle.loads(pickle.dumps(model))):
        other.add_items([60])
        assert 60 not in model.model.item_ids.values and other.recommend(k=3) is not None


def test_an_item_that_nobody_has_starts_from_its_neighbours_by_attributes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attributes_module, "_KNOWN", 3)
    genres = [("a", "b") if n % 2 else ("c",) for n in range(ITEMS)]
    model = replace(served("floats"), genres=genres)
    well_known = np.flatnonzero(model.item_counts >= 3)
    odd, even = well_known[well_known % 2 == 1], well_known[well_known % 2 == 0]
    vectors = model.items.decode()
    recommender = Recommender(model, threads=1)
    recommender.add_items([50, 51, 52], genres=[("b", "a"), (), ("z",)], attributes="genres")
    found = recommender.model.items.decode()[ITEMS:]
    np.testing.assert_allclose(found[0], vectors[odd].mean(axis=0), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(found[1], found[2])  # like nothing that is known: an average item

    items = model.item_ids.values.tolist()
    of_ids = {items[n]: [1.0, 0.0] if n % 2 else [0.0, 2.0] for n in range(ITEMS)} | {60: [0.0, 5.0], 61: [0.0, -1.0]}
    recommender.add_items([60, 61, 62], attributes=of_ids | {62: [0.0, 0.0]})
    found = recommender.model.items.decode()[ITEMS + 3 :]
    np.testing.assert_allclose(found[0], vectors[even].mean(axis=0), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(found[1], found[2])
    recommender.update_items(60, [100, 101, 102])  # from now on, people decide
    plain = Recommender(model, threads=1)
    plain.add_items([50, 51, 52, 60])
    plain.update_items(60, [100, 101, 102])
    np.testing.assert_allclose(
        recommender.model.items.decode()[ITEMS + 3], plain.model.items.decode()[ITEMS + 3], rtol=1e-4
    )


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ("genres", "needs a model that knows genres"),
        ("colour", "attributes must be 'genres', or a mapping"),
        ([[1.0]], "attributes must be 'genres', or a mapping"),
        ({1: [1.0], 2: [2.0]}, r"a vector for each new item \(got none for 50\)"),
        ({50: [1.0]}, r"for an item that 5 users have \(got none\)"),
        ({50: [1.0], 1: [1.0, 2.0]}, "vectors of one length"),
        ({50: [1.0], 1: ["x"]}, "vectors of one length"),
        ({50: [float("nan")], 1: [1.0]}, "finite vectors"),
        ({}, "a vector for each new item"),
    ],
)
def test_attributes_that_are_none_are_refused(attributes: object, message: str) -> None:
    recommender = Recommender(served("floats"), threads=1)
    with pytest.raises(ArgumentError, match=message):
        recommender.add_items([50], attributes=attributes)
    with pytest.raises(UnknownIdError):
        recommender.add_items([50], attributes={50: [1.0], 777: [1.0]})
    assert len(recommender.model.item_ids) == ITEMS


@pytest.mark.parametrize(
    "given",
    [
        {"histories": [[1]]},
        {"histories": [[{1: 2.0}]]},
        {"histories": [None]},
        {"histories": [["1"]]},
        {"users": {50: None}},
        {"genres": 5},
        {"titles": 5},
    ],
)
def test_lists_that_are_none_are_refused(given: dict[str, Any]) -> None:
    recommender = Recommender(served("floats"), threads=1)
    with pytest.raises(ArgumentError, match="must be"):
        recommender.add_items([50], **given)
    with pytest.raises(ArgumentError, match="users must be lists of ids"):
        recommender.add_items([50, 51], users=[100, 101])
    assert len(recommender.model.item_ids) == ITEMS


@pytest.mark.parametrize("rows", [[(1, 5), (1, 6), (2, 6), (2, 5), (3, 7)], [(1, 5), (1, 6), (2, 5), (2, 6)]])
def test_a_model_of_next_to_nothing_takes_new_items(rows: list[tuple[int, int]]) -> None:
    few = dict.fromkeys(("epochs", "distillation_epochs", "code_epochs", "settle_epochs"), 1)
    model = hashlgn.HashLGN(8, dim=4, config={"student": few}, threads=1).fit(
        Interactions.from_pairs(*zip(*rows, strict=True))
    )
    model.update(Interactions.from_pairs([1, 9], [70, 70]))
    model.add_items([80], users=[[1, 2]])
    assert np.isfinite(model.recommend(users=[1, 9], k=5)["score"]).all()


@pytest.mark.parametrize("histories", [[[]], [[[]]], [[[1]]], [[[], [1]]], {1: []}])
def test_histories_that_say_nothing_of_an_item_are_refused(histories: Any) -> None:
    recommender = Recommender(served("floats"), threads=1)
    with pytest.raises(ArgumentError, match=r"histories must hold a known item .*got none for 1\)"):
        recommender.update_items([1], histories=histories)
    for change, item in ((recommender.update_items, 1), (recommender.add_items, 50)):
        with pytest.raises(ArgumentError, match=rf"got none for {item}\)"):
            change([item], histories=[[[999]]], on_unknown="skip")
        with pytest.raises(ArgumentError, match=rf"got none for {item}\)"):
            change([item], histories=[[[]]])
    assert recommender.model.live is None


def test_a_new_item_may_have_no_history() -> None:
    recommender = Recommender(served("floats"), threads=1)
    recommender.add_items([50, 51], histories=[[], [[1, 2]]])
    recommender.add_items([52])
    vectors = recommender.model.items.decode()
    np.testing.assert_array_equal(vectors[ITEMS], vectors[ITEMS + 2])
    recommender.remove_items([50])
    recommender.add_items([50], histories=[[]])
    np.testing.assert_array_equal(recommender.model.items.decode(), vectors)


def test_an_item_that_nobody_has_stays_where_it_is() -> None:
    recommender = Recommender(served("floats"), threads=1)
    recommender.add_items([50, 51], histories=[[[1, 2, 3]], [[4, 5]]])
    before = recommender.model.items.decode()
    recommender.update_items([51, 50])
    np.testing.assert_array_equal(recommender.model.items.decode(), before)


def test_an_item_that_comes_back_has_the_genres_that_it_had(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attributes_module, "_KNOWN", 3)
    recommender = Recommender(replace(served("floats"), genres=[(("a", "b")[n % 2],) for n in range(ITEMS)]), threads=1)
    recommender.add_items([50, 51], genres=[("a",), ("a",)], attributes="genres")
    start = recommender.model.items.decode()[ITEMS]
    recommender.remove_items([50])
    recommender.add_items([50], attributes="genres")
    np.testing.assert_allclose(recommender.model.items.decode()[ITEMS], start, rtol=1e-5)


def test_what_changes_nothing_is_no_change_that_undo_takes_back() -> None:
    model = Recommender(served())
    known = model.model.item_ids.values.tolist()
    user = model.model.user_ids.values.tolist()[0]
    model.remove_items(known[:1])
    state = model.model
    model.remove_items(known[:1])
    assert model.model is state
    _, items, _ = model.model.stored.rows(np.zeros(1, np.int64))
    seen = Interactions.from_pairs([user] * len(items), model.model.item_ids.decode(items).tolist())
    assert model.update(seen) == Updated(0, 0, 0, 0) and model.model is state
    model.undo()
    assert model.model.removed is None
