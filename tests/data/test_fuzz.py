"""Random files, valid and broken, of all formats: the right rows, or one clear error of the project on one line.

HASHLGN_FUZZ sets the number of files (300 by default); HASHLGN_FUZZ_SEED another start.
"""

from __future__ import annotations

import csv
import io
import os
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet

from hashlgn.data import read_interactions
from hashlgn.errors import HashLGNError

FILES = int(os.environ.get("HASHLGN_FUZZ", "300"))
NAMES = {"user": ["user", "userId", "user_id:token"], "item": ["item", "movieId", "item_id:token"]}
WORDS = ["a", "b c", 'say "hi"', "x,y", "u;v", "Zoë", "日本", "007", "0x10", "1.5", "-", "a:b", "p|q"]


def ids(rng: random.Random, plain: bool) -> list[str]:
    if plain or rng.random() < 0.5:
        return [str(rng.randint(-3, 60)) for _ in range(8)]
    return [*rng.sample(WORDS, 6), "z", "y"]


def rows_of(rng: random.Random, plain: bool) -> list[list[str]]:
    users, items = ids(rng, plain), ids(rng, plain)
    return [
        [rng.choice(users), rng.choice(items), str(rng.randint(1, 10) / 2), str(rng.randint(0, 10**9))]
        for _ in range(rng.randint(1, 12))
    ]


def expected_pairs(rows: list[list[str]]) -> set[tuple[str, str]]:
    return {(row[0], row[1]) for row in rows}


def delimited(rng: random.Random, rows: list[list[str]], delimiter: str) -> str:
    header = [rng.choice(NAMES["user"]), rng.choice(NAMES["item"]), "rating", "timestamp"]
    if delimiter in ("::", "\t"):
        return "".join(delimiter.join(row) + "\n" for row in [header, *rows])
    out = io.StringIO()
    csv.writer(out, delimiter=delimiter, lineterminator=rng.choice(["\n", "\r\n"])).writerows([header, *rows])
    return out.getvalue()


def broken(rng: random.Random, content: bytes) -> bytes:
    """A few bytes cut out, put in, doubled or swapped."""
    for _ in range(rng.randint(1, 3)):
        place = rng.randrange(len(content) + 1)
        kind = rng.randrange(4)
        if kind == 0:
            content = content[:place] + content[place + rng.randint(1, 5) :]
        elif kind == 1:
            content = (
                content[:place]
                + rng.choice([b'"', b"\n", b",", b"\t", b"::", b"\0", b"\xff", b"nan", b"\r", b" "])
                + (content[place:])
            )
        elif kind == 2:
            content = content[:place] + content[max(0, place - 9) :]
        else:
            content = content[:place]
    return content


def test_every_file_ends_in_the_right_rows_or_one_clear_error(tmp_path: Path) -> None:
    start = int(os.environ.get("HASHLGN_FUZZ_SEED", "0"))
    read = refused = 0
    for seed in range(start, start + FILES):
        rng = random.Random(seed)
        form = rng.choice([".csv", ".tsv", ".dat", ".inter", "semicolon.csv", "lists", ".parquet"])
        rows = rows_of(rng, plain=form == "lists")
        if form == "lists":
            users = dict.fromkeys(row[0].lstrip("-") for row in rows)
            rows = [[u, str(rng.randint(0, 30)), "1", "1"] for u in users for _ in range(rng.randint(1, 7))]
            lists = "".join(" ".join([u, *(row[1] for row in rows if row[0] == u)]) + "\n" for u in users)
            path, content = tmp_path / "train.txt", lists.encode()
        elif form == ".parquet":
            path = tmp_path / "a.parquet"
            table = {name: [row[i] for row in rows] for i, name in enumerate(("user", "item", "rating", "timestamp"))}
            pyarrow.parquet.write_table(pa.table(table), path)
            content = path.read_bytes()
        else:
            delimiter = {".csv": ",", ".tsv": "\t", ".dat": "::", ".inter": "\t", "semicolon.csv": ";"}[form]
            path, content = tmp_path / f"a{form}", delimited(rng, rows, delimiter).encode()
        sound = rng.random() < 0.5
        path.write_bytes(content if sound else broken(rng, content))
        options = {"format": "lightgcn"} if form == "lights" or path.name == "train.txt" else {}
        if not sound and path.name != "train.txt" and rng.random() < 0.3:
            options = {"on_bad": "skip", "on_missing": "skip"}
        if path.name != "train.txt":
            options["min_rating"] = 0
        try:
            data = read_interactions(path, id_type="str", **options)
        except HashLGNError as error:
            assert not sound, f"seed {seed}: {error}"
            assert "\n" not in str(error), f"seed {seed}: {error!r}"
            refused += 1
            continue
        except BaseException as error:
            raise AssertionError(f"seed {seed}: {type(error).__name__}: {error}") from error
        read += 1
        if sound:
            found = zip(data.user_ids.decode(data.rows), data.item_ids.decode(data.indices), strict=True)
            assert set(found) == expected_pairs(rows), f"seed {seed}"
    assert read > FILES / 3
    assert refused > FILES / 20
