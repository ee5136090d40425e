"""What was acknowledged outlives kills, full disks, failing disks and clocks that jump."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from hashlgn.data import Ids
from hashlgn.errors import ArgumentError, JournalError, JournalFullError
from hashlgn.serve.journal import Event, Journal, LiveHistories, Stored, journal, time_text
from hashlgn.serve.journal.live import joined
from hashlgn.serve.journal.pairs import snapshot_file

NOW = 1_700_000_000
SECOND = 1_000_000


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Journal]:
    with Journal.open(tmp_path / "events.db", ("str", "int"), clock=lambda: NOW * SECOND) as opened:
        yield opened


def bound(journal: Journal, users: int = 3, items: int = 100) -> LiveHistories:
    ids = Ids([f"u{n}" for n in range(users)]) if journal.types[0] == "str" else Ids.range(users)
    return journal.bind_parts(Ids.range(items), ids, Stored(np.zeros(users + 1, np.int64), np.empty(0, np.int32)))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")
def test_kills_at_random_moments_lose_nothing() -> None:
    from kills import soak

    found = soak(12, longest=0.4)
    assert found["opened"] > 2 and found["acknowledged"] > 20


def test_power_cuts_lose_nothing() -> None:
    pytest.importorskip("apsw", reason="SQLite over a virtual file system is needed")
    from power_cuts import soak

    assert soak(25, requests=80)["acknowledged"] > 1000
    with pytest.raises((AssertionError, JournalError)):  # and what is not synced is lost
        soak(25, requests=80, synchronous="NORMAL")


def test_a_full_disk_loses_nothing_and_writes_nothing_half(opened: Journal) -> None:
    view = bound(opened)
    opened.append([Event("u1", 1, "first")])
    store = opened._store
    pages = store.db.execute("PRAGMA page_count").fetchone()[0]
    store.db.execute(f"PRAGMA max_page_count = {pages + 1}")
    accepted = 0
    with pytest.raises(JournalFullError, match="the disk is full; nothing was written"):
        while True:
            opened.append([Event("u2", n, f"{accepted}-{n}", "x" * 60) for n in range(20)])
            accepted += 1
    assert len(opened.history("u2")) == 20 * accepted  # not half of a request
    assert len(view.row("u1")[0]) == 1
    store.db.execute(f"PRAGMA max_page_count = {pages + 1000}")
    assert opened.append([Event("u2", n, f"{accepted}-{n}", "x" * 60) for n in range(20)]).accepted == 20
    assert view.row("u2")[0].tolist() == list(range(20))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a limit of the process stands for a full disk")
def test_a_file_that_cannot_grow_refuses_and_goes_on_later(tmp_path: Path) -> None:
    import resource

    path = tmp_path / "events.db"
    with Journal.open(path) as first:
        first.append([Event(1, 1, "first")])
    child = os.fork()
    if not child:
        code = 1
        try:
            with Journal.open(path) as limited:
                soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
                resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 40_000, hard))
                count = 0
                try:
                    for number in range(10_000):
                        limited.append([Event(2, n, f"{number}-{n}") for n in range(10)])
                        count += 10
                except JournalError:
                    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
                    limited.append([Event(3, 3, f"after {count}")])
                    code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    with Journal.open(path) as again:
        count = int((again.history(3)[0].event_id or "").removeprefix("after "))
        assert count > 0 and len(again.history(2)) == count
        assert again.append([Event(1, 1, "first")]).duplicates == 1


def test_clocks_that_run_ahead_and_jump(tmp_path: Path) -> None:
    now = [NOW * SECOND]
    with Journal.open(tmp_path / "events.db", clock=lambda: now[0]) as opened:
        opened.append(
            [Event(1, 1, time=NOW + 59), Event(1, 2, time=NOW + 61), Event(1, 3, time="2999-01-01T00:00:00Z")]
        )
        now[0] = 0  # the server's own clock falls back to 1970
        assert opened.append([Event(1, 4)]).accepted == 1
        now[0] = (NOW + 30 * 365 * 86_400) * SECOND
        assert opened.append([Event(1, 5), Event(1, 5)]).accepted == 2  # names that are made differ
        times = {entry.item: entry.time for entry in opened.history(1)}
    assert times == {1: (NOW + 59) * SECOND, 2: NOW * SECOND, 3: NOW * SECOND, 4: 0, 5: now[0]}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"item": 1}, "user must be given"),
        ({"user": "a", "item": None}, "item must be given"),
        ({"user": "a", "item": "1.5"}, "item must be an integer"),
        ({"user": "a", "item": True}, "item must be an integer"),
        ({"user": "a", "item": 2**63}, "item must fit into 64"),
        ({"user": "", "item": 1}, "user must be text of 1 to"),
        ({"user": "\ud800", "item": 1}, "user must be valid Unicode"),
        ({"user": {}, "item": 1}, "user must hold integers or strings"),
        ({"user": "a", "item": 1, "weight": 0}, "weight must be from 1e-6 to 1e12"),
        ({"user": "a", "item": 1, "weight": float("nan")}, "weight must be from 1e-6 to 1e12"),
        ({"user": "a", "item": 1, "weight": 1e300}, "weight must be from 1e-6 to 1e12"),
        ({"user": "a", "item": 1, "weight": 1e13}, "weight must be from 1e-6 to 1e12"),
        ({"user": "a", "item": 1, "weight": 1e-300}, "weight must be from 1e-6 to 1e12"),
        ({"user": "a", "item": 1, "time": "yesterday"}, "time must be"),
        ({"user": "a", "item": 1, "time": NOW * 1000}, "time must be"),
        ({"user": "a", "item": 1, "time": float("inf")}, "time must be"),
        ({"user": "a", "item": 1, "time": []}, "time must be"),
        ({"user": "a", "item": 1, "event_id": 5}, "event_id must be text"),
        ({"user": "a", "item": 1, "event_id": "x" * 257}, "event_id must be text"),
        ({"user": "a", "item": 1, "kind": "view"}, "no other fields"),
        ("no event", "an event must be an object"),
    ],
)
def test_an_event_that_breaks_a_rule_is_rejected_and_the_others_count(fields, message: str, opened: Journal) -> None:
    sent = [{"user": "a", "item": 1}, fields, {"user": 7, "item": "08", "time": time_text(NOW * SECOND)}]
    outcome = opened.append(sent)
    assert outcome.accepted == 2 and [index for index, _ in outcome.rejected] == [1]
    assert message in outcome.rejected[0][1]
    assert [(e.item, e.time) for e in opened.history("7")] == [(8, NOW * SECOND)]


def test_one_process_has_a_journal(opened: Journal) -> None:
    with pytest.raises(JournalError, match="open in another process"):
        Journal.open(opened.path)


def test_ids_of_another_type_are_refused_where_there_are_events(opened: Journal) -> None:
    opened.append([Event("a", 1)])
    stored = Stored(np.zeros(2, np.int64), np.empty(0, np.int32))
    with pytest.raises(ArgumentError, match="types of the journal, str and int"):
        opened.bind_parts(Ids([1]), Ids([1]), stored)
    opened.close()
    with pytest.raises(JournalError, match="closed"):
        opened.append([Event("a", 1)])


def test_nothing_of_a_deleted_user_is_left_in_any_file(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(journal, "_WORTH", 3)
    with Journal.open(tmp_path / "events.db", ("str", "str")) as opened:
        view = opened.bind_parts(Ids(["x"]), Ids(["u"]), Stored(np.zeros(2, np.int64), np.empty(0, np.int32)))
        opened.append([Event(f"other {n}", "x") for n in range(300)])
        opened.append([Event("somebody", f"secret item {n}", f"secret name {n}", "secret type") for n in range(300)])
        opened.exposure("somebody", "a", ["secret item 1"], "secret request")
        opened.append([Event("other 1", "y")])
        opened.delete_event("secret name 7").result()
        assert opened.snapshot() and snapshot_file(opened.path).exists()
        began = time.monotonic()
        assert opened.delete_user("somebody").result() == 299
        assert opened.history("somebody", view) == [] and not len(view.row("somebody")[0])
        files = [opened.path, Path(f"{opened.path}-wal")]
        # A second, and no test that hangs where it is never.
        while any(b"secret" in file.read_bytes() for file in files):
            assert time.monotonic() < began + 60
            time.sleep(0.05)
    # what kept them is written anew, at the latest when the journal is closed
    for file in tmp_path.iterdir():
        assert b"secret" not in file.read_bytes(), file


def test_a_kept_file_of_pairs_that_does_not_fit_is_not_used(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(journal, "_WORTH", 3)
    path = tmp_path / "events.db"
    with Journal.open(path) as opened:
        opened.append([Event(1, n, f"{n}") for n in range(9)])
        opened.append([Event(2, 5, "last")])
        assert opened.snapshot()
        kept = snapshot_file(path).read_bytes()
        opened.append([Event(2, 6)])
        opened.delete_item(1, 3).result()  # a kill may leave the file that was written before
    snapshot_file(path).write_bytes(kept)
    with Journal.open(path) as opened:
        assert bound(opened).row(1)[0].tolist() == [0, 1, 2, 4, 5, 6, 7, 8]
        assert bound(opened).row(2)[0].tolist() == [5, 6]
    damaged = bytearray(kept)
    damaged[-3] ^= 1
    snapshot_file(path).write_bytes(damaged)
    with Journal.open(path) as opened:
        assert bound(opened).row(1)[0].tolist() == [0, 1, 2, 4, 5, 6, 7, 8]
    with Journal.open(tmp_path / "other.db") as other:
        other.append([Event(1, 50, f"other {n}") for n in range(30)])
    snapshot_file(tmp_path / "other.db").write_bytes(kept)
    with Journal.open(tmp_path / "other.db") as other:
        assert bound(other).row(1)[0].tolist() == [50] and not len(bound(other).row(2)[0])


def test_compaction_gives_space_back_while_events_are_written(opened: Journal) -> None:
    opened.append([Event(f"user {n}", n, f"event {n}", "x" * 60) for n in range(9000)])
    for user in range(8000):
        done = opened.delete_user(f"user {user}")
        opened.exposure("user 8500", "a", [user], time=user)
    done.result()
    opened.append([Event("user 8500", 1)])  # the exposures are written
    waiting = [opened.submit([Event("user 8500", n)]) for n in range(50)]
    opened.compact(exposures_before=7000)
    assert all(done.result().accepted for done in waiting)
    with opened.reading() as store, store.reading():
        assert store.db.execute("SELECT count(*) FROM exposures").fetchone() == (1000,)
        free, pages = (store.db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("freelist_count", "page_count"))
    assert free == 0 and pages < 400  # 9,000 events took some 700
    assert len(opened.history("user 8500")) == 52


def test_folding_keeps_no_row_that_nobody_reads(opened: Journal, monkeypatch) -> None:
    from hashlgn.serve.journal import live

    monkeypatch.setattr(live, "_FOLDED", 2)
    view = bound(opened)
    for item in range(60):
        opened.append([Event(f"u{n}", item) for n in range(3)])
    opened.close()  # the last fold is done
    assert view.row("u2")[0].tolist() == list(range(60))
    assert view.nbytes() < 12_000


def test_threads_append_delete_and_read_at_once(tmp_path: Path) -> None:
    with Journal.open(tmp_path / "events.db") as opened:
        view, wrong = bound(opened, users=4, items=400), []

        def work(user: int) -> None:
            mine: set[int] = set()
            rng = np.random.default_rng(user)
            for step in range(60):
                item = int(rng.integers(0, 400))
                if step % 7 == 6 and mine:
                    item = min(mine)
                    opened.delete_item(user, item).result()
                    mine.discard(item)
                elif step % 31 == 30:
                    opened.delete_user(user).result()
                    mine.clear()
                else:
                    opened.append([Event(user, item)])
                    mine.add(item)
                if view.row(user)[0].tolist() != sorted(mine):
                    wrong.append((user, step))
                joined([view.row(user) for user in range(4)])

        threads = [threading.Thread(target=work, args=(user,)) for user in range(4)]
        for thread in threads:
            thread.start()
        second = bound(opened, users=2, items=200)  # another model is bound meanwhile
        for thread in threads:
            thread.join()
        assert not wrong
        for user in range(4):
            assert second.row(user)[0].tolist() == [item for item in view.row(user)[0].tolist() if item < 200]
