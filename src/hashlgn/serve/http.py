"""The little of HTTP that the service needs over ASGI: requests with limits, answers, and their headers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote_to_bytes

import msgspec

from hashlgn.serve.shapes import Limits, Problem

__all__ = ["JSON", "Answer", "Request", "encoded", "segments_of"]

JSON = b"application/json"
_SAFE = [
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"referrer-policy", b"no-referrer"),
]
encoded = msgspec.json.Encoder().encode


@dataclass(slots=True)
class Answer:
    """What is sent back."""

    body: bytes
    status: int = 200
    kind: bytes = JSON
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)

    async def send(self, send: Callable[[Any], Awaitable[None]], request_id: str) -> None:
        """Send it."""
        headers = [
            (b"content-type", self.kind),
            (b"content-length", str(len(self.body)).encode()),
            (b"x-request-id", request_id.encode()),
            *_SAFE,
            *self.headers,
        ]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": self.body})


@dataclass(slots=True)
class Request:
    """A request.

    Attributes:
        scope: of ASGI.
        receive: of ASGI.
        limits: of bodies and of waiting.
        request_id: names it in answers and in the log.
        parts: the variable segments of the path, decoded.
    """

    scope: Any
    receive: Callable[[], Awaitable[Any]]
    limits: Limits
    request_id: str
    parts: list[str] = field(default_factory=list)

    def header(self, name: bytes) -> bytes | None:
        """The first header of a name."""
        return next((value for key, value in self.scope["headers"] if key == name), None)

    def query(self) -> dict[str, str]:
        """The parameters of the query.

        Raises:
            Problem: one is given twice, or is no text.
        """
        raw = self.scope["query_string"]
        if not raw:
            return {}
        try:
            pairs = parse_qsl(raw.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=64)
        except ValueError as error:
            raise Problem(400, "bad_query", "the query must be UTF-8 in percent code", "query") from error
        found = dict(pairs)
        if len(found) < len(pairs):
            raise Problem(400, "bad_query", "a parameter must be given once", "query")
        return found

    async def body(self) -> bytes:
        """The body.

        Raises:
            Problem: it is too long, or the client takes too long to send it.
        """
        too_long = Problem(413, "too_large", f"the body must have at most {self.limits.body} bytes", "body")
        size = self.header(b"content-length")
        if size is not None and size.isdigit() and int(size) > self.limits.body:
            raise too_long
        parts, total = [], 0
        loop = asyncio.get_running_loop()
        end = loop.time() + self.limits.seconds
        while True:
            try:
                message = await asyncio.wait_for(self.receive(), max(0.0, end - loop.time()))
            except TimeoutError:
                raise Problem(408, "slow", f"the body must come within {self.limits.seconds:g} s", "body") from None
            if message["type"] == "http.disconnect":
                raise Problem(400, "gone", "the client went away", "body")
            parts.append(message.get("body", b""))
            total += len(parts[-1])
            if total > self.limits.body:
                raise too_long
            if not message.get("more_body"):
                return b"".join(parts)


def segments_of(path: bytes) -> list[str]:
    """The segments of a path, decoded one by one: an id may hold a slash as %2F.

    Raises:
        Problem: it is no UTF-8.
    """
    try:
        return [(unquote_to_bytes(part) if b"%" in part else part).decode() for part in path.split(b"/")[1:]]
    except UnicodeDecodeError as error:
        raise Problem(400, "bad_path", "the path must be UTF-8 in percent code", "path") from error
