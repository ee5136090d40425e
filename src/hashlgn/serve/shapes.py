"""The shapes of requests and answers, and errors as clients see them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from hashlgn.data.arrays import WEIGHTS

__all__ = [
    "Ask",
    "Batch",
    "HistoryItem",
    "Item",
    "Problem",
    "Recommendation",
    "Result",
    "Share",
    "read_body",
    "read_json",
    "shaped",
]

Id = int | str
Value = bool | int | float | str
Nothing = Literal["popular", "skip", "raise"]  # what is done where nothing is known


class HistoryItem(Struct, forbid_unknown_fields=True):
    """An item of a history that a client sends."""

    item: Id
    weight: Annotated[float, Meta(ge=WEIGHTS[0], le=WEIGHTS[1])] = 1.0


class Ask(Struct, forbid_unknown_fields=True):
    """Who asks for what: a user by name, or a history.

    ``on_unknown`` says what is done about an unknown user: ``popular`` answers with what most users have, ``skip`` with
    no items, ``raise`` with an error. Unknown items in lists are refused by ``raise``, and else left out. ``on_empty``
    says the same of a history without a known item.
    """

    user: Id | None = None
    history: list[Id | HistoryItem] | None = None
    k: Annotated[int, Meta(ge=1)] | None = None
    threshold: float | None = None
    calibrated: bool = False
    filter_seen: bool = True
    allow: list[Id] | None = None
    deny: list[Id] | None = None
    explain: bool = False
    filters: dict[str, Value | list[Value]] | None = None
    model: str | None = None
    on_unknown: Nothing = "popular"
    on_empty: Nothing = "popular"


class Batch(Struct, forbid_unknown_fields=True):
    """Several of them, each of which is read by itself."""

    requests: Annotated[list[Any], Meta(min_length=1)]


class Share(Struct):
    """What an item of the history adds to a score."""

    item: Id
    share: float
    title: str | UnsetType | None = UNSET


class Item(Struct):
    """An item that is recommended."""

    item: Id
    score: float
    probability: float | UnsetType = UNSET
    title: str | UnsetType | None = UNSET
    genres: list[str] | UnsetType = UNSET
    why: list[Share] | UnsetType = UNSET


class Recommendation(Struct, kw_only=True):
    """What one user or history is recommended."""

    status: int | UnsetType = UNSET
    user: Id | UnsetType = UNSET
    source: str
    reason: str | UnsetType = UNSET
    model: str
    request_id: str | UnsetType = UNSET
    items: list[Item]


class Result(Struct, kw_only=True):
    """A member of a batch that could not be answered."""

    status: int
    user: Id | UnsetType = UNSET
    error: dict[str, Any]


class Problem(Exception):
    """A request that is answered by an error.

    Args:
        status: of HTTP.
        code: for programs.
        message: for people: the rule and the value.
        field: what breaks the rule, or None.
        retry: seconds after which the client may try again, or None.
        allow: methods that the path has, where another one was used.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        field: str | None = None,
        retry: int | None = None,
        allow: Sequence[str] = (),
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.field, self.retry = status, code, message, field, retry
        self.allow = allow

    def body(self) -> dict[str, Any]:
        """What the client reads."""
        said = {"code": self.code, "message": self.message}
        return said if self.field is None else said | {"field": self.field}


def read_json(body: bytes) -> Any:
    """A JSON document, strictly: UTF-8, no NaN, no number beyond float64, no key twice, whole Unicode.

    Raises:
        Problem: it is none.
    """
    try:
        found = json.loads(body.decode(), object_pairs_hook=_object, parse_constant=_constant, parse_float=_float)
        if b"\\ud" in body.lower():
            json.dumps(found, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise Problem(400, "bad_json", f"the body must be JSON ({_short(error)})", "body") from error
    return found


def read_body(body: bytes, kind: type[Any]) -> Any:
    """A JSON document of a shape.

    Raises:
        Problem: it is none, or as ``shaped``.
    """
    return shaped(read_json(body), kind)


def shaped(document: Any, kind: type[Any]) -> Any:
    """What a document of JSON says, in a shape.

    Raises:
        Problem: it has another shape: ``field``, rule and value say where and why.
    """
    try:
        return msgspec.convert(document, kind)
    except msgspec.ValidationError as error:
        rule, _, path = str(error).partition(" - at `$")
        path = path.rstrip("`")
        if named := re.fullmatch(r"Object (missing required|contains unknown) field `(.*)`", rule):
            fields = "" if path else f"; fields are {', '.join(getattr(kind, '__struct_fields__', ()))}"
            said = "must be given" if "missing" in rule else f"is no field that is known here{fields}"
            path, rule = f"{path}.{named[2]}", said
        elif named := re.fullmatch(r"Expected `(.+?)`(, got `.+`|.*)", rule):
            bound = "" if named[2].startswith(",") else named[2]
            rule = f"must be {named[1].replace(' | ', ' or ')}{bound}{_value(document, path)}"
        field = path.lstrip(".") or "body"
        raise Problem(422, "bad_request", f"{field[:200]} {rule[:400]}", field[:200]) from error


def _value(document: Any, path: str) -> str:
    """What stands at a place of a document, for a message."""
    for name, index in re.findall(r"\.([^.\[]+)|\[(\d+)\]", path):
        try:
            document = document[name] if name else document[int(index)]
        except (KeyError, IndexError, TypeError):
            return ""
    return "" if "[...]" in path else f" (got {json.dumps(document, ensure_ascii=False):.80})"


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key occurs twice")
    return found


def _constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _float(text: str) -> float:
    found = float(text)
    if math.isinf(found):
        raise ValueError(f"{text:.40} is beyond the range of float64")
    return found


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:120]
