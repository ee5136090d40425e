"""Requests that arrive together are answered together; who comes alone does not wait for others."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from hashlgn.serve.limits import Limits
from hashlgn.serve.shapes import Problem

__all__ = ["Batcher"]

_MOST = 256  # requests answered at a time


class Batcher:
    """While one batch is answered in a thread, requests gather for the next one.

    Args:
        work: answers requests: a list of ``(model, question)`` to a list of answers or exceptions, in order.
        limits: how many may wait, and how long.
    """

    def __init__(self, work: Callable[[list[tuple[Any, Any]]], list[Any]], limits: Limits) -> None:
        self._work, self._limits = work, limits
        self._batches: SimpleQueue[Any] = SimpleQueue()
        threading.Thread(target=self._answer, name="hashlgn-answers", daemon=True).start()
        self._waiting: list[tuple[float, tuple[Any, Any], asyncio.Future[Any]]] = []
        self._running = False
        self.batches = self.answered = 0

    def ask(self, served: Any, question: Any) -> asyncio.Future[Any]:
        """The answer to a request, soon.

        Raises:
            Problem: too many requests wait.
        """
        if len(self._waiting) >= self._limits.waiting:
            raise Problem(
                503, "busy", f"requests that wait must be at most {self._limits.waiting} (--max-waiting)", retry=1
            )
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Any] = loop.create_future()
        self._waiting.append((time.monotonic(), (served, question), done))
        if not self._running:
            self._running = True
            loop.call_soon(self._start, loop)  # after whatever has arrived at the same moment
        return done

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        batch, self._waiting = self._waiting[:_MOST], self._waiting[_MOST:]
        late = time.monotonic() - self._limits.wait
        live = []
        for entry in batch:
            if entry[2].done():
                continue
            if entry[0] < late:
                entry[2].set_exception(
                    Problem(503, "busy", f"a request must wait at most {self._limits.wait:g} s (--max-wait)", retry=1)
                )
            else:
                live.append(entry)
        if not live:
            self._next(loop)
            return
        self._batches.put((loop, live))

    def close(self) -> None:
        """End the thread, once what it has is answered."""
        self._batches.put(None)

    def _answer(self) -> None:
        while (given := self._batches.get()) is not None:
            loop, batch = given
            try:
                answers = self._work([entry[1] for entry in batch])
            except Exception as error:
                answers = [error] * len(batch)
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(self._finish, loop, batch, answers)

    def _finish(self, loop: asyncio.AbstractEventLoop, batch: list[Any], answers: list[Any]) -> None:
        self.batches += 1
        self.answered += len(batch)
        for (_, _, done), answer in zip(batch, answers, strict=True):
            if done.done():
                continue
            if isinstance(answer, Exception):
                done.set_exception(answer)
            else:
                done.set_result(answer)
        self._next(loop)

    def _next(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._waiting:
            self._start(loop)
        else:
            self._running = False
