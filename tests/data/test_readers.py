"""Readers: one small data set in every format gives the same interactions; bad files give one clear error."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet
import pytest
from scipy import sparse

import hashlgn.data.ragged as ragged_module
import hashlgn.data.text as text_module
from hashlgn.data import Interactions, read_interactions
from hashlgn.errors import ArgumentError, DataError

ROWS = [(7, 30, 4.0, 100), (7, 10, 3.5, 101), (8, 10, 6.0, 99), (9, 20, 1.0, 250), (9, 30, 2.0, 80)]
USERS, ITEMS, STARS, TIMES = (list(column) for column in zip(*ROWS, strict=True))
EXPECTED = Interactions.from_pairs(USERS, ITEMS, STARS, TIMES)
FRAME = {"user_id": USERS, "item_id": ITEMS, "rating": STARS, "timestamp": TIMES}


def lines(delimiter: str, header: str = "", end: str = "\n") -> bytes:
    rows = [delimiter.join(map(str, row)) for row in ROWS]
    return (end.join(([header] if header else []) + rows) + end).encode()


def same(data: Interactions, expected: Interactions = EXPECTED) -> None:
    assert data.fingerprint() == expected.fingerprint()
    assert data.ratings.tolist() == expected.ratings.tolist()
    assert data.times.tolist() == expected.times.tolist()


FILES = {
    "named.csv": lines(",", "userId,movieId,rating,timestamp"),
    "plain.csv": lines(","),
    "plain.tsv": lines("\t"),
    "plain.dat": lines("::"),
    "headed.dat": lines("::", "UserID::MovieID::Rating::Timestamp"),
    "semicolon.csv": lines(";", "User;Item;Stars;Date"),
    "bom.csv": b"\xef\xbb\xbf" + lines(",", "user,item,rating,timestamp"),
    "bom-plain.csv": b"\xef\xbb\xbf" + lines(","),
    "crlf.csv": lines(",", "user,item,rating,timestamp", "\r\n"),
    "crlf.dat": lines("::", end="\r\n"),
    "blank.csv": b"\n\n" + lines(",", "user,item,rating,timestamp") + b"\n\n",
    "no-end.csv": lines(",", "user,item,rating,timestamp").rstrip(b"\n"),
    "quoted.csv": b'"user","item","rating","timestamp"\n'
    + "".join(f'"{u}","{i}","{r}","{t}"\n' for u, i, r, t in ROWS).encode(),
    "packed.csv.gz": gzip.compress(lines(",", "user,item,rating,timestamp")),
    "atomic.inter": lines("\t", "user_id:token\titem_id:token\trating:float\ttimestamp:float"),
    "u.data": lines("\t"),
    "spaces.txt": lines(" "),
}


@pytest.mark.parametrize("name", FILES)
def test_text_files(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(FILES[name])
    same(read_interactions(tmp_path / name))
    same(read_interactions(str(tmp_path / name)))


@pytest.mark.parametrize("name", ["ratings.dat", "u.data", "ratings.csv"])
@pytest.mark.parametrize("movies", [True, False])
def test_movielens_folders(tmp_path: Path, name: str, movies: bool) -> None:
    delimiter = {"ratings.dat": "::", "u.data": "\t", "ratings.csv": ","}[name]
    header = "userId,movieId,rating,timestamp" if name == "ratings.csv" else ""
    (tmp_path / name).write_bytes(lines(delimiter, header))
    if movies:
        flags = {10: (1, 5), 20: (0,), 30: ()}
        films = {10: "Ten (1995)", 20: "Comédie, la (1999)", 40: "Never rated"}
        if name == "ratings.dat":
            text = "".join(f"{i}::{t}::{'Action|Comedy' if i == 10 else ''}\n" for i, t in films.items())
            (tmp_path / "movies.dat").write_bytes(text.encode("latin-1"))
        elif name == "u.data":
            text = "".join(
                f"{i}|{t}|01-Jan-1995||http://x|" + "|".join(str(int(k in flags.get(i, ()))) for k in range(19)) + "\n"
                for i, t in films.items()
            )
            (tmp_path / "u.item").write_bytes(text.encode("latin-1"))
        else:
            rows = "".join(
                f'{i},"{t}",{"Action|Comedy" if i == 10 else "(no genres listed)"}\n' for i, t in films.items()
            )
            (tmp_path / "movies.csv").write_bytes(("movieId,title,genres\n" + rows).encode())
            (tmp_path / "tags.csv").write_text("userId,movieId,tag,timestamp\n1,2,a,3\n")
    data = read_interactions(tmp_path)
    same(data)
    if not movies:
        assert data.titles is None
        return
    assert data.titles == ["", "Ten (1995)", "Comédie, la (1999)"]  # items in order of arrival: 30, 10, 20
    assert data.genres == [(), ("Action", "Comedy"), ()]


def test_a_malformed_movie_costs_the_titles_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "ratings.dat").write_bytes(lines("::"))
    (tmp_path / "movies.dat").write_text("10::Ten::A\nnonsense\n")
    data = read_interactions(tmp_path)
    same(data)
    assert data.titles is None
    assert "movies.dat: line 2 has 1 column instead of 3" in data.notes[0]


def test_lightgcn_folder_in_parts(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("0 2 1\n1 1\n2\n")
    (tmp_path / "test.txt").write_text("0 3\r\n1 2 9 \n\n")
    train, test, everything = (read_interactions(tmp_path, part=p) for p in ("train", "test", "all"))
    assert [train.row(u).tolist() for u in range(3)] == [[0, 1], [1], []]  # a user without items is kept
    assert train.item_ids.values.tolist() == [2, 1]
    assert (len(test), len(everything)) == (3, 6)
    encoded, dropped = test.encode_like(train)
    assert (len(encoded), dropped.items, dropped.interactions) == (1, 2, 2)
    assert read_interactions(tmp_path, id_type="str").user_ids.values.tolist() == ["0", "1", "2"]
    (tmp_path / "test.txt").unlink()
    with pytest.raises(DataError, match=r"part='all' needs test\.txt in the folder"):
        read_interactions(tmp_path, part="all")


@pytest.mark.parametrize(
    ("ids", "titles"),
    [
        ((1, 2, 4), ["One", "Two", "Four"]),  # as published
        ((0, 1, 3), ["One", "Two", "Four"]),  # shifted by one
        ((0, 2, 3), None),  # 2 + 1 is no movie: renumbered in an unknown way
        ((1, 3, 4), None),
    ],
)
def test_titles_of_a_published_split(tmp_path: Path, ids: tuple[int, ...], titles: list[str] | None) -> None:
    (tmp_path / "train.txt").write_text(f"0 {ids[0]} {ids[1]} {ids[2]}\n1 {ids[0]}\n")
    (tmp_path / "test.txt").write_text(f"1 {ids[2]}\n")
    (tmp_path / "movies.dat").write_text("1::One::A\n2::Two::B\n4::Four::C\n")
    data = read_interactions(tmp_path)
    assert data.titles == titles
    assert read_interactions(tmp_path, part="test").titles == (None if titles is None else ["Four"])


def test_ragged_lines_cross_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (text_module, ragged_module):
        monkeypatch.setattr(module, "BLOCK", 16)
    rng = np.random.default_rng(0)
    users, items = rng.integers(0, 50, 3000), rng.integers(0, 2000, 3000)
    expected = Interactions.from_pairs(users, items)
    with (tmp_path / "train.txt").open("w") as file:
        for user in range(50):
            file.write(" ".join(map(str, [user, *items[users == user]])) + "\n")
    assert read_interactions(tmp_path).fingerprint() == expected.fingerprint()


def frames() -> dict[str, Callable[[], object]]:
    return {
        "pandas": lambda: pd.DataFrame(FRAME),
        "pandas, ids as floats": lambda: pd.DataFrame(FRAME).astype({"user_id": float}),
        "pandas, categories": lambda: pd.DataFrame(FRAME).astype({"item_id": "category"}),
        "polars": lambda: pl.DataFrame(FRAME),
        "arrow": lambda: pa.table(FRAME),
        "arrow batch": lambda: pa.RecordBatch.from_pydict(FRAME),
        "other names": lambda: pl.DataFrame(FRAME).rename({"user_id": "visitorid", "item_id": "ASIN"}),
    }


@pytest.mark.parametrize("name", frames())
def test_tables(name: str) -> None:
    same(read_interactions(frames()[name]()))


@pytest.mark.parametrize(
    "table",
    [
        pd.DataFrame({"user": ["a", "b"], "item": ["1", "x"]}),
        pd.DataFrame({"user": ["a", "b"], "item": ["1", "x"]}, dtype="category"),
        pl.DataFrame({"user": ["a", "b"], "item": ["1", "x"]}),
        pl.DataFrame({"user": ["a", "b"], "item": ["1", "x"]}, schema={"user": pl.Categorical, "item": pl.String}),
        pa.table({"user": pa.array(["a", "b"], pa.large_string()), "item": pa.array(["1", "x"], pa.string_view())}),
    ],
)
def test_tables_of_strings(table: object) -> None:
    data = read_interactions(table)
    assert data.user_ids.values.tolist() == ["a", "b"]
    assert data.item_ids.values.tolist() == ["1", "x"]


def test_tables_with_dates_and_columns_named() -> None:
    frame = pd.DataFrame({"who": [1, 2], "what": [3, 4], "when": pd.to_datetime(["2020-01-02", "2020-01-01"])})
    data = read_interactions(frame, user="who", item="what", time="when")
    assert np.diff(data.times).tolist() == [-86_400_000_000]
    assert read_interactions(pl.from_pandas(frame), user="who", item="what", time="when").times.tolist() == (
        data.times.tolist()
    )


def test_parquet_file_and_folder(tmp_path: Path) -> None:
    table = pa.table(FRAME)
    pyarrow.parquet.write_table(table, tmp_path / "all.parquet", row_group_size=2)
    same(read_interactions(tmp_path / "all.parquet"))
    (tmp_path / "parts").mkdir()
    for i in range(2):
        pyarrow.parquet.write_table(table.slice(3 * i, 3), tmp_path / "parts" / f"{i}.parquet")
    same(read_interactions(tmp_path / "parts"))


@pytest.mark.parametrize("kind", [sparse.csr_matrix, sparse.csr_array, sparse.coo_matrix, sparse.csc_array])
def test_sparse_matrices(kind: Callable) -> None:
    dense = np.array([[0, 2, 0], [0, 0, 0], [5, 0, 1]])
    data = read_interactions(kind(dense))
    assert data.matrix.toarray().tolist() == (dense > 0).astype(float).tolist()
    assert data.ratings.tolist() == [2, 5, 1]
    assert len(read_interactions(kind(dense), min_rating=2)) == 2
    assert data.item_ids.values.tolist() == [0, 1, 2]


def test_ids_are_integers_or_strings_by_column(tmp_path: Path) -> None:
    path = tmp_path / "ids.csv"
    path.write_text("user,item\n007,1\n8,x\n")
    data = read_interactions(path)
    assert data.user_ids.values.tolist() == ["007", "8"]  # 007 is not how an integer is written
    assert data.item_ids.values.tolist() == ["1", "x"]
    with pytest.raises(DataError, match="line 3: the item must be an integer of 64 bits, as id_type='int' says"):
        read_interactions(path, id_type="int")
    path.write_text("user,item\n007,1\n 7,2.0\n8,2\n")
    data = read_interactions(path, id_type="int")
    assert (data.user_ids.values.tolist(), data.item_ids.values.tolist()) == ([7, 8], [1, 2])
    assert data.matrix.toarray().tolist() == [[1, 1], [0, 1]]
    assert read_interactions(path).user_ids.values.tolist() == ["007", " 7", "8"]
    assert read_interactions(path).item_ids.values.tolist() == [1, 2]
    assert read_interactions(path, id_type="str").item_ids.values.tolist() == ["1", "2.0", "2"]
    path.write_text("user,item\n0x10,1\n16,-0\n")
    data = read_interactions(path)
    assert (data.user_ids.values.tolist(), data.item_ids.values.tolist()) == (["0x10", "16"], ["1", "-0"])
    many = b"user,item\n" + b"1,2\n" * 200_000 + b"abc,3\n"  # found out blocks later
    path.write_bytes(many)
    assert read_interactions(path).user_ids.values.tolist() == ["1", "abc"]


def test_strings_of_many_blocks(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    users, items = rng.integers(0, 150_000, 200_000), rng.integers(0, 99, 200_000)
    names = [f"u{user}" for user in users]
    (tmp_path / "a.csv").write_text("user,item\n" + "".join(f"{u},{i}\n" for u, i in zip(names, items, strict=True)))
    read = read_interactions(tmp_path / "a.csv")
    assert read.fingerprint() == Interactions.from_pairs(names, items).fingerprint()


def test_rows_are_chosen(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("user,item,rating,time\n1,2,3,9\n1,2,5,5\n1,2,4,9\n1,3,1,1\n2,2,4,1\n")
    first = read_interactions(tmp_path / "a.csv", min_rating=0)
    assert first.ratings.tolist() == [5, 1, 4]  # the first in time
    last = read_interactions(tmp_path / "a.csv", duplicates="last", min_rating=0)
    assert last.ratings.tolist() == [4, 1, 4]
    assert "of rows that name the same user and item the last counts: 2 left out" in last.notes
    # What stands for a pair is decided first, then whether it is rated high enough.
    assert read_interactions(tmp_path / "a.csv", min_rating=4).ratings.tolist() == [5, 4]
    assert read_interactions(tmp_path / "a.csv", min_rating=4, duplicates="last").ratings.tolist() == [4, 4]
    assert len(read_interactions(tmp_path / "a.csv", k_core=(1, 2), min_rating=0)) == 2
    with pytest.raises(DataError, match="no interactions are left of 3 in the core of user_k=9, item_k=9"):
        read_interactions(tmp_path / "a.csv", k_core=9, min_rating=0)
    with pytest.raises(DataError, match=r"none of 3 ratings reaches min_rating \(6\)"):
        read_interactions(tmp_path / "a.csv", min_rating=6)
    with pytest.raises(ArgumentError, match="min_rating must be a finite number"):
        read_interactions(tmp_path / "a.csv", min_rating=float("nan"))


def test_columns_by_name_and_position(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x,y,rating\n1,2,3\n")
    assert read_interactions(tmp_path / "a.csv", user="y", item="x").user_ids.values.tolist() == [2]
    (tmp_path / "b.csv").write_text("9,8,1,2\n9,8,3,4\n")
    assert read_interactions(tmp_path / "b.csv", user=2, item=3).user_ids.values.tolist() == [1, 3]
    with pytest.raises(DataError, match=r"item=4 must be a position in 0 … 3"):
        read_interactions(tmp_path / "b.csv", user=2, item=4)
    with pytest.raises(DataError, match="no column 'z' for the user"):
        read_interactions(tmp_path / "a.csv", user="z", item="x")
    with pytest.raises(DataError, match="one column is named for two roles"):
        read_interactions(tmp_path / "a.csv", user="x", item="x")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"", "the file is empty"),
        ("a.csv", b"\n\n", "the file is empty"),
        ("a.csv", b"\xef\xbb\xbf", "the file is empty"),
        ("a.csv", b"user,item\n", "only a header"),
        ("a.csv", b"user,item", "only a header"),
        ("a.csv", b"user,item\n1,2\n1,2,3\n", "line 3 has 3 columns instead of 2"),
        ("a.csv", b"user,item,rating\r\n1,2,3\r\n1,2\r\n", "line 3 has 2 columns instead of 3"),
        (
            "a.csv",
            b"\n\nuser,item\n\n1,2\n1\n",
            "line 6 has 1 column instead of 2; on_bad='skip' leaves such lines out",
        ),
        ("a.csv", b"user,thing\n1,2\n", "no column for the item .columns: 'user', 'thing'.; name it with item="),
        ("a.csv", b"user,item,movie\n1,2,3\n", "several columns may be the item .'item', 'movie'."),
        ("a.csv", b"alice,bob\n", "neither known column names nor numbers"),
        ("a.csv", b"1,2,3,4,5\n", "2 to 4 columns"),
        ("a.csv", b"user\n1\n", "no delimiter found in 'user'"),
        ("a.csv", b"user,item,rating\n1,2,3\n1,3,nan\n", r"the rating must be finite \(got nan, line 3\)"),
        ("a.csv", b"user,item,rating\n1,2,-inf\n", r"the rating must be finite \(got -inf, line 2\)"),
        ("a.csv", b"user,item,rating\n1,2,1e99\n", "the rating must be finite"),
        ("a.csv", b"user,item,rating\n1,2,good\n", r"line 2: the rating must be a number \(got 'good'\)"),
        ("a.csv", b"user,item,rating\n1,2,\n", r"the rating is missing \(line 2\)"),
        ("a.csv", b"user,item\n1,2\n,2\n", r"the user is missing \(line 3\)"),
        ("a.csv", b"user,item,time\n1,2,noon\n", r"line 2: the time must be a number or an ISO date \(got 'noon'\)"),
        ("a.csv", "user,item\n1,2\n".encode("utf-16"), "is not a text file in UTF-8"),
        ("a.csv", b"PK\x03\x04 archive", "may be an archive"),
        ("a.csv.gz", b"no gzip", "cannot be read"),
        ("a.parquet", b"no parquet", "cannot be read as Parquet"),
        ("a.dat", b"1::2::3::4\n1::2:3::4\n", "line 2 has 3 columns instead of 4"),
        ("train.txt", b"0 1 2\n1 x\n", r"line 2: users and items must be integers from 0 \(got 'x'\)"),
        ("train.txt", b"0 1 2\n-1 3\n", r"line 2: .* \(got '-1'\)"),
        ("train.txt", b"0 1\n1 9999999999999999999\n", r"line 2: .* \(got '9999999999999999999'\)"),
        ("train.txt", b"0 1 2.5\n", r"\(got '2.5'\)"),
        ("train.txt", b"0\n1\n", "no interactions"),
        ("train.txt", b"", "the file is empty"),
        ("a.txt", b"0 1 2\n1 2 2\n", "lines of 3 integers may be .* choose format='csv' or format='lightgcn'"),
        ("a.xyz", b"1 2\n", "no known format. Looked for lightgcn: train.txt"),
    ],
)
def test_bad_files(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    source = tmp_path if name == "train.txt" else tmp_path / name
    with pytest.raises(DataError, match=message) as caught:
        read_interactions(source)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_one_user_and_one_item(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("user,item\n5,6\n5,7\n")
    assert read_interactions(tmp_path / "a.csv").n_users == 1
    (tmp_path / "a.txt").write_text("5 6 7\n")
    assert read_interactions(tmp_path / "a.txt", format="lightgcn").n_items == 2
    (tmp_path / "b.csv").write_text("5,6\n8,6\n")
    assert read_interactions(tmp_path / "b.csv").n_items == 1


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"user": [1, None], "item": [1, 2]}, r"the user is missing \(row 1\)"),
        (
            {"user": [1, 2], "item": [1, 2], "rating": [1, float("nan")]},
            r"the rating must be finite \(got nan, row 1\)",
        ),
        ({"user": [1.5, 2], "item": [1, 2]}, r"the user must be an integer or a string \(got 1.5, row 0\)"),
        ({"user": [True, False], "item": [1, 2]}, r"the user must be an integer or a string \(got bool\)"),
        ({"user": [1, 2], "item": [1, 2], "rating": ["a", "b"]}, "the rating must be a number"),
        ({"user": np.array([2**63, 1], np.uint64), "item": [1, 2]}, "64 signed bits"),
        ({"user": [], "item": []}, "no interactions|must be"),
        ({"a": [1], "b": [2]}, "no column for the user .columns: 'a', 'b'."),
    ],
)
def test_bad_tables(table: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_interactions(pa.table(table))


def test_bad_sources(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file or folder"):
        read_interactions(tmp_path / "absent.csv")
    with pytest.raises(ArgumentError, match=r"source must be a path, a table .* \(got list\)"):
        read_interactions([(1, 2)])
    with pytest.raises(DataError, match="no interactions"):
        read_interactions(sparse.csr_matrix((3, 3)))
    with pytest.raises(DataError, match=r"entries must be finite \(got nan\)"):
        read_interactions(sparse.csr_matrix(np.array([[1, np.nan]])))
    with pytest.raises(ArgumentError, match="format is for files and folders"):
        read_interactions(pa.table(FRAME), format="csv")
    (tmp_path / "ratings.dat").write_bytes(lines("::"))
    with pytest.raises(ArgumentError, match=r"format must be one of .lightgcn., .* \(got .xml.\)"):
        read_interactions(tmp_path, format="xml")
    with pytest.raises(DataError, match=r"no lightgcn data here; looked for train\.txt"):
        read_interactions(tmp_path, format="lightgcn")
    with pytest.raises(ArgumentError, match="part='test' needs the format 'lightgcn'"):
        read_interactions(tmp_path, part="test")
    (tmp_path / "train.txt").write_text("0 1\n")
    with pytest.raises(DataError, match=r"several formats fit .lightgcn, movielens.; choose one with format="):
        read_interactions(tmp_path)
    same(read_interactions(tmp_path, format="movielens"))
    with pytest.raises(DataError, match="have no columns and no ratings to choose by"):
        read_interactions(tmp_path, format="lightgcn", min_rating=3)


def test_real_data(real_data: Path) -> None:
    old = read_interactions(real_data / "ml-100k")
    assert (old.n_users, old.n_items, len(old)) == (943, 1682, 100_000)
    toy_story = int(old.item_ids.encode([1])[0])
    assert old.titles[toy_story] == "Toy Story (1995)"
    assert old.genres[toy_story] == ("Animation", "Children's", "Comedy")
    everything = read_interactions(real_data / "ml-1m", part="all")
    assert (everything.n_users, everything.n_items, len(everything)) == (6040, 3706, 1_000_209)
    beauty = int(everything.item_ids.encode([2857])[0])
    assert everything.titles[beauty] == "American Beauty (1999)"
    assert int((everything.indices == beauty).sum()) == 3428
    train, test = (read_interactions(real_data / "gowalla", part=p) for p in ("train", "test"))
    assert (train.n_users, train.n_items, len(train), len(test)) == (29_858, 40_981, 810_128, 217_242)
    assert test.encode_like(train)[1].interactions == 0


def test_files_of_a_folder_must_agree(tmp_path: Path) -> None:
    def write(name: str, **columns: list[object]) -> None:
        pyarrow.parquet.write_table(pa.table(columns), tmp_path / name)

    write("a.parquet", user=[1, 2], item=[1, 2])
    for other in ({"user": ["x", "y"], "item": [1, 2]}, {"user": [3, 4], "item": [1, 2], "rating": [1.0, 2.0]}):
        write("b.parquet", **other)
        with pytest.raises(DataError, match="all parts must have the same columns"):
            read_interactions(tmp_path)


def test_triples_with_tabs_or_one_broken_row_are_not_taken_for_lists(tmp_path: Path) -> None:
    for text in (
        "1\t1193\t5\n1\t595\t4\n2\t7\t3\n",
        "1 10 5\n2 20 3\n3 30 4 99\n4 40 2\n",
        "1 2 3 4\n2 3 4 5\n3 4 5 6 7\n",
    ):
        (tmp_path / "train.txt").write_text(text)
        with pytest.raises(DataError, match="may be 'user item rating"):
            read_interactions(tmp_path)
    (tmp_path / "train.txt").write_text("0 1 2 3\n1 2 3\n2 5 6 7 8\n3\n")
    assert len(read_interactions(tmp_path)) == 9


def test_two_stray_quotes_are_refused_with_their_line_and_prose_with_line_breaks_is_read(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    rows = "".join(f"u{n},{n},x\n" for n in range(5000))
    file.write_text(f'user,item,title\nu9,7,"open\n{rows}u9,9,end"\n')
    with pytest.raises(DataError, match=r"a quote .* in line 2 opens a value that ends in line 5003"):
        read_interactions(file)
    file.write_text('user,item,title\nu1,1,"never closed\nu2,2,abba\n')
    with pytest.raises(DataError, match="in the row that begins in line 2"):
        read_interactions(file)
    file.write_text('user,item,text\nu1,1,"one, two\nfine, good, and cheap\n\nyes"\nu2,2,"a\nb"\n')
    assert len(read_interactions(file)) == 2
