from __future__ import annotations

import csv
import errno
import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hashlgn.errors import ArgumentError
from hashlgn.inference import tables as frames
from hashlgn.inference.tables import WRITERS, RowWriter, Table


def table(users: list[object], scores: list[float] | None = None) -> Table:
    n = len(users)
    column = (
        np.array(users, np.int64) if all(isinstance(u, int) for u in users) else np.array([*users, None], object)[:-1]
    )
    scores = list(np.linspace(0, 1, n)) if scores is None else scores
    return Table({"user": column, "score": np.array(scores, np.float32), "rank": np.arange(1, n + 1)})


def read(path: Path) -> list[dict[str, object]]:
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    if path.suffix == ".csv":
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    return [json.loads(line) for line in path.read_text("utf-8").split("\n")[:-1]]


def test_columns_by_name_and_by_frame() -> None:
    made = table([5, 6])
    assert made["user"].tolist() == [5, 6] and made.names == ("user", "score", "rank") and len(made) == 2
    for frame in (made.to_pandas(), made.to_polars(), made.to_arrow().to_pandas()):
        assert list(frame.columns) == ["user", "score", "rank"]
        assert frame["rank"].to_list() == [1, 2]
    assert made.to_arrow().schema.field("user").type == "int64"
    assert table(["a", "b"]).to_arrow().schema.field("user").type == "string"
    assert "5" in repr(made) and "[2 rows]" in repr(made)


def test_a_table_is_a_mapping_of_columns() -> None:
    made = table([5, 6])
    assert list(made) == ["user", "score", "rank"] and "user" in made and "genre" not in made and 3 not in made
    assert dict(made)["rank"].tolist() == [1, 2] and [name for name, _ in made.items()] == list(made.keys())
    assert made.get("genre") is None and made == table([5, 6]) and made != table([5, 7])
    for kind in (KeyError, ArgumentError):
        with pytest.raises(kind, match=r"column must be one of 'user', 'score', 'rank' \(got 'genre'\)"):
            made["genre"]
    assert pa.table(made).column_names == list(made)


def test_a_long_table_prints_short() -> None:
    users = [f"<{number}>" for number in range(1000)]
    made = table(users)
    shown = made._repr_html_()
    assert len(repr(made).splitlines()) == 13 and "[1,000 rows]" in repr(made)
    assert shown.count("<tr>") == 11 and "&lt;3&gt;" in shown and "1,000 rows" in shown and "<3>" not in shown


def test_integers_and_strings_in_one_column_are_never_confused() -> None:
    mixed = table([1, "1"])
    assert mixed["user"].tolist() == [1, "1"]
    assert mixed.to_pandas()["user"].tolist() == [1, "1"]
    for way in (mixed.to_arrow, mixed.to_polars):
        with pytest.raises(ArgumentError, match="user must hold only integers or only strings"):
            way()


def test_concatenation_keeps_the_order_and_asks_for_the_same_columns() -> None:
    joined = Table.concatenate([table([1]), table([2, 3])])
    assert joined["user"].tolist() == [1, 2, 3]
    with pytest.raises(ArgumentError, match="same columns"):
        Table.concatenate([table([1]), Table({"user": np.array([1])})])
    with pytest.raises(ArgumentError, match="one length"):
        Table({"a": np.array([1]), "b": np.array([1, 2])})


@pytest.mark.parametrize("suffix", list(WRITERS))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    parts=st.lists(
        st.lists(
            st.tuples(
                st.text(st.characters(codec="utf-8")),
                st.floats(allow_nan=False, allow_infinity=False, width=32),
            ),
            max_size=5,
        ),
        min_size=1,
        max_size=4,
    )
)
def test_what_is_written_is_read_back(suffix: str, parts: list[list[tuple[str, float]]], tmp_path: Path) -> None:
    path = tmp_path / f"rows{suffix}"
    with RowWriter(path) as writer:
        for part in parts:
            users = np.array([*(user for user, _ in part), None], object)[:-1]
            writer.write(Table({"user": users, "score": np.array([score for _, score in part], np.float32)}))
    rows = read(path)
    assert [row["user"] for row in rows] == [user for part in parts for user, _ in part]
    want = np.array([score for part in parts for _, score in part], np.float32)
    np.testing.assert_array_equal(np.array([row["score"] for row in rows], np.float32), want)


