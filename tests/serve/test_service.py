"""The service over a socket: every endpoint, and answers that are the library's bit for bit."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from serve_help import Running, running, saved, two_models

from hashlgn.inference.recommender import Recommender, load
from hashlgn.serve.answers import Served
from hashlgn.serve.attributes import Attributes
from hashlgn.serve.registry import Registry
from hashlgn.serve.shapes import Ask, shaped


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return two_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def service(models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("service")
    with running(models["first"], models["second"], "--journal", folder / "events.db") as started:
        yield started


@pytest.fixture(scope="module")
def first(models: dict[str, Path]) -> Recommender:
    return load(models["first"], threads=1)


def same(answer: Any, table: Any) -> None:
    """An answer holds what a table of the library does, to the last bit."""
    items = answer["items"]
    assert [one["item"] for one in items] == table["item"].tolist()
    assert [np.float32(one["score"]) for one in items] == table["score"].tolist()
    if "probability" in table:
        assert [np.float32(one["probability"]) for one in items] == table["probability"].tolist()
    assert [one["title"] for one in items] == table["title"].tolist()


def test_a_user_is_answered_as_the_library_does(service: Running, first: Recommender) -> None:
    for user in range(20):
        answer = service.get(f"/v1/users/{user}/recommendations")
        same(answer, first.recommend([user], calibrated=True))
        assert answer["user"] == user and answer["source"] == "model" and answer["model"] == "first"
        assert answer["request_id"] == service.headers["x-request-id"]


def test_parameters_mean_what_they_mean_in_the_library(service: Running, first: Recommender) -> None:
    table = first.recommend([3], 25, filter_seen=False, calibrated=True)
    same(service.get("/v1/users/3/recommendations?k=25&filter_seen=false"), table)
    cut = float(table["score"][7])
    same(service.get(f"/v1/users/3/recommendations?threshold={cut!r}"), first.recommend([3], threshold=cut))
    likely = first.recommend([3], threshold=0.3, calibrated=True)
    assert len(likely)
    same(service.get("/v1/users/3/recommendations?threshold=0.3&calibrated=true"), likely)
    second = service.get("/v1/users/3/recommendations?model=second")
    assert second["model"] == "second" and second["items"] != service.get("/v1/users/3/recommendations")["items"]


def test_a_batch_answers_each_as_alone(service: Running, first: Recommender) -> None:
    asked: list[dict[str, Any]] = [
        {"user": 1, "k": 3},
        {"history": [5, 9, {"item": 17, "weight": 2.5}], "k": 40},
        {"user": 2, "k": 7, "deny": first.recommend([2], 3)["item"].tolist()},
        {"user": 4, "k": 5, "allow": [10, 20, 30]},
        {"history": [], "k": 2},
        {"user": "no number"},
        {"user": 5, "threshold": 0.25, "calibrated": True},
        {"user": 6, "k": 4, "filters": {"genre": ["War", "Drama"]}},
        {"user": 7, "model": "nothing"},
        {"history": [12345], "k": 3},
        {"user": 8, "k": 0},
        {"user": 9, "colour": "red"},
        "nobody",
        {"history": [{"item": 5, "weight": -1}]},
        {"user": 10**9, "on_unknown": "raise"},
        {"user": 10**9, "on_unknown": "skip"},
    ]
    results = service.post("/v1/recommendations", {"requests": asked})["results"]
    wanted = [200, 200, 200, 200, 200, 422, 200, 200, 404, 200, 422, 422, 422, 422, 404, 200]
    assert [one["status"] for one in results] == wanted
    assert [one.get("user") for one in results[10:]] == [8, 9, None, None, 10**9, 10**9]
    assert results[10]["error"]["field"] == "k" and results[13]["error"]["field"] == "history[0].weight"
    assert results[15]["items"] == [] and results[15]["reason"] == "nothing is known of this user"
    same(results[0], first.recommend([1], 3))
    same(results[1], first.recommend(history={"x": {5: 1, 9: 1, 17: 2.5}}, k=40))
    same(results[2], first.recommend([2], 7, deny=asked[2]["deny"]))
    same(results[3], first.recommend([4], 5, allow=[10, 20, 30]))
    assert len(results[3]["items"]) == 3 and "fewer" in results[3]["reason"]
    same(results[4], first.recommend(history=[], k=2))
    assert results[4]["source"] == results[9]["source"] == "popular" and results[4]["reason"]
    assert results[5]["error"]["code"] == "bad_id" and results[5]["error"]["field"] == "user"
    same(results[6], first.recommend([5], threshold=0.25, calibrated=True))
    nothing = service.post("/v1/recommendations", {"requests": [{"user": 5, "threshold": 1e6}]})["results"][0]
    assert nothing["items"] == [] and "threshold" in nothing["reason"]
    allowed = [n for n in range(300) if n % 4 in (1, 2)]
    same(results[7], first.recommend([6], 4, allow=allowed))
    for ask, result in zip(asked, results, strict=True):
        status, alone = service.ask("POST", "/v1/recommendations", {"requests": [ask]})
        assert status == 200 and alone["results"] == [result]


def test_a_threshold_gives_as_many_items_as_an_answer_may_hold(models: dict[str, Path], first: Recommender) -> None:
    with running(models["first"], "--max-k", 5, "--quiet") as service:
        answer = service.get("/v1/users/3/recommendations?threshold=-1e30")
        same(answer, first.recommend([3], 5, calibrated=True))
        assert "there may be more" in answer["reason"]


def test_only_the_unusual_members_of_a_batch_take_the_long_way(
    models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry([models["first"]], None, Attributes(None), threads=1)
    asked = [{"user": 1}, {"user": 2, "deny": [5]}, {"user": 3, "filter_seen": False}, {"user": 999}, {"history": [4]}]
    questions = [registry.active.question(shaped(one, Ask)) for one in asked]
    wanted, long_way, seen = registry.active.answers(questions), Served._long_way, []

    def noted(self: Served, some: Any, rows: Any) -> Any:
        seen.extend(one.ask for one in some)
        return long_way(self, some, rows)

    monkeypatch.setattr(Served, "_long_way", noted)
    assert registry.active.answers(questions) == wanted
    assert [one.user for one in seen] == [2, 3, 999]


def test_a_session_is_answered_and_leaves_nothing(service: Running, first: Recommender) -> None:
    answer = service.post("/v1/sessions", {"history": [5, 9], "k": 6, "explain": True})
    same(answer, first.recommend(history=[5, 9], k=6))
    assert "user" not in answer
    for item in answer["items"]:  # all of a history of two items is named
        assert sum(why["share"] for why in item["why"]) == pytest.approx(item["score"], abs=1e-6)
        assert {why["item"] for why in item["why"]} == {5, 9} and item["why"][0]["title"]


def test_an_event_is_in_the_next_answer_and_deletions_too(service: Running, first: Recommender) -> None:
    path = "/v1/users/5001"
    assert service.get(f"{path}/recommendations")["source"] == "popular"
    events = [{"user": 5001, "item": 8, "event_id": "e1"}, {"user": 5001, "item": 11, "event_id": "e2", "type": "view"}]
    sent = service.post("/v1/events", [*events, events[0], {"user": 5001}, 7, {"user": 5001, "item": 987}])
    assert (sent["accepted"], sent["duplicates"]) == (3, 1)  # an unknown item waits for the next training
    assert [one["index"] for one in sent["rejected"]] == [3, 4]
    same(service.get(f"{path}/recommendations"), first.recommend(history=[8, 11], calibrated=True))
    history = service.get(f"{path}/history")
    assert {one["item"] for one in history["items"]} == {8, 11, 987} and history["user"] == 5001
    lines = b"\n".join(json.dumps({"user": 5001, "item": item}).encode() for item in (20, 21)) + b"\nnonsense\n"
    status, sent = service.ask("POST", "/v1/events", lines, **{"content-type": "application/x-ndjson"})
    assert status == 200 and sent["accepted"] == 2 and sent["rejected"][0]["index"] == 2
    same(service.get(f"{path}/recommendations"), first.recommend(history=[8, 11, 20, 21], calibrated=True))
    assert service.ask("DELETE", "/v1/events/e1")[1]["deleted"] == 1
    same(service.get(f"{path}/recommendations"), first.recommend(history=[11, 20, 21], calibrated=True))
    assert service.ask("DELETE", f"{path}/history/20")[1]["deleted"] == 1
    same(service.get(f"{path}/recommendations"), first.recommend(history=[11, 21], calibrated=True))
    assert service.ask("DELETE", path)[0] == 200
    assert service.get(f"{path}/recommendations")["source"] == "popular" and not service.get(f"{path}/history")["items"]


def test_a_user_of_the_training_learns_and_is_forgotten(service: Running, first: Recommender) -> None:
    stored = service.get("/v1/users/50/history")["items"]
    own = [one["item"] for one in stored]
    new = first.recommend([50], 1)["item"].tolist()
    service.post("/v1/events", {"user": "50", "item": new[0], "event_id": "of 50"})
    same(service.get("/v1/users/50/recommendations"), first.recommend(history=own + new, calibrated=True))
    assert service.ask("DELETE", f"/v1/users/50/history/{own[0]}")[1]["deleted"] == 1  # of the training
    assert service.ask("DELETE", "/v1/users/50")[1]["deleted"] == len(own)  # with one event, and without that one
    assert service.get("/v1/users/50/recommendations")["source"] == "popular"
    assert service.ask("DELETE", "/v1/users/50")[1]["deleted"] == 0
    assert 50 not in service.get("/v1/users?k=100")["users"] and 49 in service.get("/v1/users?k=100")["users"]
    assert service.get("/v1/users/50/history")["items"] == []


def test_who_was_deleted_stays_so_after_a_restart(models: dict[str, Path], tmp_path: Path) -> None:
    options = "--journal", tmp_path / "events.db", "--quiet"
    with running(models["first"], *options) as service:
        stored = len(service.get("/v1/users/7/history")["items"])
        assert service.ask("DELETE", "/v1/users/7")[1]["deleted"] == stored > 0
    with running(models["second"], models["first"], *options) as service:
        assert service.get("/v1/users/7/history")["items"] == []
        assert service.get("/v1/users/7/recommendations")["source"] == "popular"
        assert 7 not in service.get("/v1/users?k=100")["users"]
        service.post("/v1/events", {"user": 7, "item": 9})
        assert [one["item"] for one in service.get("/v1/users/7/history")["items"]] == [9]


def test_attributes_are_filters_at_once(service: Running, first: Recommender) -> None:
    for item in (30, 31, 32):
        values = {"available": item != 31, "shelf": ["a", "b"] if item == 32 else "a", "price": 2.5}
        status, found = service.ask("PUT", f"/v1/items/{item}", values)
        assert status == 200 and found["attributes"] == values
    same(
        service.get("/v1/users/1/recommendations?available=true"), first.recommend([1], allow=[30, 32], calibrated=True)
    )
    path = "/v1/users/1/recommendations"
    asked = {"shelf=b": [32], "shelf=b,a": [30, 31, 32], "shelf=a&available=false": [31], "price=2.5&genre=War": [30]}
    for query, allowed in asked.items():
        same(service.get(f"{path}?{query}"), first.recommend([1], allow=allowed, calibrated=True))
    service.ask("PUT", "/v1/items/30", {"available": False})
    same(service.get("/v1/users/1/recommendations?available=true"), first.recommend([1], allow=[32], calibrated=True))
    assert service.get("/v1/items/30")["attributes"] == {"available": False}
    for _ in range(2):
        assert service.ask("PUT", "/v1/items/30", {"labels": []})[0] == 200


def test_titles_items_and_neighbours(service: Running, first: Recommender) -> None:
    found = service.get("/v1/items?title=war%20190&k=2")["items"]
    assert len(found) == 2 and all(one["title"].startswith("War of the year 190") for one in found)
    assert service.get("/v1/items?title=WAR+year+1902")["items"][0]["item"] == 2
    assert service.get("/v1/items?title=ear")["items"] == service.get("/v1/items?title=+")["items"] == []
    near = service.get("/v1/items/7/similar?k=4")
    table = first.similar_items([7], 4)
    assert [one["item"] for one in near["items"]] == table["similar"].tolist()
    assert [np.float32(one["score"]) for one in near["items"]] == table["score"].tolist()
    item = service.get("/v1/items/7")
    assert item["title"] == "Western of the year 1907" and len(item["code"]) == 128


def test_errors_name_what_breaks_which_rule(service: Running) -> None:
    deep = b"[" * 100_000
    for method, path, body, status, code in (
        ("GET", "/v1/users/1/recommendations?k=0", None, 422, "bad_request"),
        ("GET", "/v1/users/1/recommendations?k=1001", None, 422, "too_large"),
        ("GET", "/v1/users/1/recommendations?k=x", None, 422, "bad_request"),
        ("GET", "/v1/users/1/recommendations?k=1&k=2", None, 400, "bad_query"),
        ("GET", "/v1/users/1/recommendations?k=1&threshold=0.1", None, 422, "bad_request"),
        ("GET", "/v1/users/1/recommendations?threshold=nan", None, 422, "bad_request"),
        ("GET", "/v1/users/1/recommendations?colour=red", None, 422, "unknown_filter"),
        ("GET", "/v1/users/1/recommendations?%ff=1", None, 400, "bad_query"),
        ("GET", "/v1/users/1.5/recommendations", None, 422, "bad_id"),
        ("GET", "/v1/users/%ff/recommendations", None, 400, "bad_path"),
        ("GET", "/v1/items/99999", None, 404, "unknown_item"),
        ("GET", "/v1/items/1?colour=red", None, 422, "bad_request"),
        ("GET", "/v1/nothing", None, 404, "no_route"),
        ("DELETE", "/v1/models", None, 405, "bad_method"),
        ("POST", "/v1/sessions", b"{", 400, "bad_json"),
        ("POST", "/v1/sessions", b"\xff\xfe", 400, "bad_json"),
        ("POST", "/v1/sessions", b'{"history": [], "history": []}', 400, "bad_json"),
        ("POST", "/v1/sessions", b'{"history": [NaN]}', 400, "bad_json"),
        ("PUT", "/v1/items/1", b'{"price": 1e400}', 400, "bad_json"),
        ("POST", "/v1/sessions", b'{"history": ["\\ud800"]}', 400, "bad_json"),
        ("POST", "/v1/sessions", deep, 400, "bad_json"),
        ("POST", "/v1/sessions", b'{"history": [' + b"9" * 5000 + b"]}", 400, "bad_json"),
        ("POST", "/v1/sessions", {"history": [5], "colour": 1}, 422, "bad_request"),
        ("POST", "/v1/sessions", {"history": [{"item": 5, "weight": -1}]}, 422, "bad_request"),
        ("POST", "/v1/sessions", {"user": 5}, 422, "bad_request"),
        ("POST", "/v1/sessions", {"history": [1] * 10_001}, 422, "too_large"),
        ("POST", "/v1/recommendations", {"requests": [{"user": 1}] * 1001}, 422, "too_large"),
        ("POST", "/v1/events", b"[" + b" " * (4 << 20) + b"]", 413, "too_large"),
        ("POST", "/v1/events", [{"user": 1, "item": 1}] * 10_001, 422, "too_large"),
        ("POST", "/v1/models/nothing/activate", None, 404, "unknown_model"),
        ("POST", "/v1/models/..%2Ffirst/activate", None, 404, "unknown_model"),
        ("GET", "/static/..%2F..%2Fkeys.py", None, 404, "no_route"),
    ):
        got, answer = service.ask(method, path, body)
        assert (got, answer["error"]["code"]) == (status, code), (path, answer)
        assert answer["error"]["message"] and answer["request_id"] == service.headers["x-request-id"]


def test_the_service_tells_of_itself(service: Running) -> None:
    assert service.get("/health/live") == {"status": "live"}
    assert service.get("/health/ready")["status"] == "ready"
    service.ask("GET", "/v1/users/1/recommendations", None, **{"x-request-id": "mine-1"})
    assert service.headers["x-request-id"] == "mine-1"
    text = service.ask("GET", "/metrics")[1]
    assert 'hashlgn_requests_total{route="GET /v1/users/*/recommendations",status="200"}' in text
    assert 'hashlgn_model_active{version="first"} 1' in text
    types = [line for line in text.splitlines() if line.startswith("# TYPE")]
    assert len(types) == len(set(types))
    assert service.ask("HEAD", "/v1/users/1/recommendations")[0] == 200
    assert service.ask("PUT", "/v1/events", {})[0] == 405 and service.headers["allow"] == "POST"
    status, page = service.ask("GET", "/")
    assert status == 200 and page.lower().startswith("<!doctype html>")
    assert "default-src 'self'" in service.headers["content-security-policy"]
    assert "access-control-allow-origin" not in {name.lower() for name in service.headers}
    assert service.ask("GET", "/static/app.js")[0] == 200
    time.sleep(0.3)  # lines of requests are written together
    requests = [json.loads(line) for line in service.lines if line.startswith("{")]
    assert any(
        line["request_id"] == "mine-1" and line["route"] == "GET /v1/users/*/recommendations" for line in requests
    )


def test_ids_that_are_strings(tmp_path: Path) -> None:
    path = saved(tmp_path, "texts", 5, strings=True)
    with running(path, "--journal", tmp_path / "events.db", "--quiet") as service:
        answer = service.get("/v1/users/u-3/recommendations")
        assert answer["user"] == "u-3" and all(one["item"].startswith("i-") for one in answer["items"])
        name = "a/b?ö"
        service.post("/v1/events", {"user": name, "item": "i-7"})
        assert service.get("/v1/users/a%2Fb%3F%C3%B6/recommendations")["source"] == "model"
        assert service.get("/v1/users/a%2Fb%3F%C3%B6/history")["user"] == name
