"""The same scores in databases and other indexes. ``EXPORTERS`` is the table of choices."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

from hashlgn.errors import choose, flag, positive_int
from hashlgn.export import duckdb, faiss, lancedb, milvus, parquet, postgres, qdrant
from hashlgn.export.base import Catalogue, Exporter, Query, new_folder
from hashlgn.inference.recommender import Recommender, load
from hashlgn.inference.requests import Rows, skips
from hashlgn.scoring.items import CodedItems

__all__ = ["EXPORTERS", "Exporter", "Query", "asked", "export", "fill", "queries"]

EXPORTERS: dict[str, Exporter] = {
    "parquet": parquet.VECTORS,
    "duckdb": duckdb.CODES,
    "postgres": postgres.CODES,
    "pgvector-sparsevec": postgres.SPARSEVEC,
    "pgvector-halfvec": postgres.HALFVEC,
    "pgvector-bit": postgres.BIT,
    "faiss-pq": faiss.PQ,
    "faiss-flat": faiss.FLAT,
    "faiss-fp16": faiss.FP16,
    "qdrant-sparse": qdrant.SPARSE,
    "qdrant-dense": qdrant.DENSE,
    "milvus": milvus.VECTORS,
    "lancedb": lancedb.VECTORS,
}


def export(model: Recommender | str | Path, to: str, out: str | Path) -> Path:
    """Write the items of a model, with ids, titles and genres, for another engine; for SQL an example query too.

    Args:
        model: a trained model, or where one is saved.
        to: form and engine by name, a key of ``EXPORTERS``.
        out: the folder to make; it takes its name when all is written, or never.

    Returns:
        The folder.

    Raises:
        ArgumentError: an unknown name, a model that this form cannot hold, or a folder that is not free.
        ArtifactError: the file is no model.
        MissingExtraError: the engine's package is not installed.
    """
    exporter: Exporter = choose("to", to, EXPORTERS)
    recommender = model if isinstance(model, Recommender) else load(model)
    with new_folder(out) as folder:
        exporter.write(Catalogue(recommender.model), folder)
        for example in asked(recommender, recommender.model.user_ids.values[:1], on_empty="skip"):
            if isinstance(text := exporter.query(example, 10), str):
                (folder / "query.sql").write_text(text, "utf-8")
    return Path(out).expanduser()


def fill(model: Recommender | str | Path, to: str, client: Any) -> None:
    """Write the items of a model into a database that is running: as ``export``, through a client of the caller's.

    Args:
        model: a trained model, or where one is saved.
        to: ``duckdb`` (a connection), ``qdrant-sparse``, ``qdrant-dense``, ``milvus`` or ``lancedb``.
        client: what the engine's own package connects with. There must be no ``hashlgn_items`` yet.

    Raises:
        ArgumentError: an unknown name, or a model that this form cannot hold.
        MissingExtraError: the engine's package is not installed.
    """
    fillers = {name: exporter.fill for name, exporter in EXPORTERS.items() if exporter.fill is not None}
    recommender = model if isinstance(model, Recommender) else load(model)
    choose("to", to, fillers)(Catalogue(recommender.model), client)


def queries(
    model: Recommender,
    to: str,
    users: Any = None,
    k: int = 10,
    *,
    history: Any = None,
    filter_seen: bool = True,
    on_unknown: str = "raise",
) -> list[Any]:
    """What an engine takes to answer users or histories, one query each: SQL text, or the arguments of its search.

    Args:
        model: the trained model that was exported.
        to: form and engine by name, a key of ``EXPORTERS``.
        users: external ids of users, or one id. Default: every user of the training.
        k: number of items.
        history: instead of ``users``, as of ``Recommender.recommend``.
        filter_seen: leave out what the user has interacted with. Default: True.
        on_unknown: what to do about unknown ids: ``raise``, the default, or ``skip`` them.

    Raises:
        ArgumentError: an argument breaks its rule, somebody has no known item, or the model has no such form.
        UnknownIdError: an id is unknown and ``on_unknown`` is ``raise``.
    """
    exporter, k = choose("to", to, EXPORTERS), positive_int("k", k)
    found = asked(model, users, history=history, filter_seen=filter_seen, on_unknown=on_unknown)
    return [exporter.query(query, k) for query in found]


def asked(
    model: Recommender,
    users: Any = None,
    *,
    history: Any = None,
    filter_seen: bool = True,
    on_unknown: str = "raise",
    on_empty: str = "raise",
) -> list[Query]:
    """The queries of users or histories as numbers, for an engine that is not in ``EXPORTERS``; see ``queries``.

    Where users are their histories, ``on_empty`` says what to do about somebody without a known item: ``raise``, the
    default, or ``skip`` them.
    """
    held, skip, filter_seen = model.model, skips(on_unknown), flag("filter_seen", filter_seen)
    empty = choose("on_empty", on_empty, {"raise": False, "skip": True})
    if history is not None:
        rows = Rows.given(held.item_ids, history, skip)
    else:
        rows = Rows.of_ids(held.user_ids, "users", users, skip, held.stored)
    if held.users is None or rows.codes is None:
        rows = rows.not_empty(empty)
    vectors = held.queries(*rows.lists, rows.strengths) if rows.codes is None else model.queries(rows.codes)
    tables = held.items.decoder.tables(vectors) if isinstance(held.items, CodedItems) else [None] * len(rows)
    bounds = rows.lists[0].tolist() if filter_seen else [0] * (len(rows) + 1)
    seen = [rows.lists[1][first:last].astype("int64") for first, last in pairwise(bounds)]
    return [Query(*parts) for parts in zip(vectors, tables, seen, strict=True)]
