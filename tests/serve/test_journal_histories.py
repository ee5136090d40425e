"""The histories of a journal are those of a plain dictionary, whatever happens in whatever order."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from hashlgn.data import Ids
from hashlgn.serve.journal import Event, Journal, LiveHistories, Stored, journal, live
from hashlgn.serve.journal.live import joined

SECOND = 1_000_000
NOW = 1_800_000_000 * SECOND
HALF_LIFE = 50.0

USERS = st.integers(0, 5)
ITEMS = st.integers(0, 8)
NAMES = st.sampled_from([None, "a", "b", "c", "d", "e"])
# seconds before now, so that events arrive out of order, and at equal times
AGES = st.integers(0, 6).map(lambda n: 20 * n)


class Plain:
    """What the journal should know, as plain dictionaries."""

    def __init__(self) -> None:
        self.events: dict[Any, tuple[Any, Any, float, int, int]] = {}
        self.deleted: dict[str, Any] = {}
        self.removed: set[tuple[Any, Any]] = set()
        self.arrived = 0

    def append(self, name: str | None, user: Any, item: Any, weight: float, time: int) -> bool:
        if name in self.events or name in self.deleted:
            return False
        self.arrived += 1
        self.events[name or self.arrived] = user, item, weight, time, self.arrived
        return True

    def delete(self, chosen: Callable[[Any, Any, Any], bool], *, named: bool = True) -> int:
        gone = [name for name, (user, item, *_) in self.events.items() if chosen(name, user, item)]
        for name in gone:
            user, item, *_ = self.events.pop(name)
            self.deleted |= {name: user} if named else {}
            self.removed.add((user, item))
        return len(gone)

    def history(self, user: Any, stored: dict[Any, tuple[int, float]], known: set[Any]) -> dict[Any, tuple[int, float]]:
        found = {} if (user, None) in self.removed else dict(stored)
        found = {item: value for item, value in found.items() if (user, item) not in self.removed}
        mine = sorted(
            (time, arrived, item, weight) for u, item, weight, time, arrived in self.events.values() if u == user
        )
        for time, _, item, weight in mine:
            if item in known and time >= found.get(item, (time,))[0]:
                found[item] = time, weight
        return found


class Model:
    """A model's ids and stored histories, made from a seed."""

    def __init__(self, seed: int, how: str, name: Callable[[int], Any]) -> None:
        rng = np.random.default_rng(seed)
        self.items = [name(item) for item in rng.permutation(9)[: rng.integers(3, 9)]]
        self.users = [name(user) for user in rng.permutation(6)[: rng.integers(1, 6)]]
        rows = [np.flatnonzero(rng.random(len(self.items)) < 0.4) for _ in self.users]
        indptr = np.cumsum([0, *map(len, rows)]).astype(np.int64)
        indices = np.concatenate(rows).astype(np.int32)
        seconds = NOW // SECOND - 20 * rng.integers(0, 7, len(indices))
        strengths = None
        if how == "weight":
            strengths = rng.choice([0.25, 0.5, 4.0], len(indices)).astype(np.float32)
        elif how == "decay":
            ages = [seconds[a:b].max(initial=0) - seconds[a:b] for a, b in itertools.pairwise(indptr)]
            strengths = np.exp2(-np.concatenate(ages) / HALF_LIFE).astype(np.float32)
        with_times = how == "decay" or bool(rng.random() < 0.5)
        times = seconds.astype(np.int64) if with_times else None
        self.stored = Stored(indptr, indices, strengths, times, how, HALF_LIFE)
        when = seconds * SECOND if with_times else np.full(len(indices), np.iinfo(np.int64).min)
        self.rows = {
            user: {
                self.items[indices[place]]: (int(when[place]), 1.0 if strengths is None else float(strengths[place]))
                for place in range(indptr[number], indptr[number + 1])
            }
            for number, user in enumerate(self.users)
        }

    def expected(self, plain: Plain, user: Any) -> dict[Any, float]:
        found = plain.history(user, self.rows.get(user, {}), set(self.items))
        if self.stored.rule == "one":
            return dict.fromkeys(found, 1.0)
        if self.stored.rule == "weight":
            return {item: weight for item, (_, weight) in found.items()}
        newest = max((time for time, _ in found.values()), default=0)
        return {
            item: float(np.float32(np.exp2(-((newest - time) / SECOND) / HALF_LIFE)))
            for item, (time, _) in found.items()
        }


