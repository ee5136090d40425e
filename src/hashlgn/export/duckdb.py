"""DuckDB: a database with the codes, and a macro that scores them bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from hashlgn.errors import ArgumentError, need
from hashlgn.export import sql
from hashlgn.export.base import NAME, Catalogue, Exporter, Query

__all__ = ["CODES"]

_LONGEST = 2048  # bits: DuckDB bounds how deep an expression may be


def _write(catalogue: Catalogue, folder: Path) -> None:
    connection = need("duckdb", "duckdb", "an export to DuckDB").connect(str(folder / "items.duckdb"))
    try:
        _fill(catalogue, connection)
    finally:
        connection.close()
    (folder / "schema.sql").write_text(_schema(catalogue), "utf-8")


def _fill(catalogue: Catalogue, connection: Any) -> None:
    connection.execute(_schema(catalogue))
    for part in catalogue.parts():
        code = pa.FixedSizeListArray.from_arrays(pa.array(part.codes.ravel()), part.codes.shape[1])
        rows = part.attributes.append_column("code", code).append_column("scale", pa.array(part.scales))
        connection.register("arriving", rows)
        connection.execute(f"INSERT INTO {NAME} BY NAME SELECT * FROM arriving")
        connection.unregister("arriving")


def _schema(catalogue: Catalogue) -> str:
    """The table and the macro. A BLOB's bytes cannot be read in DuckDB; those of an array of bytes can."""
    if catalogue.bits > _LONGEST:
        raise ArgumentError(f"to='duckdb' takes codes of at most {_LONGEST} bits (got {catalogue.bits})")
    kind = "BIGINT" if catalogue.model.item_ids.id_type == "int" else "VARCHAR"
    title = "" if catalogue.model.titles is None else ", title VARCHAR"
    genres = "" if catalogue.model.genres is None else ", genres VARCHAR[]"
    expression = sql.score(
        catalogue.bits,
        lambda byte: f"CAST(code[{byte + 1}] & 15 AS INTEGER)",
        lambda byte: f"CAST(code[{byte + 1}] >> 4 AS INTEGER)",
    )
    return (
        f"CREATE TABLE {NAME} (number INTEGER PRIMARY KEY, id {kind} NOT NULL{title}{genres},\n"
        f"    code UTINYINT[{catalogue.bits // 8}] NOT NULL, scale REAL NOT NULL);\n"
        f"CREATE MACRO hashlgn_score(code, scale, t) AS\n    {expression};\n"
    )


def _query(query: Query, k: int) -> str:
    table = f"WITH query AS (SELECT CAST('[{sql.numbers(query.flat)}]' AS DOUBLE[]) AS t)\n"
    found = sql.select(query, k, "hashlgn_score(code, scale, t)")
    return table + found.replace(f"FROM {NAME}", f"FROM {NAME}, query")


CODES = Exporter(_write, _query, _fill)
