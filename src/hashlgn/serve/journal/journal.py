"""The journal of a service: one thread writes, what is acknowledged is on the disk, and histories know it at once."""

from __future__ import annotations

import contextlib
import json
import queue
import sqlite3
import threading
import time as clocks
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from hashlgn.data import Ids
from hashlgn.errors import ArgumentError, ArtifactError, JournalError
from hashlgn.inference.model import ServedModel
from hashlgn.serve.journal.events import Event, HistoryEntry, Id, Outcome, read_event, read_id
from hashlgn.serve.journal.live import LiveHistories, Stored
from hashlgn.serve.journal.lock import locked
from hashlgn.serve.journal.pairs import read_pairs, snapshot_file
from hashlgn.serve.journal.store import Store, failure
from hashlgn.serve.journal.writer import Changes, Writer

__all__ = ["Journal"]

_READERS = 2  # connections that are kept to read with
_ROUNDS = 3  # of catching up before a model is bound
_WORTH = 100_000  # events that are worth a file of pairs
_SCRUB = 30.0  # seconds after a deletion until it is written anew
_OFTEN = 1_000_000  # new events after which it is written anew


class Journal:
    """Events that last, and the histories that they make for each model that is bound.

    All methods may be called from any thread. A future is resolved once everything is on the disk and in the histories
    of all bound models.
    """

    def __init__(self, store: Store, lock: sqlite3.Connection, clock: Callable[[], int]) -> None:
        """Of an open file; see ``open``."""
        self.path, self._store, self._lock_file, self._clock = store.path, store, lock, clock
        self.types, self._deleted = store.types, store.has_deleted()
        self._views: list[LiveHistories] = []
        self._closed = False
        self._owed: dict[Id, None] = {}  # users whose histories may not be up to date
        self._timer: threading.Timer | None = None
        self._file_lock, self._pairs_lock = threading.Lock(), threading.Lock()
        self._since = 0  # events since the pairs were last written, about
        self._readers: queue.LifoQueue[Store] = queue.LifoQueue(_READERS)
        self._helper = ThreadPoolExecutor(1, "hashlgn-journal-helper")
        self._writer = Writer(store, self._tell)

    @classmethod
    def open(
        cls,
        path: str | Path,
        types: tuple[str, str] | None = None,
        *,
        check: bool = True,
        clock: Callable[[], int] = lambda: clocks.time_ns() // 1000,
    ) -> Journal:
        """Open a journal to write to, or start one.

        Args:
            path: the file.
            types: types of the ids of users and items, ``"int"`` or ``"str"``; those of the journal, or integers for a
                new one, where None. An empty journal takes the types that are given.
            check: read the whole file for damaged pages.
            clock: microseconds since 1970.

        Raises:
            JournalError: the file is damaged, no journal, or open in another process.
            ArgumentError: the journal holds ids of other types.
        """
        file = Path(path).expanduser()
        with contextlib.ExitStack() as opened:
            lock = opened.enter_context(contextlib.closing(locked(file)))
            try:
                store = opened.enter_context(contextlib.closing(Store(file, types, writes=True)))
                if check:
                    store.check()
                if types is not None:
                    store.set_types(types)
                journal = cls(store, lock, clock)
            except sqlite3.Error as error:
                raise failure(file, error) from error
            opened.pop_all()
        return journal

    # Events

    def submit(self, events: Sequence[Any]) -> Future[Outcome]:
        """Write events, all of them in one transaction.

        Args:
            events: ``Event``, mappings with its fields, or anything else with its attributes.

        Returns:
            Resolved with the outcome once all accepted ones are on the disk and in the histories. It fails with
            ``JournalFullError`` where the disk is full, and with ``JournalError`` where it cannot be written; then
            nothing of it has been written.

        Raises:
            JournalError: the journal is closed, or too many events wait to be written.
        """
        now, rows, rejected = self._clock(), [], []
        for index, event in enumerate(events):
            try:
                rows.append(read_event(event if hasattr(event, "event_id") else Event.of(event), self.types, now))
            except ArgumentError as error:
                rejected.append((index, str(error)))

        def work(changes: Changes) -> Outcome:
            new = self._store.insert(rows, deleted=self._deleted)
            changes.rows += new
            return Outcome(len(new), len(rows) - len(new), rejected)

        return self._writer.submit(work, len(rows))

    def append(self, events: Sequence[Any]) -> Outcome:
        """As ``submit``; returns when everything is on the disk."""
        return self.submit(events).result()

    def delete_event(self, event_id: str) -> Future[int]:
        """Delete an event for good; with the last event of an item, the item leaves the user's history.

        Returns:
            The number of events deleted: 1, or 0 where there is none of that name.
        """

        def work(changes: Changes) -> int:
            user = self._store.delete_event(event_id)
            if user is not None:
                self._deleted = True
                changes.users[user] = None
            return int(user is not None)

        return self._writer.submit(work)

    def delete_item(self, user: Any, item: Any, view: LiveHistories | None = None) -> Future[int]:
        """Delete an item from a user's history for good: its events, and what models were trained on.

        Returns:
            How many entries ``history(user, view)`` has lost.

        Raises:
            ArgumentError: an id cannot be of the type of the journal.
        """
        owner, gone = read_id("user", user, self.types[0]), read_id("item", item, self.types[1])

        def work(changes: Changes) -> int:
            self._deleted = True
            changes.users[owner] = None
            stored = int(gone in self._stored_items(owner, view))
            return self._store.delete_item(owner, gone) or stored

        return self._writer.submit(work)

    def delete_user(self, user: Any, view: LiveHistories | None = None) -> Future[int]:
        """Delete everything about a user for good: events, exposures, and the history that models were trained on.

        What is kept is that the user was deleted, since files of models still hold the history.

        Returns:
            How many entries ``history(user, view)`` has lost.

        Raises:
            ArgumentError: the id cannot be of the type of the journal.
        """
        owner = read_id("user", user, self.types[0])

        def work(changes: Changes) -> int:
            changes.users[owner] = None
            changes.gone.add(owner)
            stored = self._stored_items(owner, view) - {item for item, _, _ in self._store.pairs_of(owner)}
            return self._store.delete_user(owner) + len(stored)

        return self._writer.submit(work)

    def exposure(
        self,
        user: Any,
        arm: str,
        items: Sequence[Any],
        request_id: str | None = None,
        time: int | None = None,
        model: str | None = None,
    ) -> None:
        """Note what was shown to whom, best first, by which arm of a split. It is written within a second, and nobody
        waits for it. The time is in microseconds since 1970, now where it is None.
        """
        owner = read_id("user", user, self.types[0])
        shown = json.dumps([item if isinstance(item, str) else int(item) for item in items], ensure_ascii=False)
        when = self._clock() if time is None else time
        self._writer.expose((when, owner, arm, model, request_id, shown))

    # Histories

    def bind(self, model: ServedModel) -> LiveHistories:
        """The histories of all users as a model sees them, kept up to date until ``release``.

        Raises:
            ArgumentError: the model's ids are of other types than the journal's.
        """
        return self.bind_parts(model.item_ids, model.user_ids, Stored.of(model))

    def bind_parts(self, item_ids: Ids, user_ids: Ids, stored: Stored) -> LiveHistories:
        """As ``bind``, for a model in parts."""
        types = user_ids.id_type, item_ids.id_type
        if types != self.types:
            self._writer.submit(lambda _: self._store.set_types(types)).result()
            self.types = types
        view = LiveHistories(item_ids, user_ids, stored)
        with self.reading() as store:
            with self._pairs_lock, store.reading():
                pairs, removals, stale = read_pairs(store)
            if stale:
                self._scrub_soon()
            view.load(pairs, removals)
            marks = pairs.marks
            del pairs, removals
            for _ in range(_ROUNDS):  # what has arrived meanwhile, so that the writing thread has little left to do
                with store.reading():
                    marks = _catch_up(view, store, marks)

        def work(_: Changes) -> None:
            _catch_up(view, self._store, marks)
            self._views = [*self._views, view]

        self._writer.submit(work, inside=False).result()
        return view

    def release(self, view: LiveHistories) -> None:
        """Stop keeping a model's histories up to date."""

        def work(_: Changes) -> None:
            self._views = [other for other in self._views if other is not view]

        self._writer.submit(work, inside=False).result()

    def history(self, user: Any, view: LiveHistories | None = None) -> list[HistoryEntry]:
        """All events of a user, the newest first; behind them what else is in the history that a model stores.

        Raises:
            ArgumentError: the id cannot be of the type of the journal.
        """
        owner = read_id("user", user, self.types[0])
        with self.reading() as store, store.reading():
            query = "SELECT item, event_id, type, weight, time FROM events WHERE user = ? ORDER BY time DESC, row DESC"
            events = [HistoryEntry(*row) for row in store.db.execute(query, (owner,))]
            removed = store.removed_of(owner)
        return events if view is None else events + view.stored_entries(owner, {e.item for e in events}, removed)

    @contextlib.contextmanager
    def reading(self) -> Iterator[Store]:
        """A connection to read with, of those that are free or a new one."""
        try:
            store = self._readers.get_nowait()
        except queue.Empty:
            store = Store(self.path)
        try:
            yield store
        finally:
            try:
                self._readers.put_nowait(store)
            except queue.Full:
                store.close()

    def _stored_items(self, user: Id, view: LiveHistories | None) -> set[Id]:
        """The items that are left in the history that a model stores of a user."""
        removed = self._store.removed_of(user)
        return set() if view is None else {entry.item for entry in view.stored_entries(user, set(), removed)}

    def _tell(self, changes: Changes) -> None:
        """Bring the histories up to date with a transaction."""
        self._since += len(changes.rows)
        if self._since >= _OFTEN:
            self._since = 0
            self._helper.submit(self.snapshot)
        if changes.users:
            self._scrub_soon()
        owed = self._owed | changes.users  # where telling fails, the next transaction tells it again
        self._owed = owed | dict.fromkeys(row.user for row in changes.rows)
        for view in self._views:
            for user in [*view.apply(changes.rows), *owed]:
                _refresh(view, self._store, user)
            if view.freeze():
                self._helper.submit(self._fold, view)
        self._owed = {}

    def _scrub_soon(self) -> None:
        """Write the pairs anew within a while, since the file holds what was deleted."""
        with self._file_lock:
            written = self._pairs_lock.locked() or snapshot_file(self.path).exists()
            if self._timer is None and not self._closed and written:
                self._timer = threading.Timer(_SCRUB, self._helper.submit, [self.snapshot])
                self._timer.daemon = True
                self._timer.start()

    def _fold(self, view: LiveHistories) -> None:
        base = view.folded()
        with contextlib.suppress(JournalError):  # closed meanwhile
            self._writer.submit(lambda _: view.thaw(base), inside=False)

    # Keeping it small and safe

    def snapshot(self) -> bool:
        """Write the pairs to a file beside the journal, which the next start reads; whether it was worth it."""
        with self._pairs_lock:
            with self._file_lock:
                timer, self._timer = self._timer, None
            if timer is not None:
                timer.cancel()
            with self.reading() as store, store.reading():
                if store.marks()[0] < _WORTH and not snapshot_file(self.path).exists():
                    return False
                pairs, _, _ = read_pairs(store)
            try:
                pairs.save(snapshot_file(self.path))
            except ArtifactError:
                snapshot_file(self.path).unlink(missing_ok=True)  # it may hold what was deleted
                raise
        return True

    def compact(self, exposures_before: int | None = None) -> None:
        """Give back the space of what was deleted, a little at a time, while events are written.

        Args:
            exposures_before: delete exposures that are older, microseconds since 1970.
        """
        if exposures_before is not None:
            query = "DELETE FROM exposures WHERE row IN (SELECT row FROM exposures WHERE time < ? LIMIT 5000)"
            while self._writer.submit(lambda _: self._store.db.execute(query, (exposures_before,)).rowcount).result():
                pass

        def work(_: Changes) -> int:
            self._store.db.execute("PRAGMA incremental_vacuum(1000)").fetchall()
            return int(self._store.db.execute("PRAGMA freelist_count").fetchone()[0])

        while self._writer.submit(work).result():
            pass

    def restore(self, table: str, columns: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> int:
        """Add rows of a damaged journal as they are; the number of those that were not there. See ``recover``."""
        query = f"INSERT OR IGNORE INTO {table}({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"

        def work(changes: Changes) -> int:
            return self._store.db.executemany(query, rows).rowcount

        done: int = self._writer.submit(work, len(rows)).result()
        return done

    def close(self) -> None:
        """Write what waits, and close the file."""
        if self._closed:
            return
        self._closed = True
        if self._since >= _WORTH or self._timer is not None:
            with contextlib.suppress(JournalError, ArtifactError):  # it only saves time at the next start
                self.snapshot()
        self._writer.close()
        self._helper.shutdown()
        while not self._readers.empty():
            self._readers.get_nowait().close()
        self._store.close()
        self._lock_file.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _refresh(view: LiveHistories, store: Store, user: Id) -> None:
    view.replace(user, store.pairs_of(user), store.removed_of(user))


def _catch_up(view: LiveHistories, store: Store, marks: tuple[int, int]) -> tuple[int, int]:
    """Make the rows anew of all users of whom something was written behind ``marks``; the new marks."""
    users: dict[Id, None] = {}
    for rows in store.rows_after(marks[0], "user"):
        users |= dict.fromkeys(user for (user,) in rows)
    users |= dict.fromkeys(user for user, _ in store.removals_after(marks[1]))
    for user in users:
        _refresh(view, store, user)
    return store.marks()
