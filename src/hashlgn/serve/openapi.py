"""The OpenAPI document of the service; a test holds it against the routes, and a fuzzer against the answers."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any, get_args

import msgspec

from hashlgn.data.arrays import WEIGHTS
from hashlgn.serve.limits import Limits
from hashlgn.serve.shapes import Ask, Batch, Item, Nothing, Recommendation, Result

__all__ = ["document"]

_TEXT, _COUNT = {"type": "string"}, {"type": "integer", "minimum": 0}
_ID = {"anyOf": [{"type": "integer"}, {"type": "string"}]}
_VALUE = {"type": ["boolean", "integer", "number", "string"]}
_K: dict[str, Any] = {"name": "k", "in": "query", "schema": {"type": "integer", "minimum": 1}}
_MODEL = {"name": "model", "in": "query", "schema": _TEXT, "description": "version of a loaded model"}
_FLAGS = [
    {"name": name, "in": "query", "schema": {"type": "boolean"}} for name in ("filter_seen", "explain", "calibrated")
]
_NOTHING = [
    {"name": name, "in": "query", "schema": {"enum": list(get_args(Nothing))}} for name in ("on_unknown", "on_empty")
]
_THRESHOLD = {"name": "threshold", "in": "query", "schema": {"type": "number"}}
_FILTERS = {
    "name": "filters",
    "in": "query",
    "style": "form",
    "explode": True,
    "description": "any attribute of items by name; several values are separated by commas",
    "schema": {"type": "object", "additionalProperties": _TEXT},
}


def _object(**properties: Any) -> dict[str, Any]:
    held = properties | {"request_id": _TEXT}
    return {"type": "object", "properties": held, "required": sorted(held)}


def _list(of: Any) -> dict[str, Any]:
    return {"type": "array", "items": of}


def _ref(kind: type) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{kind.__name__}"}


_ANY = {"type": "object"}
_GIVEN = {"history": {"type": "array"}, "user": {"type": "null"}}
_SESSION = {"allOf": [_ref(Ask), {"required": ["history"], "properties": _GIVEN}]}
_EVENT = {
    "type": "object",
    "properties": {
        "event_id": {"type": ["string", "null"], "minLength": 1, "maxLength": 256},
        "user": _ID,
        "item": _ID,
        "type": {"type": ["string", "null"], "minLength": 1, "maxLength": 64},
        "weight": {"type": "number", "minimum": WEIGHTS[0], "maximum": WEIGHTS[1]},
        "time": {"type": ["string", "number", "null"]},
    },
    "required": ["user", "item"],
    "additionalProperties": False,
}
_EVENTS: dict[str, Any] = {"anyOf": [_EVENT, {"type": "array", "items": _EVENT}]}
_HISTORY = {
    "type": "object",
    "properties": {
        "item": _ID,
        "event_id": {"type": ["string", "null"]},
        "type": {"type": ["string", "null"]},
        "weight": {"type": "number"},
        "time": {"type": ["string", "null"]},
        "title": {"type": ["string", "null"]},
        "genres": _list(_TEXT),
    },
    "required": ["event_id", "item", "time", "type", "weight"],
}
_MODELS = _list({"type": "object", "properties": {"version": _TEXT, "active": {"type": "boolean"}}})
_DELETED, _ACTIVE = _object(deleted=_COUNT), _object(active=_TEXT)
_PUT = {"type": "object", "maxProperties": 64, "additionalProperties": {"anyOf": [_VALUE, _list(_VALUE)]}}

# Method and path: what it does, parameters, body, answer.
_PATHS: dict[tuple[str, str], tuple[str, list[Any], Any, Any]] = {
    ("get", "/v1/users/{user}/recommendations"): (
        "Recommendations for a user",
        [_K, _THRESHOLD, *_FLAGS, *_NOTHING, _MODEL, _FILTERS],
        None,
        _ref(Recommendation),
    ),
    ("post", "/v1/recommendations"): (
        "Recommendations for several users or histories",
        [],
        _ref(Batch),
        _object(results=_list({"anyOf": [_ref(Recommendation), _ref(Result)]}), model=_TEXT),
    ),
    ("post", "/v1/sessions"): ("Recommendations for a history; nothing is stored", [], _SESSION, _ref(Recommendation)),
    ("get", "/v1/items"): (
        "Items by the words of their titles",
        [{"name": "title", "in": "query", "schema": _TEXT}, _K],
        None,
        _object(items=_list(_ANY)),
    ),
    ("get", "/v1/items/{item}"): ("An item, with its codes and attributes", [_MODEL], None, _ANY),
    ("put", "/v1/items/{item}"): ("Set the attributes of an item", [], _PUT, _object(item=_ID, attributes=_ANY)),
    ("get", "/v1/items/{item}/similar"): (
        "Similar items",
        [_K, _MODEL],
        None,
        _object(item=_ID, items=_list(_ref(Item)), model=_TEXT),
    ),
    ("get", "/v1/map"): ("A map of the catalogue", [_MODEL], None, _ANY),
    ("get", "/v1/users"): ("A few users of the training", [_K], None, _object(users=_list(_ID))),
    ("get", "/v1/users/{user}/history"): (
        "The history of a user, the newest first",
        [],
        None,
        _object(user=_ID, items=_list(_HISTORY)),
    ),
    ("delete", "/v1/users/{user}/history/{item}"): ("Delete an item from a history, for good", [], None, _DELETED),
    ("delete", "/v1/users/{user}"): ("Delete everything about a user, for good", [], None, _DELETED),
    ("post", "/v1/events"): (
        "Keep events: one, a list, or lines of JSON (application/x-ndjson)",
        [],
        _EVENTS,
        _object(
            accepted=_COUNT,
            duplicates=_COUNT,
            rejected=_list({"type": "object", "properties": {"index": _COUNT, "error": _TEXT}}),
        ),
    ),
    ("delete", "/v1/events/{event_id}"): ("Delete an event, for good", [], None, _DELETED),
    ("get", "/v1/models"): ("The models", [], None, _object(models=_MODELS)),
    ("post", "/v1/models/{version}/activate"): ("Let a model answer from now on", [], None, _ACTIVE),
    ("post", "/v1/models/rollback"): ("Let the model answer that did before", [], None, _ACTIVE),
    ("get", "/health/live"): ("Whether the process runs", [], None, _ANY),
    ("get", "/health/ready"): ("Whether the service answers", [], None, _ANY),
    ("get", "/metrics"): ("Figures for Prometheus", [], None, None),
    ("get", "/openapi.json"): ("This document", [], None, _ANY),
}
_STATUSES = (400, 401, 403, 404, 408, 409, 413, 422, 431, 503)


@cache
def document(limits: Limits) -> bytes:
    """The document as JSON.

    Args:
        limits: which stand in it.
    """
    _, schemas = msgspec.json.schema_components(
        (Ask, Batch, Item, Recommendation, Result), ref_template="#/components/schemas/{name}"
    )
    schemas["Batch"]["properties"]["requests"]["items"] = _ref(Ask)
    schemas["Error"] = _object(
        error={
            "type": "object",
            "properties": {"code": _TEXT, "message": _TEXT, "field": _TEXT},
            "required": ["code", "message"],
        }
    )
    paths: dict[str, Any] = {}
    for (method, path), said in _PATHS.items():
        paths.setdefault(path, {})[method] = _operation(method, path, *said, limits=limits)
    try:
        number = version("hashlgn")
    except PackageNotFoundError:
        number = "0"
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {"title": "HashLGN", "version": number},
            "paths": paths,
            "components": {
                "schemas": schemas,
                "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            },
            "security": [{"key": []}, {}],
        }
    )


def _operation(
    method: str, path: str, summary: str, parameters: list[Any], body: Any, answer: Any, *, limits: Limits
) -> dict[str, Any]:
    most = _K | {"schema": _K["schema"] | {"maximum": limits.k}}
    parameters = [most if one is _K else one for one in parameters]
    if body is _EVENTS:
        body = {"anyOf": [_EVENT, {"type": "array", "items": _EVENT, "maxItems": limits.events}]}
    names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
    in_path = [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]
    error = {
        "description": "an error",
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
    }
    content = {"text/plain": {"schema": _TEXT}} if answer is None else {"application/json": {"schema": answer}}
    found: dict[str, Any] = {
        "summary": summary,
        "operationId": f"{method} {path}",
        "parameters": in_path + parameters,
        "responses": {"200": {"description": "the answer", "content": content}}
        | {str(status): error for status in _STATUSES},
    }
    if body is not None:
        kinds = {"application/json": {"schema": body}}
        found["requestBody"] = {"required": True, "content": kinds}
    return found
