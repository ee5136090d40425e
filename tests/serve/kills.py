"""Kill a process that writes to a journal, at random moments, and look whether what it acknowledged is there.

``python tests/serve/kills.py 1000`` does it a thousand times (``make soak``); the test does it a few times. A process
opens the journal, binds a model, and writes and deletes from two threads with a clock that jumps by years. It says in a
pipe what it is about to do and what was acknowledged. It is killed with SIGKILL, and the journal is opened again.
"""

from __future__ import annotations

import os
import random
import select
import shutil
import signal
import sqlite3
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np

from hashlgn.data import Ids
from hashlgn.serve.journal import Event, Journal, LiveHistories, Stored

ITEMS, USERS = 50, 20
YEAR = 365 * 86_400 * 1_000_000


def bound(journal: Journal) -> LiveHistories:
    stored = Stored(np.zeros(USERS + 1, np.int64), np.empty(0, np.int32))
    return journal.bind_parts(Ids.range(ITEMS), Ids.range(USERS), stored)


def write(path: Path, pipe: int, run: int) -> None:
    """Write until killed. Lines: ``> batch size`` and ``? name`` before something is asked, ``+`` and ``-`` after."""
    draws = random.Random(run)

    def clock() -> int:
        return time.time_ns() // 1000 + draws.choice([0, 0, -30 * YEAR, 30 * YEAR])

    def say(line: str) -> None:
        os.write(pipe, f"{line}\n".encode())

    def load(thread: int) -> None:
        mine = random.Random(1000 * run + thread)
        for number in range(10**9):
            batch = f"{run:06d}-{thread}-{number}"
            events = [
                Event(mine.randrange(USERS), mine.randrange(ITEMS), f"{batch}-{n}", "view")
                for n in range(mine.choice([1, 2, 20]))
            ]
            say(f"> {batch} {len(events)}")
            outcome = journal.append(events)
            for event in events:
                if outcome.accepted != len(events) or event.item not in view.row(event.user)[0]:
                    say(f"! {event} is not in its history: {outcome}")
            say(f"+ {batch}")
            if journal.append(events[:1]).duplicates != 1:
                say(f"! {batch} was taken twice")
            if mine.random() < 0.3:
                name = f"{batch}-0"
                say(f"? {name}")
                journal.delete_event(name).result()
                say(f"- {name}")

    with Journal.open(path, clock=clock) as journal:
        view = bound(journal)
        say("opened")
        threads = [threading.Thread(target=load, args=(thread,), daemon=True) for thread in range(2)]
        for thread in threads:
            thread.start()
        while True:
            time.sleep(0.01)
            journal.compact() if draws.random() < 0.1 else None


def killed(path: Path, run: int, seconds: float, *, opened: bool) -> list[str]:
    """What a process said before it was killed, ``seconds`` after its start, or after it had opened the journal."""
    read, pipe = os.pipe()
    child = os.fork()
    if not child:
        os.close(read)
        try:
            write(path, pipe, run)
        except BaseException as error:
            os.write(pipe, f"! {error!r}\n".encode())
        finally:
            os._exit(1)
    os.close(pipe)
    if opened:
        select.select([read], [], [], 60)  # until it says something
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with os.fdopen(read, "rb") as said:
        return said.read().decode().split("\n")[:-1]


def check(path: Path, lines: list[str], run: int) -> Counter[str]:
    """Open the journal again, and compare it with what was said.

    Returns:
        How many events were acknowledged, deleted and present.
    """
    assert not [line for line in lines if line.startswith("!")], lines[-3:]
    said = {mark: [line[2:] for line in lines if line.startswith(f"{mark} ")] for mark in ">+?-"}
    sizes = {batch: int(size) for batch, size in (line.split() for line in said[">"])}
    acknowledged = {f"{batch}-{n}" for batch in said["+"] for n in range(sizes[batch])}
    with Journal.open(path) as journal:
        view = bound(journal)
        with journal.reading() as store, store.reading():
            query = "SELECT event_id FROM events WHERE event_id >= ? AND event_id < ?"
            rows = [name for (name,) in store.db.execute(query, (f"{run:06d}-", f"{run:06d}."))]
            pairs = set(store.db.execute("SELECT user, item FROM events"))
    present, maybe, deleted = {*rows}, {*said["?"]}, {*said["-"]}
    assert len(present) == len(rows), "an event is there twice"
    assert acknowledged - maybe <= present, f"lost: {sorted(acknowledged - maybe - present)[:3]}"
    assert not deleted & present, f"back again: {sorted(deleted & present)[:3]}"
    for batch, size in sizes.items():  # all of a request, or nothing
        own = {f"{batch}-{n}" for n in range(size)} - maybe
        assert not own & present or own <= present, f"half of {batch}"
    found = {(user, int(item)) for user in range(USERS) for item in view.row(user)[0]}
    assert found == pairs, "histories are not those of the events"
    return Counter(acknowledged=len(acknowledged), deleted=len(deleted), present=len(present), opened="opened" in lines)


def soak(kills: int, longest: float = 0.3, seed: int = 0) -> Counter[str]:
    draws, total = random.Random(seed), Counter[str]()
    folder = Path(tempfile.mkdtemp())
    try:
        for run in range(kills):
            opened = draws.random() < 0.75
            lines = killed(folder / "events.db", run, draws.uniform(0, longest), opened=opened)
            total += check(folder / "events.db", lines, run)
        with sqlite3.connect(folder / "events.db") as db:
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            assert db.execute("SELECT count(*) FROM events").fetchone()[0] == total["present"]
        db.close()
    finally:
        shutil.rmtree(folder)
    return total


if __name__ == "__main__":
    began, count = time.perf_counter(), int(sys.argv[1])
    found = soak(count)
    print(
        f"{count} kills ({found['opened']} after the journal was open) in {time.perf_counter() - began:.0f} s: "
        f"{found['acknowledged']:,} events acknowledged, {found['deleted']:,} of them deleted; "
        f"none lost, none twice, none back again"
    )
