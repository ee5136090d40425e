"""Parquet: decoded vectors, for whatever reads columns."""

from __future__ import annotations

from pathlib import Path

from hashlgn.export.base import Catalogue, Exporter, Query, vector_column, write_parquet

__all__ = ["VECTORS"]


def _write(catalogue: Catalogue, folder: Path) -> None:
    parts = catalogue.parts()
    write_parquet(folder, (rows.append_column("vector", vector_column(items.decode())) for rows, items in parts))


def _query(query: Query, k: int) -> Query:
    """The numbers: a file answers nothing itself."""
    return query


VECTORS = Exporter(_write, _query)
