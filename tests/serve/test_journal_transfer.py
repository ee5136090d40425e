"""Events go out of a journal and come back, and are trained on as they were given."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hashlgn.data import Interactions, read_interactions
from hashlgn.errors import ArgumentError, DataError, JournalError
from hashlgn.serve.journal import Event, Journal
from hashlgn.serve.journal.transfer import backup, export_events, import_events, read_journal, recover

NOW = 1_700_000_000
SECOND = 1_000_000
EVENTS = [
    Event("ann", 7, "e1", "view", 1.0, NOW),
    Event("ann", 9, "e2", None, 0.5, NOW + 1.25),
    Event("bob", 7, "e3", "buy", 2.0, NOW - 5),
    Event("ann", 7, "e4", "buy", 3.0, NOW - 60),  # older than e1
    Event("żółw\n", -3, "e5", "view", 1.0, NOW + 7),
]


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    with Journal.open(tmp_path / "events.db", ("str", "int"), clock=lambda: (NOW + 60) * SECOND) as journal:
        assert journal.append(EVENTS).accepted == 5
    return tmp_path / "events.db"


def test_export_and_import_give_the_same_journal(journal: Path, tmp_path: Path) -> None:
    assert export_events(journal, tmp_path / "a.parquet") == 5
    first = import_events(tmp_path / "copy.db", tmp_path / "a.parquet")
    again = import_events(tmp_path / "copy.db", tmp_path / "a.parquet")
    assert (first.accepted, first.duplicates, again.accepted, again.duplicates) == (5, 0, 0, 5)
    export_events(tmp_path / "copy.db", tmp_path / "b.parquet")
    assert pq.read_table(tmp_path / "a.parquet").equals(pq.read_table(tmp_path / "b.parquet"))


def test_an_export_is_read_as_interactions(journal: Path, tmp_path: Path) -> None:
    export_events(journal, tmp_path / "a.parquet")
    data = read_interactions(tmp_path / "a.parquet", weight="weight", duplicates="last")
    mine = read_journal(journal)
    assert data.fingerprint() == mine.fingerprint()
    assert mine.to_arrow().sort_by([("user", "ascending"), ("item", "ascending")]).to_pylist() == [
        {"user": "ann", "item": 7, "time": NOW * SECOND, "weight": 1.0},
        {"user": "ann", "item": 9, "time": NOW * SECOND + 1_250_000, "weight": 0.5},
        {"user": "bob", "item": 7, "time": (NOW - 5) * SECOND, "weight": 2.0},
        {"user": "żółw\n", "item": -3, "time": (NOW + 7) * SECOND, "weight": 1.0},
    ]


def test_events_without_names_are_imported_once(tmp_path: Path) -> None:
    table = pa.table({"user": ["a", "b", None, "a"], "item": ["x", "y", "x", "z"], "time": [NOW, NOW, NOW, -1]})
    pq.write_table(table, tmp_path / "a.parquet")
    outcome = import_events(tmp_path / "events.db", tmp_path / "a.parquet")
    assert (outcome.accepted, [row for row, _ in outcome.rejected]) == (2, [2, 3])
    assert "user must be given" in outcome.rejected[0][1] and "time must be" in outcome.rejected[1][1]
    assert import_events(tmp_path / "events.db", tmp_path / "a.parquet").duplicates == 2
    pq.write_table(pa.table({"who": ["a"], "item": ["x"]}), tmp_path / "b.parquet")
    with pytest.raises(DataError, match="columns user and item are needed"):
        import_events(tmp_path / "events.db", tmp_path / "b.parquet")


def test_a_training_takes_the_journal_behind_the_data_and_leaves_out_what_was_deleted(journal: Path) -> None:
    old = Interactions.from_pairs(
        ["ann", "cy", "dan", "ann"], [7, 7, 8, 8], times=[NOW - 9, NOW - 8, NOW - 7, NOW - 6], weights=[4, 4, 4, 4]
    )
    with Journal.open(journal) as open_:
        open_.delete_user("dan").result()
        open_.delete_item("cy", 7).result()
        open_.delete_event("e2").result()
    made = read_journal(journal, old)
    rows = made.to_arrow().to_pylist()
    assert {(row["user"], row["item"]): (row["weight"], row["time"] // SECOND - NOW) for row in rows} == {
        ("ann", 7): (1.0, 0),
        ("ann", 8): (4.0, -6),
        ("bob", 7): (2.0, -5),
        ("żółw\n", -3): (1.0, 7),
    }
    assert {*made.user_ids.values} == {"ann", "bob", "żółw\n"}  # nobody is left of whom nothing is known
    without = read_journal(journal, Interactions.from_pairs(["ann"], [7]))
    assert without.times is None and without.weights is not None
    with pytest.raises(DataError, match="another type"):
        read_journal(journal, Interactions.from_pairs([1], [7]))


def test_the_example_of_the_page_runs(tmp_path: Path, monkeypatch, capsys) -> None:
    page = (Path(__file__).parents[2] / "docs" / "serving.md").read_text("utf-8")
    blocks = [
        block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "import Event, Journal" in block
    ]
    monkeypatch.chdir(tmp_path)
    exec(blocks[0], {})
    assert capsys.readouterr().out == "2 [318, 527]\n1\n"


def test_an_empty_journal_is_not_trained_on(tmp_path: Path) -> None:
    Journal.open(tmp_path / "events.db").close()
    with pytest.raises(DataError, match="no events to train on"):
        read_journal(tmp_path / "events.db")
    with pytest.raises(JournalError, match="no such journal"):
        read_journal(tmp_path / "other.db")


def test_a_backup_is_whole_while_events_are_written(journal: Path, tmp_path: Path) -> None:
    with Journal.open(journal) as open_:
        open_.append([Event("new", 1, "e6")])
        backup(journal, tmp_path / "copy.db")
        open_.append([Event("new", 1, "e7")])
    with Journal.open(tmp_path / "copy.db") as copy:
        assert [entry.event_id for entry in copy.history("new")] == ["e6"]


def damage(path: Path, marker: bytes) -> None:
    """Overwrite the page of a database that holds a text that a pattern finds."""
    content = bytearray(path.read_bytes())
    found = re.search(marker, content)
    assert found is not None
    start = found.start() // 4096 * 4096
    content[start : start + 4096] = np.random.default_rng(0).bytes(4096)
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("marker", "least"), [(b"event 1500user", 2850), (b"(?<!event 1500)user 1500item", 2998)]
)  # table, index
def test_a_damaged_page_is_refused_and_the_rest_is_saved(marker: bytes, least: int, tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    with Journal.open(path, ("str", "str")) as journal:
        journal.append([Event(f"user {n}", f"item {n}", f"event {n}", "type of an event") for n in range(3000)])
        journal.delete_user("user 5").result()
        journal.delete_event("event 7").result()
    damage(path, marker)
    before = path.read_bytes()
    with pytest.raises(JournalError, match=r"is damaged .*put a backup in its place.*hashlgn events recover"):
        Journal.open(path)
    assert path.read_bytes() == before
    count, lost = recover(path, tmp_path / "new.db")
    assert least <= count <= 2998 and count + lost == 2998
    with Journal.open(tmp_path / "new.db") as journal:
        assert [entry.event_id for entry in journal.history("user 2900")] == ["event 2900"]
        assert len(journal.history("user 1500")) == (least == 2998) and journal.history("user 5") == []
        assert journal.append([Event("user 7", "item 7", "event 7")]).duplicates == 1
    with pytest.raises(ArgumentError, match="out must be a new file"):
        recover(path, tmp_path / "new.db")


@pytest.mark.parametrize(
    "content", [b"no database, but long enough to be one" * 50, b"SQLite format 3\0" + bytes(4080)]
)
def test_what_is_no_journal_is_refused_and_untouched(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    path.write_bytes(content)
    with pytest.raises(JournalError):
        Journal.open(path)
    assert path.read_bytes() == content


def test_a_database_of_others_is_refused(tmp_path: Path) -> None:
    import sqlite3

    with sqlite3.connect(tmp_path / "other.db") as other:
        other.execute("CREATE TABLE events(x)")
    other.close()
    before = (tmp_path / "other.db").read_bytes()
    with pytest.raises(JournalError, match="no journal of hashlgn"):
        Journal.open(tmp_path / "other.db")
    assert (tmp_path / "other.db").read_bytes() == before
