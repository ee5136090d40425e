"""The routes of the service: who may use each, and what it does."""

from __future__ import annotations

import asyncio
import mimetypes
import re
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future
from dataclasses import asdict
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import msgspec

from hashlgn.errors import ArgumentError
from hashlgn.serve.batching import settle
from hashlgn.serve.http import Answer, Request, encoded, parameters_of
from hashlgn.serve.journal import time_text
from hashlgn.serve.openapi import document
from hashlgn.serve.page import item_details, map_of
from hashlgn.serve.shapes import Ask, Batch, Nothing, Problem, Recommendation, Result, read_body, read_json, shaped

if TYPE_CHECKING:
    from hashlgn.serve.answers import Served
    from hashlgn.serve.app import Service

__all__ = ["ROUTES", "Handler"]

STATIC = Path(__file__).parent / "static"
# The service, and what it is asked: an answer, now or later, or None where ``Service.finish`` will be called with it
Handler = Callable[[Any, Request], Answer | Awaitable[Answer] | None]
# Method and path, where * is a variable segment; the scope that a key needs; the handler.
ROUTES: dict[tuple[str, str], tuple[str | None, Handler]] = {}
# Parameters of a query: a type, or what the texts that may be given stand for
_FLAG, _NOTHING = {"true": True, "false": False}, {text: text for text in get_args(Nothing)}
_NUMBERS = {
    int: (r"-?\d{1,18}", "a whole number"),
    float: (r"-?\d{1,300}(\.\d{1,300})?([eE][+-]?\d{1,3})?", "a number"),
}
_ASKED: dict[str, Any] = {"k": int, "threshold": float, "model": str, "on_unknown": _NOTHING, "on_empty": _NOTHING}
_ASKED |= {"calibrated": _FLAG, "filter_seen": _FLAG, "explain": _FLAG}
_POLICY = [(b"content-security-policy", b"default-src 'self'; img-src 'self' data:; frame-ancestors 'none'")]


def route(method: str, path: str, scope: str | None) -> Callable[[Handler], Handler]:
    """Put a handler on a path."""

    def put(handler: Handler) -> Handler:
        ROUTES[method, path] = scope, handler
        return handler

    return put


def _typed(name: str, text: str, kind: Any) -> Any:
    if kind is str:
        return text
    if isinstance(kind, dict):
        if text in kind:
            return kind[text]
        expected = " or ".join(kind)
    else:
        pattern, expected = _NUMBERS[kind]
        if re.fullmatch(pattern, text, re.ASCII):
            return kind(text)
    raise Problem(422, "bad_request", f"{name} must be {expected} (got {text!r:.80})", name)


