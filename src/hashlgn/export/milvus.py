"""Milvus: decoded vectors under the inner product."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from hashlgn.errors import need
from hashlgn.export.base import NAME, Catalogue, Exporter, Query

__all__ = ["VECTORS", "opened"]

_BATCH = 1024  # items sent at a time


def _package() -> Any:
    return need("pymilvus", "milvus", "an export to Milvus")


def _write(catalogue: Catalogue, folder: Path) -> None:
    with opened(folder) as client:
        _fill(catalogue, client)


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[Any]:
    """A client of an export's file, whose server, in this process, ends with it."""
    servers = need("milvus_lite.server_manager", "milvus", "a file of Milvus").server_manager_instance
    path = str(folder / "items.db")
    client = _package().MilvusClient(path)
    try:
        yield client
    finally:
        client.close()
        servers.release_server(path)


def _fill(catalogue: Catalogue, client: Any) -> None:
    kinds, model = _package().DataType, catalogue.model
    schema = client.create_schema()
    schema.add_field("number", kinds.INT64, is_primary=True)
    if model.item_ids.id_type == "int":
        schema.add_field("id", kinds.INT64)
    else:
        schema.add_field("id", kinds.VARCHAR, max_length=_longest(model.item_ids.values.tolist()))
    if model.titles is not None:
        schema.add_field("title", kinds.VARCHAR, max_length=_longest(model.titles))
    if model.genres is not None:
        schema.add_field(
            "genres",
            kinds.ARRAY,
            element_type=kinds.VARCHAR,
            max_capacity=max(1, *map(len, model.genres), 1),
            max_length=_longest(name for names in model.genres for name in names),
        )
    schema.add_field("vector", kinds.FLOAT_VECTOR, dim=catalogue.items.width)
    index = client.prepare_index_params()
    index.add_index("vector", index_type="FLAT", metric_type="IP")
    client.create_collection(NAME, schema=schema, index_params=index)
    for part in catalogue.parts():
        rows = part.attributes.to_pylist()
        for row, vector in zip(rows, part.items.decode(), strict=True):
            row["vector"] = vector
        for start in range(0, len(rows), _BATCH):
            client.insert(NAME, rows[start : start + _BATCH])


def _longest(texts: Iterable[str]) -> int:
    """Bytes of the longest text, at least 1: Milvus asks for a bound."""
    return max((len(text.encode()) for text in texts), default=0) or 1


def _query(query: Query, k: int) -> dict[str, Any]:
    """What ``client.search`` takes beside the name of the collection."""
    asked: dict[str, Any] = {"data": [query.vector.tolist()], "limit": k}
    if len(query.seen):
        asked["filter"] = f"number not in {query.seen.tolist()}"
    return asked


VECTORS = Exporter(_write, _query, _fill)
