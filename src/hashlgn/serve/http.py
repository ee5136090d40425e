"""Requests and answers of HTTP, as the handlers of the routes see them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import parse_qsl, unquote_to_bytes

import msgspec

from hashlgn.serve.shapes import Problem

__all__ = ["JSON", "Answer", "Request", "encoded", "parameters_of", "refusal", "segments_of"]

JSON = b"application/json"
_SAFE = b"x-content-type-options: nosniff\r\ncache-control: no-store\r\nreferrer-policy: no-referrer\r\n"
_STATUS = {int(status): b"HTTP/1.1 %d %s\r\n" % (status, status.phrase.encode()) for status in HTTPStatus}
encoded = msgspec.json.Encoder().encode


@dataclass(slots=True)
class Answer:
    """What is sent back."""

    body: bytes
    status: int = 200
    kind: bytes = JSON
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)

    def sent(self, request_id: str, *, body: bool = True, close: bool = False) -> bytes:
        """The bytes that go over the wire.

        Args:
            request_id: of the request.
            body: whether the body follows the headers; it does not where HEAD asks.
            close: whether the connection is closed behind it.
        """
        own = b"".join([b"%s: %s\r\n" % header for header in self.headers]) if self.headers else b""
        return b"%scontent-type: %s\r\ncontent-length: %d\r\nx-request-id: %s\r\n%s%s%s\r\n%s" % (
            _STATUS[self.status],
            self.kind,
            len(self.body),
            request_id.encode(),
            _SAFE,
            own,
            b"connection: close\r\n" if close else b"",
            self.body if body else b"",
        )


@dataclass(slots=True)
class Request:
    """A request that has arrived whole.

    Attributes:
        method: such as GET.
        path: as it was sent, in percent code.
        query: as it was sent, without the question mark.
        headers: names in lower case, and values.
        body: bytes; empty where there is none.
        keep: whether the connection stays open for another request.
        send: what is called with this request and its answer, but never before ``Service.respond`` has returned.
        route: its name in the log and in figures.
        request_id: names it in answers and in the log.
        began: when it had arrived, in seconds of ``time.perf_counter``.
        parts: the variable segments of the path, decoded.
    """

    method: str
    path: bytes
    query: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes = b""
    keep: bool = True
    send: Callable[[Request, Answer], None] | None = None
    route: str = "none"
    request_id: str = ""
    began: float = 0.0
    parts: list[str] = field(default_factory=list)

    def header(self, name: bytes) -> bytes | None:
        """The first header of a name, which is in lower case."""
        for key, value in self.headers:
            if key == name:
                return value
        return None


def parameters_of(query: bytes) -> dict[str, str]:
    """The parameters of a query.

    Raises:
        Problem: one is given twice, or is no text.
    """
    if not query:
        return {}
    try:
        pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=64)
    except ValueError as error:
        raise Problem(400, "bad_query", "the query must be UTF-8 in percent code", "query") from error
    found = dict(pairs)
    if len(found) < len(pairs):
        raise Problem(400, "bad_query", "a parameter must be given once", "query")
    return found


def refusal(problem: Problem, request_id: str) -> Answer:
    """The answer to a request that is refused."""
    headers = [] if problem.retry is None else [(b"retry-after", str(problem.retry).encode())]
    if problem.allow:
        headers.append((b"allow", ", ".join(problem.allow).encode()))
    if problem.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    return Answer(encoded({"error": problem.body(), "request_id": request_id}), problem.status, headers=headers)


def segments_of(path: bytes) -> list[str]:
    """The segments of a path, decoded one by one: an id may hold a slash as %2F.

    Raises:
        Problem: it is no UTF-8.
    """
    try:
        if b"%" not in path:
            return path.decode().split("/")[1:]
        return [unquote_to_bytes(part).decode() for part in path.split(b"/")[1:]]
    except UnicodeDecodeError as error:
        raise Problem(400, "bad_path", "the path must be UTF-8 in percent code", "path") from error