@pytest.mark.parametrize("suffix", list(WRITERS))
def test_an_empty_answer_is_a_file_with_columns(suffix: str, tmp_path: Path) -> None:
    with RowWriter(tmp_path / f"rows{suffix}") as writer:
        writer.write(table([]))
    assert read(tmp_path / f"rows{suffix}") == []
    if suffix == ".parquet":
        assert pq.read_table(tmp_path / "rows.parquet").column_names == ["user", "score", "rank"]
    if suffix == ".csv":
        assert (tmp_path / "rows.csv").read_text() == "user,score,rank\n"


@pytest.mark.parametrize("suffix", list(WRITERS))
def test_a_failure_half_way_leaves_what_was_there(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"rows{suffix}"
    path.write_text("before")
    with pytest.raises(KeyboardInterrupt), RowWriter(path) as writer:
        writer.write(table([1]))
        raise KeyboardInterrupt
    with pytest.raises(ArgumentError, match="one type throughout"), RowWriter(path) as writer:
        writer.write(table([1]))
        writer.write(table(["a"]))
    assert path.read_text() == "before"
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", list(WRITERS))
def test_a_full_disk_is_one_clear_error(suffix: str, tmp_path: Path, monkeypatch) -> None:
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "replace", full)
    with (
        pytest.raises(ArgumentError, match=r"out must be writable .*No space left"),
        RowWriter(tmp_path / f"r{suffix}") as w,
    ):
        w.write(table([1]))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("big", [True, False])
@pytest.mark.parametrize("suffix", list(WRITERS))
def test_a_disk_that_fills_while_rows_are_written(suffix: str, big: bool, tmp_path: Path) -> None:
    """The system refuses the bytes past a limit, as it does on a full disk."""
    resource = pytest.importorskip("resource")
    rng = np.random.default_rng(0)
    path = tmp_path / f"rows{suffix}"
    path.write_text("before")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(ArgumentError, match="out must be writable"), RowWriter(path) as writer:
            for n in [10_000] * 10 if big else [100] * 1000:
                writer.write(Table({"score": rng.random(n, np.float32)}))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_text() == "before"
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", list(WRITERS))
def test_integers_stay_integers_after_an_empty_table_of_objects(suffix: str, tmp_path: Path) -> None:
    """A catalogue that mixes kinds gives arrays of objects, and an empty one does not tell its kind."""
    path = tmp_path / f"rows{suffix}"
    with RowWriter(path) as writer:
        for users in ([], [2**63 - 1, -5], []):
            writer.write(Table({"user": np.array(users, object)}))
    assert [int(row["user"]) for row in read(path)] == [2**63 - 1, -5]
    if suffix != ".csv":
        assert all(isinstance(row["user"], int) for row in read(path))


def test_json_lines_are_made_in_pieces(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(frames, "_LINES", 3)
    with RowWriter(tmp_path / "rows.jsonl") as writer:
        writer.write(table([f"é{n}" for n in range(10)]))
    assert [(row["user"], row["rank"]) for row in read(tmp_path / "rows.jsonl")] == [
        (f"é{n}", n + 1) for n in range(10)
    ]


def test_what_cannot_be_written_is_named(tmp_path: Path) -> None:
    for suffix, tables, message in (
        (".jsonl", [table([1, 2], [0.0, float("nan")])], "score must be finite"),
        (".csv", [table([1]), Table({"user": np.array([1])})], "tables must have the columns"),
        (".csv", [table([1, "1"])], "user must hold only integers or only strings"),
        (".csv", [], "rows must be written"),
    ):
        with pytest.raises(ArgumentError, match=message), RowWriter(tmp_path / f"rows{suffix}") as writer:
            for one in tables:
                writer.write(one)
        assert not list(tmp_path.iterdir())


def test_where_a_file_cannot_go(tmp_path: Path) -> None:
    (tmp_path / "d.csv").mkdir()
    for path, message in (
        (tmp_path / "rows.xlsx", "must end in .parquet, .csv, .jsonl"),
        (tmp_path / "no" / "rows.csv", "in a folder that exists"),
        (tmp_path / "d.csv", "must be a file"),
    ):
        with pytest.raises(ArgumentError, match=message):
            RowWriter(path)


@pytest.mark.parametrize("name", ["x" * 5000 + ".csv", "a\0b.csv", "y" * 300 + "/z.csv"])
def test_a_path_that_is_none_is_one_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(ArgumentError, match="out must") as caught, RowWriter(tmp_path / name) as writer:
        writer.write(table([1]))
    assert len(str(caught.value)) < 400


def test_whether_a_column_is_there_may_be_asked_of_anything() -> None:
    table = Table({"item": np.array([1])})
    assert "item" in table and "score" not in table and [1] not in table and 1 not in table
