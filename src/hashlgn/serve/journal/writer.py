"""The one thread that writes to a journal: what waits is written in one transaction, then everybody is answered."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time as clocks
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from hashlgn.errors import HashLGNError, JournalError
from hashlgn.serve.journal.events import Id, Row
from hashlgn.serve.journal.store import WAIT, Store, failure

__all__ = ["Changes", "Writer"]

_GROUP = 10_000  # events that one transaction takes, at least one request
_WAITING = 200_000  # events that may wait to be written
_EXPOSURES = 100_000  # exposures that may wait; more are dropped and counted
_FLUSH = 0.5  # seconds that an exposure waits at most, where no events come
_REWRITTEN = 32 << 20  # bytes of a file that is written anew after a deletion, which takes a fraction of a second


@dataclass
class Changes:
    """What a transaction changed.

    Attributes:
        rows: events that were added.
        users: users of whom something was deleted, in order.
        gone: users of whom everything was deleted.
    """

    rows: list[Row] = field(default_factory=list)
    users: dict[Id, None] = field(default_factory=dict)
    gone: set[Id] = field(default_factory=set)


@dataclass(eq=False)
class _Task:
    work: Callable[[Changes], Any]  # does it, and gives the answer
    size: int  # number of events
    inside: bool  # whether it belongs in a transaction; else it runs between two
    done: Future[Any] = field(default_factory=Future)  # resolved once it is on the disk, and told


class Writer:
    """Group commit.

    Args:
        store: the connection that writes; it belongs to this thread from now on.
        tell: takes what a transaction changed, before anybody is answered.
    """

    def __init__(self, store: Store, tell: Callable[[Changes], None]) -> None:
        self._store, self._tell, self.dropped = store, tell, 0
        self._tasks: deque[_Task] = deque()
        self._exposures: deque[tuple[Any, ...]] = deque()
        self._changed = threading.Condition()
        self._waiting, self._closed = 0, False
        self._scrub, self._scrubbed = False, 0.0  # whether the log holds what was deleted; when it was last emptied
        self._thread = threading.Thread(target=self._run, name="hashlgn-journal", daemon=True)
        self._thread.start()

    def submit(self, work: Callable[[Changes], Any], size: int = 1, *, inside: bool = True) -> Future[Any]:
        """Do something in the next transaction, or between two; resolved with its answer once it is on the disk.

        Raises:
            JournalError: the writer is closed, or too many events wait.
        """
        task = _Task(work, size, inside)
        with self._changed:
            if self._closed:
                raise JournalError(f"{self._store.path} is closed")
            if self._waiting > _WAITING:
                raise JournalError(f"{self._store.path}: {self._waiting} events wait to be written; try again")
            self._waiting += size
            self._tasks.append(task)
            self._changed.notify()
        return task.done

    def expose(self, row: tuple[Any, ...]) -> None:
        """Write an exposure within a second."""
        if len(self._exposures) < _EXPOSURES:
            self._exposures.append(row)
        else:
            self.dropped += 1

    def close(self) -> None:
        """Write what waits, and end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            batch, closed = self._next()
            if batch and not batch[0].inside:
                _alone(batch[0], self._store)
            elif batch or self._exposures:
                self._transaction(batch)
            if self._scrub and clocks.monotonic() > self._scrubbed + _FLUSH:
                self._empty_log()
            if closed and not batch:
                return

    def _next(self) -> tuple[list[_Task], bool]:
        """What the next transaction takes, or one task that belongs in none; and whether nothing comes after it."""
        batch: list[_Task] = []
        with self._changed:
            if not self._tasks and not self._closed:
                self._changed.wait(_FLUSH)
            size = 0
            while self._tasks and (not batch or size + self._tasks[0].size <= _GROUP):
                if batch and not (self._tasks[0].inside and batch[0].inside):
                    break
                batch.append(self._tasks.popleft())
                size += batch[-1].size
            self._waiting -= size
            return batch, self._closed and not self._tasks

    def _transaction(self, batch: list[_Task]) -> None:
        db, changes = self._store.db, Changes()
        exposures = [self._exposures.popleft() for _ in range(len(self._exposures))]
        try:
            db.execute("BEGIN IMMEDIATE")
            answers = [task.work(changes) for task in batch]
            self._store.insert_exposures([one for one in exposures if one[1] not in changes.gone])
            db.execute("COMMIT")
        except Exception as error:  # whatever it is, nothing was written: who waits is told
            with contextlib.suppress(sqlite3.Error):
                if db.in_transaction:
                    db.execute("ROLLBACK")
            self._exposures.extendleft(reversed(exposures))
            _fail(batch, error, self._store)
            if not batch:
                clocks.sleep(_FLUSH)
            return
        try:
            self._tell(changes)
        except Exception as error:  # the events are on the disk: who sends them again is told so
            _fail(batch, error, self._store)
            return
        self._scrub |= bool(changes.users)
        for task, answer in zip(batch, answers, strict=True):
            task.done.set_result(answer)

    def _empty_log(self) -> None:
        """Take SQLite's log into the file, so that it holds nothing that was deleted; later where somebody reads it.

        A file that is small is written anew first. SQLite overwrites deleted rows, but not what it left behind when it
        moved a row inside a page.
        """
        db, self._scrubbed = self._store.db, clocks.monotonic()
        with contextlib.suppress(sqlite3.Error, OSError):  # as for want of space: the rows themselves are overwritten
            if self._store.path.stat().st_size <= _REWRITTEN:
                db.execute("VACUUM")
        with contextlib.suppress(sqlite3.Error):
            db.execute("PRAGMA busy_timeout = 0")
            self._scrub = bool(db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0])
            db.execute(f"PRAGMA busy_timeout = {WAIT * 1000:.0f}")


def _alone(task: _Task, store: Store) -> None:
    try:
        task.done.set_result(task.work(Changes()))
    except Exception as error:  # as above, of this task alone
        _fail([task], error, store)


def _fail(batch: list[_Task], error: Exception, store: Store) -> None:
    if isinstance(error, sqlite3.Error):
        error = failure(store.path, error)
    elif not isinstance(error, HashLGNError):
        error = JournalError(f"{store.path}: {error!r}")
    for task in batch:
        task.done.set_exception(error)
