"""The file of a journal: an SQLite database in WAL mode whose commits are on the disk when they return.

    about(name, value)                                   the types of ids
    events(row, event_id, user, item, type, weight, time)
    deleted(event_id, user)                              events that were deleted: a repeat stays without effect
    removals(row, user, item)                            what no stored history of a model may bring back; the whole
                                                         user where item is NULL
    exposures(row, time, user, arm, model, request_id, items)

Deleted rows are overwritten with zeros (``secure_delete``).
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hashlgn.errors import ArgumentError, JournalError, JournalFullError
from hashlgn.serve.journal.events import Id, Row

__all__ = ["WAIT", "Store", "failure"]

_MARK = 0x484C474A  # application_id: HLGJ
_VERSION = 1
_CACHE = 4096  # KiB of pages that the writing connection keeps; beside it the system keeps what it has space for
WAIT = 10.0  # seconds for a lock of another process, such as a backup
_TABLES = """
CREATE TABLE about(name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE events(row INTEGER PRIMARY KEY AUTOINCREMENT, event_id TEXT NOT NULL UNIQUE, user NOT NULL, item NOT NULL,
    type TEXT, weight REAL NOT NULL, time INTEGER NOT NULL);
CREATE INDEX events_of_user ON events(user, item);
CREATE TABLE deleted(event_id TEXT PRIMARY KEY, user NOT NULL) WITHOUT ROWID;
CREATE INDEX deleted_of_user ON deleted(user);
CREATE TABLE removals(row INTEGER PRIMARY KEY AUTOINCREMENT, user NOT NULL, item);
CREATE INDEX removals_of_user ON removals(user, item);
CREATE TABLE exposures(row INTEGER PRIMARY KEY, time INTEGER NOT NULL, user NOT NULL, arm TEXT NOT NULL, model TEXT,
    request_id TEXT, items TEXT NOT NULL);
CREATE INDEX exposures_of_user ON exposures(user);
"""


def failure(path: Path, error: sqlite3.Error) -> JournalError:
    """The error of the project for one of SQLite."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is not None and code & 0xFF == sqlite3.SQLITE_FULL:
        return JournalFullError(f"{path}: the disk is full; nothing was written")
    if code is not None and code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return JournalError(
            f"{path} is damaged or no journal of events ({error}; hashlgn.load(journal=) keeps changes of a model in "
            f"files of another kind): put a backup in its place, "
            f"or save what can be read: hashlgn events recover {path} --out NEW.db"
        )
    return JournalError(f"{path}: {error}")


class Store:
    """One connection to a journal.

    Args:
        path: the file.
        types: types of the ids of users and of items, for a new journal; None opens what exists.
        writes: whether this connection writes; there is one such connection.

    Raises:
        JournalError: the file is missing, damaged, no journal, or of another version.
    """

    def __init__(self, path: Path, types: tuple[str, str] | None = None, *, writes: bool = False) -> None:
        self.path = path
        if not path.exists() and not writes:
            raise JournalError(f"{path}: there is no such journal")
        try:
            mode = "rwc" if writes else "ro"
            where = (
                f"file:{str(path.absolute()).replace('%', '%25').replace('?', '%3f').replace('#', '%23')}?mode={mode}"
            )
            self.db = sqlite3.connect(where, WAIT, isolation_level=None, check_same_thread=False, uri=True)
        except sqlite3.Error as error:
            raise failure(path, error) from error
        try:
            self._set_up(types, writes)
        except sqlite3.Error as error:
            self.db.close()
            raise failure(path, error) from error
        except JournalError:
            self.db.close()
            raise

    def _set_up(self, types: tuple[str, str] | None, writes: bool) -> None:
        db = self.db
        mark, version = (db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version"))
        if mark != _MARK and (not writes or db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]):
            raise JournalError(f"{self.path} is no journal of hashlgn")
        if mark == _MARK and version != _VERSION:
            raise JournalError(f"{self.path}: version {version} is unknown; this hashlgn reads version {_VERSION}")
        db.execute(f"PRAGMA cache_size = -{_CACHE if writes else _CACHE // 8}")
        if not writes:
            return
        if mark != _MARK:
            db.execute("PRAGMA auto_vacuum = INCREMENTAL")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA secure_delete = ON")
        if mark != _MARK:
            user, item = types or ("int", "int")
            marks = f"PRAGMA application_id = {_MARK}; PRAGMA user_version = {_VERSION};"
            about = f"INSERT INTO about VALUES ('user', '{user}'), ('item', '{item}');"
            db.executescript(f"BEGIN IMMEDIATE; {_TABLES} {about} {marks} COMMIT;")

    def close(self) -> None:
        """Close the connection."""
        self.db.close()

    def check(self) -> None:
        """Read the whole file.

        Raises:
            JournalError: a page is damaged; the message says how to recover.
        """
        with self.reading():
            found = self.db.execute("PRAGMA quick_check(1)").fetchone()[0]
            if found != "ok":
                error = sqlite3.DatabaseError(" ".join(found.split()))
                error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
                raise error

    @classmethod
    @contextlib.contextmanager
    def read(cls, path: Path) -> Iterator[Store]:
        """One view of the journal in a file; the connection ends with it."""
        with contextlib.closing(cls(path)) as store, store.reading():
            yield store

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """One view of the journal for several queries; errors of SQLite become the project's."""
        try:
            self.db.execute("BEGIN")
            try:
                yield
            finally:
                if self.db.in_transaction:
                    self.db.execute("ROLLBACK")
        except sqlite3.Error as error:
            raise failure(self.path, error) from error

    @property
    def types(self) -> tuple[str, str]:
        """Types of the ids of users and of items."""
        said = dict(self.db.execute("SELECT name, value FROM about"))
        return said["user"], said["item"]

    def set_types(self, types: tuple[str, str]) -> None:
        """Read the ids of a journal in the types of a model: those of an empty journal change.

        Raises:
            ArgumentError: the journal holds ids of another type.
        """
        if types == self.types:
            return
        if any(self.db.execute(f"SELECT 1 FROM {name} LIMIT 1").fetchone() for name in ("events", "removals")):
            raise ArgumentError(
                f"the model must have ids of the types of the journal, {' and '.join(self.types)} for users and items "
                f"(got {' and '.join(types)})"
            )
        pairs = list(zip(types, ("user", "item"), strict=True))
        self.db.executemany("UPDATE about SET value = ? WHERE name = ?", pairs)

    def marks(self) -> tuple[int, int]:
        """The last row of the events and of the removals."""
        last = dict(self.db.execute("SELECT name, seq FROM sqlite_sequence"))
        return last.get("events", 0), last.get("removals", 0)

    def event_in(self, row: int) -> str | None:
        """Name of the event in a row; None where there is none."""
        found = self.db.execute("SELECT event_id FROM events WHERE row = ?", (row,)).fetchone()
        return None if found is None else found[0]

    def holds(self, marks: tuple[int, int], last: str | None) -> bool:
        """Whether what is known by the last rows of events and removals, and the name of the last event, is of this
        journal.
        """
        events, removals = self.marks()
        return marks[0] <= events and marks[1] <= removals and last is not None and self.event_in(marks[0]) == last

    def insert(self, rows: list[Row], *, deleted: bool) -> list[Row]:
        """Add events, and say which of them are new.

        Args:
            rows: the events.
            deleted: whether there may be deleted events, which stay deleted.
        """
        execute, new = self.db.execute, []
        for row in rows:
            if deleted and execute("SELECT 1 FROM deleted WHERE event_id = ?", row[:1]).fetchone():
                continue
            done = execute(
                "INSERT INTO events(event_id, user, item, type, weight, time) VALUES (?, ?, ?, ?, ?, ?) "
                "ON CONFLICT(event_id) DO NOTHING",
                row,
            )
            if done.rowcount:
                new.append(row)
        return new

    def insert_exposures(self, rows: list[tuple[Any, ...]]) -> None:
        """Add exposures: time, user, arm, model, request id and items as JSON."""
        query = "INSERT INTO exposures(time, user, arm, model, request_id, items) VALUES (?, ?, ?, ?, ?, ?)"
        self.db.executemany(query, rows)

    def delete_event(self, event_id: str) -> Id | None:
        """Delete an event, and the item from the stored history where no other event names it.

        Returns:
            Its user, or None where there is no such event.
        """
        found = self.db.execute("SELECT user, item FROM events WHERE event_id = ?", (event_id,)).fetchone()
        if found is None:
            return None
        self.db.execute("INSERT INTO deleted VALUES (?, ?)", (event_id, found[0]))
        self.db.execute("DELETE FROM events WHERE event_id = ?", (event_id,))
        self._remove(*found)
        user: Id = found[0]
        return user

    def delete_item(self, user: Id, item: Id) -> int:
        """Delete all events of a user with an item, and the item from stored histories; the number of events."""
        self.db.execute(
            "INSERT INTO deleted SELECT event_id, user FROM events WHERE user = ? AND item = ?", (user, item)
        )
        done = self.db.execute("DELETE FROM events WHERE user = ? AND item = ?", (user, item))
        self._remove(user, item)
        return done.rowcount

    def delete_user(self, user: Id) -> int:
        """Delete all that is known of a user, but that they are deleted; the number of events."""
        for table in ("exposures", "deleted", "removals"):
            self.db.execute(f"DELETE FROM {table} WHERE user = ?", (user,))
        done = self.db.execute("DELETE FROM events WHERE user = ?", (user,))
        self._remove(user, None)
        return done.rowcount

    def _remove(self, user: Id, item: Id | None) -> None:
        if self.db.execute("SELECT 1 FROM removals WHERE user = ? AND item IS NULL", (user,)).fetchone():
            item = None  # once deleted, always deleted; the new row tells who reads later that something changed
        self.db.execute("DELETE FROM removals WHERE user = ? AND item IS ?", (user, item))
        self.db.execute("INSERT INTO removals(user, item) VALUES (?, ?)", (user, item))

    def has_deleted(self) -> bool:
        """Whether there are deleted events."""
        return self.db.execute("SELECT 1 FROM deleted LIMIT 1").fetchone() is not None

    def pairs_of(self, user: Id) -> list[tuple[Id, float, int]]:
        """Item, weight and time of all events of a user, by time; those of one time as they arrived."""
        query = "SELECT item, weight, time FROM events WHERE user = ? ORDER BY time, row"
        return self.db.execute(query, (user,)).fetchall()

    def removed_of(self, user: Id) -> set[Id | None]:
        """The items that were removed from a user's stored history; None among them: all."""
        return {item for (item,) in self.db.execute("SELECT item FROM removals WHERE user = ?", (user,))}

    def rows_after(self, row: int, *columns: str) -> Iterator[list[tuple[Any, ...]]]:
        """Columns of the events behind a row, as they arrived, some thousands at a time."""
        cursor = self.db.execute(f"SELECT {', '.join(columns)} FROM events WHERE row > ? ORDER BY row", (row,))
        while rows := cursor.fetchmany(50_000):
            yield rows

    def removals_after(self, row: int) -> list[tuple[Id, Id | None]]:
        """Users and items of the removals behind a row."""
        return self.db.execute("SELECT user, item FROM removals WHERE row > ? ORDER BY row", (row,)).fetchall()