class Histories(RuleBasedStateMachine):
    name: Callable[[int], Any] = staticmethod(lambda number: number)
    types = ("int", "int")

    @initialize(how=st.sampled_from(["one", "weight", "decay"]), seed=st.integers(0, 99))
    def start(self, how: str, seed: int) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.how, self.plain = how, Plain()
        self.journal = self.opened()
        self.models: list[tuple[Model, LiveHistories]] = []
        self.bind(seed)

    def opened(self) -> Journal:
        return Journal.open(self.folder / "events.db", self.types, clock=lambda: NOW)

    def teardown(self) -> None:
        if hasattr(self, "journal"):
            self.journal.close()
            shutil.rmtree(self.folder)

    @rule(events=st.lists(st.tuples(NAMES, USERS, ITEMS, st.sampled_from([0.5, 1.0, 2.0]), AGES), max_size=12))
    def append(self, events: list[tuple[str | None, int, int, float, int]]) -> None:
        sent = [
            Event(self.name(user), self.name(item), name, "view", weight, NOW // SECOND - age)
            for name, user, item, weight, age in events
        ]
        new = [
            self.plain.append(name, self.name(user), self.name(item), weight, NOW - age * SECOND)
            for name, user, item, weight, age in events
        ]
        outcome = self.journal.append(sent)
        assert (outcome.accepted, outcome.duplicates) == (sum(new), len(new) - sum(new))

    @rule(name=st.sampled_from("abcde"))
    def delete_event(self, name: str) -> None:
        assert self.journal.delete_event(name).result() == self.plain.delete(lambda n, u, i: n == name)

    def entries(self, model: Model, user: Any, item: Any = None) -> int:
        """How many entries the history of a user has, or of them those of an item."""
        own = [i for u, i, *_ in self.plain.events.values() if u == user]
        gone = self.plain.removed
        stored = [i for i in model.rows.get(user, {}) if i not in own and not {(user, i), (user, None)} & gone]
        return sum(item in (None, i) for i in own + stored)

    @rule(user=USERS, item=ITEMS)
    def delete_item(self, user: int, item: int) -> None:
        pair, (model, view) = (self.name(user), self.name(item)), self.models[0]
        assert self.journal.delete_item(*pair, view).result() == self.entries(model, *pair)
        self.plain.delete(lambda n, u, i: (u, i) == pair)
        self.plain.removed.add(pair)

    @rule(user=USERS)
    def delete_user(self, user: int) -> None:
        who, (model, view) = self.name(user), self.models[0]
        assert self.journal.delete_user(who, view).result() == self.entries(model, who)
        self.plain.delete(lambda n, u, i: u == who, named=False)
        self.plain.deleted = {name: owner for name, owner in self.plain.deleted.items() if owner != who}
        self.plain.removed.add((who, None))

    @rule(seed=st.integers(0, 99))
    def bind(self, seed: int) -> None:
        model = Model(seed, self.how, self.name)
        ids = Ids(model.items, self.types[1]), Ids(model.users, self.types[0])
        self.models.append((model, self.journal.bind_parts(*ids, model.stored)))
        for _, view in self.models[:-2]:
            self.journal.release(view)
        del self.models[:-2]

    @rule()
    def snapshot(self) -> None:
        self.journal.snapshot()

    @rule()
    def reopen(self) -> None:
        self.journal.close()
        self.journal = self.opened()
        models, self.models = self.models, []
        for model, _ in models:
            ids = Ids(model.items, self.types[1]), Ids(model.users, self.types[0])
            self.models.append((model, self.journal.bind_parts(*ids, model.stored)))

    @invariant()
    def histories_are_those_of_a_dictionary(self) -> None:
        users = [self.name(user) for user in range(7)]
        for model, view in getattr(self, "models", []):
            indptr, items, weights = joined([view.row(user) for user in users])
            for number, user in enumerate(users):
                mine = slice(indptr[number], indptr[number + 1])
                own = [1.0] * len(items[mine]) if weights is None else weights[mine].tolist()
                assert (np.diff(items[mine]) > 0).all()
                found = dict(zip([model.items[item] for item in items[mine]], own, strict=True))
                assert found == model.expected(self.plain, user)
                entries = self.journal.history(user, view)
                assert {entry.item for entry in entries} & set(model.items) == set(found)


class TextHistories(Histories):
    name = staticmethod(lambda number: f"n°{number}")
    types = ("str", "str")


@pytest.mark.parametrize("machine", [Histories, TextHistories])
def test_histories_are_those_of_a_dictionary(machine, monkeypatch) -> None:
    from hypothesis.stateful import run_state_machine_as_test

    # So small that rows are folded and pairs are kept within a few events.
    monkeypatch.setattr(live, "_FOLDED", 2)
    monkeypatch.setattr(journal, "_WORTH", 3)
    examples, steps = (100, 40) if os.environ.get("SOAK") else (12, 20)
    run_state_machine_as_test(machine, settings=settings(max_examples=examples, stateful_step_count=steps))
