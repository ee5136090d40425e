"""LanceDB: decoded vectors under the inner product."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hashlgn.errors import need
from hashlgn.export.base import NAME, Catalogue, Exporter, Query, vector_column

__all__ = ["VECTORS"]


def _write(catalogue: Catalogue, folder: Path) -> None:
    _fill(catalogue, need("lancedb", "lancedb", "an export to LanceDB").connect(str(folder)))


def _fill(catalogue: Catalogue, database: Any) -> None:
    table: Any = None
    for attributes, items in catalogue.parts():
        rows = attributes.append_column("vector", vector_column(items.decode()))
        if table is None:
            table = database.create_table(NAME, rows)
        else:
            table.add(rows)


def _query(query: Query, k: int) -> dict[str, Any]:
    """A vector, k, and a condition or None: what the steps of ``table.search`` take."""
    where = f"number NOT IN ({', '.join(map(str, query.seen.tolist()))})" if len(query.seen) else None
    return {"vector": query.vector, "k": k, "where": where}


VECTORS = Exporter(_write, _query, _fill)
