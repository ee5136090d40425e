"""Files as people export them: quotes, delimiters, encodings, dates, holes; read in full, or refused with the line."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from scipy import sparse

from hashlgn.data import Interactions, read_interactions
from hashlgn.errors import ArgumentError, DataError


def write(tmp_path: Path, name: str, text: str | bytes) -> Path:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def pairs(data: Interactions) -> list[tuple]:
    return list(zip(data.user_ids.decode(data.rows).tolist(), data.item_ids.decode(data.indices).tolist(), strict=True))


@pytest.mark.parametrize(
    "text", ["1 1193 5\n1 595 4\n2 3 4\n", "1 10 5\n2 20 3\n3 30\n4 40 2\n", "1 10 5 9\n2 7 1 8\n3\n"]
)
@pytest.mark.parametrize("name", ["a.txt", "folder/train.txt"])
def test_what_may_be_triples_or_lists_is_refused(tmp_path: Path, text: str, name: str) -> None:
    path = write(tmp_path, name, text)
    source = path if name == "a.txt" else path.parent
    with pytest.raises(DataError, match=r"integers may be 'user item rating .*choose format="):
        read_interactions(source)
    assert len(read_interactions(source, format="lightgcn")) > 3


@pytest.mark.parametrize("name", ["a.tsv", "a.inter"])
def test_tabs_take_quotes_literally(tmp_path: Path, name: str) -> None:
    head = "user_id:token\titem_id:token\ttitle:token\n"
    data = read_interactions(write(tmp_path, name, head + 'u1\t1\t"weird al\nu2\t2\tabba\nu3\t3\t"queen\n'))
    assert pairs(data) == [("u1", 1), ("u2", 2), ("u3", 3)]
    data = read_interactions(write(tmp_path, "b.dat", 'u1::"a\nu2::b"\n'), user=0, item=1)
    assert pairs(data) == [("u1", '"a'), ("u2", 'b"')]


def test_an_unclosed_quote_is_refused_with_its_line(tmp_path: Path) -> None:
    for text in ('user,item,title\nu1,1,x\nu2,2,"weird al\nu3,3,abba\n', 'user,item,title\nu1,1,x\nu2,2,"a\nu3,3,"b\n'):
        with pytest.raises(DataError, match=r"a quote .* in the row that begins in line 3"):
            read_interactions(write(tmp_path, "a.csv", text))
    assert len(read_interactions(write(tmp_path, "a.csv", 'user,item,title\nu1,1,5" nail\nu2,2,x\n'))) == 2


@pytest.mark.parametrize("rows", [3, 40_000])
def test_line_breaks_in_quotes_are_read_at_any_size(tmp_path: Path, rows: int) -> None:
    text = "user,item,title\n" + "".join(f'{i},{i + 1},"a ""title""\nof two lines"\n' for i in range(rows))
    data = read_interactions(write(tmp_path, "a.csv", text))
    assert pairs(data) == [(i, i + 1) for i in range(rows)]
    with pytest.raises(DataError, match=f"line {2 * rows + 2} has 2 columns instead of 3"):
        read_interactions(write(tmp_path, "a.csv", text + "1,2\n"))
    with pytest.raises(DataError, match=rf"the item is missing \(line {2 * rows + 2}\)"):
        read_interactions(write(tmp_path, "a.csv", text + "1,,x\n"))


def test_a_line_longer_than_a_block(tmp_path: Path) -> None:
    text = "user,item,title\n1,2," + "x" * 600_000 + "\n2,3,y\n"
    assert pairs(read_interactions(write(tmp_path, "a.csv", text))) == [(1, 2), (2, 3)]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.inter", "user_id:token,item_id:token,rating:float\n1,2,3\n4,5,6\n"),
        ("ml/ratings.csv", "userId\tmovieId\trating\n1\t2\t3\n4\t5\t6\n"),
        ("a.csv", "user,item,what;ever\n1,2,3\n4,5,6\n"),
        ("a.csv", "user;item;rating\n1;2;3,5\n4;5;6,0\n"),
        ("a.csv", "1;2;3,5\n4;5;6,0\n"),
        ("a.dat", "user::item::rating\n1::2::3\n4::5::6\n"),
    ],
)
def test_the_delimiter_is_the_one_that_gives_columns(tmp_path: Path, name: str, text: str) -> None:
    path = write(tmp_path, name, text)
    source = path if path.parent == tmp_path else path.parent
    data = read_interactions(source, decimal="," if "3,5" in text else ".")
    assert pairs(data) == [(1, 2), (4, 5)]


def test_an_id_may_hold_a_colon(tmp_path: Path) -> None:
    assert pairs(read_interactions(write(tmp_path, "a.dat", "a:b::10::5\nc::d::4\n"))) == [("a:b", "10"), ("c", "d")]


def test_latin_1_is_read_and_said(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "user,item\nJürgen,1\n".encode("latin-1"))
    data = read_interactions(path)
    assert pairs(data) == [("Jürgen", 1)]
    assert "Latin-1" in data.notes[0]
    assert pairs(
        read_interactions(write(tmp_path, "b.csv", "user,item\nя,1\n".encode("utf-16")), encoding="utf-16")
    ) == [("я", 1)]
    with pytest.raises(DataError, match="is not ascii"):
        read_interactions(path, encoding="ascii")
    with pytest.raises(ArgumentError, match="encoding must be one that Python knows"):
        read_interactions(path, encoding="klingon")


def test_broken_rows_and_holes_are_skipped_on_request(tmp_path: Path) -> None:
    text = "user,item,rating\n1,2,3\n1,2\n2,3,good\n3,4,5\n4,,1\n,5,1\n5,6,\n"
    path = write(tmp_path, "a.csv", text)
    with pytest.raises(DataError, match="line 3 has 2 columns instead of 3"):
        read_interactions(path)
    data = read_interactions(path, on_bad="skip", on_missing="skip", min_rating=0)
    assert pairs(data) == [(1, 2), (3, 4)]
    assert any("3 rows with missing values" in note for note in data.notes)
    assert any("2 rows that cannot be read" in note and "good" in note for note in data.notes)
    whole = write(tmp_path, "b.csv", "user,item,rating\n1,2,3\n4,,1\n,5,1\n5,6,\n")
    with pytest.raises(
        DataError, match=r"the user is missing \(line 4\); the item is missing \(line 3\); the rating is"
    ):
        read_interactions(whole)
    with pytest.raises(ArgumentError, match="on_bad must be one of"):
        read_interactions(path, on_bad="ignore")


def test_columns_that_nobody_asked_for_do_not_stop_reading(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "u,i,rating,timestamp\n1,2,,5\n3,4,x,\n")
    data = read_interactions(path, user="u", item="i")
    assert pairs(data) == [(1, 2), (3, 4)]
    assert data.ratings is None and data.times is None
    assert len(data.notes) == 2
    with pytest.raises(DataError, match=r"the rating is missing|the rating must be a number"):
        read_interactions(path, user="u", item="i", rating="rating")
    frame = pd.DataFrame({"user": [1, 2], "item": [3, 4], "mixed": [1, "a"], "more": [{}, []]})
    frame["sparse"] = pd.arrays.SparseArray([0, 1])
    assert pairs(read_interactions(frame)) == [(1, 3), (2, 4)]
    twice = pd.concat([frame[["user", "item"]], frame[["mixed"]], frame[["mixed"]]], axis=1)
    assert pairs(read_interactions(twice)) == [(1, 3), (2, 4)]
    objects = pl.DataFrame({"user": [1, 2], "item": [3, 4]}).with_columns(pl.Series("o", [object(), object()]))
    assert pairs(read_interactions(objects)) == [(1, 3), (2, 4)]
    rated = pd.DataFrame({"user": [1, 2], "item": [3, 4], "rating": ["good", None]})
    assert read_interactions(rated, rating=False).ratings is None


def test_an_object_column_of_both_kinds_is_strings(tmp_path: Path) -> None:
    frame = pd.DataFrame({"user": [1, "x"], "item": [3, 4]})
    assert read_interactions(frame).user_ids.values.tolist() == ["1", "x"]


@pytest.mark.parametrize("make", [pd.DataFrame, pl.DataFrame, pa.table])
def test_dates_as_strings_are_times_everywhere(make: object, tmp_path: Path) -> None:
    when = ["2020-01-02T00:00:00.123456789", "2020-01-01 12:00:00+02:00", "2020-01-01"]
    columns = {"user": [1, 2, 3], "item": [1, 2, 3], "timestamp": when}
    day = 1_577_836_800_000_000
    expected = [day + 86_400_000_000 + 123456, day + 36_000_000_000, day]
    assert read_interactions(make(columns)).times.tolist() == expected  # type: ignore[operator]
    text = "user,item,timestamp\n" + "".join(f"{i + 1},{i + 1},{t}\n" for i, t in enumerate(when))
    assert read_interactions(write(tmp_path, "a.csv", text)).times.tolist() == expected


@pytest.mark.parametrize("time", ["99999999999999999999", "9223372036854775808", "1e30", "-1e19"])
def test_times_out_of_range_are_refused(tmp_path: Path, time: str) -> None:
    with pytest.raises(DataError, match="line 2: the time must be"):
        read_interactions(write(tmp_path, "a.csv", f"user,item,time\n1,2,{time}\n"))
    with pytest.raises(DataError, match="the time must be"):
        read_interactions(pd.DataFrame({"user": [1], "item": [2], "time": [float(time)]}))


def test_numbers_are_narrowed_once(tmp_path: Path) -> None:
    frame = pd.DataFrame({"user": [1, 2, 3], "item": [1, 2, 3], "rating": [4.1, 4.0, 4.2]})
    for bound in (4.1, np.float64(4.1), np.float32(4.1)):
        assert pairs(read_interactions(frame, min_rating=bound)) == [(1, 1), (3, 3)]
    with pytest.raises(DataError, match="the rating must be finite"):
        read_interactions(pd.DataFrame({"user": [1], "item": [1], "rating": [1e39]}))
    matrix = sparse.csr_matrix(np.exp(-np.array([[3.0, 300.0, 600.0]]) / 3))
    assert len(read_interactions(matrix)) == 3
    with pytest.raises(DataError, match="weights must be from 1e-6 to 1e12"):
        read_interactions(matrix, weight=True)
    for wrong in ("4", True, [4], float("nan")):
        with pytest.raises(ArgumentError, match="min_rating must be a finite number"):
            read_interactions(frame, min_rating=wrong)


def test_weights_are_read_and_checked(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "user,item,plays\n1,2,3\n1,3,0.5\n")
    assert read_interactions(path, weight="plays").weights.tolist() == [3, 0.5]
    assert read_interactions(sparse.csr_matrix([[0, 2.0], [3, 0]]), weight=True).weights.tolist() == [2, 3]
    for wrong in ("0", "-1", "1e38"):
        bad = write(tmp_path, "b.csv", f"user,item,plays\n1,2,3\n1,3,{wrong}\n")
        with pytest.raises(DataError, match=rf"the weight must be from 1e-6 to 1e12 .*\(got {wrong}, line 3\)"):
            read_interactions(bad, weight="plays")


def test_columns_that_look_like_a_time_or_a_weight_are_named_where_they_are_not_read(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {"user": [1, 2], "item": [1, 2], "createdAt": [5, 6], "Weight": [1.0, 2.0], "category": [1, 1]}
    )
    told = [
        "the column 'createdAt' was not read; name it with time= where it is the time",
        "the column 'Weight' was not read; name it with weight= where it is the weight",
    ]
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_parquet(tmp_path / "a.parquet")
    for source in (frame, tmp_path / "a.csv", tmp_path / "a.parquet"):
        assert list(read_interactions(source).notes) == told
        assert read_interactions(source, time="createdAt", weight="Weight").notes == ()
        assert list(read_interactions(source, time=False).notes) == told[1:]
    assert read_interactions(frame.rename(columns={"createdAt": "timestamp"})).notes == (told[1],)


def test_duplicates_are_decided_before_the_bound() -> None:
    frame = pd.DataFrame({"user": [1, 1, 1], "item": [7, 7, 8], "rating": [5, 1, 5], "time": [1, 2, 3]})
    assert pairs(read_interactions(frame, duplicates="last", min_rating=4)) == [(1, 8)]
    assert pairs(read_interactions(frame, duplicates="first", min_rating=4)) == [(1, 7), (1, 8)]
    assert pairs(read_interactions(frame[::-1], duplicates="last", min_rating=4)) == [(1, 8)]
    assert read_interactions(frame, duplicates="last", min_rating=4).n_items == 1


def test_a_foreign_value_is_one_unknown_id_and_not_all(tmp_path: Path) -> None:
    train = read_interactions(write(tmp_path, "a.csv", "user,item\n1,10\n2,20\n"))
    test, dropped = read_interactions(write(tmp_path, "b.csv", "user,item\n1.0,20\n2,promo-1\n2,10\n")).encode_like(
        train
    )
    assert pairs(test) == [(1, 20), (2, 10)]
    assert (dropped.items, dropped.interactions) == (1, 1)
    floats = pd.DataFrame({"user": [1.0, 2.0], "item": ["20", "10"]})
    assert pairs(read_interactions(floats).encode_like(train)[0]) == [(1, 20), (2, 10)]


def test_names_of_published_data_are_found_where_data_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "ml-1m/train.txt", "0 1 2 3 4\n1 2\n")
    monkeypatch.setenv("HASHLGN_DATA", str(tmp_path))
    monkeypatch.chdir(tmp_path.parent)
    assert len(read_interactions("ml-1m")) == 5
    cache = tmp_path / "cache"
    write(tmp_path, "x", "")
    cache.mkdir()
    write(cache, "ml-100k/u.data", "1\t2\t3\t4\n")
    monkeypatch.setenv("HASHLGN_CACHE", str(cache))
    assert len(read_interactions("ml-100k")) == 1
    for absent in ("ml-2m", "x" * 5000, "a\0b"):
        with pytest.raises(DataError, match=r"no such file or folder|cannot be read"):
            read_interactions(absent)


def test_ratings_without_titles_where_movies_have_other_ids(tmp_path: Path) -> None:
    write(tmp_path, "ml/ratings.csv", "userId,movieId,rating\n1,tt01,3\n")
    write(tmp_path, "ml/movies.csv", "movieId,title,genres\ntt01,Ten,A\n")
    data = read_interactions(tmp_path / "ml")
    assert pairs(data) == [(1, "tt01")]
    assert data.titles == ["Ten"] or "titles" in data.notes[0]


@pytest.mark.parametrize(
    ("ratings", "options", "told"),
    [
        ([1, 5], {}, "ratings from 1 to 5 were found, and those of 4 and more count; min_rating=0 keeps all"),
        ([0.5, 4.5], {}, "those of 4 and more count"),
        ([1, 5], {"min_rating": 0}, r"only ratings of at least 0 count \(min_rating\)"),
        ([0, 5], {}, "each counts as one interaction; min_rating=4 would keep those of 4 to 5"),
        ([1, 3], {}, "each counts as one interaction; min_rating=4 would keep those of 4 to 5"),
        ([1, 9], {}, "min_rating=8 would keep those of 8 to 10"),
        ([0, 1], {}, "min_rating=1 would keep those of 1 to 1"),
        ([3, 5000], {}, "min_rating= keeps the high ones"),
        ([1, 5], {"min_rating": 4}, r"only ratings of at least 4 count \(min_rating\)"),
        ([5, 5], {}, None),
        ([1, 5], {"rating": False}, None),
    ],
)
def test_what_is_done_with_ratings_is_said(ratings: list[float], options: dict, told: str | None) -> None:
    data = read_interactions(pd.DataFrame({"user": [1, 2], "item": [1, 2], "rating": ratings}), **options)
    assert len(data.notes) == (told is not None)
    if told is not None:
        assert re.search(told, data.notes[0])


def test_rows_that_are_no_utf_8_may_be_skipped_too(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", b"user,item\n1,2\n1,\xe6,3\n4,5\n")
    data = read_interactions(path, on_bad="skip")
    assert pairs(data) == [(1, 2), (4, 5)]
    assert any("1 row that cannot be read" in note and "æ" in note for note in data.notes)


@pytest.mark.parametrize("first", ["sep=;\n", '"sep=;"\r\n'])
def test_excels_own_line_names_the_delimiter(tmp_path: Path, first: str) -> None:
    for header in ("user;item;note, long\n", ""):
        (tmp_path / "a.csv").write_text(f"{first}{header}1;2;a\n3;4;b\n")
        columns = {} if header else {"user": 0, "item": 1}
        assert len(read_interactions(tmp_path / "a.csv", **columns)) == 2
    (tmp_path / "a.csv").write_text(f"{first}user;item\n1;2\n3;4;5\n")
    with pytest.raises(DataError, match="line 4 has 3 columns instead of 2"):
        read_interactions(tmp_path / "a.csv")
    (tmp_path / "a.csv").write_text(first)
    with pytest.raises(DataError):
        read_interactions(tmp_path / "a.csv")
