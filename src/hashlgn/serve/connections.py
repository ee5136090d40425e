"""Connections of clients: bytes become requests, answers become bytes, and who is slow is cut off.

The parser is that of Node.js (llhttp, by ``httptools``). A general server between it and the service took as much time
as everything else that Python does for one recommendation; figures are in ``docs/serving.md``.

Four times bound what a client can hold up: how long a request may arrive (``send``), how long a connection may rest and
how long an answer may be taken (``idle``), and how long the end of a refused request is waited for. One timer looks
after all connections.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, Protocol

import httptools

from hashlgn.serve.http import Answer, Request, refusal
from hashlgn.serve.limits import Limits
from hashlgn.serve.shapes import Problem

__all__ = ["Connections", "Responder"]

_LOOK = 0.25  # seconds between two looks at all connections
_LINGER = 2.0  # seconds that a client whose request was refused may go on sending, so that it reads why


class Responder(Protocol):
    """What answers requests."""

    limits: Limits

    def respond(self, request: Request) -> None:
        """Let ``request.send`` be called with the answer, after this has returned; it does not raise."""

    def refused(self, problem: Problem) -> str:
        """Count a request that was refused before it was whole, and name it."""


class Connections:
    """All connections of a service. Make it while the loop runs.

    Args:
        service: answers their requests.
    """

    def __init__(self, service: Responder) -> None:
        self.service, self.limits = service, service.limits
        self.open: set[_Connection] = set()
        self.closing = False
        self.loop = asyncio.get_running_loop()
        self._timer = self.loop.call_later(_LOOK, self._look)

    def connect(self) -> asyncio.Protocol:
        """The protocol of a new connection."""
        return _Connection(self)

    async def close(self, seconds: float = 15.0) -> None:
        """Let requests that have begun end, and cut off what has not ended after some seconds."""
        self.closing, end = True, self.loop.time() + seconds
        for connection in list(self.open):
            connection.end_if_resting()
        while self.open and self.loop.time() < end:
            await asyncio.sleep(0.01)
        self._timer.cancel()
        for connection in list(self.open):
            connection.abort()

    def _look(self) -> None:
        self._timer, now = self.loop.call_later(_LOOK, self._look), self.loop.time()
        for connection in list(self.open):
            connection.look(now)


class _Connection(asyncio.Protocol):
    """One connection. Its requests are answered one after the other, in order."""

    def __init__(self, held: Connections) -> None:
        self._held, self._limits, self._loop = held, held.limits, held.loop
        self._parser = httptools.HttpRequestParser(self)
        self._transport: Any = None
        self._since = self._loop.time()  # when the present state began
        self._busy = False  # with a request that is being answered
        self._waiting: deque[Request] = deque()  # requests that came before the answer to the one before
        self._paused = False  # no more requests are read for now
        self._full = False  # the client does not take what was sent
        self._last = False  # no more requests are read at all
        self._problem: Problem | None = None  # what is wrong with the request that arrived last
        # Of the request that arrives:
        self._arriving = self._headed = False
        self._bytes = self._size = 0
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._body: list[bytes] = []

    # What the transport tells

    def connection_made(self, transport: Any) -> None:
        """A client has come."""
        self._transport = transport
        held, most = self._held, self._limits.connections
        too_many = len(held.open) >= most
        held.open.add(self)
        if too_many:
            self._refuse(Problem(503, "busy", f"connections must be at most {most} (--max-connections)", retry=1))

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone. What is being answered is finished, for nobody."""
        self._held.open.discard(self)
        self._last = True
        self._waiting.clear()

    def eof_received(self) -> bool:
        """The client sends no more; it may still wait for answers."""
        self._last = True
        return self._busy

    def pause_writing(self) -> None:
        """The client does not take what was sent."""
        self._full, self._since = True, self._loop.time()

    def resume_writing(self) -> None:
        """It has taken it."""
        self._full, self._since = False, self._loop.time()
        self._next()

    def data_received(self, data: bytes) -> None:
        """Bytes of one request, of a part of one, or of several."""
        if self._last:
            return
        if not self._arriving:
            self._arriving = True
            if not self._busy:
                self._since = self._loop.time()
        self._bytes += len(data)
        try:
            self._parser.feed_data(data)
            if not self._headed and self._bytes > self._limits.head:
                most = f"the head of a request must have at most {self._limits.head} bytes (--max-head)"
                self._problem = Problem(431, "too_large", most, "headers")
        except httptools.HttpParserUpgrade:  # no other protocol is spoken: the request is answered, and no other
            self._last = True
        except httptools.HttpParserError as error:
            own = error.__context__
            self._problem = own if isinstance(own, Problem) else Problem(400, "bad_http", f"this is no HTTP ({error})")
        if self._problem is not None:
            self._last = True
            self._next()

    # What the parser tells

    def on_message_begin(self) -> None:
        """A request begins."""
        self._arriving, self._headed = True, False
        self._url, self._size, self._headers, self._body = b"", 0, [], []

    def on_url(self, url: bytes) -> None:
        """A piece of the address."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header."""
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self._headed = True
        for name, value in self._headers:
            if name == b"content-length":
                self._check_size(int(value))
            elif name == b"expect" and value.lower() == b"100-continue" and not self._busy:
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self._body.append(body)
        self._size += len(body)
        self._check_size(self._size)

    def on_message_complete(self) -> None:
        """The request is whole."""
        address, parser = httptools.parse_url(self._url), self._parser
        method, keep = parser.get_method().decode(), parser.should_keep_alive()
        body = b"".join(self._body) if self._body else b""
        path, query = address.path or b"/", address.query or b""
        request = Request(method, path, query, self._headers, body, keep, self._answered)
        self._arriving, self._bytes, self._body = False, 0, []
        if not self._busy and not self._full:
            self._start(request)
            return
        self._waiting.append(request)
        if not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def _check_size(self, size: int) -> None:
        if size > self._limits.body:
            most = f"the body must have at most {self._limits.body} bytes (--max-body)"
            raise Problem(413, "too_large", most, "body")

    # Answers

    def _start(self, request: Request) -> None:
        self._busy = True
        self._held.service.respond(request)

    def _answered(self, request: Request, answer: Answer) -> None:
        self._busy, self._since = False, self._loop.time()
        if self._transport.is_closing():
            return
        close = not request.keep or self._held.closing
        self._transport.write(answer.sent(request.request_id, body=request.method != "HEAD", close=close))
        if close:
            self._end()
        else:
            self._next()

    def _next(self) -> None:
        """Go on with the next request, once the one before is answered and the answer is taken."""
        if self._busy or self._full:
            return
        if self._waiting:
            self._start(self._waiting.popleft())
        elif self._problem is not None:
            self._refuse(self._problem)
        elif self._last:
            self._end()
        elif self._paused:
            self._paused = False
            self._transport.resume_reading()

    def _refuse(self, problem: Problem) -> None:
        """Say what is wrong. The client may still be sending: it is heard for a while, or it would not read this."""
        self._last, self._problem, self._since = True, None, self._loop.time()
        request_id = self._held.service.refused(problem)
        self._transport.write(refusal(problem, request_id).sent(request_id, close=True))
        self._transport.write_eof()

    def _end(self) -> None:
        self._last, self._since = True, self._loop.time()
        self._transport.close()

    # Time

    def look(self, now: float) -> None:
        """Cut off a client that takes too long."""
        waited, limits = now - self._since, self._limits
        if self._full:
            if waited > limits.idle:
                self.abort()
        elif self._busy:
            return
        elif self._last:
            if waited > (limits.idle if self._transport.get_write_buffer_size() else _LINGER):
                self.abort()
        elif self._arriving:
            if waited > limits.send:
                most = f"a request must arrive within {limits.send:g} s (--max-send)"
                self._refuse(Problem(408, "slow", most, "body" if self._headed else "headers"))
        elif waited > limits.idle:
            self._end()

    def end_if_resting(self) -> None:
        """End it, unless a request arrives or is answered."""
        if not self._busy and not self._arriving and not self._waiting and not self._last:
            self._end()

    def abort(self) -> None:
        """End it at once."""
        self._transport.abort()
