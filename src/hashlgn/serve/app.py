"""The service: it finds the route of a request, admits it, answers it and counts it."""

from __future__ import annotations

import asyncio
import itertools
import re
import secrets
import time
import traceback
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

from hashlgn.errors import ArgumentError, HashLGNError, JournalError, JournalFullError
from hashlgn.serve.answers import Question, Served
from hashlgn.serve.batching import Batcher
from hashlgn.serve.http import Answer, Request, refusal, segments_of
from hashlgn.serve.journal import Journal
from hashlgn.serve.keys import SCOPES, KeyFile
from hashlgn.serve.limits import Limits
from hashlgn.serve.metrics import Metrics
from hashlgn.serve.registry import Registry
from hashlgn.serve.routes import ROUTES, Handler
from hashlgn.serve.shapes import Ask, Problem, Recommendation
from hashlgn.serve.telemetry import Spans

__all__ = ["Service"]

_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
# By number of segments: method, segments, name in log and figures, scope and handler
_ROUTES: dict[int, list[tuple[str, list[str], str, tuple[str | None, Handler]]]] = {}
for (_method, _path), _found in ROUTES.items():
    _parts = _path.split("/")[1:]
    _ROUTES.setdefault(len(_parts), []).append((_method, _parts, f"{_method} {_path}", _found))


