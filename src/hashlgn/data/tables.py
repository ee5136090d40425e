"""Interactions from columns: Parquet, data frames of pandas and Polars, Arrow tables, sparse matrices."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from scipy import sparse

from hashlgn.data.columns import Request, find_columns, left_out
from hashlgn.data.gather import Gather, usable
from hashlgn.data.ids import Ids
from hashlgn.data.interactions import Interactions
from hashlgn.errors import ArgumentError, DataError, shown

__all__ = ["is_table", "read_parquet", "read_sparse", "read_table"]


def read_parquet(path: Path, request: Request) -> Gather:
    """The columns of a Parquet file, or of all in a folder."""
    files = [path] if path.is_file() else sorted(path.glob("*.parquet"))
    gather = Gather(request, str(path), lambda row: f"row {row}")
    for file in files:
        try:
            parquet = pyarrow.parquet.ParquetFile(file)
            names = parquet.schema_arrow.names
            columns = find_columns(names, request, str(file))
            gather.notes = left_out(names, columns, request)
            for batch in parquet.iter_batches(columns=[names[i] for i in columns.values()]):
                gather.add({role: batch.column(names[place]) for role, place in columns.items()})
        except pa.ArrowException as error:
            raise DataError(f"{file}: cannot be read as Parquet: {' '.join(str(error).split())}") from error
    return gather


def is_table(source: Any) -> bool:
    """Whether a source is a table with the Arrow interface."""
    return isinstance(source, pa.Table | pa.RecordBatch) or hasattr(source, "__arrow_c_stream__")


def read_table(source: Any, request: Request) -> Gather:
    """The columns of a table; ratings and times that cannot be read are left out, and noted."""
    where = f"the {type(source).__name__} given"
    names, column = _columns(source, where)

    def read(request: Request) -> Gather:
        columns = find_columns(names, request, where)
        gather = Gather(request, where, lambda row: f"row {row}", notes=left_out(names, columns, request))
        table = pa.table([column(i) for i in columns.values()], names=list(columns))
        for batch in table.to_batches(max_chunksize=1 << 20):
            gather.add(dict(zip(columns, batch.columns, strict=True)))
        return gather

    return usable(read, request)


def _columns(source: Any, where: str) -> tuple[list[str], Callable[[int], Any]]:
    """Names of a table's columns, and what converts one of them: only those that are asked for."""
    if hasattr(source, "iloc"):  # pandas
        return [str(name) for name in source.columns], lambda i: _converted(source.iloc[:, i], where)
    if hasattr(source, "to_series"):  # Polars
        return list(source.columns), lambda i: _converted(source.to_series(i), where)
    try:
        table = source if isinstance(source, pa.Table | pa.RecordBatch) else pa.table(source)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise DataError(f"{where}: cannot be read as a table: {error}") from error
    return table.column_names, table.column


def _converted(series: Any, where: str) -> pa.Array | pa.ChunkedArray:
    """One column of a data frame; a column that mixes kinds is written out as text."""
    try:
        if hasattr(series, "sparse"):
            series = series.sparse.to_dense()
        return pa.chunked_array(series)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        values = series.to_list()
    texts: list[str | None] = []
    for row, value in enumerate(values):
        if value is None or value != value:
            texts.append(None)
        elif isinstance(value, str | int | float | np.integer | np.floating) and not isinstance(value, bool):
            texts.append(str(int(value)) if not isinstance(value, str) and value == int(value) else str(value))
        else:
            raise DataError(f"{where}: the column {shown(series.name)} holds {shown(value)} (row {row})")
    return pa.array(texts, pa.string())


def read_sparse(source: Any, request: Request) -> Interactions:
    """The non-zero entries of a matrix of users and items."""
    if set(request.names()) - {"weight"} or request.weight not in (None, True) or request.id_type == "str":
        raise ArgumentError("a sparse matrix has no columns to name, and its ids are integers")
    if source.ndim != 2:
        raise DataError(f"the matrix given: must have two dimensions, users and items (got shape {source.shape})")
    entries = sparse.coo_array(source)
    if entries.data.dtype.kind not in "fiub":
        raise DataError(f"the matrix given: entries must be numbers (got dtype {entries.data.dtype})")
    exact = entries.data.astype(np.float64)
    with np.errstate(over="ignore", under="ignore"):
        values = exact.astype(np.float32)
    wrong = ~np.isfinite(values)
    if wrong.any():
        raise DataError(f"the matrix given: entries must be finite (got {exact[wrong][0]})")
    keep = exact != 0  # an entry that is too small for float32 is an interaction all the same
    if request.min_rating is not None:
        keep &= values >= np.float32(request.min_rating)
    if not keep.any():
        raise DataError("the matrix given: no interactions (no non-zero entry, or none reaches min_rating)")
    users, items = (axis[keep] for axis in entries.coords)
    n_users, n_items = entries.shape
    return Interactions.from_codes(
        *(Ids.range(n_users), Ids.range(n_items), users, items, values[keep]),
        weights=exact[keep] if request.weight is True else None,
        duplicates=request.duplicates,
    )
