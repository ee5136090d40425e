"""Models that change while they answer, splits of traffic, keys, limits, and an end that drops nothing."""

from __future__ import annotations

import asyncio
import io
import shutil
import signal
import socket
import threading
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from serve_help import Running, running, saved, two_models

from hashlgn.errors import ArgumentError
from hashlgn.inference.recommender import Recommender, load
from hashlgn.serve.app import Service, _answer_together
from hashlgn.serve.batching import Batcher, settle
from hashlgn.serve.http import Request
from hashlgn.serve.keys import create_key, revoke_key
from hashlgn.serve.limits import Limits
from hashlgn.serve.metrics import Metrics
from hashlgn.serve.server import build
from hashlgn.serve.shapes import Problem


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return two_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def library(models: dict[str, Path]) -> dict[str, Recommender]:
    return {name: load(path, threads=1) for name, path in models.items()}


def wanted(model: Recommender, user: int) -> list[tuple[int, float]]:
    table = model.recommend([user], 10)
    return list(zip(table["item"].tolist(), table["score"].tolist(), strict=True))


def got(answer: Any) -> list[tuple[int, float]]:
    return [(one["item"], float(np.float32(one["score"]))) for one in answer["items"]]


def until(holds: Any, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_hundred_activations_under_load_lose_and_mix_nothing(
    models: dict[str, Path], library: dict[str, Recommender], tmp_path: Path
) -> None:
    right = {(name, user): wanted(model, user) for name, model in library.items() for user in range(20)}
    wrong: list[Any] = []
    seen: set[str] = set()
    over = threading.Event()
    with running(*models.values(), "--journal", tmp_path / "events.db", "--quiet") as service:

        def load_it(start: int) -> None:
            asker, user = Running(service.port, service.process, []), start
            while not over.is_set():
                user = (user + 1) % 20
                status, answer = asker.ask("GET", f"/v1/users/{user}/recommendations")
                if status != 200 or got(answer) != right[answer["model"], user]:
                    wrong.append((status, answer))
                else:
                    seen.add(answer["model"])

        askers = [threading.Thread(target=load_it, args=(start,)) for start in (0, 7)]
        for asker in askers:
            asker.start()
        for turn in range(100):
            name = ("second", "first")[turn % 2]
            assert service.post(f"/v1/models/{name}/activate", None)["active"] == name
        over.set()
        for asker in askers:
            asker.join()
        assert not wrong and seen == {"first", "second"}
        assert service.post("/v1/models/rollback", None)["active"] == "second"
        assert service.get("/v1/users/1/recommendations")["model"] == "second"


def test_a_watched_folder_brings_new_models_and_refuses_damaged_ones(
    models: dict[str, Path], library: dict[str, Recommender], tmp_path: Path
) -> None:
    folder = tmp_path / "watched"
    folder.mkdir()
    shutil.copy(models["first"], folder / "a.safetensors")
    with running("--watch", folder, "--journal", tmp_path / "events.db") as service:
        service.post("/v1/events", {"user": 900, "item": 4})
        whole = models["second"].read_bytes()
        (folder / "b.safetensors").write_bytes(whole[:-100])
        until(lambda: any('"refused"' in line for line in service.lines))
        assert service.get("/health/ready")["model"] == "a"
        assert service.ask("POST", "/v1/models/b/activate")[0] == 422
        (folder / "half").write_bytes(whole)
        (folder / "half").replace(folder / "b.safetensors")
        until(lambda: service.get("/health/ready")["model"] == "b")
        table = library["second"].recommend(history=[4])  # the event came before the model
        assert [one["item"] for one in service.get("/v1/users/900/recommendations")["items"]] == table["item"].tolist()
        shutil.copy(models["first"], folder / "half")
        (folder / "half").replace(folder / "b.safetensors")  # the same name, another model
        until(lambda: service.get("/health/ready")["model"].startswith("b-"))
        assert got(service.get("/v1/users/3/recommendations")) == wanted(library["first"], 3)
        assert service.post("/v1/models/rollback", None)["active"] == "b"


def test_an_exposure_that_cannot_be_noted_fails_its_own_request_alone(
    models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = {"first": 0.5, "second": 0.5}
    service = build(list(models.values()), journal=tmp_path / "events.db", split=split, log=False)

    def exposure(user: Any, *rest: Any, **more: Any) -> None:
        if user == 3:
            raise RuntimeError("a mistake of ours")

    monkeypatch.setattr(service.journal, "exposure", exposure)

    async def asked() -> list[int]:
        answers = []
        for user in range(1, 7):
            answers.append(asyncio.get_running_loop().create_future())
            request = Request("GET", f"/v1/users/{user}/recommendations".encode(), b"", [])
            request.send = lambda _, sent, answer=answers[-1]: answer.set_result(sent)
            service.respond(request)
        return [answer.status for answer in await asyncio.wait_for(asyncio.gather(*answers), 20)]

    assert asyncio.run(asked()) == [200, 200, 500, 200, 200, 200]
    service.close()


def test_a_split_is_sticky_near_its_shares_and_journalled(models: dict[str, Path], tmp_path: Path) -> None:
    from hashlgn.serve.splits import report_split

    journal = tmp_path / "events.db"
    arguments = (*models.values(), "--journal", journal, "--split", "first=0.75,second=0.25", "--quiet")
    with running(*arguments) as service:
        asked = {"requests": [{"user": user, "k": 3} for user in range(400)]}
        results = service.post("/v1/recommendations", asked)["results"]
        arms = [one["model"] for one in results]
        assert 60 <= arms.count("second") <= 140
        assert [one["model"] for one in service.post("/v1/recommendations", asked)["results"]] == arms
        written = {"requests": [{"user": f"0{user}", "k": 3} for user in range(400)]}  # the same users
        assert [one["model"] for one in service.post("/v1/recommendations", written)["results"]] == arms
        shown = next(one for one in results if one["model"] == "second")
        service.post("/v1/events", {"user": shown["user"], "item": shown["items"][0]["item"]})
    with running(*arguments) as service:  # and after a restart
        assert [one["model"] for one in service.post("/v1/recommendations", asked)["results"]] == arms
    report = report_split(journal)["arms"]
    assert report["first"]["users"] + report["second"]["users"] == 400
    assert report["second"]["hit_rate"] > 0 and report["first"]["hit_rate"] == 0


def test_keys_open_what_their_scope_says_and_rotate_without_a_restart(models: dict[str, Path], tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    keys = {scope: create_key(file, scope, scope)[0] for scope in ("read", "write", "admin")}
    with running(models["first"], "--journal", tmp_path / "events.db", "--keys", file) as service:

        def status(method: str, path: str, key: str | None, body: Any = None) -> int:
            return service.ask(method, path, body, **({} if key is None else {"Authorization": f"Bearer {key}"}))[0]

        for method, path, body, least in (
            ("GET", "/v1/users/1/recommendations", None, 0),
            ("GET", "/metrics", None, 0),
            ("POST", "/v1/events", {"user": 1, "item": 1}, 1),
            ("DELETE", "/v1/events/none", None, 1),
            ("POST", "/v1/models/first/activate", None, 2),
        ):
            assert status(method, path, None, body) == status(method, path, "hlg_wrong", body) == 401
            found = [status(method, path, keys[scope], body) for scope in ("read", "write", "admin")]
            assert found == [200 if place >= least else 403 for place in range(3)]
        assert status("GET", "/health/live", None) == status("GET", "/", None) == 200
        new = create_key(file, "read", "new")[0]
        revoke_key(file, "read")
        assert status("GET", "/v1/models", new) == 200 and status("GET", "/v1/models", keys["read"]) == 401
        assert not any(key in line for key in (*keys.values(), new) for line in service.lines)


def test_without_a_journal_events_are_refused_and_the_training_answers(
    models: dict[str, Path], library: dict[str, Recommender]
) -> None:
    with running(models["first"]) as service:
        status, answer = service.ask("POST", "/v1/events", {"user": 1, "item": 1})
        assert status == 409 and answer["error"]["code"] == "no_journal"
        assert got(service.get("/v1/users/9/recommendations")) == wanted(library["first"], 9)
        assert len(service.get("/v1/users/9/history")["items"]) == 6


def test_sigterm_answers_what_was_asked(models: dict[str, Path], tmp_path: Path) -> None:
    with running(models["first"], "--journal", tmp_path / "events.db", "--quiet") as service:
        found: list[int] = []
        asked = {"requests": [{"user": user, "k": 100, "explain": True} for user in range(60)] * 4}
        asker = threading.Thread(target=lambda: found.append(service.ask("POST", "/v1/recommendations", asked)[0]))
        asker.start()
        time.sleep(0.15)  # it is on its way
        service.process.send_signal(signal.SIGTERM)
        asker.join()
        assert found == [200]


def answer_of(batcher: Batcher, question: Any) -> asyncio.Future[Any]:
    done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    batcher.put(None, question, partial(settle, done))
    return done


def test_requests_beyond_the_limit_are_told_to_come_again() -> None:
    async def busy() -> list[Any]:
        began, go = threading.Event(), threading.Event()

        def work(batch: list[tuple[Any, Any]]) -> list[Any]:
            began.set()
            go.wait(30)
            return [question for _, question in batch]

        batcher = Batcher(work, Limits(waiting=3))
        first = [answer_of(batcher, 0)]
        began.wait(30)
        for number in range(1, 4):
            batcher.admit()
            first.append(answer_of(batcher, number))
        with pytest.raises(Problem) as caught:
            batcher.admit()
        assert caught.value.status == 503 and caught.value.retry
        go.set()
        return await asyncio.gather(*first)

    assert asyncio.run(busy()) == [0, 1, 2, 3]


def test_a_batch_is_let_in_whole(models: dict[str, Path]) -> None:
    with running(models["first"], "--max-waiting", 2, "--quiet") as service:
        asked = {"requests": [{"user": user} for user in range(60)] * 5}
        assert {one["status"] for one in service.post("/v1/recommendations", asked)["results"]} == {200}


def test_what_one_request_breaks_is_its_own() -> None:
    class Broken:
        def answers(self, questions: list[Any]) -> list[Any]:
            return [1 // question for question in questions]

    model: Any = Broken()
    found = _answer_together([(model, 1), (model, 0), (model, 1)])
    assert [found[0], found[2]] == [1, 1] and isinstance(found[1], ZeroDivisionError)


def test_a_failure_is_logged_without_what_it_says() -> None:
    log = io.StringIO()
    base: Any = SimpleNamespace(metrics=Metrics(log))
    try:
        raise KeyError("somebody@example.org")
    except KeyError as error:
        answer = Service.failed(base, Request("GET", b"/", b"", []), error)
    assert answer.status == 500 and b"example.org" not in answer.body
    assert "KeyError at test_models_change.py" in log.getvalue() and "example.org" not in log.getvalue()


def test_a_quiet_log_has_no_requests_but_what_else_happens() -> None:
    log = io.StringIO()
    metrics = Metrics(log, requests=False)
    metrics.done("/v1/health", 200, 0.001, "a")
    metrics.say("refused", model="junk")
    assert '"event":"refused"' in log.getvalue() and "request" not in log.getvalue()


def test_whoever_reads_the_log_may_go() -> None:
    log = io.StringIO()
    metrics = Metrics(log)
    log.close()
    metrics.say("activated", model="first")


def test_a_watched_folder_may_go_and_come_back(tmp_path: Path, models: dict[str, Path]) -> None:
    folder = tmp_path / "watched"
    folder.mkdir()
    with running(models["first"], "--watch", folder) as service:
        folder.rmdir()
        assert [one["version"] for one in service.get("/v1/models")["models"]] == ["first"]
        assert service.ask("GET", "/metrics")[0] == 200
        assert service.ask("POST", "/v1/models/second/activate")[0] == 404
        folder.mkdir()
        shutil.copy(models["second"], folder / "second.safetensors")
        end = time.monotonic() + 30
        while service.get("/health/ready")["model"] != "second" and time.monotonic() < end:
            time.sleep(0.05)
        assert service.get("/health/ready")["model"] == "second"


def test_requests_that_wait_too_long_are_refused_and_the_others_answered() -> None:
    async def slow() -> list[Any]:
        def work(batch: list[tuple[Any, Any]]) -> list[Any]:
            time.sleep(0.3)
            return [question for _, question in batch]

        batcher = Batcher(work, Limits(wait=0.1))
        early = answer_of(batcher, "early")
        await asyncio.sleep(0.05)
        late = answer_of(batcher, "late")
        found = await asyncio.gather(early, late, return_exceptions=True)
        return [*found, await answer_of(batcher, "again")]

    early, late, again = asyncio.run(slow())
    assert (early, again) == ("early", "again") and isinstance(late, Problem) and late.status == 503


def test_limits_are_positive_and_finite() -> None:
    for wrong in ({"wait": float("nan")}, {"idle": float("inf")}, {"k": 0}):
        with pytest.raises(ArgumentError, match=f"max_{next(iter(wrong))} must be positive and finite"):
            Limits(**wrong)  # type: ignore[arg-type]


def test_what_cannot_be_served_is_said_at_the_start(tmp_path: Path, models: dict[str, Path]) -> None:
    from hashlgn.serve.server import build, serve

    for arguments, message in (
        ({"models": []}, "models must be given"),
        ({"models": [models["first"]], "split": {"nothing": 1.0}}, "split must name loaded models"),
    ):
        with pytest.raises(ArgumentError, match=message):
            build(**arguments)
    with running(models["first"], "--journal", tmp_path / "events.db", "--quiet") as service:
        service.post("/v1/events", {"user": 1, "item": 1})
    with pytest.raises(ArgumentError, match="types of the journal"):
        build([saved(tmp_path, "texts", 1, strings=True)], journal=tmp_path / "events.db")
    with pytest.raises(ArgumentError, match=r"texts.*types of the other models, int and int \(got str and str\)"):
        build([models["first"], tmp_path / "texts.safetensors"], journal=tmp_path / "new.db")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ArgumentError, match="port must be free"):
            serve([models["first"]], port=taken.getsockname()[1])


def test_a_damaged_newest_model_does_not_keep_the_service_from_starting(
    models: dict[str, Path], library: dict[str, Recommender], tmp_path: Path
) -> None:
    shutil.copy(models["first"], tmp_path / "a.safetensors")
    (tmp_path / "b.safetensors").write_bytes(models["second"].read_bytes()[:-100])
    with running("--watch", tmp_path) as service:
        assert service.lines[0].startswith("refused: ") and "b.safetensors" in service.lines[0]
        assert got(service.get("/v1/users/3/recommendations")) == wanted(library["first"], 3)
        saved(tmp_path, "texts", 1, strings=True)  # of other ids
        until(lambda: any('"refused"' in line for line in service.lines))
        assert service.ask("POST", "/v1/models/texts/activate")[0] == 422
        assert service.get("/health/ready")["model"] == "a"


def test_a_new_journal_is_said(models: dict[str, Path], tmp_path: Path) -> None:
    file = tmp_path / "new" / "events.db"
    for new in (" (new)", ""):
        with running(models["first"], "--journal", file, "--quiet") as service:
            assert service.lines[0] == f"events are kept in {file}{new}\n"


def test_a_question_that_fails_keeps_none_from_its_answer() -> None:
    from hashlgn.serve.app import _answer_together

    class Picky:
        def answers(self, questions: list[str]) -> list[str]:
            if "bad" in questions:
                raise ArgumentError("it is bad")
            return questions

    asked: list[Any] = [(Picky(), "other"), ((model := Picky()), "a"), (model, "bad"), (model, "b")]
    found = _answer_together(asked)
    assert found[:2] == ["other", "a"] and found[3] == "b"
    assert isinstance(found[2], Problem) and (found[2].status, found[2].message) == (422, "it is bad")
