"""One process writes to a journal at a time."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from hashlgn.errors import JournalError
from hashlgn.serve.journal.store import failure

__all__ = ["locked"]


def locked(path: Path) -> sqlite3.Connection:
    """A lock that one process has at a time, and that ends with the process: SQLite's own, on a file beside it.

    Raises:
        JournalError: another process has it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = sqlite3.connect(path.with_name(f"{path.name}.lock"), 0.2, isolation_level=None, check_same_thread=False)
        try:
            lock.execute("PRAGMA journal_mode = MEMORY")
            lock.execute("BEGIN EXCLUSIVE")
        except sqlite3.Error:
            lock.close()
            raise
    except OSError as error:
        raise JournalError(f"{path} cannot be written ({error.strerror or error})") from error
    except sqlite3.OperationalError as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code == sqlite3.SQLITE_BUSY:
            raise JournalError(f"{path} is open in another process") from error
        raise failure(path, error) from error
    return lock
