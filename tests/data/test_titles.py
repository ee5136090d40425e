"""Titles and genres of items: from columns beside the interactions, or from a table of items, in every form."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet
import pytest
from scipy import sparse

from hashlgn.data import read_interactions
from hashlgn.errors import ArgumentError, DataError

ROWS = {"user": [1, 2, 2, 3], "item": [10, 10, 20, 30], "label": ["", "Ten", "Twenty", "Thirty"]}
TITLES = ["Ten", "Twenty", "Thirty"]
GENRES = [("A", "B"), (), ("C",)]
ITEMS = {"item": [30, 10, 99], "title": ["Thirty", "Ten", "Ninety"], "genres": ["C", "A|B", "D"]}
TOLD = (["Ten", "", "Thirty"], GENRES)


def written(folder: Path, name: str, columns: dict[str, list], delimiter: str = ",") -> Path:
    rows = [columns, *zip(*columns.values(), strict=True)]
    (folder / name).write_text("".join(delimiter.join(map(str, row)) + "\n" for row in rows))
    return folder / name


@pytest.mark.parametrize("kind", ["csv", "tsv", "dat", "inter", "folder", "parquet", "pandas", "polars", "arrow"])
def test_a_column_of_titles(tmp_path: Path, kind: str) -> None:
    columns = ROWS | {"kinds": ["A, B", "Z", "", "C"]}
    if kind == "parquet":
        pyarrow.parquet.write_table(pa.table(columns), tmp_path / "a.parquet")
        source: object = tmp_path / "a.parquet"
    elif kind in ("pandas", "polars", "arrow"):
        source = {"pandas": pd.DataFrame, "polars": pl.DataFrame, "arrow": pa.table}[kind](columns)
    else:
        delimiter = {"csv": ";", "folder": ";", "dat": "::"}.get(kind, "\t")
        path = written(tmp_path, f"a.{'csv' if kind == 'folder' else kind}", columns, delimiter)
        source = tmp_path if kind == "folder" else path
    data = read_interactions(source, title="label", genres="kinds")
    assert data.item_ids.values.tolist() == [10, 20, 30]
    assert data.titles == TITLES
    assert data.genres == GENRES
    assert read_interactions(source).titles is None


def test_lists_of_genres_and_titles_follow_their_items(tmp_path: Path) -> None:
    kinds = [["A", "B"], ["A", "B"], [], ["C"]]
    for make in (pd.DataFrame, pl.DataFrame, pa.table):
        assert read_interactions(make(ROWS | {"g": kinds}), genres="g").genres == GENRES
    pyarrow.parquet.write_table(pa.table(ROWS | {"g": kinds, "rating": [5, 4, 1, 5]}), tmp_path / "a.parquet")
    data = read_interactions(tmp_path / "a.parquet", title="label", genres="g")  # item 20 is not liked
    assert (data.titles, data.genres) == (["Ten", "Thirty"], [("A", "B"), ("C",)])


@pytest.mark.parametrize("kind", ["csv", "dat", "headless", "parquet", "pandas", "polars", "arrow", "id"])
@pytest.mark.parametrize("source", ["csv", "frame", "lists"])
def test_a_table_of_items(tmp_path: Path, kind: str, source: str) -> None:
    if source == "lists":
        (tmp_path / "train.txt").write_text("1 10\n2 10 20\n3 30\n")
    frame = {"user": ROWS["user"], "item": ROWS["item"]}
    path = {"csv": written(tmp_path, "a.csv", frame), "frame": pd.DataFrame(frame), "lists": tmp_path}[source]
    if kind == "parquet":
        pyarrow.parquet.write_table(pa.table(ITEMS), tmp_path / "items.parquet")
        items: object = tmp_path / "items.parquet"
    elif kind in ("pandas", "polars", "arrow"):
        items = {"pandas": pd.DataFrame, "polars": pl.DataFrame, "arrow": pa.table}[kind](ITEMS)
    elif kind == "headless":
        rows = zip(*ITEMS.values(), strict=True)
        (tmp_path / "i.dat").write_text("".join("::".join(map(str, row)) + "\n" for row in rows))
        items = tmp_path / "i.dat"
    else:
        named = ITEMS if kind != "id" else {"id": ITEMS["item"], "name": ITEMS["title"], "category": ITEMS["genres"]}
        items = str(written(tmp_path, f"i.{'dat' if kind == 'dat' else 'csv'}", named, "::" if kind == "dat" else ","))
    options = {"format": "lightgcn"} if source == "lists" else {}
    data = read_interactions(path, items=items, **options)
    assert (data.titles, data.genres) == TOLD
    assert any("1 of 3 items are not in the table of items" in note for note in data.notes)


def test_a_table_of_items_of_a_matrix_and_of_strings(tmp_path: Path) -> None:
    items = pd.DataFrame({"item": [1, 0], "title": ["One", "Zero"]})
    data = read_interactions(sparse.csr_matrix([[1, 1], [0, 1]]), items=items)
    assert (data.titles, data.genres) == (["Zero", "One"], None)
    frame = pd.DataFrame({"user": ["a"], "sku": ["007"]})
    path = written(tmp_path, "i.csv", {"sku": ["7", "007"], "what": ["Seven", "Bond"]})
    assert read_interactions(frame, item="sku", items=path, title="what").titles == ["Bond"]
    (tmp_path / "l.csv").write_bytes("item,title\n1,Zoë\n".encode("latin-1"))
    data = read_interactions(pd.DataFrame({"user": [1], "item": [1]}), items=tmp_path / "l.csv")
    assert data.titles == ["Zoë"]
    assert "Latin-1" in data.notes[0]


def test_what_is_no_table_of_items_is_refused(tmp_path: Path) -> None:
    frame = pd.DataFrame({"user": [1], "item": [1]})
    for items, told in (
        (pd.DataFrame({"item": [1], "price": [2]}), "no column of titles or genres"),
        (pd.DataFrame({"sku": [1], "title": ["a"]}), "no column for the item"),
        (written(tmp_path, "i.csv", {"item": [1], "price": [2]}), "no column of titles or genres"),
        (tmp_path / "nothing.csv", "no such file"),
        (tmp_path, "cannot be read"),
    ):
        with pytest.raises(DataError, match=told):
            read_interactions(frame, items=items)
    for items in (3, ["a"], {"item": [1]}):
        with pytest.raises(ArgumentError, match="items must be a path or a table"):
            read_interactions(frame, items=items)
    with pytest.raises(DataError, match="no column 'label' for the title"):
        read_interactions(frame, title="label")
    with pytest.raises(ArgumentError, match="title must be the name or the position of a column"):
        read_interactions(frame, title=True)


def test_a_column_may_be_the_weight_that_is_usually_the_rating() -> None:
    frame = pd.DataFrame({"user": [1, 2], "item": [1, 2], "rating": [1.0, 5.0]})
    data = read_interactions(frame, weight="rating")
    assert data.weights.tolist() == [1, 5]
    assert data.ratings is None
