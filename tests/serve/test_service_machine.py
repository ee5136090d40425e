"""Events, deletions and activations in any order: every answer is the library's for the same history, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test
from serve_help import N_ITEMS, Running, running, two_models

from hashlgn.inference.recommender import Recommender, load

USERS = st.sampled_from([0, 1, 2, 3, 1000, 1001])  # of the training, and strangers
ITEMS = st.integers(0, N_ITEMS + 3)  # some are unknown


class Truth:
    """What the histories must be."""

    def __init__(self, library: dict[str, Recommender]) -> None:
        self.library, self.events, self.removed = library, {}, {}
        self.forgotten: set[int] = set()
        self.names = count()

    def history(self, user: int, model: str) -> set[int]:
        served = self.library[model].model
        stored: set[int] = set()
        if user < len(served.user_ids) and user not in self.forgotten:
            bounds = served.seen[0][user : user + 2]
            stored = set(served.seen[1][bounds[0] : bounds[1]].tolist()) - self.removed.get(user, set())
        own = {item for owner, item in self.events.values() if owner == user}
        return {item for item in stored | own if item < N_ITEMS}


class Machine(RuleBasedStateMachine):
    service: Running
    truth: Truth
    active = "first"

    @rule(user=USERS, items=st.lists(ITEMS, min_size=1, max_size=3))
    def happens(self, user: int, items: list[int]) -> None:
        events = [{"event_id": f"e{next(self.truth.names)}", "user": user, "item": item} for item in items]
        assert self.service.post("/v1/events", events)["accepted"] == len(events)
        self.truth.events |= {event["event_id"]: (user, event["item"]) for event in events}

    @rule(back=st.integers(1, 4))
    def event_goes(self, back: int) -> None:
        name = (["none"] * back + list(self.truth.events))[-back]
        assert self.service.ask("DELETE", f"/v1/events/{name}")[1]["deleted"] == int(name != "none")
        if name != "none":
            user, item = self.truth.events.pop(name)
            self.truth.removed.setdefault(user, set()).add(item)

    @rule(user=USERS, item=ITEMS)
    def item_goes(self, user: int, item: int) -> None:
        own = [name for name, event in self.truth.events.items() if event == (user, item)]
        lost = len(own) or int(item in self.truth.history(user, self.active))  # an item of the training is one entry
        assert self.service.ask("DELETE", f"/v1/users/{user}/history/{item}")[1]["deleted"] == lost
        for name in own:
            del self.truth.events[name]
        self.truth.removed.setdefault(user, set()).add(item)

    @rule(user=USERS)
    def user_goes(self, user: int) -> None:
        self.service.ask("DELETE", f"/v1/users/{user}")
        self.truth.events = {name: event for name, event in self.truth.events.items() if event[0] != user}
        self.truth.forgotten.add(user)

    @rule(model=st.sampled_from(["first", "second"]))
    def model_changes(self, model: str) -> None:
        assert self.service.post(f"/v1/models/{model}/activate", None)["active"] == model
        type(self).active = model

    @rule(user=USERS, k=st.integers(1, 30), filter_seen=st.booleans())
    def asks(self, user: int, k: int, filter_seen: bool) -> None:
        query = f"k={k}&filter_seen={str(filter_seen).lower()}"
        self.check(self.service.get(f"/v1/users/{user}/recommendations?{query}"), user, k=k, filter_seen=filter_seen)

    @rule(users=st.lists(USERS, min_size=2, max_size=5))
    def several_ask(self, users: list[int]) -> None:
        asked = {"requests": [{"user": user, "k": 5 + place} for place, user in enumerate(users)]}
        for place, answer in enumerate(self.service.post("/v1/recommendations", asked)["results"]):
            self.check(answer, users[place], k=5 + place)

    def check(self, answer: Any, user: int, **how: Any) -> None:
        assert answer["model"] == self.active
        history = sorted(self.truth.history(user, self.active))
        table = self.truth.library[self.active].recommend(history=history, **how)
        assert [one["item"] for one in answer["items"]] == table["item"].tolist()
        assert [np.float32(one["score"]) for one in answer["items"]] == table["score"].tolist()
        assert answer["source"] == ("model" if history else "popular")


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[type[Machine]]:
    folder: Path = tmp_path_factory.mktemp("machine")
    models = two_models(folder)
    with running(*models.values(), "--journal", folder / "events.db", "--quiet") as service:
        Machine.service = service
        Machine.truth = Truth({name: load(path, threads=1) for name, path in models.items()})
        yield Machine


def test_answers_are_the_librarys_whatever_happens(machine: type[Machine]) -> None:
    checks = [HealthCheck.too_slow, HealthCheck.filter_too_much]
    how = settings(max_examples=12, stateful_step_count=25, deadline=None, suppress_health_check=checks)
    run_state_machine_as_test(machine, settings=how)