def _asked(query: bytes, known: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """The known parameters of a query, and the others."""
    given = parameters_of(query)
    asked = {name: _typed(name, given.pop(name), kind) for name, kind in known.items() if name in given}
    if asked.get("k", 1) < 1:
        raise Problem(422, "bad_request", f"k must be at least 1 (got {asked['k']})", "k")
    return asked, given


def _fields(query: bytes) -> dict[str, Any]:
    """The fields of an ``Ask`` that a query names."""
    asked, others = _asked(query, _ASKED)
    return asked | {"filters": {name: text.split(",") for name, text in others.items()} or None}


_fields_again = lru_cache(256)(_fields)  # most clients send one query for all users


def _only(request: Request, known: Mapping[str, Any]) -> dict[str, Any]:
    asked, others = _asked(request.query, known)
    if others:
        name = next(iter(others))
        raise Problem(422, "bad_request", f"the query must have no other names than {', '.join(known)}", name[:80])
    return asked


def _named(service: Service, request: Request, **known: Any) -> tuple[Served, dict[str, Any]]:
    """The model that a query names, or else the active one, and the query's known parameters."""
    asked = _only(request, {**known, "model": str})
    return service.registry.named(asked.get("model")) or service.registry.active, asked


def _said(request: Request, **values: Any) -> Answer:
    return Answer(encoded({**values, "request_id": request.request_id}))


# Recommendations


def _recommend(service: Service, request: Request, ask: Ask) -> None:
    service.batcher.admit()
    service.ask(ask, request.request_id, partial(_recommended, service, request))


def _recommended(service: Service, request: Request, found: Recommendation | Exception) -> None:
    try:
        if isinstance(found, Exception):
            raise found
        found.request_id = request.request_id
        answer = Answer(encoded(found))
    except Exception as error:
        answer = service.failed(request, error)
    service.finish(request, answer)


@route("GET", "/v1/users/*/recommendations", "read")
def _user(service: Service, request: Request) -> None:
    fields = _fields_again(request.query) if len(request.query) <= 64 else _fields(request.query)
    _recommend(service, request, Ask(user=request.parts[0], **fields))


@route("POST", "/v1/sessions", "read")
def _session(service: Service, request: Request) -> None:
    ask = read_body(request.body, Ask)
    if ask.history is None:
        raise Problem(422, "bad_request", "history must be given", "history")
    _recommend(service, request, ask)


@route("POST", "/v1/recommendations", "read")
async def _batch(service: Service, request: Request) -> Answer:
    asked = read_body(request.body, Batch).requests
    if len(asked) > service.limits.batch:
        most = f"requests must be at most {service.limits.batch} (--max-batch; got {len(asked)})"
        raise Problem(422, "too_large", most, "requests")
    service.batcher.admit()
    members = [_member(service, member, request.request_id) for member in asked]
    found = await asyncio.gather(*members, return_exceptions=True)
    results = [_result(*one) for one in zip(asked, found, strict=True)]
    return _said(request, results=results, model=service.registry.active.version)


def _member(service: Service, member: Any, request_id: str) -> asyncio.Future[Recommendation]:
    """The answer to a member of a batch; what is wrong with it is its own."""
    future: asyncio.Future[Recommendation] = asyncio.get_running_loop().create_future()
    try:
        service.ask(shaped(member, Ask), request_id, partial(settle, future))
    except Problem as problem:
        future.set_exception(problem)
    return future


def _result(member: Any, found: Recommendation | BaseException) -> Recommendation | Result:
    if isinstance(found, Problem):
        user: Any = member.get("user") if isinstance(member, dict) else None
        named = isinstance(user, int | str) and not isinstance(user, bool)
        return Result(status=found.status, user=user if named else msgspec.UNSET, error=found.body())
    if isinstance(found, BaseException):
        raise found
    found.status = 200
    return found


# Items


@route("GET", "/v1/items", "read")
async def _titles(service: Service, request: Request) -> Answer:
    asked = _only(request, {"title": str, "k": int})
    served, k = service.registry.active, min(asked.get("k", 10), service.limits.k)
    titles = await asyncio.to_thread(lambda: served.titles)
    if titles is None:
        raise Problem(409, "no_titles", "the model must have titles to search them")
    found = await asyncio.to_thread(titles.search, asked.get("title", "")[:200], k)
    return _said(request, items=[served.described(number) for number in found])


@route("GET", "/v1/items/*", "read")
async def _item(service: Service, request: Request) -> Answer:
    served, _ = _named(service, request)
    number = served.item_number(request.parts[0])
    found = await asyncio.to_thread(item_details, served.recommender.model, number)
    return _said(request, **found, attributes=service.registry.attributes_of(found["item"]))


@route("PUT", "/v1/items/*", "write")
async def _put_item(service: Service, request: Request) -> Answer:
    number = service.registry.active.item_number(request.parts[0])
    values = read_body(request.body, dict[str, bool | int | float | str | list[bool | int | float | str]])
    if len(values) > 64:
        raise Problem(422, "bad_request", f"attributes must be at most 64 (got {len(values)})", "body")
    for name in values:
        if not 0 < len(name) <= 64 or name in (*_ASKED, "title"):
            taken = "names of attributes must have 1 to 64 characters, and not be those of parameters of a query"
            raise Problem(422, "bad_request", f"{taken} (got {name!r:.80})", name[:80] or "body")
    item = service.registry.active.described(number)["item"]
    await asyncio.to_thread(service.registry.put, item, values)
    return _said(request, item=item, attributes=values)


@route("GET", "/v1/items/*/similar", "read")
async def _similar(service: Service, request: Request) -> Answer:
    served, asked = _named(service, request, k=int)
    k = asked.get("k", 10)
    if k > service.limits.k:
        raise Problem(422, "too_large", f"k must be at most {service.limits.k} (--max-k; got {k})", "k")
    number = served.item_number(request.parts[0])
    items = await asyncio.to_thread(served.similar, number, k)
    return _said(request, item=served.described(number)["item"], items=items, model=served.version)


@route("GET", "/v1/map", "read")
async def _map(service: Service, request: Request) -> Answer:
    served, _ = _named(service, request)
    if "map" not in served.facts:  # who asks meanwhile waits for the same one
        model = served.recommender.model
        served.facts["map"] = asyncio.ensure_future(asyncio.to_thread(lambda: encoded(map_of(model))))
    return Answer(await asyncio.shield(served.facts["map"]))


# Users and events


@route("GET", "/v1/users", "read")
def _users(service: Service, request: Request) -> Answer:
    k = min(_only(request, {"k": int}).get("k", 10), service.limits.k)
    return _said(request, users=service.registry.active.some_users(k))


@route("GET", "/v1/users/*/history", "read")
async def _history(service: Service, request: Request) -> Answer:
    _only(request, {})
    served = service.registry.active
    user = served.user_id(request.parts[0])
    if service.journal is None:
        entries = served.view.stored_entries(user, set(), set())
    else:
        entries = await asyncio.to_thread(service.journal.history, user, served.view)
    items = []
    for entry in entries:
        said = asdict(entry) | {"time": None if entry.time is None else time_text(entry.time)}
        number = served.view.item_ids.find(entry.item)
        items.append(said if number < 0 else said | served.described(number))
    return _said(request, user=user, items=items)


@route("POST", "/v1/events", "write")
async def _events(service: Service, request: Request) -> Answer:
    journal, body = service.need_journal(), request.body
    lines = b"ndjson" in (request.header(b"content-type") or b"")
    events = _lines(body) if lines else read_json(body)
    events = events if isinstance(events, list) else [events]
    if len(events) > service.limits.events:
        most = f"events must be at most {service.limits.events} (--max-events; got {len(events)})"
        raise Problem(422, "too_large", most, "body")
    few = len(events) < 50
    written = journal.submit(events) if few else await asyncio.to_thread(journal.submit, events)
    outcome = await asyncio.wrap_future(written)
    counts = {"accepted": outcome.accepted, "duplicates": outcome.duplicates}
    for name, count in (*counts.items(), ("rejected", len(outcome.rejected))):
        service.metrics.events[name] += count
    rejected = [{"index": index, "error": error} for index, error in outcome.rejected]
    return _said(request, **counts, rejected=rejected)


def _lines(body: bytes) -> list[Any]:
    found = []
    for line in body.split(b"\n"):
        if line.strip():
            try:
                found.append(read_json(line))
            except Problem:
                found.append(line.decode(errors="replace"))
    return found


@route("DELETE", "/v1/events/*", "write")
async def _delete_event(service: Service, request: Request) -> Answer:
    return await _deleted(request, service.need_journal().delete_event)


@route("DELETE", "/v1/users/*/history/*", "write")
async def _delete_item(service: Service, request: Request) -> Answer:
    return await _deleted(request, service.need_journal().delete_item, service.registry.active.view)


@route("DELETE", "/v1/users/*", "write")
async def _delete_user(service: Service, request: Request) -> Answer:
    return await _deleted(request, service.need_journal().delete_user, service.registry.active.view)


async def _deleted(request: Request, delete: Callable[..., Future[int]], *view: Any) -> Answer:
    try:
        future = delete(*request.parts, *view)
    except ArgumentError as error:
        raise Problem(422, "bad_id", str(error)) from error
    return _said(request, deleted=await asyncio.wrap_future(future))


# Models and the service itself


@route("GET", "/v1/models", "read")
def _models(service: Service, request: Request) -> Answer:
    return _said(request, models=service.registry.described())


@route("POST", "/v1/models/*/activate", "admin")
async def _activate(service: Service, request: Request) -> Answer:
    return await _swapped(service, request, "activated", service.registry.activate, request.parts[0])


@route("POST", "/v1/models/rollback", "admin")
async def _rollback(service: Service, request: Request) -> Answer:
    return await _swapped(service, request, "rolled back", service.registry.rollback)


async def _swapped(service: Service, request: Request, event: str, swap: Callable[..., Served], *names: str) -> Answer:
    served = await asyncio.to_thread(swap, *names)
    service.metrics.say(event, model=served.version, request_id=request.request_id)
    return _said(request, active=served.version)


@route("GET", "/health/live", None)
def _live(service: Service, request: Request) -> Answer:
    return Answer(b'{"status":"live"}')


@route("GET", "/health/ready", None)
def _ready(service: Service, request: Request) -> Answer:
    if not service.ready:
        raise Problem(503, "closing", "the service is closing down", retry=5)
    return Answer(encoded({"status": "ready", "model": service.registry.active.version}))


@route("GET", "/metrics", "read")
def _metrics(service: Service, request: Request) -> Answer:
    batcher = service.batcher
    gauges = {"hashlgn_batches": float(batcher.batches), "hashlgn_batched_requests": float(batcher.answered)}
    for row in service.registry.described():
        version = row["version"].replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
        gauges[f'hashlgn_model_active{{version="{version}"}}'] = float(row["active"])
    return Answer(service.metrics.text(gauges), kind=b"text/plain; version=0.0.4; charset=utf-8")


@route("GET", "/openapi.json", None)
def _openapi(service: Service, request: Request) -> Answer:
    return Answer(document(service.limits))


@cache
def _static() -> dict[str, tuple[bytes, bytes]]:
    """The files of the page and their types: nothing else is ever opened."""
    found = {}
    for path in STATIC.glob("*") if STATIC.is_dir() else ():
        kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        kind = "text/javascript" if path.suffix == ".js" else kind
        text = kind.startswith("text/")
        found[path.name] = path.read_bytes(), f"{kind}; charset=utf-8".encode() if text else kind.encode()
    return found


@route("GET", "/", None)
def _page(service: Service, request: Request) -> Answer:
    return _file("index.html")


@route("GET", "/static/*", None)
def _part_of_page(service: Service, request: Request) -> Answer:
    return _file(request.parts[0])


def _file(name: str) -> Answer:
    held = _static().get(name)
    if held is None:
        raise Problem(404, "no_route", "there is no such file", "path")
    return Answer(held[0], kind=held[1], headers=_POLICY)
