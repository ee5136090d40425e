"""The client gives the tables of the library, from a service in a process of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from serve_help import running, saved

from hashlgn.client import Client
from hashlgn.errors import ArgumentError, ServiceError
from hashlgn.inference.recommender import Recommender, load


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Client, Recommender]]:
    folder = tmp_path_factory.mktemp("client")
    file = saved(folder, "client", 0)
    with (
        running(file, "--journal", folder / "events.db") as service,
        Client(f"http://127.0.0.1:{service.port}") as client,
    ):
        yield client, load(file)


@pytest.mark.parametrize(
    "asked",
    [
        {"users": [3, 5], "k": 4},
        {"users": 7},
        {"users": range(40), "k": 2, "filter_seen": False},
        {"users": np.array([3]), "threshold": 0.1},
        {"users": [3], "threshold": 0.57, "calibrated": True},
        {"users": [8], "k": 3, "allow": [1, 2, 3, 4], "deny": [2]},
        {"history": [1, 2, 3], "k": 3},
        {"history": {"a": {1: 2.0, 9: 0.5}, "b": [4, 5]}, "k": 3},
        {"users": [], "k": 3},
        {"users": [3, 10**6, 5], "k": 3, "on_unknown": "skip"},
        {"users": [8, 9], "k": 3, "allow": [[1, 2, 3], [4, 5]], "deny": {8: [2]}},
        {"users": [8, 9], "k": 3, "allow": {9: [1, 2, 3], 8: {4, 5}}},
        {"users": [8], "k": 3, "deny": [10**6], "on_unknown": "skip", "titles": False},
        {"history": {"a": [], "b": [4, 5]}, "k": 3, "on_empty": "skip"},
        {"history": [10**6], "k": 3, "on_unknown": "skip"},
    ],
)
def test_a_table_is_that_of_the_library(both: tuple[Client, Recommender], asked: dict) -> None:
    client, library = both
    found, wanted = client.recommend(**asked), library.recommend(**asked)
    if len(wanted):
        assert found == wanted and list(found) == list(wanted)
    assert len(found) == len(wanted)


def test_what_else_it_asks(both: tuple[Client, Recommender]) -> None:
    client, library = both
    assert client.similar_items(7, 3) == library.similar_items(7, 3)
    asked = {"items": [7, 10**6, np.int64(9)], "k": 3, "on_unknown": "skip", "titles": False}
    assert client.similar_items(**asked) == library.similar_items(**asked)
    why = client.recommend(history=[3, 4], k=2, explain=True)
    assert why["why"][0][0]["item"] in (3, 4)
    assert sum(share["share"] for share in why["why"][1]) == pytest.approx(why["score"][1], abs=1e-5)
    assert client.recommend(3, model="client") == client.recommend(3)
    assert [found["item"] for found in client.search_titles("comedy 1904", 5)] == [4]
    assert client.events({"user": 50, "item": 17, "event_id": "a"})["accepted"] == 1
    assert client.events([{"user": 50, "item": 17, "event_id": "a"}])["duplicates"] == 1
    assert 17 in [entry["item"] for entry in client.history(50)]
    assert 17 not in client.recommend(50, 300)["item"]
    client.delete_user(50)
    assert client.recommend(50)["source"].tolist() == ["popular"] * 10
    assert [model["version"] for model in client.models()["models"]] == ["client"]


def test_deletions_attributes_and_models(tmp_path: Path) -> None:
    files = [saved(tmp_path, name, seed) for seed, name in enumerate(("first", "second"))]
    with (
        running(files[0], files[1], "--journal", tmp_path / "events.db") as service,
        Client(f"http://127.0.0.1:{service.port}") as client,
    ):
        client.events([{"user": 900, "item": item, "event_id": f"e/{item}"} for item in (3, 5, 7)])
        assert client.delete_event("e/5") == 1 and client.delete_event("e/5") == 0
        assert client.delete_item(900, 7) == 1
        assert [entry["item"] for entry in client.history(900)] == [3]
        assert client.delete_user(900) == 1 and client.history(900) == []
        client.put_item(9, {"colour": np.array(["red", "blue"]), "price": np.int64(3), "new": True})
        for one in ({"colour": ["red"]}, {"colour": "red"}, {"new": True}, {"price": 3}):
            assert client.recommend(history=[1, 2], filters=one)["item"].tolist() == [9]
        with pytest.raises(ArgumentError, match="attributes must be a mapping"):
            client.put_item(9, [1])  # type: ignore[arg-type]
        for name in (".", ".."):  # a step in the path would end elsewhere
            with pytest.raises(ArgumentError, match="must not be"):
                client.delete_event(name)
        with pytest.raises(ServiceError, match="404 unknown_item"):
            client.put_item(10**6, {"colour": "red"})
        assert client.activate("second") == "second" and client.rollback() == "first"
        assert [one["version"] for one in client.models()["models"] if one["active"]] == ["first"]
        with pytest.raises(ServiceError, match="404"):
            client.activate("third")


def test_errors(both: tuple[Client, Recommender]) -> None:
    client, _ = both
    with pytest.raises(ServiceError, match="422 bad_id: user"):
        client.recommend(["x"])
    with pytest.raises(ServiceError, match="404"):
        client.similar_items(10**6)
    with pytest.raises(ServiceError, match="404 unknown_user: user: user must be known"):
        client.recommend([3, 10**6], on_unknown="raise")
    for given in ({"history": [10**6]}, {"users": 3, "allow": [10**6]}, {"users": 3, "deny": [10**6]}):
        with pytest.raises(ServiceError, match="404 unknown_item"):
            client.recommend(**given, on_unknown="raise")
    with pytest.raises(ServiceError, match="422 empty: history"):
        client.recommend(history={"a": []}, on_empty="raise")
    with pytest.raises(ServiceError, match="422 bad_request: on_empty"):
        client.recommend(3, on_empty="nothing")
    with pytest.raises(ServiceError, match="404 unknown_model"):
        client.recommend(3, model="none")
    with pytest.raises(ArgumentError, match="deny must have 2 lists"):
        client.recommend([3, 5], deny=[[1]])
    with pytest.raises(ArgumentError, match="allow must have a list for everybody"):
        client.recommend([3, 5], allow={3: [1]})
    with pytest.raises(ArgumentError, match="history must be a list of items"):
        client.recommend(history={3: 2.0})
    with pytest.raises(ArgumentError, match="one of users and history"):
        client.recommend()
    with pytest.raises(ArgumentError, match="url must begin with"):
        Client("127.0.0.1:8765")
    with pytest.raises(ArgumentError, match="timeout must be"):
        Client("http://127.0.0.1:8765", timeout="a")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="events must be mappings"):
        client.events([1, 2])  # type: ignore[list-item]
    with pytest.raises(ArgumentError, match="such that JSON has them"):
        client.recommend(1, threshold=float("nan"))
    with (
        pytest.raises(ServiceError, match=r"127\.0\.0\.1:9: the service cannot be reached"),
        Client("http://127.0.0.1:9") as away,
    ):
        away.models()


def test_without_a_key_nothing_is_answered(tmp_path: Path) -> None:
    from hashlgn.serve.keys import create_key

    keys = tmp_path / "keys.json"
    key, _ = create_key(keys, "read", "shop")
    with running(saved(tmp_path, "model", 0), "--keys", keys) as service:
        url = f"http://127.0.0.1:{service.port}"
        with pytest.raises(ServiceError, match="401"):
            Client(url).recommend(1)
        assert len(Client(url, key).recommend(1)) == 10
