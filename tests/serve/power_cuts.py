"""Cut the power at random moments: what was written since the last sync of a file is lost, kept or torn.

SQLite runs over a virtual file system (apsw's) that notes every write and every sync while a journal is written to.
Then disks are made as a power cut at some moment would leave them: all that was synced, and of what was not, each
sector of 512 bytes or not. The journal is opened from each, and must have every event that was acknowledged before.
``python tests/serve/power_cuts.py 1000`` tries a thousand cuts (``make soak``).
"""

from __future__ import annotations

import random
import shutil
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import apsw

from hashlgn.serve.journal import Event, Journal, store

SECTOR = 512
Op = tuple[str, str, int, bytes]  # what, name of the file, offset or size, bytes


class Disk(apsw.VFS):
    """The usual file system, with a note of everything that is done to it."""

    def __init__(self) -> None:
        self.ops: list[Op] = []
        super().__init__("noted", "")

    def xOpen(self, name: Any, flags: list[int]) -> NotedFile:
        return NotedFile(self.ops, name, flags)

    def xDelete(self, name: str, syncdir: bool) -> None:
        super().xDelete(name, syncdir)
        self.ops.append(("delete", Path(name).name, 0, b""))


class NotedFile(apsw.VFSFile):
    def __init__(self, ops: list[Op], name: Any, flags: list[int]) -> None:
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        self.ops, self.name = ops, Path(path or "temporary").name
        super().__init__("", name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:
        super().xWrite(data, offset)
        self.ops.append(("write", self.name, offset, bytes(data)))

    def xTruncate(self, size: int) -> None:
        super().xTruncate(size)
        self.ops.append(("truncate", self.name, size, b""))

    def xSync(self, flags: int) -> None:
        super().xSync(flags)
        self.ops.append(("sync", self.name, 0, b""))


class Rows:
    """A cursor of apsw with the methods of one of sqlite3."""

    def __init__(self, cursor: Any, rowcount: int) -> None:
        self.cursor, self.rowcount = cursor, rowcount

    def __iter__(self) -> Any:
        return iter(self.cursor)

    def fetchone(self) -> Any:
        return next(iter(self.cursor), None)

    def fetchall(self) -> list[Any]:
        return list(self.cursor)

    def fetchmany(self, size: int) -> list[Any]:
        return list(islice(self.cursor, size))


class Database:
    """A connection of apsw over the disk that takes notes, with the methods of one of sqlite3."""

    def __init__(self, where: str, *_: Any, **__: Any) -> None:
        self.db = apsw.Connection(
            where, apsw.SQLITE_OPEN_URI | apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE, "noted"
        )

    def execute(self, query: str, values: Any = ()) -> Rows:
        cursor = self.db.execute(query, tuple(values))
        return Rows(cursor, self.db.changes())

    def executemany(self, query: str, rows: Any) -> Rows:
        return Rows(self.db.executemany(query, rows), 0)

    def executescript(self, text: str) -> None:
        self.db.execute(text)

    @property
    def in_transaction(self) -> bool:
        return bool(self.db.in_transaction)

    def close(self) -> None:
        self.db.close()


def written(
    folder: Path, requests: int, seed: int, synchronous: str
) -> tuple[list[Op], list[tuple[int, list[str]]], list[tuple[int, int, str]]]:
    """Write to a journal; everything that was done to the disk, the requests and when they were acknowledged (as a
    number of operations), and the deletions: when asked, when acknowledged, and of what.
    """
    draws, disk = random.Random(seed), Disk()
    asked: list[tuple[int, list[str]]] = []
    deleted: list[tuple[int, int, str]] = []
    try:
        with (
            mock.patch.object(store, "sqlite3", SimpleNamespace(**{**vars(sqlite3), "connect": Database})),
            Journal.open(folder / "events.db") as journal,
        ):
            journal._store.db.execute("PRAGMA wal_autocheckpoint = 20")  # so that there are many
            journal._store.db.execute(f"PRAGMA synchronous = {synchronous}")
            for number in range(requests):
                names = [f"{number}-{n}" for n in range(draws.choice([1, 3, 40]))]
                journal.append([Event(draws.randrange(9), draws.randrange(50), name) for name in names])
                asked.append((len(disk.ops), names))
                if draws.random() < 0.2:
                    name, before = draws.choice(draws.choice(asked)[1]), len(disk.ops)
                    journal.delete_event(name).result()
                    deleted.append((before, len(disk.ops), name))
        return disk.ops, asked, deleted
    finally:
        disk.unregister()


def left(ops: list[Op], moment: int, draws: random.Random) -> dict[str, bytes]:
    """The files after a power cut behind ``moment`` operations."""
    durable: dict[str, bytearray] = {}
    pending: dict[str, list[Op]] = {}
    for op in ops[:moment]:
        what, name = op[:2]
        if what == "sync":
            for one in pending.pop(name, []):
                _do(durable.setdefault(name, bytearray()), one, None)
        elif what == "delete":
            durable.pop(name, None)
            pending.pop(name, None)
        else:
            pending.setdefault(name, []).append(op)
    share = draws.choice([0.0, 0.5, 0.9, 1.0])
    for name, waiting in pending.items():
        for one in waiting:
            _do(durable.setdefault(name, bytearray()), one, lambda: draws.random() < share)
    return {name: bytes(content) for name, content in durable.items()}


def _do(content: bytearray, op: Op, keeps: Any) -> None:
    what, _, offset, data = op
    if what == "truncate":
        if keeps is None or keeps():
            del content[offset:]
        return
    place = offset
    while place < offset + len(data):
        end = min((place // SECTOR + 1) * SECTOR, offset + len(data))
        if keeps is None or keeps():
            content.extend(bytes(max(0, end - len(content))))
            content[place:end] = data[place - offset : end - offset]
        place = end


def soak(cuts: int, requests: int = 200, seed: int = 0, synchronous: str = "FULL") -> Counter[str]:
    """Cut the power many times; how many cuts there were, and how many acknowledged events were looked for.

    Another ``synchronous`` than the journal's own shows that the test finds what is lost.
    """
    draws, total = random.Random(seed), Counter[str]()
    folder = Path(tempfile.mkdtemp())
    try:
        ops, asked, deleted = written(folder, requests, seed, synchronous)
        for cut in range(cuts):
            moment = draws.randrange(len(ops) + 1)
            place = folder / f"{cut}"
            place.mkdir()
            for name, content in left(ops, moment, draws).items():
                (place / name).write_bytes(content)
            with Journal.open(place / "events.db") as journal, journal.reading() as held, held.reading():
                rows = [name for (name,) in held.db.execute("SELECT event_id FROM events")]
            present = {*rows}
            maybe = {name for before, _, name in deleted if before < moment}
            gone = {name for _, after, name in deleted if after <= moment}
            assert len(present) == len(rows), "an event is there twice"
            assert not present & gone, "a deleted event is back"
            for after, names in asked:
                own = {*names} - maybe
                assert own <= present if after <= moment else not own & present or own <= present, (cut, moment, names)
            total += Counter(cuts=1, acknowledged=sum(len(names) for after, names in asked if after <= moment))
            shutil.rmtree(place)
    finally:
        shutil.rmtree(folder)
    return total + Counter(syncs=sum(op[0] == "sync" for op in ops), writes=sum(op[0] == "write" for op in ops))


if __name__ == "__main__":
    began = time.perf_counter()
    found = soak(int(sys.argv[1]))
    print(
        f"{found['cuts']} power cuts among {found['writes']:,} writes and {found['syncs']:,} syncs in "
        f"{time.perf_counter() - began:.0f} s: {found['acknowledged']:,} acknowledged events looked for; "
        f"none lost, none twice, none back again"
    )
