"""Requests that arrive together are answered together; who comes alone does not wait for others."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any

from hashlgn.serve.limits import Limits
from hashlgn.serve.shapes import Problem

__all__ = ["Batcher", "settle"]

_MOST = 256  # requests answered at a time
# When it came, what it asks, what takes the answer, and in which loop
_Entry = tuple[float, tuple[Any, Any], Callable[[Any], None], asyncio.AbstractEventLoop]


class Batcher:
    """A thread answers requests: all that have come while it answered the ones before.

    From one batch it goes to the next by itself: if the loop had to start each, the search would stand still while the
    loop sends answers.

    Args:
        work: answers requests: a list of ``(model, question)`` to a list of answers or exceptions, in order.
        limits: how many may wait, and how long.
    """

    def __init__(self, work: Callable[[list[tuple[Any, Any]]], list[Any]], limits: Limits) -> None:
        self._work, self._limits = work, limits
        self._waiting: SimpleQueue[_Entry | None] = SimpleQueue()
        self.batches = self.answered = 0
        threading.Thread(target=self._run, name="hashlgn-answers", daemon=True).start()

    def admit(self) -> None:
        """See that there is space for a request, or for all members of a batch.

        Raises:
            Problem: too many requests wait.
        """
        if self._waiting.qsize() >= self._limits.waiting:
            most = f"requests that wait must be at most {self._limits.waiting} (--max-waiting)"
            raise Problem(503, "busy", most, retry=1)

    def put(self, served: Any, question: Any, done: Callable[[Any], None]) -> None:
        """Call ``done`` with the answer to a request, or with the exception that is in its place, soon."""
        self._waiting.put((time.monotonic(), (served, question), done, asyncio.get_running_loop()))

    def close(self) -> None:
        """End the thread, once what waits is answered."""
        self._waiting.put(None)

    def _run(self) -> None:
        entry = self._waiting.get()
        while entry is not None:
            batch = [entry]
            with contextlib.suppress(Empty):
                while len(batch) < _MOST and (entry := self._waiting.get_nowait()) is not None:
                    batch.append(entry)
            self._answer(batch)
            entry = None if entry is None else self._waiting.get()

    def _answer(self, batch: list[_Entry]) -> None:
        late = time.monotonic() - self._limits.wait
        live = [entry for entry in batch if entry[0] >= late]
        found: list[Any] = []
        if live:
            try:
                found = self._work([entry[1] for entry in live])
            except Exception as error:  # goes to everybody who waits, in place of an answer
                found = [error] * len(live)
            self.batches += 1
            self.answered += len(live)
        if len(live) < len(batch):
            most = f"a request must wait at most {self._limits.wait:g} s (--max-wait)"
            over = [entry for entry in batch if entry[0] < late]
            live, found = live + over, [*found, *(Problem(503, "busy", most, retry=1) for _ in over)]
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            batch[0][3].call_soon_threadsafe(_deliver, live, found)


def _deliver(batch: list[_Entry], answers: list[Any]) -> None:
    for (_, _, done, _), answer in zip(batch, answers, strict=True):
        done(answer)


def settle(future: asyncio.Future[Any], answer: Any) -> None:
    """Let a future have an answer, or the exception in its place."""
    if future.done():  # nobody waits any more
        return
    if isinstance(answer, Exception):
        future.set_exception(answer)
    else:
        future.set_result(answer)