class Service:
    """The service.

    Args:
        registry: the models.
        journal: events, or None: then histories are those of the training.
        keys: who may do what, or None: everybody may do everything.
        limits: what a client may ask for.
        metrics: figures and log.
        spans: of OpenTelemetry, or None.
    """

    def __init__(
        self,
        registry: Registry,
        journal: Journal | None = None,
        keys: KeyFile | None = None,
        limits: Limits | None = None,
        metrics: Metrics | None = None,
        spans: Spans | None = None,
    ) -> None:
        self.registry, self.journal, self.keys, self.spans = registry, journal, keys, spans
        self.limits, self.metrics = limits or Limits(), metrics or Metrics()
        self.batcher = Batcher(_answer_together, self.limits)
        self.ready = True
        self._tasks: set[asyncio.Task[None]] = set()
        self._prefix, self._count = secrets.token_hex(4), itertools.count()

    def respond(self, request: Request) -> None:
        """Let ``request.send`` be called with the answer, after this has returned; what goes wrong is an answer too."""
        request.began, self.metrics.in_flight = time.perf_counter(), self.metrics.in_flight + 1
        given = request.header(b"x-request-id")
        request.request_id = self._name() if given is None or not _ID.fullmatch(given) else given.decode()
        try:
            request.route, (scope, handler) = self._route(request)
            if scope is not None and self.keys is not None:
                self._admit(request, scope)
            answer = handler(self, request)
        except Exception as error:  # whatever it is, the client is answered: ``failed`` logs it
            answer = self.failed(request, error)
        loop = asyncio.get_running_loop()
        if isinstance(answer, Answer):
            loop.call_soon(self.finish, request, answer)
        elif answer is not None:
            task = loop.create_task(self._later(request, answer))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _later(self, request: Request, answer: Awaitable[Answer]) -> None:
        try:
            found = await answer
        except Exception as error:  # whatever it is, the client is answered: ``failed`` logs it
            found = self.failed(request, error)
        self.finish(request, found)

    def finish(self, request: Request, answer: Answer) -> None:
        """Count a request, and send its answer."""
        self.metrics.in_flight -= 1
        spent = time.perf_counter() - request.began
        self.metrics.done(request.route, answer.status, spent, request.request_id)
        if self.spans is not None:
            end = time.time_ns()
            self.spans.note(request, request.route, answer, end - round(1e9 * spent), end)
        assert request.send is not None
        request.send(request, answer)

    def failed(self, request: Request, error: Exception) -> Answer:
        """What is answered where something went wrong."""
        if isinstance(error, JournalFullError):
            error = Problem(503, "disk_full", str(error), retry=30)
        elif isinstance(error, JournalError):
            error = Problem(503, "journal", str(error), retry=5)
        elif not isinstance(error, Problem):  # a mistake of ours: the client learns no details
            where = traceback.extract_tb(error.__traceback__)[-1]  # the message may hold what the client sent
            said = f"{type(error).__name__} at {Path(where.filename).name}:{where.lineno}"
            self.metrics.say("error", route=request.route, error=said, request_id=request.request_id)
            error = Problem(500, "internal", "the service failed; its log says why")
        return refusal(error, request.request_id)

    def refused(self, problem: Problem) -> str:
        """Count a request that was refused before it was whole, and name it."""
        request_id = self._name()
        self.metrics.done("none", problem.status, 0.0, request_id)
        return request_id

    def _name(self) -> str:
        return f"{self._prefix}-{next(self._count):x}"

    def _route(self, request: Request) -> tuple[str, tuple[str | None, Handler]]:
        method = "GET" if request.method == "HEAD" else request.method
        segments = segments_of(request.path)
        routes = _ROUTES.get(len(segments), ())
        for known, parts, name, found in routes:
            if known == method and _fits(parts, segments):
                request.parts = [segment for part, segment in zip(parts, segments, strict=True) if part == "*"]
                return name, found
        allowed = {known for known, parts, *_ in routes if _fits(parts, segments)}
        if allowed:
            methods = sorted(allowed | ({"HEAD"} if "GET" in allowed else set()))
            raise Problem(405, "bad_method", f"the method must be {' or '.join(methods)}", "method", allow=methods)
        raise Problem(404, "no_route", "there is nothing at this path; /openapi.json lists all paths", "path")

    def _admit(self, request: Request, needed: str) -> None:
        assert self.keys is not None
        header = request.header(b"authorization") or b""
        kind, _, key = header.decode("latin-1").partition(" ")
        try:
            scope = self.keys.scope_of(key.strip() if kind.lower() == "bearer" else None)
        except ArgumentError as error:
            self.metrics.say("error", error=str(error), request_id=request.request_id)
            raise Problem(503, "keys", "the file of keys cannot be read; nobody is let in", retry=5) from error
        if scope is None:
            raise Problem(401, "no_key", "a valid key must be sent as Authorization: Bearer KEY", "authorization")
        if SCOPES[scope] < SCOPES[needed]:
            raise Problem(403, "scope", f"the key must have the scope {needed} (it has {scope})", "authorization")

    async def watch(self, seconds: float = 1.0) -> None:
        """Look at the watched folder now and then, for as long as the service runs."""
        while True:
            await asyncio.sleep(seconds)
            try:
                served = await asyncio.to_thread(self.registry.look)
                if served is not None:
                    self.metrics.say("activated", model=served.version)
            except Exception as error:  # whatever is wrong with a file, the next ones are looked at
                self.metrics.say("refused", error=str(error))

    def close(self) -> None:
        """Write what waits, and let go of all files."""
        self.batcher.close()
        if self.journal is not None:
            self.journal.close()
        self.registry.close()
        self.metrics.flush()
        if self.spans is not None:
            self.spans.close()

    # What handlers share

    def need_journal(self) -> Journal:
        """The journal.

        Raises:
            Problem: there is none.
        """
        if self.journal is None:
            raise Problem(409, "no_journal", "the service must have a journal to keep events: hashlgn serve --journal")
        return self.journal

    def ask(self, ask: Ask, request_id: str, done: Callable[[Any], None]) -> None:
        """Call ``done`` with the answer to one request, or with what went wrong, soon.

        Raises:
            Problem: the request breaks a rule or a limit.
        """
        served = self.registry.named(ask.model) or self.registry.active
        if self.registry.split and ask.model is None and ask.user is not None:
            arm, served = self.registry.route(served.user_id(ask.user))
            if self.journal is not None:
                done = partial(self._exposed, arm, request_id, done)
        self.batcher.put(served, served.question(ask, self.limits), done)

    def _exposed(self, arm: str, request_id: str, done: Callable[[Any], None], found: Any) -> None:
        if isinstance(found, Recommendation) and self.journal is not None:
            items = [item.item for item in found.items]
            try:
                self.journal.exposure(found.user, arm, items, request_id, model=found.model)
            except Exception as error:  # goes to this request alone: the others of the batch are answered
                found = error
        done(found)


def _fits(parts: list[str], segments: list[str]) -> bool:
    for part, segment in zip(parts, segments, strict=True):  # noqa: SIM110  a generator takes three times as long
        if part != segment and part != "*":
            return False
    return True


def _answer_together(batch: list[tuple[Served, Question]]) -> list[Any]:
    """Answers, or what went wrong, in order; one search per model and kind of request."""
    found: list[Any] = [None] * len(batch)
    by_model: dict[int, list[int]] = {}
    for place, (served, _) in enumerate(batch):
        by_model.setdefault(id(served), []).append(place)
    for places in by_model.values():
        served, questions = batch[places[0]][0], [batch[place][1] for place in places]
        try:
            answers: list[Any] = list(served.answers(questions))
        except Exception:  # one of them caused it: each is asked again by itself, and that one gets the error
            answers = [_answer_alone(served, question) for question in questions]
        for place, answer in zip(places, answers, strict=True):
            found[place] = answer
    return found


def _answer_alone(served: Served, question: Question) -> Any:
    try:
        return served.answers([question])[0]
    except HashLGNError as error:
        return Problem(422, "bad_request", str(error))
    except Exception as error:  # goes to who asked, where ``failed`` logs it
        return error
